"""The five workloads in one place: `python -m tests.benchmarks.workloads w1 w2 w3 w4 w5`; see the package.

They are those of the peers' harness, step for step, so that figures of one run can be put beside each other.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.figures import cpu_seconds, memory, percentile, row, spread
from tests.benchmarks.finishes import Finishes, finishes
from tests.benchmarks.places import Place, place, wait_for

RUNS, STEPS, REPEATS, ALONE = 200, 10, 3, 30
SLEEPERS, SECONDS_ASLEEP = 1000, 5.0
FLAVOUR = os.environ.get("BENCH_FLAVOUR", "sync")
"""Which twin of the workflows: "sync", "async", or "few-calls" (`steps_per_call`)."""


_threads = ThreadPoolExecutor(8)


@dataclass(frozen=True, slots=True)
class Bench:
    place: Place
    finishes: Finishes

    def run_alone(self, flow: Any, payload: object) -> float:
        """Seconds from the trigger to the end of one run."""
        started = time.perf_counter()
        run_id = flow.trigger(payload).id
        return self.finishes.wait([run_id])[run_id] - started

    def run_at_once(self, flow: Any, payload: object, count: int) -> float:
        """Seconds from the first trigger to the end of the last of so many runs, all triggered at once."""
        started = time.perf_counter()
        if self.place.worker:
            run_ids = asyncio.run(trigger_all(flow, payload, count))
        else:  # each waits for a commit of its own, which several threads share as those of web servers do
            run_ids = list(_threads.map(lambda _: flow.trigger(payload).id, range(count)))
        return max(self.finishes.wait(run_ids).values()) - started

    def cpu(self) -> float:
        """Processor seconds of this process and those beside it; a database server's are not counted."""
        return cpu_seconds()

    @property
    def commits(self) -> int | None:
        """Commits of this process's worker so far."""
        committer = getattr(self.place.worker, "committer", None)
        return None if committer is None else int(committer.commits)


async def trigger_all(flow: Any, payload: object, count: int) -> list[str]:
    handles = await asyncio.gather(*(flow.atrigger(payload) for _ in range(count)))
    return [handle.id for handle in handles]


def w1(bench: Bench) -> None:
    """200 runs of 10 steps at once; then one run of 10 steps alone, 30 times."""
    flow, total = _sequence(), RUNS * STEPS
    for _ in range(5):
        bench.run_alone(flow, STEPS)
    rates, costs, commits = [], [], []
    for _ in range(REPEATS):
        before, committed = bench.cpu(), bench.commits
        rates.append(total / bench.run_at_once(flow, STEPS, RUNS))
        costs.append((bench.cpu() - before) / total * 1000)
        if committed is not None:
            commits.append(((bench.commits or 0) - committed) / total)
    row("W1 throughput", statistics.median(rates), "steps/s", spread=spread(rates))
    row("W1 processor time per step", statistics.median(costs), "ms", spread=spread(costs))
    if commits:
        row("W1 commits per step", statistics.median(commits), "commits", spread=spread(commits))
    called = _calls_made()
    alone = [bench.run_alone(flow, STEPS) * 1000 for _ in range(ALONE)]
    row("W1 alone p50", percentile(alone, 0.5), "ms")
    row("W1 alone p95", percentile(alone, 0.95), "ms")
    if FLAVOUR == "few-calls":  # what `steps_per_call` came to
        row("W1 alone, calls per run", (_calls_made() - called) / ALONE, "calls")


def w2(bench: Bench) -> None:
    """100 parallel steps and their join, 10 times."""
    from tests.benchmarks.workflows import async_fan, fan

    flow = async_fan if FLAVOUR == "async" else fan
    bench.run_alone(flow, 10)
    times = [bench.run_alone(flow, 100) * 1000 for _ in range(10)]
    row("W2 fan-out 100", statistics.median(times), "ms", spread=spread(times))


def w3(bench: Bench) -> None:
    """One run of 100, 500, 1000 steps."""
    flow = _sequence()
    bench.run_alone(flow, STEPS)
    for count in (100, 500, 1000):
        times = [bench.run_alone(flow, count) for _ in range(REPEATS)]
        median = statistics.median(times)
        row(f"W3 {count} steps", median, "s", spread=spread(times), ms_per_step=round(median / count * 1000, 3))


def w4(bench: Bench) -> None:
    """1000 runs that sleep 5 s: how late they wake, and what they take while they sleep."""
    from django_workflow.models import Run
    from tests.benchmarks.workflows import timer

    bench.run_alone(timer, 0.01)
    before, started = memory(), time.monotonic()
    run_ids = [timer.trigger(SECONDS_ASLEEP).id for _ in range(SLEEPERS)]
    time.sleep(max(4 - (time.monotonic() - started), 0))
    asleep = memory()
    bench.finishes.wait(run_ids)
    results = Run.objects.filter(run_id__in=run_ids).values_list("result", flat=True)
    late = [json.loads(result or "") * 1000 for result in results]
    assert len(late) == SLEEPERS
    row("W4 late p50", percentile(late, 0.5), "ms")
    row("W4 late p95", percentile(late, 0.95), "ms")
    row("W4 late max", max(late), "ms")
    row("W4 RSS", asleep / 1024, "MiB", before=round(before / 1024, 1))
    row("W4 memory growth", (asleep - before) / 1024, "MiB")


def w5(bench: Bench) -> None:
    """200 waiting runs, 200 events at once, three times: from the event to the end of its run, one step later."""
    from django_workflow import get_client
    from django_workflow.models import Waiter
    from tests.benchmarks.workflows import event

    p50, p95 = [], []
    for _ in range(REPEATS):
        names = [f"go-{uuid.uuid4().hex}" for _ in range(RUNS)]
        run_ids = [event.trigger(name).id for name in names]
        wait_for(lambda: Waiter.objects.waiting().count() == RUNS, "200 runs that wait", pause=0.2)
        sent: dict[str, float] = {}

        async def send(run_id: str, name: str, sent: dict[str, float] = sent) -> None:
            sent[run_id] = time.perf_counter()
            await get_client().anotify(name, "x")

        async def send_all(pairs: list[tuple[str, str]]) -> None:
            await asyncio.gather(*(send(*pair) for pair in pairs))

        with ThreadPoolExecutor(1) as watching:  # from before the first event
            watched = watching.submit(bench.finishes.wait, run_ids)
            asyncio.run(send_all(list(zip(run_ids, names, strict=True))))
            over = watched.result()
        times = [(over[run_id] - sent[run_id]) * 1000 for run_id in run_ids]
        p50.append(percentile(times, 0.5))
        p95.append(percentile(times, 0.95))
    row("W5 event p50", statistics.median(p50), "ms", spread=spread(p50))
    row("W5 event p95", statistics.median(p95), "ms", spread=spread(p95))


def _sequence() -> Any:
    from tests.benchmarks import workflows

    return {
        "sync": workflows.sequence,
        "async": workflows.async_sequence,
        "few-calls": workflows.sequence_in_few_calls,
    }[FLAVOUR]


def _calls_made() -> int:
    from tests.benchmarks import workflows

    return workflows.calls_made


WORKLOADS: dict[str, Callable[[Bench], None]] = {"w1": w1, "w2": w2, "w3": w3, "w4": w4, "w5": w5}


def main() -> None:
    with place() as found, finishes(in_this_process=not found.pids) as over:
        for name in sys.argv[1:]:
            WORKLOADS[name](Bench(found, over))


if __name__ == "__main__":
    main()
