"""Rows that the factories of `testing` do not make, and users with permissions."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from django.contrib.auth.models import Permission, User

from django_workflow.engine.clock import current_clock
from django_workflow.models import Attempt, ChannelEvent, DeadLetter, JournalEntry, Run, Schedule, Step
from django_workflow.models.channel_event import position_at
from django_workflow.protocol.identifiers import uuid7
from django_workflow.testing.factories import make_run, make_step


def make_user(username: str, *codenames: str, staff: bool = True, superuser: bool = False) -> User:
    user = User.objects.create_user(username, is_staff=staff, is_superuser=superuser)
    for codename in codenames:
        user.user_permissions.add(Permission.objects.get(content_type__app_label="django_workflow", codename=codename))
    return user


def make_result(step: Step, value: Any, **fields: Any) -> Step:
    """Journal the step's result and point the step at it."""
    position = step.run.journal.count() + 1
    out = value if isinstance(value, str) and fields else json.dumps(value)
    body = {"stepId": step.step_id, "stepName": step.name, "stepType": step.step_type, "concurrent": 1, "out": out}
    JournalEntry.objects.create(
        run=step.run,
        position=position,
        call_type="step",
        step_id=step.step_id,
        body=json.dumps({**body, **fields}),
        created_at=current_clock().now(),
    )
    step.position = position
    step.preview = out[:200]
    step.save()
    return step


def make_attempt(run: Run, **values: Any) -> Attempt:
    now = current_clock().now()
    defaults = {
        "message_key": run.pk,
        "kind": "step",
        "step_name": "charge card",
        "number": 1,
        "status": 500,
        "error": "ConnectionError: card service does not answer",
        "started_at": now,
        "finished_at": now + timedelta(milliseconds=120),
    }
    return Attempt.objects.create(run=run, **{**defaults, **values})


def make_event(run: Run, number: int = 0, **data: Any) -> ChannelEvent:
    now = current_clock().now()
    return ChannelEvent.objects.create(
        channel=run.run_id,
        position=position_at(now) + number,
        event="workflow.update",
        data=json.dumps({"type": "stepStart", "workflowRunId": run.run_id, **data}),
        created_at=now,
    )


def make_dead_letter(run: Run | None = None, **values: Any) -> DeadLetter:
    run = run or make_run(status=Run.Status.FAILED)
    defaults = {
        "message_key": uuid7(),
        "destination": run.url,
        "step_name": "charge card",
        "status": 500,
        "error": "ConnectionError: card service does not answer",
        "created_at": current_clock().now(),
    }
    return DeadLetter.objects.create(run=run, **{**defaults, **values})


def make_schedule(**values: Any) -> Schedule:
    defaults = {
        "schedule_id": "nightly",
        "workflow": "report",
        "cron": "0 3 * * *",
        "timezone": "Europe/Berlin",
        "created_at": current_clock().now(),
    }
    return Schedule.objects.create(**{**defaults, **values})


def make_finished_run(steps: int = 2, **values: Any) -> Run:
    """A run that succeeded after `steps` steps."""
    now = current_clock().now()
    defaults = {
        "status": Run.Status.SUCCESS,
        "started_at": now - timedelta(seconds=3),
        "finished_at": now,
    }
    run = make_run(**{**defaults, **values})
    for number in range(1, steps + 1):
        make_step(run, step_id=number, name=f"step {number}")
    return run
