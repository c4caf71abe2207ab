"""Runs the parts that are asked for, each in a process of its own, and prints one table."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.figures import read_rows
from tests.benchmarks.parts import PARTS


def main(arguments: list[str]) -> int:
    if "--list" in arguments:
        for name, part in PARTS.items():
            print(f"{name:24} {part.peer}{'' if part.by_default else ' (only when it is asked for)'}")
        return 0
    chosen = arguments or os.environ.get("BENCH_ONLY", "").split()
    if unknown := set(chosen) - PARTS.keys():
        print(f"Unknown: {', '.join(sorted(unknown))}. There are {', '.join(PARTS)}.", file=sys.stderr)
        return 2
    names = chosen or [name for name, part in PARTS.items() if part.by_default]
    not_measured = {}
    limit = time.monotonic() + 60 * float(os.environ.get("BENCH_MINUTES") or ("60" if chosen else "9"))
    with tempfile.TemporaryDirectory(prefix="workflow-bench-") as folder:
        rows_file = Path(os.environ.get("BENCH_OUT") or Path(folder) / "rows.jsonl")
        before = len(read_rows(rows_file))
        for name in names:
            if missing := PARTS[name].missing:
                not_measured[name] = f"{missing} is not set"
                continue
            started = time.monotonic()
            if started > limit:
                not_measured[name] = "no time was left (BENCH_MINUTES)"
                continue
            if not PARTS[name].run(Path(folder), rows_file):
                not_measured[name] = "failed"
            print(f"# {name}: {time.monotonic() - started:.0f} s", flush=True)
        print_table(read_rows(rows_file, before))
    for name, reason in not_measured.items():
        print(f"Not measured: {name}: {reason}", file=sys.stderr)
    return 1 if not_measured else 0


def print_table(rows: list[dict[str, Any]]) -> None:
    print("\n| peer | metric | value | unit | spread |\n| --- | --- | --- | --- | --- |")
    for row in rows:
        print(f"| {row['peer']} | {row['metric']} | {row['value']:g} | {row['unit']} | {row.get('spread', '')} |")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
