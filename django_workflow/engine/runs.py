"""What happens to a run: messages appended to its journal, parallel steps joined, its end.

Called with a unit of work in which the run is locked. A result is appended once: the first wins. A group of N parallel
steps opens with its plans and closes with its last result; this project's own endpoints then get one delivery (the
join), other SDKs get one delivery per result, as they expect.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
from django.db import OperationalError

from django_workflow import signals
from django_workflow.conf import get_settings
from django_workflow.engine import events
from django_workflow.engine.addresses import is_internal
from django_workflow.engine.records import Invoker, Lease, RunInfo, encode_config, from_unix, stored
from django_workflow.engine.run_state import RunState
from django_workflow.engine.unit_of_work import UnitOfWork
from django_workflow.models import Delivery, Run, Step, Waiter
from django_workflow.models.step import PREVIEW_CHARACTERS
from django_workflow.protocol.identifiers import uuid7
from django_workflow.protocol.invoke import InvokeResult, invoke_result
from django_workflow.protocol.publish import Message
from django_workflow.protocol.secrets import shown_out
from django_workflow.protocol.steps import CallType, StepType, encode_step
from django_workflow.protocol.steps import Step as WireStep

_SLEEPS = (StepType.SLEEP_FOR, StepType.SLEEP_UNTIL)
_WAITS = (StepType.WAIT, StepType.WAIT_FOR_WEBHOOK)
# Their rows were written when they began, in a delivery of its own.
_ANNOUNCED = (*_WAITS, StepType.CALL, StepType.INVOKE)


def due_at(message: Message, now: datetime) -> datetime:
    """When a message may be delivered; not-before wins over the delay."""
    if message.not_before is not None:
        return max(now, from_unix(message.not_before))
    return now + timedelta(seconds=message.delay) if message.delay else now


def begin(unit: UnitOfWork, state: RunState, at: datetime) -> None:
    """The first call of a run was accepted."""
    if state.started_at is not None:
        return
    waits_for_call = state.status in (Run.Status.SCHEDULED, Run.Status.QUEUED)
    state.set(started_at=at, **({"status": Run.Status.RUNNING, "due_at": None, "why": ""} if waits_for_call else {}))
    unit.tell(state, "runStart", at=at)
    unit.signal(signals.run_started, state.key)


def wake_up(unit: UnitOfWork, state: RunState, at: datetime) -> None:
    """Something came from the run's endpoint: it has begun, and its sleep (if it was in one) is over."""
    begin(unit, state, at)
    if state.status in (Run.Status.SLEEPING, Run.Status.PAUSED) and state.group_open == 0:
        steps = Step.objects.using(unit.alias).filter(run_id=state.key, status=Step.Status.SLEEPING)
        steps.update(status=Step.Status.SUCCESS, finished_at=at)
        state.set(status=Run.Status.RUNNING, due_at=None, why="")


def append_plan(unit: UnitOfWork, state: RunState, message: Message, key: UUID, step: WireStep) -> None:
    """Append the plan of one parallel branch and the delivery that runs it."""
    info = unit.info(state.key)
    if unit.knows_step(state, step.target_step or 0):
        return  # submitted again: the plan of this branch is journalled already
    body, _ = stored(message.body)
    position = unit.add_entry(state, key, body, call_type=CallType.STEP, step=step, config=own_config(message))
    due = due_at(message, unit.now)
    if state.group_open == 0:
        state.set(group_open=step.concurrent)
    asleep = step.step_type in _SLEEPS and due > unit.now
    unit.put_step(
        state,
        step.target_step or 0,
        fresh=True,
        name=step.step_name[:255],
        step_type=step.step_type,
        status=Step.Status.SLEEPING if asleep else Step.Status.QUEUED,
        concurrent=step.concurrent,
        due_at=due if asleep else None,
    )
    schedule_step(unit, info, state, key, position, due, message=message, solo=False, branch=step)
    state.in_group = True


def append_result(
    unit: UnitOfWork,
    state: RunState,
    step: WireStep,
    key: UUID,
    body: str,
    *,
    due: datetime | None = None,
    message: Message | None = None,
    lease: Lease | None = None,
    started_at: datetime | None = None,
    attempts: int | None = None,
) -> bool:
    """Append a step's result and schedule what follows. False when the step has a result already: it is dropped.

    `attempts`: how many it took, where no lease tells it.
    """
    if unit.has_result(state, step.step_id):
        return False
    info = unit.info(state.key)
    position = unit.add_entry(state, key, body, call_type=CallType.STEP, step=step, config=own_config(message))
    record_result(
        unit, state, step, position, due=due or unit.now, lease=lease, started_at=started_at, attempts=attempts
    )
    if step.concurrent > 1 and state.group_open > 0:
        state.set(group_open=state.group_open - 1)
        state.in_group = True
        if state.group_open == 0:
            state.set(status=Run.Status.RUNNING, why="", due_at=None)
        elif info.own:
            return True
    solo = state.group_open == 0
    schedule_step(unit, info, state, key, position, due or unit.now, message=message, solo=solo)
    return True


def record_result(
    unit: UnitOfWork,
    state: RunState,
    step: WireStep,
    position: int,
    *,
    due: datetime,
    lease: Lease | None,
    started_at: datetime | None,
    attempts: int | None = None,
) -> None:
    """Show a step's result: its row, its events, the run's status."""
    asleep = step.step_type in _SLEEPS and due > unit.now
    announced = step.step_type in _ANNOUNCED
    known = (
        announced
        or step.concurrent > 1
        or lease is None
        or lease.start_written
        or lease.attempt > 0
        or lease.rescues > 0
    )
    if attempts is None:
        attempts = lease.attempt + 1 if lease is not None and lease.kind == Delivery.Kind.STEP else 1
    began = started_at or unit.now
    hide = "body" in unit.info(state.key).config.redact
    unit.put_step(
        state,
        step.step_id,
        fresh=not known and not unit.careful,
        name=step.step_name[:255],
        step_type=step.step_type,
        status=Step.Status.SLEEPING if asleep else Step.Status.SUCCESS,
        concurrent=step.concurrent,
        **({} if announced else {"started_at": began, "attempts": attempts}),
        finished_at=None if asleep else unit.now,
        due_at=due if asleep else None,
        position=position,
        preview=(shown_out(step, hide=hide) or "")[:PREVIEW_CHARACTERS].replace("\0", ""),
        error="",
        event_id=step.wait_event_id or "",
    )
    common: dict[str, Any] = {"stepName": step.step_name, "stepId": step.step_id, "stepType": step.step_type}
    if step.step_type in _WAITS:
        unit.tell(state, "inputResolved", eventId=step.wait_event_id, **common)
    elif lease is not None and not lease.start_written and not announced:
        unit.tell(state, "stepStart", at=began, attempt=attempts, **common)
    unit.tell(
        state,
        "stepFinish",
        attempt=attempts,
        durationMs=round((unit.now - began).total_seconds() * 1000),
        result=events.step_result(step, get_settings().publish_results, hide=hide),
        **common,
    )
    unit.signal(signals.step_completed, state.key, step_id=step.step_id)
    if asleep:
        state.set(status=Run.Status.SLEEPING, due_at=due, why=f"Sleeping until {due:%Y-%m-%d %H:%M:%S} UTC.")
    elif state.group_open == 0:
        state.set(status=Run.Status.RUNNING, why="")


def schedule_step(
    unit: UnitOfWork,
    info: RunInfo,
    state: RunState,
    key: UUID,
    position: int,
    due: datetime,
    *,
    message: Message | None,
    solo: bool,
    branch: WireStep | None = None,
) -> None:
    """Write the delivery that carries the journal up to `position` to the run's endpoint."""
    retries = info.config.retries
    if message is not None and (message.retries is not None or overrides(message)):
        retries = message.retries
    flow_key = info.config.flow_control.key if info.config.flow_control else ""
    row = Delivery(
        run_id=state.key,
        kind=Delivery.Kind.STEP,
        message_key=key,
        position=position,
        solo=solo,
        step_id=branch.target_step if branch else None,
        step_name=branch.step_name[:255] if branch else "",
        destination=info.url,
        config=own_config(message),
        max_retries=get_settings().retries if retries is None else retries,
        flow_key=flow_key,
        due_at=due,
        created_at=unit.now,
    )
    at_once = (solo or is_internal(info.url)) and due <= unit.now and not flow_key and not state.paused
    if not at_once or not unit.lease_at_once(row):
        unit.after.wake = True
    unit.add_delivery(row)


def overrides(message: Message) -> bool:
    """Whether a step message brings its own configuration: SDKs without this feature repeat theirs on each message.

    Then the run's headers and retries are not added; the rest of what was said at the trigger holds, as those SDKs
    know nothing of it.
    """
    return message.workflow is not None and "WF_TriggerOnConfig" not in message.workflow.features


def own_config(message: Message | None) -> str:
    """A step message's own configuration as it is stored; empty when its run's applies."""
    if message is None or not overrides(message):
        return ""
    return encode_config(msgspec.structs.replace(message, body=b""))


def end_run(
    unit: UnitOfWork, state: RunState, status: Run.Status, *, result: str | None = None, error: str = ""
) -> None:
    """End a run: drop what is still open of it, tell who invoked it. Does nothing when it is over already."""
    if not state.alive:
        return
    state.set(
        status=status,
        finished_at=unit.now,
        due_at=None,
        group_open=0,
        why="",
        **({"result": result} if result is not None else {}),
        **({"error": error} if error else {}),
    )
    state.in_group = False
    if status != Run.Status.SUCCESS:
        drop_open(unit, state, failed=status == Run.Status.FAILED)
    told = {"success": "success", "failed": "failed", "canceled": "failed"}[status]
    unit.tell(state, "runFinish", status=told, error="canceled" if status == Run.Status.CANCELED else error or None)
    unit.signal(signals.run_finished, state.key)
    unit.after.forgotten.append(state.key)
    info = unit.info(state.key)
    if info.config.invoker is not None:
        answer_invoker(unit, info, info.config.invoker, status, result)


def show_progress(unit: UnitOfWork, state: RunState, done: int, total: int | None) -> None:
    """Keep how far a run says that it is, and tell it."""
    state.set(progress_done=done, progress_total=total)
    share = min(done / total, 1.0) if total else None
    unit.tell(state, "progress", done=done, total=total, progress=share)


def drop_open(unit: UnitOfWork, state: RunState, *, failed: bool) -> None:
    """Drop a run's deliveries and waits, and close its open steps. Failure callbacks stay."""
    unit.flush_steps()
    unit.drop_gathered(state)
    deliveries = Delivery.objects.using(unit.alias).filter(run_id=state.key)
    deliveries.exclude(kind=Delivery.Kind.FAILURE).delete()
    waiters = Waiter.objects.using(unit.alias).filter(run_id=state.key)
    waiters.waiting().update(state=Waiter.State.CANCELED, resolved_at=unit.now)
    steps = Step.objects.using(unit.alias).filter(run_id=state.key, status__in=Step.OPEN)
    if failed:
        steps.filter(status=Step.Status.RETRYING).update(status=Step.Status.FAILED, finished_at=unit.now)
    steps.update(status=Step.Status.CANCELED, finished_at=unit.now)


def answer_invoker(unit: UnitOfWork, child: RunInfo, invoker: Invoker, status: Run.Status, result: str | None) -> None:
    """Append the child's end to the run that invoked it, unless that run is over."""
    parent = _living_parent(unit, child)
    if parent is not None:
        append_invoked(unit, parent, invoker.step, status, result)


def append_invoked(
    unit: UnitOfWork,
    parent: RunState,
    step: WireStep,
    status: Run.Status | str,
    result: str | None,
    *,
    due: datetime | None = None,
) -> None:
    """Append how an invoked run ended as the result of the step that invoked it."""
    ended = InvokeResult(
        body=result if status == Run.Status.SUCCESS else None,
        is_canceled=status == Run.Status.CANCELED,
        is_failed=status == Run.Status.FAILED,
    )
    out = invoke_result(step, ended)
    append_result(unit, parent, out, uuid7(), encode_step(out).decode(), due=due)


def _living_parent(unit: UnitOfWork, child: RunInfo) -> RunState | None:
    """The locked run that waits for this one: the one that invoked it, or that one resumed.

    A worker, which never waits, gets an OperationalError while others hold the resumed run, and repeats its batch.
    """
    if child.parent_key is None:
        return None
    if unit.has(child.parent_key) and unit.state(child.parent_key).alive:
        return unit.state(child.parent_key)
    # Read afresh under the child's lock: what was known before may be older than the resumption of its parent.
    key = Run.objects.using(unit.alias).filter(pk=child.key).values_list("parent_id", flat=True).first()
    if key is None:
        return None
    if not unit.has(key) and not unit.lock([key], skip_locked=unit.worker_key is not None):
        if not Run.objects.using(unit.alias).filter(pk=key).exists():
            return None
        raise OperationalError(f"The run that resumed the invoker of run {child.run_id} is locked.")
    return unit.state(key) if unit.state(key).alive else None
