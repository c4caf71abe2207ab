"""At full load: how long another process waits to trigger a run, and for how much of the time SQLite's writer is taken.

`python -m tests.benchmarks.load`. W1's runs, 50 and more at a time, keep the worker of this process busy; a second
process triggers 50 runs a second, each at its own instant: what one late trigger does to those behind it shows in the
figure that counts from there.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import django

from tests.benchmarks.figures import percentile, row
from tests.benchmarks.places import place

SECONDS, PER_SECOND, RUNS_AT_A_TIME, STEPS = 10.0, 50, 50, 10


def main() -> None:
    if sys.argv[1:] == ["trigger"]:
        trigger_from_outside()
        return
    with writing() as held, place():
        measure(held)


def measure(held: list[float]) -> None:
    from django_workflow.models import Run
    from tests.benchmarks.workflows import sequence
    from tests.benchmarks.workloads import trigger_all

    with subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.load", "trigger"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as outside:
        assert outside.stdin is not None
        assert outside.stdout is not None
        outside.stdout.readline()  # it is ready
        held.clear()
        started = time.monotonic()
        outside.stdin.write(b"go\n")
        outside.stdin.flush()
        while outside.poll() is None:
            if Run.objects.active().count() < RUNS_AT_A_TIME:
                asyncio.run(trigger_all(sequence, STEPS, RUNS_AT_A_TIME))
            else:
                time.sleep(0.02)
        seconds = time.monotonic() - started
        lines = [line.split() for line in outside.stdout.read().splitlines()]
    took, late = ([float(line[index]) for line in lines] for index in (0, 1))
    row("trigger from another process, p50", percentile(took, 0.5), "ms", runs=len(took))
    row("trigger from another process, p95", percentile(took, 0.95), "ms")
    row("trigger from another process, max", max(took), "ms")
    row("trigger from another process, counted from when it was to start, p95", percentile(late, 0.95), "ms")
    if held:
        row("write lock held, share of the time", sum(held) / seconds * 100, "%", transactions=len(held))
        row("write lock held, p95", percentile(held, 0.95) * 1000, "ms")


@contextmanager
def writing() -> Iterator[list[float]]:
    """For how many seconds each transaction of this process had SQLite's write lock: from its BEGIN to its end."""
    from django.db.backends.sqlite3.base import DatabaseWrapper

    held: list[float] = []
    begun: dict[int, float] = {}
    begin, commit, rollback = (
        DatabaseWrapper._start_transaction_under_autocommit,
        DatabaseWrapper._commit,
        DatabaseWrapper._rollback,
    )

    def begins(connection: Any) -> None:
        begin(connection)
        begun[id(connection)] = time.perf_counter()

    def ends(finish: Callable[[Any], None]) -> Callable[[Any], None]:
        def end(connection: Any) -> None:
            finish(connection)
            if (at := begun.pop(id(connection), None)) is not None:
                held.append(time.perf_counter() - at)

        return end

    patches = {"_start_transaction_under_autocommit": begins, "_commit": ends(commit), "_rollback": ends(rollback)}
    with ExitStack() as stack:
        for name, patch in patches.items():
            stack.enter_context(mock.patch.object(DatabaseWrapper, name, patch))
        yield held


def trigger_from_outside() -> None:
    django.setup()
    from tests.benchmarks.workflows import sequence

    sequence.trigger(1)
    print("ready", flush=True)
    sys.stdin.readline()
    started = time.perf_counter()
    for number in range(int(SECONDS * PER_SECOND)):
        due = started + number / PER_SECOND
        time.sleep(max(due - time.perf_counter(), 0))
        begun = time.perf_counter()
        sequence.trigger(1)
        over = time.perf_counter()
        print((over - begun) * 1000, (over - due) * 1000)


if __name__ == "__main__":
    main()
