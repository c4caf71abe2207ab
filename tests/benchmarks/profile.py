"""Where the time of W1 goes: `python -m tests.benchmarks.profile [part] [folder]`, by py-spy, from outside the process.

Writes `<part>.svg`, a flame graph, and `<part>.txt`, the functions with most of the time, into the folder
(build/profile). A sample counts the threads that have the interpreter's lock: what runs Python, not what waits.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.benchmarks.parts import PARTS

PER_SECOND, SHOWN = 500, 30
LINE = re.compile(r":\d+\)")


def main(arguments: list[str]) -> int:
    part = arguments[0] if arguments else "sqlite"
    folder = Path(arguments[1] if arguments[1:] else "build/profile")
    if part not in PARTS:
        print(f"There is no part {part!r} of the benchmarks. There are {', '.join(PARTS)}.", file=sys.stderr)
        return 2
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="workflow-bench-") as rows:
        stacks = Path(rows) / "stacks.txt"
        record(part, Path(rows), "flamegraph", folder / f"{part}.svg")
        record(part, Path(rows), "raw", stacks)
        text = summary(stacks.read_text().splitlines())
    (folder / f"{part}.txt").write_text(text)
    print(text, end="")
    print(f"\n{folder / part}.svg is the flame graph.")
    return 0


def record(part: str, folder: Path, form: str, out: Path) -> None:
    """Run W1 of a part under the profiler. Raises CalledProcessError."""
    environment = {
        **os.environ,
        **PARTS[part].variables,
        "BENCH_FOLDER": str(folder),
        "DJANGO_SETTINGS_MODULE": "tests.benchmarks.settings",
    }
    profiler = (
        "py-spy",
        "record",
        "--gil",
        "--function",
        "--subprocesses",
        "--rate",
        str(PER_SECOND),
        "--format",
        form,
    )
    command = [str(Path(sys.executable).with_name(profiler[0])), *profiler[1:], "--output", str(out)]
    command += ["--", sys.executable, "-m", "tests.benchmarks.workloads", "w1"]
    subprocess.run(command, env=environment, check=True)


def summary(stacks: list[str]) -> str:
    """The functions on most samples, and those that were running themselves, from `frame;frame;frame COUNT` lines."""
    running: Counter[str] = Counter()
    on_stack: Counter[str] = Counter()
    for line in stacks:
        frames, _, count = line.rpartition(" ")
        names = [LINE.sub(")", frame) for frame in frames.split(";")]
        if "_make" not in frames and "committer" not in frames:
            continue  # starting up, triggering, waiting
        running[names[-1]] += int(count)
        for name in set(names):
            on_stack[name] += int(count)
    total = sum(running.values())
    lines = [f"{total} samples of the worker's threads\n", "Running"]
    lines += [f"{count / total:6.1%}  {name}" for name, count in running.most_common(SHOWN)]
    lines += ["\nOn the stack"]
    lines += [f"{count / total:6.1%}  {name}" for name, count in on_stack.most_common(SHOWN * 2)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
