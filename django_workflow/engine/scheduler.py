"""Schedules: which runs are due by the clock. Declared in code, kept as rows, fired once per occurrence.

Occurrences that were missed (no worker ran) are not made up for: the schedule fires once and goes on from now.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from django.db import connections

from django_workflow.engine.gate import engine_atomic
from django_workflow.engine.intake import known_run, start_run
from django_workflow.engine.unit_of_work import UnitOfWork
from django_workflow.models import Run, Schedule
from django_workflow.protocol.cron import next_occurrence
from django_workflow.protocol.publish import Message

logger = logging.getLogger("django_workflow.engine")


@dataclass(frozen=True, slots=True)
class Declared:
    """A schedule that a workflow declares: its name, when, and the message that starts its run of a given id."""

    workflow: str
    cron: str
    timezone: str
    message: Callable[[str], Message]


_declarations: Callable[[], Iterable[Declared]] = tuple


def use_declarations(declarations: Callable[[], Iterable[Declared]]) -> None:
    """Tell the engine where schedules declared in code are found; done once, by the composition root."""
    global _declarations
    _declarations = declarations


def reconcile(alias: str, now: datetime) -> None:
    """Bring the rows of schedules declared in code up to date; what code no longer declares is removed."""
    wanted = {item.workflow: item for item in _declarations()}
    with engine_atomic(alias):
        rows = {row.schedule_id: row for row in Schedule.objects.using(alias).filter(in_code=True)}
        Schedule.objects.using(alias).filter(
            pk__in=[row.pk for name, row in rows.items() if name not in wanted]
        ).delete()
        for name, item in wanted.items():
            row = rows.get(name)
            if row is not None and (row.cron, row.timezone) == (item.cron, item.timezone):
                continue
            try:
                following = next_occurrence(item.cron, now, item.timezone)
            except ValueError as error:
                logger.error("The schedule of workflow %s cannot be used: %s", name, error)
                continue
            Schedule.objects.using(alias).update_or_create(
                schedule_id=name,
                defaults={"workflow": name, "cron": item.cron, "timezone": item.timezone, "next_at": following},
                create_defaults={
                    "workflow": name,
                    "cron": item.cron,
                    "timezone": item.timezone,
                    "next_at": following,
                    "created_at": now,
                },
            )


def fire(unit: UnitOfWork) -> int:
    """Start the runs of all schedules that are due. Returns how many.

    The run id names schedule and occurrence, so two workers that fire the same one start one run.
    """
    due = Schedule.objects.using(unit.alias).due(unit.now).order_by("next_at")
    if connections[unit.alias].features.has_select_for_update:
        due = due.select_for_update(skip_locked=connections[unit.alias].features.has_select_for_update_skip_locked)
    declared = {item.workflow: item for item in _declarations()}
    fired = 0
    for schedule in due:
        occurrence = schedule.next_at
        assert occurrence is not None
        item = declared.get(schedule.workflow)
        if item is None:  # newer or older code declares it; its worker fires it
            continue
        run_id = f"wfr_{schedule.schedule_id}-{occurrence:%Y%m%dT%H%M%S}"
        schedule.next_at = _next(schedule, unit.now)
        schedule.last_at = unit.now
        if known_run(unit, run_id) is None:
            start_run(
                unit, item.message(run_id), trigger_kind=Run.TriggerKind.SCHEDULE, payload=schedule.payload.encode()
            )
            schedule.last_run_id = run_id
            fired += 1
        schedule.save(update_fields=["next_at", "last_at", "last_run_id"])
    return fired


def _next(schedule: Schedule, now: datetime) -> datetime | None:
    """The next occurrence; None for an expression that has none, so that one bad schedule stops no other."""
    try:
        return next_occurrence(schedule.cron, now, schedule.timezone)
    except ValueError as error:
        logger.error("Schedule %s fires no more: %s", schedule.schedule_id, error)
        return None


def next_fire(alias: str) -> datetime | None:
    rows = Schedule.objects.using(alias).filter(paused=False, next_at__isnull=False).order_by("next_at")
    return rows.values_list("next_at", flat=True).first()
