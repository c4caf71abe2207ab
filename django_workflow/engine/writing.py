"""One change of the engine on its caller's connection, in the caller's transaction if there is one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from django.db import transaction

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
