"""Flow control: how many deliveries of a key may be in flight, and how many may start in a period.

A slot is held per attempt: from the lease to its settlement, not while a message waits for its retry. Rates count in
fixed windows that open with the first start after the one before ended. Over the limit a delivery waits. `leases`
claims through `take`; the HTTP API pauses keys and pins their limits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from heapq import nsmallest
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from django.db import connections
from django.db.models import Count, Exists, F, Min, Model, OuterRef, Q, QuerySet, Subquery

from django_workflow.engine.gate import engine_atomic
from django_workflow.engine.unit_of_work import UnitOfWork
from django_workflow.errors import MessageInvalid
from django_workflow.models import Delivery, FlowKey
from django_workflow.protocol.publish import FlowControl

if TYPE_CHECKING:
    from django_workflow.engine.records import Lease

M = TypeVar("M", bound=Model)

KEYS_PER_CLAIM = 64
KEYS_AT_ONCE = 8
"""At least so many keys are locked at once, however small the hand."""

LONGEST_KEY = 255
SLACK = 0.05
"""The part of a period by which a start may come after its claim. One that comes later begins the window anew."""


def note_limits(alias: str, control: FlowControl) -> None:
    """Remember a key's limits: those of the newest message hold, but for pinned ones. Writes (and so locks) only what
    differs. Raises MessageInvalid for a key that is too long."""
    check_key(control.key)
    limits = {"parallelism": control.parallelism, "rate": control.rate, "period_seconds": control.period}
    keys = FlowKey.objects.using(alias)
    names = (*limits, "pinned_parallelism", "pinned_rate", "window_started_at")
    known = keys.filter(key=control.key).values(*names).first()
    if known is None:
        keys.get_or_create(key=control.key, defaults=limits)
        return
    pins = {name: known[name] for name in ("pinned_parallelism", "pinned_rate")}
    pinned = {"parallelism"} if pins["pinned_parallelism"] else set()
    pinned |= {"rate", "period_seconds"} if pins["pinned_rate"] else set()
    changed: dict[str, object] = {
        name: value for name, value in limits.items() if name not in pinned and known[name] != value
    }
    if "period_seconds" in changed and known["window_started_at"] is not None:
        changed["window_ends_at"] = known["window_started_at"] + timedelta(seconds=control.period)
    if changed:
        keys.filter(key=control.key, **pins).update(**changed)


def check_key(key: str) -> None:
    if not 0 < len(key) <= LONGEST_KEY:
        raise MessageInvalid(
            f"A flow-control key has 1 to {LONGEST_KEY} characters, this one has {len(key)}.",
            name="flow-control key",
            value=key[:LONGEST_KEY],
        )


# Claims


@dataclass(frozen=True, slots=True)
class Taken:
    """Deliveries that may start now. `counted`: those that a rate counted, with the window's number and the instant by
    which they have to start."""

    rows: list[Delivery] = field(default_factory=list)
    counted: dict[UUID, tuple[int, datetime]] = field(default_factory=dict)


def take(alias: str, due: QuerySet[Delivery], now: datetime, limit: int) -> Taken:
    """Lock up to `limit` of these due deliveries, as their keys allow: each key gets one before any gets a second.

    Keys that let nothing through are left out by the database, so that however many wait, none hides another. Called in
    a transaction.
    """
    taken = Taken()
    names = _open_keys(alias, due, now) if limit > 0 else []
    step = max(limit, KEYS_AT_ONCE)
    for start in range(0, len(names), step):
        if len(taken.rows) < limit:
            _take_of(alias, due, names[start : start + step], now, limit - len(taken.rows), taken)
    return taken


def _open_keys(alias: str, due: QuerySet[Delivery], now: datetime) -> list[str]:
    """Keys of these deliveries that let something through now, the one first whose delivery waits longest."""
    keys = FlowKey.objects.using(alias)
    shut = Q(flow_key__in=keys.filter(paused=True).values("key")) | Q(flow_key__in=keys.spent(now).values("key"))
    waiting = due.exclude(shut).exclude(flow_key__in=_full(alias)).order_by()
    names = waiting.values("flow_key").annotate(first=Min("due_at")).order_by("first")
    return list(names.values_list("flow_key", flat=True)[:KEYS_PER_CLAIM])


def _full(alias: str) -> QuerySet[Any, Any]:
    """Keys whose slots are all taken. Counted from what is in flight: never more than the workers' threads can hold."""
    limit = FlowKey.objects.using(alias).filter(key=OuterRef("flow_key")).order_by().values("parallelism")
    leased = Delivery.objects.using(alias).filter(worker__isnull=False).exclude(flow_key="").order_by()
    counted = leased.values("flow_key").annotate(number=Count("pk"))
    return counted.filter(number__gte=Subquery(limit)).values("flow_key")


def _take_of(alias: str, due: QuerySet[Delivery], names: list[str], now: datetime, limit: int, taken: Taken) -> None:
    """Take from these keys; those that another worker has locked are its own business."""
    keys = _locked(alias, names)
    free = _free_slots(alias, keys.values(), now, limit)
    candidates = [
        (rank, due_at, pk)
        for name in keys
        for rank, (due_at, pk) in enumerate(
            due.filter(flow_key=name).oldest_first().values_list("due_at", "pk")[: free[name]]  # type: ignore[attr-defined]
        )
    ]
    chosen = [pk for _, _, pk in nsmallest(limit, candidates)]
    rows = list(_for_update(alias, due.filter(pk__in=chosen))) if chosen else []
    for name, started in Counter(row.flow_key for row in rows).items():
        key = keys[name]
        if key.rate is not None:
            _count_starts(key, started, now)
            start_by = now + timedelta(seconds=key.period_seconds * SLACK)
            taken.counted.update({row.pk: (key.window, start_by) for row in rows if row.flow_key == name})
    taken.rows.extend(rows)


def _locked(alias: str, names: list[str]) -> dict[str, FlowKey]:
    keys = {key.key: key for key in _for_update(alias, FlowKey.objects.using(alias).filter(key__in=names))}
    missing = set(names) - keys.keys()
    if missing:
        missing -= set(FlowKey.objects.using(alias).filter(key__in=missing).values_list("key", flat=True))
        # Deliveries whose key was deleted: without a row nobody would ever take them.
        FlowKey.objects.using(alias).bulk_create([FlowKey(key=name) for name in missing], ignore_conflicts=True)
    return keys


def _for_update(alias: str, rows: QuerySet[M]) -> QuerySet[M]:
    features = connections[alias].features
    if not features.has_select_for_update:
        return rows.order_by("pk")
    return rows.order_by("pk").select_for_update(skip_locked=features.has_select_for_update_skip_locked)


def _free_slots(alias: str, keys: Collection[FlowKey], now: datetime, most: int) -> dict[str, int]:
    """How many deliveries of each locked key may start now, at most `most`."""
    limited = [key.key for key in keys if key.parallelism is not None]
    running = in_flight(alias, limited) if limited else {}
    return {key.key: max(_free(key, running.get(key.key, 0), now, most), 0) for key in keys}


def _free(key: FlowKey, running: int, now: datetime, most: int) -> int:
    free = 0 if key.paused else most
    if key.parallelism is not None:
        free = min(free, key.parallelism - running)
    if key.rate is not None:
        free = min(free, key.rate if is_over(key, now) else key.rate - key.window_count)
    return free


def in_flight(alias: str, names: Collection[str] | None = None) -> dict[str, int]:
    """How many deliveries of each key are leased; keys with none are left out. None: of all keys."""
    return _count(Delivery.objects.using(alias).filter(worker__isnull=False), names)


def waiting(alias: str, names: Collection[str] | None = None) -> dict[str, int]:
    """How many deliveries of each key wait: for a slot, for the next window, or for their own time."""
    return _count(Delivery.objects.using(alias).filter(worker__isnull=True), names)


def _count(deliveries: QuerySet[Delivery], names: Collection[str] | None) -> dict[str, int]:
    some = deliveries.exclude(flow_key="") if names is None else deliveries.filter(flow_key__in=names)
    return dict(some.order_by().values_list("flow_key").annotate(number=Count("pk")))


# Windows


def is_over(key: FlowKey, now: datetime) -> bool:
    """Whether the key's window has ended, or none has begun."""
    return key.window_ends_at is None or now >= key.window_ends_at


def _count_starts(key: FlowKey, started: int, now: datetime) -> None:
    """Count what is started against the rate of a locked key. Opens its next window when the last one is over."""
    if is_over(key, now):
        _open_window(key, now)
    key.window_count += started
    _save_window(key)


def _open_window(key: FlowKey, now: datetime) -> None:
    key.window += 1
    key.window_count = 0
    _begin_window(key, now)


def _begin_window(key: FlowKey, now: datetime) -> None:
    key.window_started_at, key.window_ends_at = now, now + timedelta(seconds=key.period_seconds)


def _save_window(key: FlowKey) -> None:
    key.save(update_fields=["window", "window_count", "window_started_at", "window_ends_at"])


def next_opening(alias: str, due: QuerySet[Delivery], now: datetime) -> datetime | None:
    """When a rate lets one of these deliveries through again; None when a settlement will tell."""
    keys = FlowKey.objects.using(alias).spent(now).filter(Exists(due.filter(flow_key=OuterRef("key"))), paused=False)
    opening: datetime | None = keys.aggregate(at=Min("window_ends_at"))["at"]
    return opening


def start_late(alias: str, lease: Lease, now: datetime) -> bool:
    """Whether a delivery may still start that its rate counted at the claim, long ago.

    A claim opens a window for starts at once. One that comes late, from a pool that was busy, would run into those of
    the next window: so its own window, if it lasts, begins anew with it; else it is counted in the one of now. False:
    that one is full, or the key is paused, and the lease must be given back.
    """
    with engine_atomic(alias):
        keys = FlowKey.objects.using(alias)
        if connections[alias].features.has_select_for_update:
            keys = keys.select_for_update()
        key = keys.filter(key=lease.flow_key).first()
        if key is None or key.rate is None:
            return True
        if key.paused:
            return False
        if is_over(key, now):
            _count_starts(key, 1, now)
        elif key.window == lease.window:
            _begin_window(key, now)
            _save_window(key)
        elif key.window_count < key.rate:
            _count_starts(key, 1, now)
        else:
            return False
        return True


def uncount(alias: str, leases: Iterable[Lease]) -> None:
    """Take starts that were not made off their windows, so that others may start in their place."""
    starts = Counter((lease.flow_key, lease.window) for lease in leases if lease.window is not None)
    for (name, window), number in starts.items():
        keys = FlowKey.objects.using(alias).filter(key=name, window=window, window_count__gte=number)
        keys.update(window_count=F("window_count") - number)


# By hand


def pause(unit: UnitOfWork, name: str) -> None:
    """Let nothing of the key through; what is in flight goes on. The key needs no message to be known."""
    _change(unit, name, paused=True)


def resume(unit: UnitOfWork, name: str) -> None:
    """Let the key's deliveries through again, as its limits allow. A key that nobody has used stays unknown."""
    FlowKey.objects.using(unit.alias).filter(key=name).update(paused=False)
    unit.after.wake = True


def pin(unit: UnitOfWork, name: str, *, parallelism: int | None, rate: int | None, period: int = 1) -> None:
    """Hold limits whatever messages say; None leaves a limit as it is. The rate's window is closed."""
    limits: dict[str, object] = {}
    if parallelism is not None:
        limits |= {"parallelism": parallelism, "pinned_parallelism": True}
    if rate is not None:
        limits |= {"rate": rate, "period_seconds": period, "pinned_rate": True}
    _change(unit, name, **limits)
    reset(unit, name)


def unpin(unit: UnitOfWork, name: str, *, parallelism: bool, rate: bool) -> None:
    """Let messages set limits again. Those that were pinned stay until a message brings others."""
    pins = {"pinned_parallelism": parallelism, "pinned_rate": rate}
    FlowKey.objects.using(unit.alias).filter(key=name).update(**{pin: False for pin, gone in pins.items() if gone})


def reset_rate(unit: UnitOfWork, name: str) -> None:
    """End the key's window and begin one that has counted nothing."""
    keys = FlowKey.objects.using(unit.alias).filter(key=name)
    for seconds in keys.values_list("period_seconds", flat=True):
        keys.update(
            window=F("window") + 1,
            window_count=0,
            window_started_at=unit.now,
            window_ends_at=unit.now + timedelta(seconds=seconds),
        )
    unit.after.wake = True


def reset(unit: UnitOfWork, name: str) -> None:
    """Close the key's window; the next start opens one. What is in flight is counted from the leases, which stay."""
    keys = FlowKey.objects.using(unit.alias).filter(key=name)
    keys.update(window=F("window") + 1, window_count=0, window_started_at=None, window_ends_at=None)
    unit.after.wake = True


def _change(unit: UnitOfWork, name: str, **values: object) -> None:
    check_key(name)
    keys = FlowKey.objects.using(unit.alias)
    if not keys.filter(key=name).exists():
        keys.get_or_create(key=name)
    keys.filter(key=name).update(**values)
