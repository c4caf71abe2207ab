"""Flow control: how many deliveries of a key may be in flight, and how many may start in a period.

A slot is held per attempt: from the lease to its settlement, not while a message waits for its retry. Rates count in
fixed windows that open with the first start after the one before ended. Over the limit a delivery waits.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from django_workflow.models import Delivery, FlowKey
from django_workflow.protocol.publish import FlowControl


def note_limits(alias: str, control: FlowControl) -> None:
    """Remember a key's limits: those of the newest message hold. Writes (and so locks) only what differs."""
    limits = {"parallelism": control.parallelism, "rate": control.rate, "period_seconds": control.period}
    keys = FlowKey.objects.using(alias)
    known = keys.filter(key=control.key).values(*limits).first()
    if known is None:
        keys.get_or_create(key=control.key, defaults=limits)
    elif known != limits:
        keys.filter(key=control.key).update(**limits)


def free_slots(alias: str, key: FlowKey, now: datetime, wanted: int) -> int:
    """How many deliveries of a locked key may start now, at most `wanted`. Opens its rate window when it is over."""
    if key.paused:
        return 0
    free = wanted
    if key.parallelism is not None:
        in_flight = Delivery.objects.using(alias).filter(flow_key=key.key, worker__isnull=False).count()
        free = min(free, key.parallelism - in_flight)
    if key.rate is not None:
        if key.window_started_at is None or now >= key.window_started_at + timedelta(seconds=key.period_seconds):
            key.window_started_at, key.window_count = now, 0
        free = min(free, key.rate - key.window_count)
    return max(free, 0)


def count_starts(alias: str, key: FlowKey, started: int) -> None:
    """Count what was started against the key's rate."""
    if key.rate is not None and started:
        FlowKey.objects.using(alias).filter(pk=key.pk).update(
            window_started_at=key.window_started_at, window_count=key.window_count + started
        )


def next_opening(key: FlowKey) -> datetime | None:
    """When the key's rate lets something through again; None when a settlement will tell."""
    if key.rate is None or key.window_started_at is None or key.window_count < key.rate:
        return None
    return key.window_started_at + timedelta(seconds=key.period_seconds)
