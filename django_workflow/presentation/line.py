"""Where a run stands in the line of its flow-control key, and what holds the line up.

Comes from the page of a run; `words` says it in a sentence. At most three queries, and none for runs without a key.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from django.db.models import Q

from django_workflow.conf import get_settings
from django_workflow.engine import flow_control
from django_workflow.models import Delivery, FlowKey


class Hold(Enum):
    """Why a key lets nothing through now."""

    PAUSED = "paused"
    PARALLELISM = "parallelism"
    RATE = "rate"


@dataclass(frozen=True, slots=True)
class Place:
    """`number` is 1 for the delivery that the key lets through next."""

    key: FlowKey
    hold: Hold
    number: int


def place_in_line(deliveries: Sequence[Delivery], now: datetime) -> Place | None:
    """The place of a run, of which these are all deliveries; None when one of them is under way, or no key holds it."""
    if any(delivery.worker_id is not None for delivery in deliveries):
        return None
    held = [delivery for delivery in deliveries if delivery.flow_key and delivery.due_at <= now]
    if not held:
        return None
    first = min(held, key=lambda delivery: (delivery.due_at, delivery.pk))
    alias = get_settings().database
    key = FlowKey.objects.using(alias).filter(key=first.flow_key).first()
    hold = None if key is None else _hold(alias, key, now)
    if key is None or hold is None:
        return None
    line = Delivery.objects.using(alias).filter(flow_key=key.key).unleased().due(now)
    before = Q(due_at__lt=first.due_at) | Q(due_at=first.due_at, pk__lt=first.pk)
    return Place(key, hold, line.filter(before).count() + 1)


def _hold(alias: str, key: FlowKey, now: datetime) -> Hold | None:
    if key.paused:
        return Hold.PAUSED
    if key.rate is not None and key.window_count >= key.rate and not flow_control.is_over(key, now):
        return Hold.RATE
    if key.parallelism is not None and flow_control.in_flight(alias, [key.key]).get(key.key, 0) >= key.parallelism:
        return Hold.PARALLELISM
    return None
