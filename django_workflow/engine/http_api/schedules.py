"""Schedules: made, looked at, paused, fired at once.

A schedule that code declares is shown like one made here and can be paused and fired; only code changes or removes it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import datetime
from functools import reduce
from operator import or_

import msgspec
from django.db.models import Q

from django_workflow.conf import get_settings
from django_workflow.engine import scheduler
from django_workflow.engine.http_api.request import MESSAGE_HEADERS, ApiRequest, Route
from django_workflow.engine.records import milliseconds, raw, stored
from django_workflow.engine.redaction import hides_body, redact_headers, redacted
from django_workflow.engine.writing import write
from django_workflow.errors import MessageInvalid
from django_workflow.models import MessageLog, Run, Schedule
from django_workflow.protocol import headers as h
from django_workflow.protocol.cron import with_timezone
from django_workflow.protocol.identifiers import message_id_of
from django_workflow.protocol.publish import CallbackConfig, Message, callback_message, decode_message
from django_workflow.protocol.schedules import HeaderLists, ScheduleInfo
from django_workflow.protocol.wire import split_destination


class Created(msgspec.Struct, frozen=True, rename="camel"):
    schedule_id: str


class Fired(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What a schedule made: a message, or one per endpoint of its URL group; or a run of the workflow in code."""

    message_ids: tuple[str, ...]
    workflow_run_id: str | None = None


def create(request: ApiRequest, destination: str) -> Created:
    """Publish a message by the clock: to a URL, a URL group, or (`Upstash-Queue-Name`) through a queue."""
    target, config = split_destination(destination)
    said = {**dict(config), **{name.lower(): value for name, value in request.headers.items()}}
    cron = said.get(h.CRON.lower(), "")
    if not cron.strip():
        raise MessageInvalid(f"A schedule needs {h.CRON}, a cron expression such as `0 9 * * *`.", name=h.CRON)
    queue = said.get(h.QUEUE_NAME.lower(), "").strip() or None
    schedule_id = said.get(h.SCHEDULE_ID.lower(), "").strip() or None
    message = decode_message(target, request.headers, request.body, config, queue)
    return Created(
        write(
            get_settings().database,
            lambda unit: scheduler.create(unit, message, cron, schedule_id=schedule_id, caller_ip=request.caller_ip),
        )
    )


def listing(request: ApiRequest) -> list[ScheduleInfo]:
    return infos(list(Schedule.objects.using(get_settings().database).order_by("schedule_id")))


def get(request: ApiRequest, schedule_id: str) -> ScheduleInfo:
    return infos([scheduler.find(get_settings().database, schedule_id)])[0]


def delete(request: ApiRequest, schedule_id: str) -> dict[str, str]:
    write(get_settings().database, lambda unit: scheduler.delete(unit, schedule_id))
    return {}


def pause(request: ApiRequest, schedule_id: str) -> dict[str, str]:
    write(get_settings().database, lambda unit: scheduler.pause(unit, schedule_id))
    return {}


def resume(request: ApiRequest, schedule_id: str) -> dict[str, str]:
    write(get_settings().database, lambda unit: scheduler.resume(unit, schedule_id))
    return {}


def run_now(request: ApiRequest, schedule_id: str) -> Fired:
    """Not a call of the hosted engine."""
    fired = write(get_settings().database, lambda unit: scheduler.run_now(unit, schedule_id))
    if fired.run is not None:
        return Fired((message_id_of(fired.run.pk),), fired.run.run_id)
    return Fired(tuple(message.message_id for message in fired.messages))


# What is shown


def infos(found: Iterable[Schedule]) -> list[ScheduleInfo]:
    """Schedules as they are told."""
    rows, declared = list(found), scheduler.declared()
    states = _last_states(rows)
    return [_info(row, declared.get(row.workflow) if row.in_code else None, states[row.schedule_id]) for row in rows]


def _info(row: Schedule, declared: scheduler.Declared | None, states: dict[str, str]) -> ScheduleInfo:
    message = _message(row, declared)
    control = message.flow_control
    body, body_base64 = _body(message)
    content_type = {"Content-Type": message.content_type} if message.content_type else {}
    return ScheduleInfo(
        schedule_id=row.schedule_id,
        cron=with_timezone(row.cron, row.timezone) if row.in_code else row.cron,
        created_at=milliseconds(row.created_at),
        destination=message.destination,
        method=message.method,
        header=redact_headers(h.header_lists({**content_type, **message.headers}), message.redact),
        body=body,
        body_base64=body_base64,
        retries=get_settings().retries if message.retries is None else message.retries,
        delay=_whole(message.delay),
        timeout=_whole(message.timeout),
        callback=message.callback.url if message.callback else None,
        callback_header=_callback_headers(message.callback),
        failure_callback=message.failure_callback.url if message.failure_callback else None,
        failure_callback_header=_callback_headers(message.failure_callback),
        caller_ip=row.caller_ip or None,
        is_paused=row.paused,
        queue_name=message.queue,
        flow_control_key=control.key if control else None,
        parallelism=control.parallelism if control else None,
        rate=control.rate if control else None,
        period=control.period if control else None,
        retry_delay_expression=message.retry_delay,
        label=message.labels[0] if message.labels else None,
        labels=message.labels,
        last_schedule_time=_instant(row.last_at),
        next_schedule_time=None if row.paused else _instant(row.next_at),
        last_schedule_states=states,
        error=row.error or None,
        in_code=row.in_code,
    )


def _message(row: Schedule, declared: scheduler.Declared | None) -> Message:
    """What the schedule sends. For one in code the message that starts its runs, if this process's code declares it."""
    if not row.in_code:
        return scheduler.stored_message(row)
    message = declared.message("") if declared is not None else Message(destination=row.workflow)
    return msgspec.structs.replace(message, body=raw(row.payload, row.payload_is_base64))


def _body(message: Message) -> tuple[str | None, str | None]:
    """As text, or in base64 when it is none; redacted if the publisher asked for it."""
    if message.body and hides_body(message.redact):
        return redacted(message.body), None
    body, is_base64 = stored(message.body)
    return (None, body) if is_base64 else (body or None, None)


def _callback_headers(config: CallbackConfig | None) -> HeaderLists:
    """Headers that the callback's own destination gets."""
    if config is None:
        return {}
    return h.header_lists(callback_message(config, b"", destination="-").headers)


def _whole(seconds: float | None) -> int | None:
    return None if seconds is None else math.ceil(seconds)


def _instant(at: datetime | None) -> int | None:
    return None if at is None else milliseconds(at)


_STATES: dict[str, str] = {
    MessageLog.State.DELIVERED: "SUCCESS",
    MessageLog.State.FAILED: "FAIL",
    MessageLog.State.CANCELED: "FAIL",
    Run.Status.SUCCESS: "SUCCESS",
    Run.Status.FAILED: "FAIL",
    Run.Status.CANCELED: "FAIL",
}
_AT_ONCE = 100


def _last_states(rows: list[Schedule]) -> dict[str, dict[str, str]]:
    """By schedule: what became of the messages, or of the run, that it made when it was last fired."""
    alias = get_settings().database
    states: dict[str, dict[str, str]] = {row.schedule_id: {} for row in rows}
    fired = [row for row in rows if row.last_at is not None and not row.in_code]
    for start in range(0, len(fired), _AT_ONCE):
        some = fired[start : start + _AT_ONCE]
        last = reduce(or_, (Q(schedule_id=row.schedule_id, created_at=row.last_at) for row in some))
        logs = MessageLog.objects.using(alias).filter(last, kind=MessageLog.Kind.MESSAGE)
        for schedule_id, key, state in logs.values_list("schedule_id", "pk", "state"):
            states[schedule_id][message_id_of(key)] = _STATES.get(state, "IN_PROGRESS")
    by_run = {row.last_run_id: row.schedule_id for row in rows if row.in_code and row.last_run_id}
    runs = Run.objects.using(alias).filter(run_id__in=by_run)
    for run_id, key, status in runs.values_list("run_id", "pk", "status"):
        states[by_run[run_id]][message_id_of(key)] = _STATES.get(status, "IN_PROGRESS")
    return states


ROUTES: tuple[Route, ...] = (
    Route("GET", "/v2/schedules", listing, "The schedules.", answer=list[ScheduleInfo]),
    Route("PATCH POST PUT", "/v2/schedules/{schedule_id}/pause", pause, "Skip a schedule's occurrences."),
    Route("PATCH POST PUT", "/v2/schedules/{schedule_id}/resume", resume, "Go on with a schedule's next occurrence."),
    Route(
        "POST",
        "/v2/schedules/{schedule_id}/run",
        run_now,
        "Fire a schedule at once; not a call of the hosted engine.",
        answer=Fired,
    ),
    Route("GET", "/v2/schedules/{schedule_id}", get, "One schedule.", answer=ScheduleInfo),
    Route("DELETE", "/v2/schedules/{schedule_id}", delete, "Delete a schedule."),
    Route(
        "POST",
        "/v2/schedules/{destination...}",
        create,
        "Publish a message by the clock; a schedule of the same id is overwritten.",
        headers=(h.CRON, h.SCHEDULE_ID, h.QUEUE_NAME, *MESSAGE_HEADERS),
        answer=Created,
    ),
)
