"""A million sleeping runs on PostgreSQL: what the worker's every-second work costs beside them.

`python -m tests.benchmarks.sleepers [count]`. Measured are the claim when nothing is due and when a hundred runs are, a
worker's other regular work, and its memory while it stands beside them.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.db import connection
from django.db.models import F
from django.utils import timezone

from tests.benchmarks.figures import memory, percentile, row
from tests.benchmarks.places import place

DUE, REPEATS, SECONDS_IDLE = 100, 100, 10.0


def main() -> None:
    count = int(sys.argv[1]) if sys.argv[1:] else 1_000_000
    with place() as found:
        from tests.benchmarks.copies import analyze, copy_run  # models, once Django is set up

        worker = found.worker
        run = a_sleeping_run()
        started = time.monotonic()
        copy_run(run, count)
        analyze()
        print(f"# {count} sleeping runs made in {time.monotonic() - started:.0f} s", flush=True)
        before = memory()
        time.sleep(SECONDS_IDLE)
        row(f"{count} sleeping runs: worker's memory grows by", (memory() - before) / 1024, "MiB")
        worker.drain()  # type: ignore[attr-defined]
        measure(count)


def a_sleeping_run() -> Any:
    """A run that asked for a sleep of 60 days, as the worker left it."""
    from django_workflow.models import Run
    from tests.benchmarks.places import wait_for
    from tests.benchmarks.workflows import timer

    handle = timer.trigger(timedelta(days=60).total_seconds())
    wait_for(lambda: Run.objects.filter(run_id=handle.id, status=Run.Status.SLEEPING).exists(), "a run that sleeps")
    return handle.run


def measure(count: int) -> None:
    from django_workflow.engine import cycle, scheduler
    from django_workflow.engine.leases import claim, enlist, orphans
    from django_workflow.engine.pruner import prune_batch
    from django_workflow.models import Delivery
    from django_workflow.protocol.identifiers import uuid7
    from tests.benchmarks.plans import plans_of

    alias, now = "default", timezone.now()
    worker = enlist(alias, now, 16)

    def note(what: str, work: Callable[[], object], repeats: int = REPEATS) -> None:
        times = []
        for _ in range(repeats):
            started = time.perf_counter()
            work()
            times.append((time.perf_counter() - started) * 1000)
        read = plans_of(work)
        if os.environ.get("BENCH_PLANS"):
            for plan in read:
                print(f"# {plan.pages} pages, {plan.indexes or 'no index'}, scans {plan.scanned}: {plan.sql[:1500]}")
        pages = sum(plan.pages for plan in read)
        row(f"{count} sleeping runs: {what}, p50", percentile(times, 0.5), "ms")
        row(f"{count} sleeping runs: {what}, p95", percentile(times, 0.95), "ms", pages_read=pages)

    def release_all() -> None:
        Delivery.objects.filter(worker_id=worker.pk).update(worker_id=None, fence=F("fence") + 1)

    def claim_and_release() -> None:
        assert len(claim(alias, worker.pk, now, 32).leases) == 32
        release_all()

    note("claim, nothing due", lambda: claim(alias, worker.pk, now, 32))
    some = Delivery.objects.order_by("pk").values_list("pk", flat=True)[:DUE]
    Delivery.objects.filter(pk__in=list(some)).update(due_at=now)
    note("claim of 32 and their release", claim_and_release)
    note("overdue waits", lambda: cycle.end_overdue_waits(alias, now))
    note("next timer", lambda: cycle.next_timer(alias))
    note("due schedules", lambda: scheduler.any_due(alias, now))
    note("orphaned leases", lambda: orphans(alias, worker.pk, set()))
    note("dead workers", lambda: cycle.rescue_dead(alias, now, [uuid7()]), 10)
    keep = timedelta(days=30)
    later = now + timedelta(days=40)  # the runs are older than what is kept
    note("pruning", lambda: prune_batch(later, keep, orphans=False), 10)
    note("pruning, the hourly look for orphans", lambda: prune_batch(later, keep), 3)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_database_size(current_database())")
        row(f"{count} sleeping runs: database", cursor.fetchone()[0] / 2**20, "MiB")


if __name__ == "__main__":
    main()
