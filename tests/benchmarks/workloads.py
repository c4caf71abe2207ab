"""One workload on one database, in this process: `python -m tests.benchmarks.workloads w1`."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import django
from django.core.management import call_command
from django.db import connection

DATABASE = os.environ.get("BENCH_DATABASE", "sqlite")
PEER = f"django_workflow {os.environ.get('BENCH_PEER', DATABASE)}"
RUNS, STEPS, REPEATS, ALONE = 200, 10, 3, 30
LONGEST_SECONDS = 200


def row(metric: str, value: float, unit: str, **more: Any) -> None:
    """Print a figure, and append it where the table is made."""
    line = json.dumps({"peer": PEER, "metric": metric, "value": round(value, 3), "unit": unit, **more})
    print(line, flush=True)
    if path := os.environ.get("BENCH_OUT"):
        with open(path, "a") as rows:
            rows.write(line + "\n")


def spread(values: list[float]) -> list[float]:
    return [round(min(values), 3), round(max(values), 3)]


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]


@contextmanager
def database() -> Iterator[None]:
    """An empty database with the app's tables, dropped at the end."""
    if DATABASE == "sqlite":  # a file in the benchmark's own folder
        call_command("migrate", verbosity=0)
    else:
        connection.creation.create_test_db(verbosity=0, autoclobber=True)
    try:
        yield
    finally:
        if DATABASE != "sqlite":
            connection.creation.destroy_test_db(connection.settings_dict["NAME"], verbosity=0)


@contextmanager
def worker() -> Iterator[Any]:
    from django_workflow.engine.worker import Worker

    running = Worker()
    running.start()
    try:
        yield running
    finally:
        running.drain()


def wait_for(count: Callable[[], int], pause: float) -> None:
    deadline = time.monotonic() + LONGEST_SECONDS
    while count():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{count()} runs are not done after {LONGEST_SECONDS} s.")
        time.sleep(pause)


def run_alone(flow: Any, payload: int) -> float:
    """Seconds from the trigger to the end of one run."""
    from django_workflow.models import Run

    started = time.perf_counter()
    handle = flow.trigger(payload)
    wait_for(lambda: Run.objects.filter(run_id=handle.id).active().count(), pause=0.0005)
    return time.perf_counter() - started


@contextmanager
def gaps(running: Any) -> Iterator[list[float]]:
    """Seconds between the commit of a step and the start of its run's next call, one for each."""
    committed: dict[tuple[Any, int], float] = {}
    found: list[float] = []
    take, dispatch = running._take, running._dispatcher.dispatch

    def taken(leases: Any) -> None:
        now = time.perf_counter()
        committed.update({(lease.key, lease.fence): now for lease in leases if lease.chain})
        take(leases)

    class Timed:
        """The dispatcher, noting when each call starts."""

        def dispatch(self, lease: Any, *arguments: Any) -> Any:
            if (at := committed.pop((lease.key, lease.fence), None)) is not None:
                found.append(time.perf_counter() - at)
            return dispatch(lease, *arguments)

    dispatcher, running._take, running._dispatcher = running._dispatcher, taken, Timed()
    try:
        yield found
    finally:
        running._take, running._dispatcher = take, dispatcher


def w1(running: Any) -> None:
    from django_workflow.models import Run
    from tests.benchmarks.workflows import sequence

    run_alone(sequence, STEPS)
    rates, shares = [], []
    for _ in range(REPEATS):
        commits = running.committer.commits
        started = time.perf_counter()
        for _ in range(RUNS):
            sequence.trigger(STEPS)
        wait_for(lambda: Run.objects.active().count(), pause=0.01)
        rates.append(RUNS * STEPS / (time.perf_counter() - started))
        shares.append((running.committer.commits - commits) / (RUNS * STEPS))
    row("W1 throughput", statistics.median(rates), "steps/s", spread=spread(rates))
    row("W1 commits per step", statistics.median(shares), "commits", spread=spread(shares))
    with gaps(running) as found:
        alone = [run_alone(sequence, STEPS) * 1000 for _ in range(ALONE)]
    row("W1 next step starts after the commit before, p50", percentile(found, 0.5) * 1000, "ms")
    row("W1 alone p50", percentile(alone, 0.5), "ms")
    row("W1 alone p95", percentile(alone, 0.95), "ms")


def w2(running: Any) -> None:
    from tests.benchmarks.workflows import fan

    run_alone(fan, 10)
    times = [run_alone(fan, 100) * 1000 for _ in range(10)]
    row("W2 fan-out 100", statistics.median(times), "ms", spread=spread(times))


def w3(running: Any) -> None:
    from tests.benchmarks.workflows import sequence

    run_alone(sequence, STEPS)
    for count in (100, 500, 1000):
        times = [run_alone(sequence, count) for _ in range(REPEATS)]
        median = statistics.median(times)
        row(f"W3 {count} steps", median, "s", spread=spread(times), ms_per_step=round(median / count * 1000, 3))


def main() -> None:
    django.setup()
    workload = {"w1": w1, "w2": w2, "w3": w3}[sys.argv[1]]
    with database(), worker() as running:
        workload(running)


if __name__ == "__main__":
    main()
