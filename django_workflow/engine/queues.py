"""Queues: which of their messages may be delivered now.

A message has its place from when it was taken in until it and its callbacks are finished, retries and their waiting
included; the first `parallelism` places are open. A delayed message keeps its place: those behind it wait.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django_workflow.models import Delivery, Queue


def ensure(alias: str, name: str, now: datetime) -> None:
    """Make the queue with parallelism 1, unless there is one."""
    queues = Queue.objects.using(alias)
    if not queues.filter(name=name).exists():
        queues.get_or_create(name=name, defaults={"created_at": now, "updated_at": now})


def open_places(alias: str, queue: Queue) -> list[UUID]:
    """The messages of a queue that are under way or next, oldest first; none while it is paused."""
    if queue.paused:
        return []
    places = Delivery.objects.using(alias).filter(queue=queue.name).order_by("queue_key")
    keys = places.values_list("queue_key", flat=True).distinct()[: queue.parallelism]
    return [key for key in keys if key is not None]


def lag(alias: str, name: str) -> int:
    """How many messages of a queue are not finished."""
    return Delivery.objects.using(alias).filter(queue=name).values("queue_key").distinct().count()
