"""Runs of pytest, called passes: each on one database, with one Python and a choice of tests by their marks.

`suite` and `pairs` say which there are. Two run at a time, each in as many processes as there are CPUs: tests wait for
a good part of their time (for processes that start, for answers, for what is due in a moment), so that one pass alone
leaves half of a machine idle.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
NO_TESTS = 5  # pytest's exit code when nothing was collected


@dataclass(frozen=True)
class Pass:
    """`distribution` is how pytest-xdist gives tests to processes; None runs them in one process, in their order.

    Without the Python that it asks for (None) it is not run.
    """

    title: str
    marks: str
    database: str = "sqlite"
    distribution: str | None = "loadgroup"
    needs: str | None = None  # a service without which the whole pass is left out
    python: Path | None = Path(sys.executable)


@dataclass(frozen=True)
class Result:
    """How a pass ended: pytest's exit code (None when it was not run) and how long it took."""

    title: str
    code: int | None
    seconds: float = 0.0

    @property
    def failed(self) -> bool:
        return self.code not in (None, 0, NO_TESTS)

    def __str__(self) -> str:
        word = {None: "not run", 0: "passed", NO_TESTS: "has no tests"}.get(self.code, "FAILED")
        return f"{self.title:28} {word:14} {self.seconds:5.0f} s"


def run_passes(
    passes: Sequence[Pass], arguments: Sequence[str], environment: Mapping[str, str], *, at_once: int = 2
) -> list[Result]:
    """Run the passes with extra pytest `arguments`, as many `at_once` as may be; the results in the same order.

    What they print comes out line by line, after the title of its pass.
    """
    environment = _with_bytecode(environment)
    running: list[subprocess.Popen[str]] = []

    def run(each: Pass) -> Result:
        if each.python is None:
            return Result(each.title, None)
        started = time.monotonic()
        with subprocess.Popen(
            [str(each.python), *_arguments(each), *arguments],
            env={**environment, "WORKFLOW_TEST_DATABASE": each.database},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            running.append(process)
            assert process.stdout is not None
            for line in process.stdout:
                sys.stdout.write(f"{each.title:10} | {line}")
                sys.stdout.flush()
        return Result(each.title, process.returncode, time.monotonic() - started)

    pool = ThreadPoolExecutor(at_once)
    try:
        return list(pool.map(run, passes))
    finally:
        # When somebody ends us, nothing shall go on.
        for process in running:
            process.terminate()
        pool.shutdown(cancel_futures=True)


def _arguments(each: Pass) -> list[str]:
    spread = [] if each.distribution is None else ["-n", processes(), "--dist", each.distribution]
    return ["-m", "pytest", "-q", "-m", each.marks, *spread]


def processes() -> str:
    return os.environ.get("WORKFLOW_TEST_PROCESSES") or str(max(2, os.cpu_count() or 2))


def _with_bytecode(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment in which Python keeps what it compiled, inside of the virtual environment if nowhere else.

    The tests start hundreds of processes. Where Python is told to keep nothing, each of them compiles all that it
    imports, and each process of pytest rewrites all tests: a sixth of the whole time.
    """
    kept = dict(environment)
    if kept.pop("PYTHONDONTWRITEBYTECODE", ""):
        kept.setdefault("PYTHONPYCACHEPREFIX", str(Path(sys.prefix) / "bytecode"))
    return kept
