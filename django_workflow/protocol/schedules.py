"""Schedules of an engine: messages that it publishes by the clock. What is asked of them, and what it tells.

A schedule whose destination is a workflow starts a run each time: the endpoint makes one of the message that comes.
Source: engine protocol, "Schedules".
"""

from __future__ import annotations

import msgspec

from django_workflow.protocol.publish import Message
from django_workflow.protocol.requests import EngineRequest

HeaderLists = dict[str, list[str]]


class ScheduleInfo(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A schedule and its message. Instants are Unix milliseconds; `delay`, `timeout` and `period` are seconds.

    `last_schedule_states` are those of the messages that it made when it was last due. `in_code`, of the embedded
    engine: a workflow declares it, and its destination is that workflow.
    """

    schedule_id: str
    cron: str
    created_at: int
    destination: str
    method: str
    header: HeaderLists = {}
    body: str | None = None
    body_base64: str | None = msgspec.field(default=None, name="bodyBase64")
    retries: int
    delay: int | None = None
    timeout: int | None = None
    callback: str | None = None
    callback_header: HeaderLists = {}
    failure_callback: str | None = None
    failure_callback_header: HeaderLists = {}
    caller_ip: str | None = msgspec.field(default=None, name="callerIP")
    is_paused: bool = msgspec.field(default_factory=bool)
    queue_name: str | None = None
    flow_control_key: str | None = None
    parallelism: int | None = None
    rate: int | None = None
    period: int | None = None
    retry_delay_expression: str | None = None
    label: str | None = None
    labels: tuple[str, ...] = ()
    last_schedule_time: int | None = None
    next_schedule_time: int | None = None
    last_schedule_states: dict[str, str] = {}
    error: str | None = None
    in_code: bool = False


class CreateSchedule(EngineRequest[str], frozen=True, kw_only=True):
    """`POST /v2/schedules/<destination>`: the schedule's id. One of the same id is overwritten completely.

    `cron` has five fields, in UTC unless it begins with `CRON_TZ=<zone> `.
    """

    message: Message
    cron: str
    schedule_id: str | None = None


class ListSchedules(EngineRequest[tuple[ScheduleInfo, ...]], frozen=True, kw_only=True):
    """`GET /v2/schedules`: all of them."""


class FetchSchedule(EngineRequest[ScheduleInfo], frozen=True, kw_only=True):
    """`GET /v2/schedules/<id>`."""

    schedule_id: str


class DeleteSchedule(EngineRequest[None], frozen=True, kw_only=True):
    """`DELETE /v2/schedules/<id>`."""

    schedule_id: str


class PauseSchedule(EngineRequest[None], frozen=True, kw_only=True):
    """`PATCH /v2/schedules/<id>/pause`: its occurrences are skipped."""

    schedule_id: str


class ResumeSchedule(EngineRequest[None], frozen=True, kw_only=True):
    """`PATCH /v2/schedules/<id>/resume`: it goes on with its next occurrence."""

    schedule_id: str
