"""The outbox: messages to the hosted engine that belong to a transaction of this database.

Written with the business rows, sent after their commit: by the process that wrote them, and if that fails or dies by a
worker, `workflow_sync`, or whoever calls `send_due`. Nobody sends a batch without moving its `due_at` on first, so two
processes do not send it at once; and should one die between sending and saying so, the run's id and the message's
deduplication id keep the engine from starting a second run.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

import msgspec
from django.db import IntegrityError, connections, transaction
from django.db.models import F

from django_workflow.client.client import Client
from django_workflow.client.session import current_region
from django_workflow.client.transports import Transport
from django_workflow.conf import get_settings
from django_workflow.errors import EngineError, RunEnded, WorkflowError
from django_workflow.mirror.change import changing
from django_workflow.mirror.run_rows import run_of_message
from django_workflow.mirror.surroundings import surroundings
from django_workflow.models import Outbox, Run
from django_workflow.models.objects import columns_of
from django_workflow.protocol.identifiers import message_id_of, uuid7
from django_workflow.protocol.publish import Message
from django_workflow.protocol.requests import CancelRuns, Published

logger = logging.getLogger("django_workflow.mirror")

HANDOVER = timedelta(seconds=15)
"""For how long a new row is its writer's to send."""

LEASE = timedelta(minutes=2)
"""How long sending may take before another process may try."""

FIRST_BACKOFF, LONGEST_BACKOFF = timedelta(seconds=2), timedelta(minutes=5)
KEPT_WHEN_SENT = timedelta(days=1)

# What the site's setup or the moment is to blame for, not the message: it is sent again when that has changed.
_NOT_THE_MESSAGE = frozenset({401, 403, 404, 405, 407, 408, 409, 421, 425, 429})

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Message).decode


class Kept(NamedTuple):
    """A batch that its writer has to send: until it is due nobody else does."""

    batch: UUID
    due_at: datetime


def keep_triggers(messages: Sequence[Message]) -> tuple[tuple[Published, ...], Kept | None]:
    """Write messages that start runs, and the rows of those runs, in the caller's transaction.

    Gives the answers in their order, and what to send (None: all of these runs exist already).
    """
    alias = get_settings().database
    with surroundings().atomic(alias):
        for last_try in (False, True):
            try:
                with transaction.atomic(using=alias):
                    return _keep(alias, messages, locked=last_try)
            except IntegrityError:  # another process started one of these runs between the look and the insert
                if last_try:
                    raise
    raise AssertionError("the loop returns or raises")


def _keep(alias: str, messages: Sequence[Message], *, locked: bool) -> tuple[tuple[Published, ...], Kept | None]:
    now, batch = surroundings().now(), uuid7()
    _forget_given_up(alias, messages)
    known = _known_runs(alias, messages, locked=locked)
    runs: dict[str, Run] = {}
    rows, answers = [], []
    for message in messages:
        fields = message.workflow
        assert fields is not None
        existing = known.get(fields.run_id) or runs.get(fields.run_id)
        if existing is not None:
            answers.append(_answer(existing, deduplicated=True))
            continue
        run = runs[fields.run_id] = run_of_message(message, now, kind=Run.TriggerKind.CODE)
        for name, value in columns_of(message.attributes, alias).items():
            setattr(run, name, value)
        rows.append(_row(Outbox.Kind.TRIGGER, batch, fields.run_id, message, now))
        answers.append(_answer(run, deduplicated=False))
    Run.objects.using(alias).bulk_create(runs.values())
    Outbox.objects.using(alias).bulk_create(rows)
    return tuple(answers), Kept(batch, now + HANDOVER) if rows else None


def _row(kind: str, batch: UUID, run_id: str, message: Message, now: datetime) -> Outbox:
    row = Outbox(kind=kind, batch=batch, run_id=run_id, created_at=now, due_at=now + HANDOVER)
    if kind == Outbox.Kind.TRIGGER:
        # A run's id is free again when the run is over; this row's own is not.
        message = msgspec.structs.replace(message, deduplication_id=message.deduplication_id or f"outbox-{row.pk}")
    row.message = _encode(message).decode()
    return row


def _known_runs(alias: str, messages: Iterable[Message], *, locked: bool) -> dict[str, Run]:
    runs = Run.objects.using(alias).filter(run_id__in=_run_ids(messages))
    if locked and connections[alias].features.has_select_for_update:
        runs = runs.select_for_update()  # reads what was committed since this transaction began
    return {run.run_id: run for run in runs.only("pk", "run_id", "created_at")}


def _forget_given_up(alias: str, messages: Iterable[Message]) -> None:
    """A run that never reached the engine stands in nobody's way."""
    rows = Outbox.objects.using(alias).filter(
        run_id__in=_run_ids(messages), kind=Outbox.Kind.TRIGGER, sent_at=None, given_up_at__isnull=False
    )
    given_up = dict(rows.values_list("run_id", "pk"))
    if given_up:
        Run.objects.using(alias).filter(run_id__in=given_up, started_at=None).delete()
        Outbox.objects.using(alias).filter(pk__in=given_up.values()).delete()


def _run_ids(messages: Iterable[Message]) -> list[str]:
    return [message.workflow.run_id for message in messages if message.workflow is not None]


def _answer(run: Run, *, deduplicated: bool) -> Published:
    return Published(
        message_id=message_id_of(run.pk),
        deduplicated=deduplicated,
        workflow_run_id=run.run_id,
        workflow_created_at=int(run.created_at.timestamp() * 1000),
    )


# Sending


def send_due(transport: Transport, *, limit: int = 100, now: datetime | None = None) -> int:
    """Send what is due, oldest first; gives how many messages were taken. `limit` bounds the batches."""
    alias = get_settings().database
    now = now or surroundings().now()
    due = Outbox.objects.using(alias).due(now).order_by("created_at", "pk")
    batches = list(dict.fromkeys(due.values_list("batch", flat=True)[: limit * 10]))[:limit]
    sent = 0
    for batch in batches:
        rows = claim(batch, until=now)
        if rows:
            try:
                sent += send(transport, rows)
            except WorkflowError:
                logger.debug("Batch %s of the outbox was not taken.", batch, exc_info=True)
    return sent


def claim(batch: UUID, *, until: datetime | None = None, kept: datetime | None = None) -> list[Outbox]:
    """Take a batch to send it: its rows that are still to be sent. Empty when somebody else has taken it.

    `until`: it must be due by then. `kept`: it must be due at that very instant, as its writer left it.
    """
    alias = get_settings().database
    rows = Outbox.objects.using(alias).filter(batch=batch, due_at__isnull=False)
    due = rows.values_list("due_at", flat=True).first()
    if due is None or (until is not None and due > until) or (kept is not None and due != kept):
        return []
    leased = max(surroundings().now() + LEASE, due + timedelta(microseconds=1))  # another instant than before
    if not rows.filter(due_at=due).update(due_at=leased, attempts=F("attempts") + 1):
        return []
    return list(rows.filter(due_at=leased).order_by("pk"))


def send(transport: Transport, rows: Sequence[Outbox]) -> int:
    """Send claimed rows by one request; gives how many were taken.

    Raises the WorkflowError of a refusal or a silence, after it was noted on the rows.
    """
    now = surroundings().now()
    # A trigger belongs to the default region, a receipt to that of its delivery.
    token = current_region.set(rows[0].region or None)
    try:
        answers = Client(transport).batch([_message(row, now) for row in rows])
    except WorkflowError as error:
        _not_taken(rows, error)
        raise
    finally:
        current_region.reset(token)
    _taken(transport, rows, answers)
    return len(rows)


def _message(row: Outbox, now: datetime) -> Message:
    """What is sent: a delay counts from the trigger, however late the message goes out."""
    message = _decode(row.message)
    if not message.delay:
        return message
    left = message.delay - (now - row.created_at).total_seconds()
    return msgspec.structs.replace(message, delay=left if left > 0 else None)


def _taken(transport: Transport, rows: Sequence[Outbox], answers: Sequence[Published]) -> None:
    alias, now = get_settings().database, surroundings().now()
    keys = [row.pk for row in rows]
    table = Outbox.objects.using(alias).filter(pk__in=keys)
    _cancel_withdrawn(transport, rows)
    with surroundings().atomic(alias):
        table.update(sent_at=now, due_at=None, error="")
        known = [row.run_id for row, answer in zip(rows, answers, strict=True) if answer.deduplicated]
        runs = Run.objects.using(alias).active().filter(run_id__in=[row.run_id for row in rows])
        runs.filter(status__in=_WAITING_TO_START).exclude(why="").update(why="")
        if known:  # it may have gone on, or ended, without this site
            runs.filter(run_id__in=known).update(check_at=now)


def _cancel_withdrawn(transport: Transport, rows: Sequence[Outbox]) -> None:
    """Cancel the runs that were taken back while their triggers were on their way.

    When the engine is away now the rows are due again, and all of it is repeated.
    """
    table = Outbox.objects.using(get_settings().database).filter(pk__in=[row.pk for row in rows])
    withdrawn = list(table.filter(given_up_at__isnull=False).values_list("run_id", flat=True))
    if not withdrawn:
        return
    try:
        transport.send(CancelRuns(run_ids=tuple(withdrawn)))
    except WorkflowError:
        table.update(due_at=surroundings().now() + backoff(rows[0].attempts))
        raise


def _not_taken(rows: Sequence[Outbox], error: WorkflowError) -> None:
    alias, now = get_settings().database, surroundings().now()
    status = error.status if isinstance(error, EngineError) else 0
    keys = [row.pk for row in rows]
    table = Outbox.objects.using(alias).filter(pk__in=keys, due_at__isnull=False)
    if is_permanent(error):
        with surroundings().atomic(alias):
            table.update(given_up_at=now, due_at=None, error=str(error))
        logger.error("The engine refused %s for good: %s", _told(rows), error)
        for row in rows:
            if row.kind == Outbox.Kind.TRIGGER:
                _fail_run(row.run_id, str(error))
        return
    again = now + backoff(rows[0].attempts)
    table.update(due_at=again, error=str(error))
    level = logging.ERROR if status in (401, 403, 404) else logging.WARNING
    logger.log(level, "The engine did not take %s; tried again at %s: %s", _told(rows), again, error)
    why = f"Not sent to the engine yet; tried again at {again:%H:%M:%S} UTC: {str(error)[:300]}"
    runs = Run.objects.using(alias).filter(run_id__in=[row.run_id for row in rows], status__in=_WAITING_TO_START)
    runs.update(why=why)


def is_permanent(error: WorkflowError) -> bool:
    """Whether sending the same again cannot help."""
    if not isinstance(error, EngineError):
        return True  # it cannot even be written to the wire
    if isinstance(error, RunEnded):
        return True
    return 400 <= error.status < 500 and error.status not in _NOT_THE_MESSAGE


def backoff(attempts: int) -> timedelta:
    """How long to wait after so many attempts: twice as long each time, up to five minutes."""
    doublings = min(max(attempts - 1, 0), 10)
    return min(timedelta(seconds=FIRST_BACKOFF.total_seconds() * 2**doublings), LONGEST_BACKOFF)


def _fail_run(run_id: str, error: str) -> None:
    with changing(run_id) as change:
        if change is not None and change.run.started_at is None:
            change.finish(Run.Status.FAILED, error=f"It never reached the engine: {error}")


def _told(rows: Sequence[Outbox]) -> str:
    first = f"the {rows[0].get_kind_display().lower()} {rows[0].run_id}"
    return first if len(rows) == 1 else f"{first} and {len(rows) - 1} more of its batch"


_WAITING_TO_START = (Run.Status.SCHEDULED, Run.Status.QUEUED)


# Taking back


def withdraw(run_ids: Iterable[str]) -> list[str]:
    """Take triggers back that the engine has not got; gives the runs that are canceled by that.

    One that is being sent just now is canceled by its sender.
    """
    alias, now = get_settings().database, surroundings().now()
    rows = Outbox.objects.using(alias).filter(
        run_id__in=list(run_ids), kind=Outbox.Kind.TRIGGER, sent_at=None, given_up_at=None
    )
    with surroundings().atomic(alias):
        found = list(rows.values_list("run_id", flat=True))
        rows.update(given_up_at=now, due_at=None, error="Canceled before it was sent.")
        canceled = []
        for run_id in found:
            with changing(run_id) as change:
                if change is not None and change.finish(Run.Status.CANCELED):
                    canceled.append(run_id)
    return canceled


def unsent_run_ids() -> list[str]:
    """Runs whose trigger the engine has not got."""
    rows = Outbox.objects.using(get_settings().database).filter(
        kind=Outbox.Kind.TRIGGER, sent_at=None, given_up_at=None
    )
    return list(rows.values_list("run_id", flat=True))


def prune(now: datetime, *, limit: int = 1000) -> int:
    """Delete rows that nobody needs any more; gives how many.

    Triggers a day after they were sent; receipts when their run is over, for until then a delivery may ask for them;
    what was given up as long as runs are kept.
    """
    alias = get_settings().database
    table = Outbox.objects.using(alias).filter(due_at=None)
    living = Run.objects.using(alias).active().values("run_id")
    old = table.filter(sent_at__lt=now - KEPT_WHEN_SENT).exclude(kind=Outbox.Kind.RECEIPT, run_id__in=living)
    given_up = table.filter(sent_at=None, given_up_at__lt=now - get_settings().retention)
    keys = [*old.values_list("pk", flat=True)[:limit], *given_up.values_list("pk", flat=True)[:limit]]
    for start in range(0, len(keys), 200):
        Outbox.objects.using(alias).filter(pk__in=keys[start : start + 200]).delete()
    return len(keys)
