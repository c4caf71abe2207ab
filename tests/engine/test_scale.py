"""A million sleeping runs cost rows: what a worker looks at each second does not grow with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from django_workflow import WorkflowContext, workflow
from django_workflow.engine import cycle, scheduler
from django_workflow.engine.leases import claim, enlist, orphans
from django_workflow.engine.pruner import prune_batch
from django_workflow.models import Delivery, Run
from django_workflow.testing import WorkflowClock, run_workflows
from tests.benchmarks.copies import analyze, copy_run, truncate
from tests.benchmarks.plans import plans_of

SLEEPING, DUE, HAND = 1_000_000, 100, 32
MOST_PAGES = 40
MOST_PAGES_PER_DUE = 20
MOST_MILLISECONDS = 5


@workflow(name="sleeps-for-long")
def sleeps_for_long(ctx: WorkflowContext[None]) -> None:
    ctx.sleep("sleep", "60d")


def pages_read(work: Callable[[], object]) -> int:
    """Pages of the tables and indexes; none of the big tables may be read from end to end."""
    plans = plans_of(work)
    for plan in plans:
        assert not plan.scanned & {Run._meta.db_table, Delivery._meta.db_table}, plan.sql
    return sum(plan.pages for plan in plans)


@pytest.fixture
def _emptied_at_once(transactional_db: None) -> Iterator[None]:
    yield
    truncate()


@pytest.mark.slow
@pytest.mark.postgresql
@pytest.mark.usefixtures("_emptied_at_once")
def test_a_claim_looks_past_a_million_sleeping_runs(workflow_clock: WorkflowClock) -> None:
    handle = sleeps_for_long.trigger(None)
    run_workflows()
    assert handle.run.status == Run.Status.SLEEPING
    copy_run(handle.run, SLEEPING, tables=(Run, Delivery))
    analyze()
    now = workflow_clock.now()
    alias, worker = "default", enlist("default", now, 16)

    def claim_all() -> None:
        claim(alias, worker.pk, now, HAND)

    # Nothing is due.
    due, following = plans_of(claim_all)
    assert due.indexes == following.indexes == {"workflow_delivery_due"}
    assert pages_read(claim_all) <= MOST_PAGES

    # A hundred are.
    keys = list(Delivery.objects.values_list("pk", flat=True)[:DUE])
    Delivery.objects.filter(pk__in=keys).update(due_at=now)
    assert pages_read(claim_all) <= MOST_PAGES + MOST_PAGES_PER_DUE * HAND
    assert Delivery.objects.filter(worker=worker).count() >= HAND

    # The worker's other regular work.
    regular: dict[str, Callable[[], object]] = {
        "waits": lambda: cycle.end_overdue_waits(alias, now),
        "schedules": lambda: scheduler.any_due(alias, now),
        "timers": lambda: cycle.next_timer(alias),
        "its leases": lambda: orphans(alias, worker.pk, set()),
        "pruning": lambda: prune_batch(now + timedelta(days=40), timedelta(days=30), orphans=False),
    }
    assert {name: pages for name, work in regular.items() if (pages := pages_read(work)) > MOST_PAGES + HAND * 4} == {}

    # What the database takes for it; the best of many, as the machine may be busy with other things.
    Delivery.objects.filter(worker=worker).update(worker_id=None)
    times = []
    for _ in range(20):
        times.append(sum(plan.milliseconds for plan in plans_of(claim_all)))
        Delivery.objects.filter(worker=worker).update(worker_id=None)
    assert min(times) < MOST_MILLISECONDS
