"""One cycle of the engine, as plain functions: claim, dispatch, settle; and its periodic duties.

Three drivers run it: the worker with its threads, tests one cycle at a time on their own connection, and
`workflow_trigger --wait` inline. Nothing here reads the system clock, starts a thread or sleeps.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from uuid import UUID

from django_workflow.engine import scheduler, waiters
from django_workflow.engine.after import After
from django_workflow.engine.gate import engine_atomic
from django_workflow.engine.leases import rescue
from django_workflow.engine.shared import shared_cache
from django_workflow.engine.unit_of_work import UnitOfWork
from django_workflow.models import Waiter


def in_unit(alias: str, now: datetime, change: Callable[[UnitOfWork], object]) -> After:
    """One change in a transaction of its own."""
    with engine_atomic(alias):
        unit = UnitOfWork(alias, now, shared_cache(alias))
        change(unit)
        return unit.flush()


def end_overdue_waits(alias: str, now: datetime) -> After | None:
    """Time out the waits whose deadline passed. None: there were none."""
    if not Waiter.objects.using(alias).overdue(now).exists():
        return None
    return in_unit(alias, now, waiters.time_out)


def fire_schedules(alias: str, now: datetime) -> After | None:
    """Fire the schedules that are due. None: there were none."""
    if not scheduler.any_due(alias, now):
        return None
    return in_unit(alias, now, scheduler.fire)


def rescue_dead(alias: str, now: datetime, dead: list[UUID]) -> After | None:
    """Free the deliveries of dead workers. None: nobody died."""
    if not dead:
        return None
    return in_unit(alias, now, lambda unit: rescue(unit, dead))


def next_timer(alias: str) -> datetime | None:
    """When the next wait times out or the next schedule fires."""
    instants = (waiters.next_deadline(alias), scheduler.next_fire(alias))
    return min((at for at in instants if at is not None), default=None)
