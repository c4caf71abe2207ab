"""Queues: which of their messages may be delivered now.

A message has its place from when it was taken in until it and its callbacks are finished, retries and their waiting
included. Messages begin in their order: one begins when every one before it has, and fewer than `parallelism` are
under way. So a message that is delayed, or held by its flow-control key, holds up those behind it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from django.db import connections
from django.db.models import Count, Exists, OuterRef, Q, QuerySet, Subquery

from django_workflow.engine import limits
from django_workflow.engine.gate import engine_atomic
from django_workflow.engine.records import Lease
from django_workflow.engine.unit_of_work import UnitOfWork
from django_workflow.engine.writing import make_once
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
        return Q(queue="") | Q(queue__in=self.names, begun=1) | Q(pk__in=self.heads)


def openings(alias: str, now: datetime) -> Openings:
    """What the queues let through now. Their rows are locked until the transaction ends: one claimer each."""
    found = _ready(alias, now, Queue.objects.using(alias))
    features = connections[alias].features
    if not found or not features.has_select_for_update:  # SQLite's transaction is a lock itself
        return _openings(found)
    rows = Queue.objects.using(alias).filter(pk__in=[queue.key for queue in found]).order_by("pk")
    locked = rows.select_for_update(skip_locked=features.has_select_for_update_skip_locked)
    keys = list(locked.values_list("pk", flat=True))
    # Read again: what was read before the lock may be gone.
    return _openings(_ready(alias, now, Queue.objects.using(alias).filter(pk__in=keys)))


class _Ready(NamedTuple):
    """A queue that has something to claim: messages under way (`goes_on`), or its next one, with so much `room`."""

    key: UUID
    name: str
    goes_on: bool
    head: UUID | None
    room: int


def _openings(found: list[_Ready]) -> Openings:
    names = tuple(queue.name for queue in found if queue.goes_on)
    heads = tuple(queue.head for queue in found if queue.head is not None)
    return Openings(names, heads, more=any(queue.head is not None and queue.room > 1 for queue in found))


def _ready(alias: str, now: datetime, queues: QuerySet[Queue]) -> list[_Ready]:
    """Of these queues, those that have something to claim; any QUEUES_PER_CLAIM of them, if they are more."""
    begun = Delivery.objects.using(alias).filter(begun=1, queue__gt="").order_by().values("queue")
    free = Count("pk", filter=Q(due_at__lte=now, worker__isnull=True))
    under_way = {
        name: (places, free)
        for name, places, free in begun.annotate(places=Count("queue_key", distinct=True), free=free).values_list(
            "queue", "places", "free"
        )
    }
    waiting = Delivery.objects.using(alias).filter(begun=0, queue=OuterRef("name")).order_by("queue_key")
    rows = queues.filter(Exists(waiting) | Q(name__in=[name for name, (_, free) in under_way.items() if free]))
    rows = rows.filter(paused=False).annotate(
        head=Subquery(waiting.values("pk")[:1]), head_due_at=Subquery(waiting.values("due_at")[:1])
    )
    found = []
    for key, name, parallelism, head, due_at in rows.values_list("pk", "name", "parallelism", "head", "head_due_at"):
        places, free_deliveries = under_way.get(name, (0, 0))
        room = parallelism - places
        begins = head is not None and due_at <= now and room > 0
        if begins or free_deliveries:
            found.append(_Ready(key, name, bool(free_deliveries), head if begins else None, room))
    # Not always the same ones: their messages may be held by a flow-control key.
    return found if len(found) <= QUEUES_PER_CLAIM else random.sample(found, QUEUES_PER_CLAIM)


def place_of(alias: str, lease: Lease) -> tuple[str, UUID | None]:
    """The queue and the place of a delivery that was leased; none when its queue was deleted since then."""
    there = lease.queue and Queue.objects.using(alias).filter(name=lease.queue).exists()
    return (lease.queue, lease.queue_key) if there else ("", None)


# The queues themselves


def ensure(alias: str, name: str, now: datetime) -> None:
    """Make the queue with parallelism 1, unless there is one. Raises MessageInvalid, QuotaExceeded."""
    if not Queue.objects.using(alias).filter(name=name).exists():
        _make(alias, name, now)


def _make(alias: str, name: str, now: datetime) -> None:
    check_name(name)
    if Queue.objects.using(alias).count() >= limits.MOST_QUEUES:
        raise QuotaExceeded(f"There are {limits.MOST_QUEUES} queues, which is the most; delete one first.")
    make_once(alias, Queue(name=name, created_at=now, updated_at=now), unique="name", touch="updated_at")


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
    while keys := list(mine.filter(begun=0).values_list("pk", flat=True)[:DELETED_AT_ONCE]):
        mine.filter(pk__in=keys).delete()
        canceled = {"state": MessageLog.State.CANCELED, "cancel_requested_at": unit.now, "finished_at": unit.now}
        logs.filter(pk__in=keys).update(**canceled)
    mine.update(queue="", queue_key=None)
    unit.after.wake = True


def lags(alias: str, names: Iterable[str]) -> dict[str, int]:
    """How many messages of each queue are not finished."""
    rows = Delivery.objects.using(alias).filter(begun__in=(0, 1), queue__in=list(names))
    counted = rows.order_by().values("queue").annotate(places=Count("queue_key", distinct=True))
    return dict(counted.values_list("queue", "places"))


def release_orphans(alias: str, most: int) -> int:
    """Let deliveries go on without the queue that was deleted while they were taken in; how many."""
    deliveries = Delivery.objects.using(alias)
    queue = Queue.objects.using(alias).filter(name=OuterRef("queue"))
    # `begun` has no other values; said, the index leads to the deliveries of queues alone.
    gone = deliveries.filter(~Exists(queue), begun__in=(0, 1), queue__gt="").values_list("pk", flat=True)
    keys = list(gone[:most])
    if not keys:
        return 0
    with engine_atomic(alias):
        return deliveries.filter(pk__in=keys).update(queue="", queue_key=None)
