"""One change of the engine on its caller's connection, in the caller's transaction if there is one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from django.db import connections, transaction
from django.db.models import Model

from django_workflow.engine.clock import current_clock
from django_workflow.engine.gate import engine_atomic
from django_workflow.engine.shared import announce, shared_cache
from django_workflow.engine.unit_of_work import UnitOfWork
from django_workflow.engine.wake import ring_after_commit

T = TypeVar("T")


def write(alias: str, change: Callable[[UnitOfWork], T]) -> T:
    """Make the change in one transaction; after the commit, workers are woken and watchers told."""
    with engine_atomic(alias):
        unit = UnitOfWork(alias, current_clock().now(), shared_cache(alias))
        answer = change(unit)
        after = unit.flush()
        if after.wake:
            ring_after_commit(alias)
        transaction.on_commit(lambda: announce(alias, after), using=alias, robust=True)
    return answer


def make_once(alias: str, row: Model, *, unique: str, touch: str) -> None:
    """Insert a row, unless there is one with its value of `unique`: then only that one's column `touch` is set.

    One statement that locks as a change does. After an insert that failed MySQL and MariaDB let several go on with a
    shared lock each, and whoever then wants to change the row waits for the others: a deadlock.
    """
    targeted = connections[alias].features.supports_update_conflicts_with_target
    type(row)._default_manager.using(alias).bulk_create(
        [row], update_conflicts=True, unique_fields=[unique] if targeted else None, update_fields=[touch]
    )
