"""Leases: who makes which delivery. Workers claim due rows in batches, prove their life, and free the dead's rows.

A lease holds while its worker lives. A worker is dead when its heartbeat stood still for `worker_timeout` on the
observer's own clock, or at once when its process on this host is gone. A rescued delivery may be made twice.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.db import connections
from django.db.models import F, QuerySet, Value
from django.db.models.functions import Greatest

from django_workflow.conf import HEARTBEAT_SECONDS
from django_workflow.engine import flow_control, messages, queues
from django_workflow.engine.dead_letters import fail_run, settle_failure_callback
from django_workflow.engine.facts import Answer, Settlement
from django_workflow.engine.gate import engine_atomic
from django_workflow.engine.processes import is_gone, this_process
from django_workflow.engine.records import Lease, lease_of
from django_workflow.engine.unit_of_work import UnitOfWork
from django_workflow.models import Delivery, Worker
from django_workflow.models.delivery import HELD

MAX_RESCUES = 5
SUSPECT_RESCUES = 2
"""From so many lost workers on, a worker makes such deliveries one at a time: see `Worker`."""

UNSEEN = timedelta(minutes=2)

logger = logging.getLogger("django_workflow.engine")


@dataclass(frozen=True, slots=True)
class Claim:
    """What a claim got, and when to look again: None after a full hand (at once), or when only new work can come."""

    leases: list[Lease]
    next_due_at: datetime | None


def claim(alias: str, worker_key: UUID, now: datetime, limit: int) -> Claim:
    """Lease up to `limit` due deliveries, oldest first, as their keys' limits allow."""
    if limit <= 0:
        return Claim([], None)
    due = Delivery.objects.using(alias).due(now).unleased()
    # A plain read: an idle worker takes no write lock.
    keys = list(due.oldest_first().values_list("flow_key", "queue")[: limit + 1])
    if not keys:
        return Claim([], _next_due(alias, now))
    with engine_atomic(alias):
        taken, opening = flow_control.Taken(), None
        if any(key or queue for key, queue in keys):  # first, and half of the hand: neither kind starves the other
            taken, opening = _claim_limited(alias, worker_key, now, (limit + 1) // 2)
        free = _lock_due(alias, due.filter(flow_key="", queue=""), limit - len(taken.rows))
        _lease(alias, worker_key, free)
        rows = messages.show_active(alias, taken.rows + free, now)
    leases = []
    for row in rows:
        row.fence += 1
        lease = lease_of(row, worker_key)
        lease.claimed_at = now
        lease.window, lease.start_by = taken.counted.get(row.pk, (None, None))
        leases.append(lease)
    leases.sort(key=lambda lease: lease.message_key)
    return Claim(leases, opening if leases else _earlier(opening, _next_due(alias, now)))


def _lock_due(alias: str, due: object, limit: int) -> list[Delivery]:
    rows = due.oldest_first()  # type: ignore[attr-defined]
    features = connections[alias].features
    if features.has_select_for_update:
        rows = rows.select_for_update(skip_locked=features.has_select_for_update_skip_locked)
    return list(rows[:limit])


def _lease(alias: str, worker_key: UUID, rows: list[Delivery]) -> None:
    """Give locked rows to the worker; those of queues have their place from now on."""
    for queued in (True, False):
        keys = [row.pk for row in rows if (row.queue != "") == queued]
        if keys:
            columns = {"begun": 1} if queued else {}
            held = Delivery.objects.using(alias).filter(pk__in=keys)
            held.update(worker_id=worker_key, fence=F("fence") + 1, **columns)


def _claim_limited(
    alias: str, worker_key: UUID, now: datetime, limit: int
) -> tuple[flow_control.Taken, datetime | None]:
    """Lease due deliveries of queues and flow-control keys, as both allow; and when a key's rate opens again."""
    taken = flow_control.Taken()
    while True:
        openings = queues.openings(alias, now)
        allowed = Delivery.objects.using(alias).due(now).unleased().filter(openings.deliveries)
        some = _lock_limited(alias, allowed, now, limit - len(taken.rows))
        _lease(alias, worker_key, some.rows)
        taken.rows.extend(some.rows)
        taken.counted.update(some.counted)
        # A queue shows the first message that waits; the one behind it shows once that one has begun.
        if not openings.more or len(taken.rows) >= limit or not any(row.queue for row in some.rows):
            return taken, flow_control.next_opening(alias, allowed.exclude(flow_key=""), now)


def _lock_limited(alias: str, allowed: QuerySet[Delivery], now: datetime, limit: int) -> flow_control.Taken:
    """Deliveries of queues and of keys, half of the hand for each if both are due."""
    rows = _lock_due(alias, allowed.filter(flow_key="").exclude(queue=""), limit)
    taken = flow_control.take(alias, allowed.exclude(flow_key=""), now, limit - min(len(rows), limit // 2))
    taken.rows.extend(rows[: limit - len(taken.rows)])  # the others' locks end with the transaction
    return taken


def _earlier(one: datetime | None, other: datetime | None) -> datetime | None:
    return min((at for at in (one, other) if at is not None), default=None)


def _next_due(alias: str, now: datetime) -> datetime | None:
    waiting = Delivery.objects.using(alias).unleased().filter(due_at__gt=now, due_at__lt=HELD)
    return waiting.oldest_first().values_list("due_at", flat=True).first()


def release(alias: str, worker_key: UUID, leases: Iterable[Lease]) -> int:
    """Give leases back that were not started. Returns how many were still held."""
    unstarted = {lease.key: lease for lease in leases}
    if not unstarted:
        return 0
    with engine_atomic(alias):
        held = Delivery.objects.using(alias).filter(pk__in=unstarted, worker_id=worker_key)
        if any(lease.window is not None for lease in unstarted.values()):
            flow_control.uncount(alias, [unstarted[key] for key in held.values_list("pk", flat=True)])
        return held.update(worker_id=None, fence=F("fence") + 1)


# Heartbeats


def enlist(alias: str, now: datetime, concurrency: int) -> Worker:
    """Make this process known as a worker."""
    process = this_process()
    with engine_atomic(alias):
        return Worker.objects.using(alias).create(
            host=process.host,
            pid=process.pid,
            pid_started=process.started,
            concurrency=concurrency,
            started_at=now,
            heartbeat_at=now,
        )


def beat(alias: str, worker_key: UUID, now: datetime, *, draining: bool = False) -> bool:
    """Count the heartbeat up. False when the worker's row is gone: others took it for dead."""
    with engine_atomic(alias):
        own = Worker.objects.using(alias).filter(pk=worker_key)
        return bool(own.update(heartbeat=F("heartbeat") + 1, heartbeat_at=now, draining=draining))


def retire(alias: str, worker_key: UUID) -> None:
    """Free what the worker still holds and remove it from the list."""
    with engine_atomic(alias):
        Delivery.objects.using(alias).filter(worker_id=worker_key).update(worker_id=None, fence=F("fence") + 1)
        Worker.objects.using(alias).filter(pk=worker_key).delete()


_looked_for_workers: datetime | None = None


def warn_without_worker(alias: str, now: datetime) -> None:
    """Say so when runs are triggered and no worker has been seen for two minutes. Looks that often at most."""
    global _looked_for_workers
    if _looked_for_workers is None:
        _looked_for_workers = now
    if now - _looked_for_workers < UNSEEN:
        return
    _looked_for_workers = now
    if not Worker.objects.using(alias).filter(heartbeat_at__gte=now - UNSEEN).exists():
        logger.warning("No worker has been seen for 2 minutes; runs wait. Start `manage.py workflow_worker`.")


class Observer:
    """Watches the other workers' heartbeats on this process's monotonic clock."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._seen: dict[UUID, tuple[int, float]] = {}
        self._looked_at: float | None = None

    def dead(self, alias: str, own_key: UUID | None, monotonic: float) -> list[UUID]:
        """Workers that are certainly gone, or whose heartbeat stood still for the timeout."""
        workers = list(_others(alias, own_key))
        dead = []
        long = max(self._timeout / 2, 2 * HEARTBEAT_SECONDS)  # above the usual time between two looks
        if self._looked_at is not None and monotonic - self._looked_at > long:
            # Nobody looked for long: the database was away, and so were the heartbeats of the others.
            self._seen = {key: (count, monotonic) for key, (count, _) in self._seen.items()}
        self._looked_at = monotonic
        for worker in workers:
            if is_gone(worker.host, worker.pid, worker.pid_started):
                dead.append(worker.pk)
                continue
            count, since = self._seen.get(worker.pk, (-1, monotonic))
            if worker.heartbeat != count:
                self._seen[worker.pk] = (worker.heartbeat, monotonic)
            elif monotonic - since >= self._timeout:
                dead.append(worker.pk)
        known = {worker.pk for worker in workers}
        self._seen = {key: seen for key, seen in self._seen.items() if key in known}
        return dead


def _others(alias: str, own_key: UUID | None) -> QuerySet[Worker]:
    workers = Worker.objects.using(alias)
    return workers.all() if own_key is None else workers.exclude(pk=own_key)


def rescue(unit: UnitOfWork, dead: Iterable[UUID]) -> int:
    """Free the deliveries of dead workers; a delivery that lost too many of them fails its run as "worker lost".

    Returns how many were freed. A rescued step may run twice. The first loss is counted here, whether or not the
    delivery was under way; later ones when it starts (`count_start`), so that nothing is blamed for waiting its turn.
    """
    dead = list(dead)
    held = Delivery.objects.using(unit.alias).filter(worker_id__in=dead)
    hopeless = list(held.filter(rescues__gt=MAX_RESCUES).select_related("run"))
    unit.lock({key for row in hopeless if row.run for key in (row.run_id, row.run.parent_id) if key is not None})
    for row in hopeless:
        _give_up(unit, row)
    # A dead host's session may still lock a row: that one is freed later, and its worker stays listed until then.
    rows = held.select_for_update(skip_locked=True) if _skips_locked(unit.alias) else held
    keys = list(rows.values_list("pk", flat=True))
    freed = held.filter(pk__in=keys).update(
        worker_id=None, fence=F("fence") + 1, rescues=Greatest(F("rescues"), Value(1))
    )
    workers = Worker.objects.using(unit.alias).filter(pk__in=dead)
    workers.exclude(pk__in=held.values("worker_id")).delete()
    if freed:
        unit.after.wake = True
    return freed + len(hopeless)


def count_start(alias: str, lease: Lease) -> bool:
    """Count that a delivery starts which lost a worker before, until it is settled. False: the lease is lost."""
    with engine_atomic(alias):
        held = Delivery.objects.using(alias).filter(pk=lease.key, fence=lease.fence, worker_id=lease.worker_key)
        return bool(held.update(rescues=F("rescues") + 1))


def _give_up(unit: UnitOfWork, row: Delivery) -> None:
    """End a delivery that lost its worker too often, unless its lease moved on meanwhile."""
    if row.worker_id is None:
        return
    lease = lease_of(row, row.worker_id)
    error = f"worker lost: {row.rescues} workers died while they made this delivery"
    if row.kind == Delivery.Kind.MESSAGE:
        messages.give_up(unit, Settlement(lease, (), Answer(status=0, error=error), unit.now, unit.now))
        return
    if not unit.finish_delivery(lease):
        return
    if row.run_id is None or not unit.has(row.run_id):
        return
    state = unit.state(row.run_id)
    if row.kind == Delivery.Kind.FAILURE:
        settle_failure_callback(unit, lease, Answer(status=0, error=error))
    elif state.alive:
        fail_run(unit, state, lease, Answer(status=0, error=error), error, row.step_name)


def _skips_locked(alias: str) -> bool:
    return bool(connections[alias].features.has_select_for_update_skip_locked)


def orphans(alias: str, worker_key: UUID, known: Collection[UUID]) -> set[tuple[UUID, int]]:
    """Deliveries leased to a worker (with their fences) that it does not know of: their commit's answer was lost."""
    held = Delivery.objects.using(alias).filter(worker_id=worker_key)
    return {(key, fence) for key, fence in held.values_list("pk", "fence") if key not in known}


def free(alias: str, worker_key: UUID, leases: Iterable[tuple[UUID, int]]) -> int:
    """Give orphaned leases back, each under its fence."""
    with engine_atomic(alias):
        return sum(
            Delivery.objects.using(alias)
            .filter(pk=key, fence=fence, worker_id=worker_key)
            .update(worker_id=None, fence=F("fence") + 1)
            for key, fence in leases
        )


def enlist_again(alias: str, worker: Worker, now: datetime) -> None:
    """Bring back the row of a worker that others took for dead."""
    worker.heartbeat_at = now
    with engine_atomic(alias):
        Worker.objects.using(alias).bulk_create([worker], ignore_conflicts=True)
