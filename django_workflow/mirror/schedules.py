"""Schedules that workflows declare in code, kept by the hosted engine.

Done when a worker starts, and by `workflow_sync`. Ids begin with a prefix that is this site's alone: others may use the
same account, and so may people who make schedules by hand.
"""

from __future__ import annotations

import hashlib
import logging
import re

import msgspec

from django_workflow.authoring.decorator import Workflow
from django_workflow.authoring.registry import registry
from django_workflow.client.transports import Transport
from django_workflow.client.urls import workflow_url
from django_workflow.conf import get_settings
from django_workflow.errors import EngineError
from django_workflow.mirror.run_rows import from_ms
from django_workflow.mirror.surroundings import surroundings
from django_workflow.models import Schedule
from django_workflow.protocol.bodies import stored
from django_workflow.protocol.cron import check_cron, next_occurrence, split_timezone, with_timezone
from django_workflow.protocol.publish import Message
from django_workflow.protocol.schedules import CreateSchedule, DeleteSchedule, ListSchedules, ScheduleInfo

logger = logging.getLogger("django_workflow.mirror")

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")


def reconcile(transport: Transport) -> tuple[int, int]:
    """Make the schedules that code declares and delete those that it no longer does; gives how many of each.

    Raises EngineError. What somebody has paused stays paused while its declaration stays the same.
    """
    wanted = {schedule_id(workflow.name): workflow for workflow in registry.all() if _is_usable(workflow)}
    prefix = site_prefix()
    found = {info.schedule_id: info for info in transport.send(ListSchedules()) if info.schedule_id.startswith(prefix)}
    made = removed = 0
    for name, workflow in wanted.items():
        request = _request(name, workflow)
        if name in found and _is_same(found[name], request):
            continue
        transport.send(request)
        made += 1
    for name in found.keys() - wanted.keys():
        _delete(transport, name)
        removed += 1
    if made or removed:
        logger.info("%d schedules were made at the engine, %d deleted.", made, removed)
        found = {info.schedule_id: info for info in transport.send(ListSchedules())}
    _show(wanted, found)
    return made, removed


def site_prefix() -> str:
    """What the ids of this site's schedules begin with; another one for each address."""
    digest = hashlib.sha256(workflow_url("-").encode()).hexdigest()[:10]
    return f"django-workflow-{digest}-"


def schedule_id(workflow: str) -> str:
    """The id of a workflow's schedule at the engine. Names that cannot stand in one are told apart by their hash."""
    safe = _UNSAFE.sub("-", workflow)
    if safe != workflow:
        safe += "-" + hashlib.sha256(workflow.encode()).hexdigest()[:8]
    return (site_prefix() + safe)[:255]


def _is_usable(workflow: Workflow[object, object]) -> bool:
    if not workflow.schedule:
        return False
    try:
        check_cron(workflow.schedule, workflow.timezone)
    except ValueError as error:
        logger.error("The schedule of workflow %s cannot be used: %s", workflow.name, error)
        return False
    return True


def _request(name: str, workflow: Workflow[object, object]) -> CreateSchedule:
    # An ordinary message: the endpoint makes a run of it, with the options that the workflow declares.
    message = Message(destination=workflow_url(workflow.name), content_type="application/json")
    return CreateSchedule(
        message=message, cron=with_timezone(workflow.schedule or "", workflow.timezone), schedule_id=name
    )


def _is_same(info: ScheduleInfo, request: CreateSchedule) -> bool:
    return (info.cron.split(), info.destination) == (request.cron.split(), request.message.destination)


def _delete(transport: Transport, name: str) -> None:
    try:
        transport.send(DeleteSchedule(schedule_id=name))
    except EngineError as error:
        if error.status != 404:  # another process was faster
            raise


def _show(wanted: dict[str, Workflow[object, object]], found: dict[str, ScheduleInfo]) -> None:
    """The rows that people see."""
    alias, now = get_settings().database, surroundings().now()
    with surroundings().atomic(alias):
        table = Schedule.objects.using(alias)
        table.filter(in_code=True).exclude(schedule_id__in=wanted).delete()
        for name, workflow in wanted.items():
            info = found.get(name)
            following = from_ms(info.next_schedule_time) if info else None
            values = {
                "workflow": workflow.name,
                "destination": workflow_url(workflow.name),
                "cron": workflow.schedule,
                "timezone": workflow.timezone,
                "paused": info.is_paused if info else False,
                "next_at": following or next_occurrence(workflow.schedule or "", now, workflow.timezone),
                "error": (info.error if info else None) or "",
            }
            if info and info.last_schedule_time:
                values["last_at"] = from_ms(info.last_schedule_time)
            created = (from_ms(info.created_at) if info else None) or now
            table.update_or_create(schedule_id=name, defaults=values, create_defaults={**values, "created_at": created})


def note_run(name: str, run_id: str) -> None:
    """A schedule has started a run."""
    now = surroundings().now()
    Schedule.objects.using(get_settings().database).filter(schedule_id=name).update(last_at=now, last_run_id=run_id)


def note_made(request: CreateSchedule, name: str) -> None:
    """Somebody has made a schedule at the engine, or changed it: show it. Those that code declares show themselves."""
    if name.startswith(site_prefix()):
        return
    now, message = surroundings().now(), request.message
    body, is_base64 = stored(message.body)
    values = {
        "workflow": "",
        "in_code": False,
        "destination": message.destination,
        "config": msgspec.json.encode(msgspec.structs.replace(message, body=b"")).decode(),
        "cron": request.cron,
        "timezone": split_timezone(request.cron)[1] or "UTC",
        "payload": body,
        "payload_is_base64": is_base64,
        "next_at": next_occurrence(request.cron, now),
        "error": "",
    }
    table = Schedule.objects.using(get_settings().database)
    table.update_or_create(schedule_id=name, defaults=values, create_defaults={**values, "created_at": now})


def note_deleted(name: str) -> None:
    Schedule.objects.using(get_settings().database).filter(schedule_id=name, in_code=False).delete()


def note_paused(name: str, paused: bool) -> None:
    Schedule.objects.using(get_settings().database).filter(schedule_id=name).update(paused=paused)
