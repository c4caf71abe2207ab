"""Schedules: what is due by the clock. Kept as rows, fired once per occurrence, whoever made them.

Code declares schedules of workflows, which start runs; the HTTP API makes schedules of messages, which are published to
a URL, a URL group or a queue. Occurrences that were missed (no worker ran) are not made up for: the schedule fires once
and goes on from now.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

import msgspec
from django.db import InterfaceError, OperationalError, connections, transaction
from django.db.models import Q

from django_workflow.engine import limits, messages, queues
from django_workflow.engine.gate import engine_atomic
from django_workflow.engine.intake import known_run, start_run
from django_workflow.engine.records import encode_config, raw, stored
from django_workflow.engine.unit_of_work import UnitOfWork
from django_workflow.engine.url_groups import find_group
from django_workflow.errors import EngineError, MessageInvalid, QuotaExceeded
from django_workflow.models import Run, Schedule
from django_workflow.models.schedule import ScheduleQuerySet
from django_workflow.protocol import headers as h
from django_workflow.protocol.cron import next_occurrence, split_timezone
from django_workflow.protocol.identifiers import RUN_PREFIX, new_schedule_id
from django_workflow.protocol.publish import Message
from django_workflow.protocol.requests import Published

AT_ONCE = 100
"""How many schedules are fired in one transaction."""

_ID_RE = re.compile(r"[A-Za-z0-9._-]{1,255}", re.ASCII)

logger = logging.getLogger("django_workflow.engine")


@dataclass(frozen=True, slots=True)
class Declared:
    """A schedule that a workflow declares: its name, when, and the message that starts its run of a given id."""

    workflow: str
    cron: str
    timezone: str
    message: Callable[[str], Message]


@dataclass(frozen=True, slots=True)
class Fired:
    """What a schedule made: messages, one per endpoint of a URL group; or a run."""

    messages: tuple[Published, ...] = ()
    run: Run | None = None


_declarations: Callable[[], Iterable[Declared]] = tuple


def use_declarations(declarations: Callable[[], Iterable[Declared]]) -> None:
    """Tell the engine where schedules declared in code are found; done once, by the composition root."""
    global _declarations
    _declarations = declarations


def declared() -> dict[str, Declared]:
    """The schedules that this process's code declares, by workflow."""
    return {item.workflow: item for item in _declarations()}


def reconcile(alias: str, now: datetime) -> None:
    """Bring the rows of schedules declared in code up to date; what code no longer declares is removed."""
    wanted = declared()
    with engine_atomic(alias):
        rows = {row.schedule_id: row for row in Schedule.objects.using(alias).filter(in_code=True)}
        Schedule.objects.using(alias).filter(
            pk__in=[row.pk for name, row in rows.items() if name not in wanted]
        ).delete()
        taken = Schedule.objects.using(alias).filter(in_code=False, schedule_id__in=wanted)
        for name in taken.values_list("schedule_id", flat=True):
            logger.error(
                "The schedule of workflow %s does not run: its id is taken by a schedule of the API. Delete that one "
                "(DELETE /v2/schedules/%s) and restart the worker.",
                name,
                name,
            )
            del wanted[name]
        for name, item in wanted.items():
            row = rows.get(name)
            if row is not None and (row.cron, row.timezone) == (item.cron, item.timezone):
                continue
            try:
                following = next_occurrence(item.cron, now, item.timezone)
            except ValueError as error:
                logger.error("The schedule of workflow %s cannot be used: %s", name, error)
                continue
            values = {
                "workflow": name,
                "cron": item.cron,
                "timezone": item.timezone,
                "next_at": following,
                "error": "",
            }
            Schedule.objects.using(alias).update_or_create(
                schedule_id=name, defaults=values, create_defaults={**values, "created_at": now}
            )


# By the API


def create(
    unit: UnitOfWork, message: Message, cron: str, *, schedule_id: str | None = None, caller_ip: str = ""
) -> str:
    """Publish `message` whenever `cron` says. Gives the schedule's id, a new one unless `schedule_id` names it.

    Serves `POST /v2/schedules/…` and a publish with `Upstash-Cron` alike. A schedule of that id is overwritten, all but
    its pause and its history. Raises MessageInvalid for a bad id, expression or message, QuotaExceeded, EngineError
    (404 for a URL group that does not exist, 409 for the id of a schedule that code declares).
    """
    schedule_id = schedule_id or new_schedule_id()
    _check_id(schedule_id)
    _refuse_declared(unit.alias, schedule_id, "overwritten")
    cron = cron.strip()
    try:
        following = next_occurrence(cron, unit.now)
    except ValueError as error:
        raise MessageInvalid(f"{h.CRON}: {error}", name=h.CRON, value=cron[:512]) from error
    _check_message(unit, message)
    rows = Schedule.objects.using(unit.alias)
    if rows.count() >= limits.MOST_SCHEDULES and not rows.filter(schedule_id=schedule_id).exists():
        raise QuotaExceeded(f"There are {limits.MOST_SCHEDULES} schedules, which is the most; delete one first.")
    body, is_base64 = stored(message.body)
    values = {
        "workflow": "",
        "in_code": False,
        "destination": message.destination,
        "config": encode_config(msgspec.structs.replace(message, body=b"")),
        "cron": cron,
        "timezone": split_timezone(cron)[1] or "UTC",
        "payload": body,
        "payload_is_base64": is_base64,
        "next_at": following,
        "caller_ip": caller_ip,
        "error": "",
    }
    rows.update_or_create(schedule_id=schedule_id, defaults=values, create_defaults={**values, "created_at": unit.now})
    unit.after.wake = True
    return schedule_id


def _check_id(schedule_id: str) -> None:
    if not _ID_RE.fullmatch(schedule_id):
        raise MessageInvalid(
            f"{schedule_id[:255]!r} cannot be a schedule's id: use 1 to 255 letters, digits, hyphens, underscores and "
            "periods.",
            name=h.SCHEDULE_ID,
            value=schedule_id[:255],
        )


def _refuse_declared(alias: str, schedule_id: str, what: str) -> None:
    in_code = Schedule.objects.using(alias).filter(schedule_id=schedule_id, in_code=True)
    if schedule_id in declared() or in_code.exists():
        raise EngineError(
            f"Schedule {schedule_id!r} is declared in code, by the workflow of that name, and cannot be {what} here. "
            "Change its @workflow(schedule=…) and restart the workers, or pause it.",
            status=409,
        )


def _check_message(unit: UnitOfWork, message: Message) -> None:
    """Refuse now what could not be delivered later, when nobody is there to hear it."""
    if message.workflow is not None:
        raise MessageInvalid(
            f"A schedule starts a new run each time, so it takes no {h.WORKFLOW_RUN_ID}. Schedule the workflow's URL "
            "without it: its endpoint starts the runs.",
            name=h.WORKFLOW_RUN_ID,
            value=message.workflow.run_id,
        )
    if message.queue is not None:
        queues.check_name(message.queue)
    limits.check((message,))
    if messages.is_url(message.destination):
        messages.check(message, unit.now)
        return
    group = find_group(unit.alias, message.destination)
    for endpoint in group.endpoints:
        messages.check(group.configure(message, endpoint), unit.now)


def find(alias: str, schedule_id: str) -> Schedule:
    """Raises EngineError (404)."""
    return _found(Schedule.objects.using(alias).filter(schedule_id=schedule_id).first(), schedule_id)


def _found(row: Schedule | None, schedule_id: str) -> Schedule:
    if row is None:
        raise EngineError(f"There is no schedule {schedule_id[:255]!r}.", status=404)
    return row


def _locked(unit: UnitOfWork, schedule_id: str) -> Schedule:
    rows = Schedule.objects.using(unit.alias).filter(schedule_id=schedule_id)
    if connections[unit.alias].features.has_select_for_update:
        rows = rows.select_for_update()
    return _found(rows.first(), schedule_id)


def delete(unit: UnitOfWork, schedule_id: str) -> None:
    """Forget a schedule; messages that it has published go on. Raises EngineError (404, and 409 for one in code)."""
    _refuse_declared(unit.alias, schedule_id, "deleted")
    _locked(unit, schedule_id).delete()


def pause(unit: UnitOfWork, schedule_id: str) -> None:
    """Skip the occurrences of a schedule until it is resumed. Raises EngineError (404)."""
    row = _locked(unit, schedule_id)
    row.paused = True
    row.save(update_fields=["paused"])


def resume(unit: UnitOfWork, schedule_id: str) -> None:
    """Go on with a schedule's next occurrence from now; one that is not paused stays as it is. Raises EngineError."""
    row = _locked(unit, schedule_id)
    if row.paused:
        row.paused = False
        row.next_at, row.error = _following(row, unit.now)
        row.save(update_fields=["paused", "next_at", "error"])
        unit.after.wake = True


def run_now(unit: UnitOfWork, schedule_id: str) -> Fired:
    """Fire a schedule at once, paused or not; its occurrences stay as they are.

    Raises EngineError: 404, 409 when the workflow is not in this process's code; and what publishing raises.
    """
    row = _locked(unit, schedule_id)
    if row.in_code and row.workflow not in declared():
        raise EngineError(f"The code of this process declares no schedule of workflow {row.workflow!r}.", status=409)
    fired = _fire(unit, row, f"{RUN_PREFIX}{schedule_id}-{unit.now:%Y%m%dT%H%M%S%f}")
    row.error = ""
    row.save(update_fields=["last_at", "last_run_id", "error"])
    return fired


# By the clock


def any_due(alias: str, now: datetime) -> bool:
    """Whether there is a schedule to fire."""
    return _ours(alias).due(now).exists()


def next_fire(alias: str) -> datetime | None:
    rows = _ours(alias).filter(paused=False, next_at__isnull=False).order_by("next_at")
    return rows.values_list("next_at", flat=True).first()


def _ours(alias: str) -> ScheduleQuerySet:
    """Schedules that this process can fire. What newer or older code declares, its workers fire."""
    rows: ScheduleQuerySet = Schedule.objects.using(alias).filter(Q(in_code=False) | Q(workflow__in=list(declared())))
    return rows


def fire(unit: UnitOfWork) -> int:
    """Fire the schedules that are due, AT_ONCE of them at most. Returns how many made something.

    Who fires one holds its row locked and moves it to the next occurrence in the same transaction, so that each
    occurrence fires once, however many workers there are. One that fails says why in its row and stops no other.
    """
    due = _ours(unit.alias).due(unit.now).order_by("next_at")
    features = connections[unit.alias].features
    if features.has_select_for_update:
        due = due.select_for_update(skip_locked=features.has_select_for_update_skip_locked)
    return sum(_fire_due(unit, schedule) for schedule in due[:AT_ONCE])


def _fire_due(unit: UnitOfWork, schedule: Schedule) -> bool:
    occurrence = schedule.next_at
    assert occurrence is not None
    schedule.next_at, schedule.error = _following(schedule, unit.now)
    fired = Fired()
    try:
        with transaction.atomic(using=unit.alias):
            fired = _fire(unit, schedule, f"{RUN_PREFIX}{schedule.schedule_id}-{occurrence:%Y%m%dT%H%M%S}")
    except (OperationalError, InterfaceError):  # the database's, not the schedule's
        raise
    except Exception as error:
        unit.discard()
        schedule.last_at = unit.now
        schedule.error = f"{type(error).__name__}: {error}"
        logger.exception("Schedule %s could not be fired at %s.", schedule.schedule_id, occurrence)
    schedule.save(update_fields=["next_at", "last_at", "last_run_id", "error"])
    return fired != Fired()


def _fire(unit: UnitOfWork, schedule: Schedule, run_id: str) -> Fired:
    """Publish the schedule's message, or start the run of its workflow unless there is one of that id."""
    schedule.last_at = unit.now
    if not schedule.in_code:
        message = stored_message(schedule)
        answer = messages.publish(unit, message, schedule_id=schedule.schedule_id, caller_ip=schedule.caller_ip)
        unit.flush()
        return Fired(messages=answer if isinstance(answer, tuple) else (answer,))
    if known_run(unit, run_id) is not None:
        return Fired()
    run = start_run(
        unit,
        declared()[schedule.workflow].message(run_id),
        trigger_kind=Run.TriggerKind.SCHEDULE,
        payload=raw(schedule.payload, schedule.payload_is_base64),
    )
    unit.flush()
    schedule.last_run_id = run_id
    return Fired(run=run)


def _following(schedule: Schedule, now: datetime) -> tuple[datetime | None, str]:
    """The next occurrence; None, and why, for an expression that has none, so that one schedule stops no other."""
    try:
        return next_occurrence(schedule.cron, now, schedule.timezone), ""
    except ValueError as error:
        logger.error("Schedule %s fires no more: %s", schedule.schedule_id, error)
        return None, f"It fires no more: {error}"


_message_decoder = msgspec.json.Decoder(Message)


def stored_message(schedule: Schedule) -> Message:
    """The message that a schedule of the API publishes."""
    message = _message_decoder.decode(schedule.config)
    return msgspec.structs.replace(message, body=raw(schedule.payload, schedule.payload_is_base64))
