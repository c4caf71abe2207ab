"""Deleting what retention no longer keeps: finished runs and messages with all that belongs to them, and old rows of
neither.

Called by the worker from time to time (a `Pruner`) and by `workflow_prune`. Every batch is a short transaction of its
own, so that nobody waits for a large clean-up, and one that is interrupted has done what it did.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from itertools import count
from typing import Any

from django.db.models import Exists, OuterRef, Q, QuerySet

from django_workflow.authoring.registry import registry
from django_workflow.conf import get_settings
from django_workflow.engine import messages, queues
from django_workflow.engine.gate import engine_atomic
from django_workflow.models import Attempt, BulkOperation, Channel, ChannelEvent, Delivery, MessageLog, Run, Worker

BATCH = 200
DEAD_WORKERS_KEPT = timedelta(days=1)
ORPHANS_INTERVAL = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """How many rows went: runs, messages outside workflows, and rows that belonged to none that is kept."""

    runs: int = 0
    messages: int = 0
    events: int = 0
    attempts: int = 0
    workers: int = 0
    operations: int = 0

    def __add__(self, other: Pruned) -> Pruned:
        return Pruned(**{field.name: getattr(self, field.name) + getattr(other, field.name) for field in fields(self)})

    def __bool__(self) -> bool:
        return any(getattr(self, field.name) for field in fields(self))

    @property
    def is_full(self) -> bool:
        """Whether a batch of the usual size took all that it may, so that there is likely more."""
        return self.runs >= BATCH or self.messages >= BATCH * 10


def prune(
    now: datetime, retention: timedelta, *, batch: int = BATCH, batches: int | None = None, own: bool = True
) -> Pruned:
    """Delete what ended more than `retention` ago, in at most `batches` batches (None: until nothing is left).

    `own`: runs of workflows that declare a retention are kept as long as that says.
    """
    total = Pruned()
    for number in count(1):
        pruned = prune_batch(now, retention, batch, own=own)
        total += pruned
        if not pruned or number == batches:
            return total
    raise AssertionError("count() never ends")


@dataclass(slots=True)
class Pruner:
    """What a worker prunes from time to time: a batch, and once an hour the orphans as well.

    Orphans are looked for among all rows that are old enough. Beside many runs that live longer than `retention` those
    are many, and hardly ever is one of them an orphan.
    """

    looked_for_orphans_at: datetime | None = None

    def prune_batch(self, now: datetime, retention: timedelta) -> Pruned:
        last = self.looked_for_orphans_at
        orphans = last is None or now - last >= ORPHANS_INTERVAL
        pruned = prune_batch(now, retention, orphans=orphans)
        if orphans:
            self.looked_for_orphans_at = now
        return pruned


def prune_batch(
    now: datetime, retention: timedelta, batch: int = BATCH, *, orphans: bool = True, own: bool = True
) -> Pruned:
    """One batch: at most `batch` runs, and ten times as many rows of each other kind. Empty when nothing is left.

    `orphans`: look also for events and attempts that belong to nothing, which reads everything that is old.
    """
    alias, before = get_settings().database, now - retention
    messages.forget_duplicates(alias, now, batch * 10)
    queues.release_orphans(alias, batch * 10)
    _delete_silent_channels(alias, now, batch)
    runs = list(prunable_runs(now, retention, own=own).order_by("finished_at").only("pk", "run_id")[:batch])
    delete_runs(runs)
    return Pruned(
        runs=len(runs),
        messages=_delete_messages(alias, before, batch * 10),
        events=_delete_some(alias, orphaned_events(before), batch * 10) if orphans else 0,
        attempts=_delete_some(alias, orphaned_attempts(before), batch * 10) if orphans else 0,
        workers=_delete_some(alias, _dead_workers(alias, now), batch * 10),
        operations=_delete_some(alias, BulkOperation.objects.using(alias).filter(finished_at__lt=before), batch),
    )


def prunable_runs(now: datetime, retention: timedelta, *, own: bool = True) -> QuerySet[Run]:
    """Runs that ended longer ago than they are kept, and that nothing alive needs.

    Needed are: the first run of a chain while another of it stays, as that may go on or be resumed once more (steps'
    idempotency keys come from the first), and a run whose failure function still has to be called.
    """
    runs = Run.objects.using(get_settings().database)
    expired = _expired(now, retention, declared_retentions() if own else {})
    staying = runs.filter(~Q(status__in=Run.FINAL) | ~expired, first_run=OuterRef("pk"))
    needed = Exists(staying) | Exists(_deliveries(runs.db).filter(run=OuterRef("pk")))
    return runs.finished().filter(expired, ~needed)


def declared_retentions() -> dict[timedelta, list[str]]:
    """The retentions that workflows of this process's code declare, with the names of those workflows."""
    found: dict[timedelta, list[str]] = {}
    for workflow in registry.all():
        if workflow.options.retention is not None:
            found.setdefault(workflow.options.retention, []).extend((workflow.name, *workflow.aliases))
    return found


def _expired(now: datetime, retention: timedelta, own: Mapping[timedelta, Sequence[str]]) -> Q:
    """Which runs ended longer ago than they are kept."""
    expired = Q(finished_at__lt=now - retention)
    if not own:
        return expired
    expired &= ~Q(workflow__in=[name for names in own.values() for name in names])
    for length, names in own.items():
        expired |= Q(workflow__in=names, finished_at__lt=now - length)
    # Nothing younger than the shortest time: so far and no further the index is read.
    return expired & Q(finished_at__lt=now - min((retention, *own)))


def orphaned_events(before: datetime) -> QuerySet[ChannelEvent]:
    """Events of before then whose channel is no run's: those of runs go with their run."""
    alias = get_settings().database
    run = Run.objects.using(alias).filter(run_id=OuterRef("channel"))
    return ChannelEvent.objects.using(alias).filter(~Exists(run), created_at__lt=before)


def prunable_messages(before: datetime) -> QuerySet[MessageLog]:
    """Messages outside workflows that ended before then; their dead letters and failed attempts go with them."""
    return MessageLog.objects.using(get_settings().database).finished().filter(finished_at__lt=before)


def orphaned_attempts(before: datetime) -> QuerySet[Attempt]:
    """Failed attempts of before then that belong neither to a run nor to a message."""
    alias = get_settings().database
    message = MessageLog.objects.using(alias).filter(pk=OuterRef("message_key"))
    return Attempt.objects.using(alias).filter(~Exists(message), run=None, finished_at__lt=before)


def _delete_silent_channels(alias: str, now: datetime, most: int) -> None:
    """Delete channels that were silent for longer than they are kept, with their events."""
    silent = Channel.objects.using(alias).filter(expires_at__lt=now)
    for name in list(silent.values_list("name", flat=True)[:most]):
        with engine_atomic(alias):
            if silent.filter(name=name).delete()[0]:
                ChannelEvent.objects.using(alias).filter(channel=name).delete()


def delete_runs(runs: Sequence[Run], batch: int = BATCH) -> None:
    """Delete these runs with their steps, journals, events and all else that belongs to them."""
    alias = get_settings().database
    for start in range(0, len(runs), batch):
        some = runs[start : start + batch]
        with engine_atomic(alias):
            ChannelEvent.objects.using(alias).filter(channel__in=[run.run_id for run in some]).delete()
            Run.objects.using(alias).filter(pk__in=[run.pk for run in some]).delete()


def _delete_messages(alias: str, before: datetime, most: int) -> int:
    keys = list(prunable_messages(before).order_by("finished_at").values_list("pk", flat=True)[:most])
    for start in range(0, len(keys), BATCH):
        some = keys[start : start + BATCH]
        with engine_atomic(alias):
            Attempt.objects.using(alias).filter(kind=Delivery.Kind.MESSAGE, message_key__in=some).delete()
            MessageLog.objects.using(alias).filter(pk__in=some).delete()
    return len(keys)


def _delete_some(alias: str, rows: QuerySet[Any], most: int) -> int:
    # By key: no database but MySQL takes a LIMIT in a DELETE.
    # In no order: to sort them, the database would have to find them all.
    keys = list(rows.order_by().values_list("pk", flat=True)[:most])
    for start in range(0, len(keys), BATCH):
        with engine_atomic(alias):
            rows.model._default_manager.using(alias).filter(pk__in=keys[start : start + BATCH]).delete()
    return len(keys)


def _deliveries(alias: str) -> QuerySet[Delivery]:
    return Delivery.objects.using(alias)


def _dead_workers(alias: str, now: datetime) -> QuerySet[Worker]:
    """Workers that have been silent for a day and hold nothing."""
    held = _deliveries(alias).filter(worker=OuterRef("pk"))
    return Worker.objects.using(alias).filter(~Exists(held), heartbeat_at__lt=now - DEAD_WORKERS_KEPT)
