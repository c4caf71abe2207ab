"""What people do to schedules: make, change, pause and delete them, run them now, make up for times that were missed.

Everything goes through the client, so it holds for both engines; the rows that people see follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec
from django.utils.translation import gettext as _

from django_workflow.authoring.registry import registry
from django_workflow.client.client import get_client
from django_workflow.client.urls import workflow_url
from django_workflow.conf import get_settings
from django_workflow.control.start import start
from django_workflow.engine import scheduler
from django_workflow.engine.writing import write
from django_workflow.models import Run, Schedule
from django_workflow.protocol.bodies import raw
from django_workflow.protocol.cron import split_timezone, with_timezone
from django_workflow.protocol.identifiers import RUN_PREFIX
from django_workflow.protocol.schedules import CreateSchedule

if TYPE_CHECKING:
    from django_workflow.authoring.decorator import Workflow


@dataclass(frozen=True, slots=True)
class Started:
    """What a schedule made by hand: runs that are new, how many were there already, and messages."""

    run_ids: tuple[str, ...] = ()
    known: int = 0
    messages: int = 0


def workflow_of(schedule: Schedule) -> Workflow[Any, Any] | None:
    """The workflow of this site that a schedule starts; None when it publishes a message elsewhere."""
    if schedule.workflow:
        return registry.find(schedule.workflow)
    return next((one for one in registry.all() if workflow_url(one.name) == schedule.destination), None)


def make(
    schedule_id: str, workflow: str, cron: str, timezone: str, payload: bytes, *, enabled: bool = True
) -> Schedule:
    """Make a schedule that starts runs of a workflow. Raises EngineError, ValueError for a bad expression."""
    get_client().schedule(workflow, cron, payload, timezone=timezone, schedule_id=schedule_id)
    if not enabled:
        get_client().pause_schedule(schedule_id)
    return _row(schedule_id)


def change(
    schedule: Schedule,
    *,
    cron: str,
    timezone: str,
    payload: bytes | None,
    workflow: str | None = None,
    enabled: bool = True,
) -> Schedule:
    """Give a schedule other times, another payload (None: as it was) or another workflow; its message's other settings
    stay. Raises EngineError, also for one that code declares."""
    message = scheduler.stored_message(schedule)
    if payload is not None:
        message = msgspec.structs.replace(message, body=payload)
    if workflow is not None:
        message = msgspec.structs.replace(message, destination=workflow_url(workflow))
    fields, _named = split_timezone(cron)
    request = CreateSchedule(message=message, cron=with_timezone(fields, timezone), schedule_id=schedule.schedule_id)
    get_client().transport.send(request)
    if enabled == schedule.paused:
        (get_client().resume_schedule if enabled else get_client().pause_schedule)(schedule.schedule_id)
    return _row(schedule.schedule_id)


def switch(schedule: Schedule, *, paused: bool) -> None:
    """Pause or resume a schedule. Raises EngineError."""
    (get_client().pause_schedule if paused else get_client().resume_schedule)(schedule.schedule_id)


def delete(schedule: Schedule) -> None:
    """Raises EngineError, also for one that code declares."""
    get_client().delete_schedule(schedule.schedule_id)


def why_not_now(schedule: Schedule) -> str:
    """Why a schedule cannot be fired by hand; "" when it can."""
    if workflow_of(schedule) is not None:
        return ""
    if schedule.workflow:
        return _("The workflow is not in the code of this site.")
    if get_settings().is_hosted:
        return _("The hosted engine publishes its messages by the clock only.")
    return ""


def why_no_backfill(schedule: Schedule) -> str:
    """Why no times of a schedule can be made up for; "" when they can."""
    if workflow_of(schedule) is not None:
        return ""
    return why_not_now(schedule) or _("It publishes a message; only runs of workflows are made up for.")


def run_now(schedule: Schedule, *, by: Any, run_id: str) -> Started:
    """Fire a schedule at once, paused or not; its times stay. A run of that id that exists starts nothing."""
    workflow = workflow_of(schedule)
    if workflow is None:
        fired = write(get_settings().database, lambda unit: scheduler.run_now(unit, schedule.schedule_id))
        return Started(messages=len(fired.messages))
    return _start(workflow, schedule, [run_id], by)


def backfill(schedule: Schedule, occurrences: Sequence[datetime], *, by: Any) -> Started:
    """Start the runs of these times. Each has the id that the clock would have given it, so that none runs twice."""
    workflow = workflow_of(schedule)
    assert workflow is not None, why_no_backfill(schedule)
    return _start(workflow, schedule, [run_id_at(schedule, instant) for instant in occurrences], by)


def run_id_at(schedule: Schedule, occurrence: datetime) -> str:
    """The id of the run of a time: as `engine.scheduler` gives it."""
    return f"{RUN_PREFIX}{schedule.schedule_id}-{occurrence:%Y%m%dT%H%M%S}"


def _start(workflow: Workflow[Any, Any], schedule: Schedule, run_ids: Sequence[str], by: Any) -> Started:
    payload = workflow.decode_payload(raw(schedule.payload, schedule.payload_is_base64))
    handles = [
        start(workflow, payload, by=by, kind=Run.TriggerKind.SCHEDULE, workflow_run_id=run_id) for run_id in run_ids
    ]
    new = tuple(handle.id for handle in handles if not handle.deduplicated)
    return Started(run_ids=new, known=len(handles) - len(new))


def _row(schedule_id: str) -> Schedule:
    return Schedule.objects.using(get_settings().database).get(schedule_id=schedule_id)
