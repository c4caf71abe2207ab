"""Queues: which of their messages may be delivered now.

A message has its place from when it was taken in until it and its callbacks are finished, retries and their waiting
included. Messages begin in their order: one begins when every one before it has, and fewer than `parallelism` are
under way. So a message that is delayed, or held by its flow-control key, holds up those behind it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connections
from django.db.models import Count, Exists, F, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce

from django_workflow.engine import limits
from django_workflow.engine.records import Lease
from django_workflow.engine.unit_of_work import UnitOfWork
from django_workflow.errors import EngineError, MessageInvalid, QuotaExceeded
from django_workflow.models import Delivery, MessageLog, Queue

QUEUES_PER_CLAIM = 500
DELETED_AT_ONCE = 500

_NAME_RE = re.compile(r"[A-Za-z0-9._-]{1,255}", re.ASCII)


def check_name(name: str) -> None:
    """Raise MessageInvalid for what cannot be a queue's name."""
    if not _NAME_RE.fullmatch(name):
        raise MessageInvalid(
            f"{name[:255]!r} cannot be a queue's name: use 1 to 255 letters, digits, hyphens, underscores and periods.",
            name="queueName",
            value=name,
        )


# Which may be delivered


@dataclass(frozen=True, slots=True)
class Openings:
    """What may be claimed from queues: deliveries of messages under way in `names`, and the messages `heads`.

    `more`: a queue could begin a second message once its first one has begun.
    """

    names: tuple[str, ...] = ()
    heads: tuple[UUID, ...] = ()
    more: bool = False

    @property
    def deliveries(self) -> Q:
        """Deliveries that no queue holds back."""
        return Q(queue="") | Q(queue__in=self.names, begun=True) | Q(pk__in=self.heads)


def openings(alias: str, now: datetime) -> Openings:
    """What the queues let through now. Their rows are locked until the transaction ends: one claimer each."""
    ready = _ready(alias, now)
    features = connections[alias].features
    if features.has_select_for_update:  # SQLite's transaction is a lock itself
        names = list(ready.values_list("pk", flat=True)[:QUEUES_PER_CLAIM])
        if not names:
            return Openings()
        rows = Queue.objects.using(alias).filter(pk__in=names).order_by("pk")
        locked = list(
            rows.select_for_update(skip_locked=features.has_select_for_update_skip_locked).values_list("pk", flat=True)
        )
        ready = ready.filter(pk__in=locked)  # read again: what was read before the lock may be gone
    found = list(ready.values_list("name", "again", "head", "head_due_at", "parallelism", "taken")[:QUEUES_PER_CLAIM])
    heads: list[UUID] = []
    more = False
    for _, _, head, due_at, parallelism, taken in found:
        if head is not None and due_at <= now and taken < parallelism:
            heads.append(head)
            more = more or taken + 1 < parallelism
    return Openings(tuple(row[0] for row in found if row[1] is not None), tuple(heads), more)


def _ready(alias: str, now: datetime) -> QuerySet[Any]:
    """Queues that have something to claim, the one whose oldest message came first before the others."""
    mine = Delivery.objects.using(alias).filter(queue=OuterRef("name"))
    begun, waiting = mine.filter(begun=True), mine.filter(begun=False).order_by("queue_key")
    taken = begun.order_by().values("queue").annotate(places=Count("queue_key", distinct=True)).values("places")
    rows = Queue.objects.using(alias).filter(paused=False)
    return (
        rows.annotate(
            again=Subquery(begun.due(now).unleased().order_by("queue_key").values("queue_key")[:1]),
            head=Subquery(waiting.values("pk")[:1]),
            head_due_at=Subquery(waiting.values("due_at")[:1]),
            taken=Coalesce(Subquery(taken), 0),
        )
        .filter(Q(again__isnull=False) | Q(head_due_at__lte=now, taken__lt=F("parallelism")))
        .order_by(Coalesce("again", "head"))
    )


def place_of(alias: str, lease: Lease) -> tuple[str, UUID | None]:
    """The queue and the place of a delivery that was leased; none when its queue was deleted since then."""
    there = lease.queue and Queue.objects.using(alias).filter(name=lease.queue).exists()
    return (lease.queue, lease.queue_key) if there else ("", None)


# The queues themselves


def ensure(alias: str, name: str, now: datetime) -> None:
    """Make the queue with parallelism 1, unless there is one. Raises MessageInvalid, QuotaExceeded."""
    if not Queue.objects.using(alias).filter(name=name).exists():
        _make(alias, name, now)


def _make(alias: str, name: str, now: datetime) -> Queue:
    check_name(name)
    queues = Queue.objects.using(alias)
    if queues.count() >= limits.MOST_QUEUES:
        raise QuotaExceeded(f"There are {limits.MOST_QUEUES} queues, which is the most; delete one first.")
    row, _ = queues.get_or_create(name=name, defaults={"created_at": now, "updated_at": now})
    return row


def upsert(unit: UnitOfWork, name: str, *, parallelism: int | None = None, paused: bool | None = None) -> None:
    """Make or change a queue; what is None stays. Raises MessageInvalid, QuotaExceeded."""
    check_name(name)
    if parallelism is not None and parallelism < 1:
        raise MessageInvalid(f"parallelism must be at least 1, not {parallelism}.", name="parallelism")
    if parallelism is not None and parallelism > limits.MOST_PARALLELISM:
        raise QuotaExceeded(f"A parallelism of {parallelism} was asked for; the most is {limits.MOST_PARALLELISM}.")
    given = {"parallelism": parallelism, "paused": paused}
    changes = {column: value for column, value in given.items() if value is not None}
    rows = Queue.objects.using(unit.alias).filter(name=name)
    if not rows.update(**changes, updated_at=unit.now):
        _make(unit.alias, name, unit.now)
        rows.update(**changes)
    unit.after.wake = True


def find(alias: str, name: str) -> Queue:
    """Raises EngineError (404)."""
    row = Queue.objects.using(alias).filter(name=name).first()
    if row is None:
        raise EngineError(f"There is no queue {name[:255]!r}.", status=404)
    return row


def delete(unit: UnitOfWork, name: str) -> None:
    """Delete a queue. Its waiting messages are canceled; those under way go on without it."""
    Queue.objects.using(unit.alias).filter(name=name).delete()
    mine = Delivery.objects.using(unit.alias).filter(queue=name)
    logs = MessageLog.objects.using(unit.alias)
    while keys := list(mine.filter(begun=False).values_list("pk", flat=True)[:DELETED_AT_ONCE]):
        mine.filter(pk__in=keys).delete()
        canceled = {"state": MessageLog.State.CANCELED, "cancel_requested_at": unit.now, "finished_at": unit.now}
        logs.filter(pk__in=keys).update(**canceled)
    mine.update(queue="", queue_key=None)
    unit.after.wake = True


def lags(alias: str, names: Iterable[str]) -> dict[str, int]:
    """How many messages of each queue are not finished."""
    rows = Delivery.objects.using(alias).filter(queue__in=list(names))
    counted = rows.order_by().values("queue").annotate(places=Count("queue_key", distinct=True))
    return dict(counted.values_list("queue", "places"))


def release_orphans(alias: str, most: int) -> int:
    """Let deliveries go on without the queue that was deleted while they were taken in; how many."""
    deliveries = Delivery.objects.using(alias)
    queue = Queue.objects.using(alias).filter(name=OuterRef("queue"))
    gone = deliveries.filter(~Exists(queue), queue__gt="").values_list("pk", flat=True)
    return deliveries.filter(pk__in=list(gone[:most])).update(queue="", queue_key=None)
