"""Waits and events: a run waits, an event comes or does not.

Wait, notify and timeout all hold the run's lock while they look at its waiters, so no wait misses its event. An event
that is addressed to a run ahead of its wait is kept for it, in order; one that is broadcast reaches whoever waits.
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import cast
from uuid import UUID

import msgspec
from django.db.models import Max

from django_workflow.engine.intake import run_ended
from django_workflow.engine.local_requests import Asked
from django_workflow.engine.records import encode_config, printable
from django_workflow.engine.run_state import RunState
from django_workflow.engine.runs import append_result, wake_up
from django_workflow.engine.unit_of_work import UnitOfWork
from django_workflow.models import InputRequest, Run, Step, Waiter
from django_workflow.protocol.headers import header_lists
from django_workflow.protocol.identifiers import message_id_of, uuid7
from django_workflow.protocol.publish import Message, encode_headers
from django_workflow.protocol.requests import Notified, Notify, Wait, WaiterInfo
from django_workflow.protocol.steps import Step as WireStep
from django_workflow.protocol.steps import decode_step, encode_step
from django_workflow.protocol.waits import encode_prompt, event_result, timeout_result


def wait(unit: UnitOfWork, state: RunState, request: Wait, *, first_time: bool = False) -> UUID | None:
    """Register a wait of a locked run; an event that came early ends it at once. The key of what was made; None when
    the wait was submitted before. `first_time` promises that it was not."""
    if not state.alive:
        raise run_ended(state.run_id)
    wake_up(unit, state, unit.now)
    if not first_time and (unit.has_result(state, request.step.step_id) or _is_registered(unit, state, request)):
        return None
    early = _take_early(unit, state, request.event_id)
    if early is not None:
        Waiter.objects.using(unit.alias).filter(pk=early.pk).update(
            state=Waiter.State.CONSUMED,
            resolved_at=unit.now,
            step_id=request.step.step_id,
            deadline_at=unit.now + timedelta(seconds=request.timeout),
        )
        _show_waiting(unit, state, request)
        return _resolve(unit, state, request.step, request.event_id, early.event_data)
    waiter = Waiter(
        run_id=state.key,
        event_id=request.event_id,
        step=encode_step(request.step).decode(),
        step_id=request.step.step_id,
        step_name=request.step.step_name[:255],
        step_type=request.step.step_type,
        prompt=printable(request.prompt or ""),
        url=request.message.destination,
        config=encode_config(request.message),
        created_at=unit.now,
        deadline_at=unit.now + timedelta(seconds=request.timeout),
    )
    unit.add_waiter(waiter)
    if request.form is not None:
        unit.add_input_request(
            InputRequest(
                run_id=state.key,
                step_id=request.step.step_id,
                event_id=request.event_id,
                prompt=printable(encode_prompt(request.form)),
                created_at=unit.now,
            )
        )
    _show_waiting(unit, state, request)
    return waiter.pk


def read_early(unit: UnitOfWork, run_keys: Collection[UUID]) -> None:
    """Read at once the events that came before their waits, of locked runs that are about to wait."""
    unit.early |= {key: [] for key in run_keys}
    events = Waiter.objects.using(unit.alias).filter(run_id__in=run_keys, state=Waiter.State.EARLY)
    for event in events.order_by("created_at", "pk"):
        unit.early[event.run_id].append(event)


def _take_early(unit: UnitOfWork, state: RunState, event_id: str) -> Waiter | None:
    if state.key not in unit.early:
        read_early(unit, [state.key])
    events = unit.early[state.key]
    event = next((event for event in events if event.event_id == event_id), None)
    if event is not None:
        events.remove(event)
    return event


def _is_registered(unit: UnitOfWork, state: RunState, request: Wait) -> bool:
    waiters = Waiter.objects.using(unit.alias).waiting()
    return waiters.filter(run_id=state.key, step_id=request.step.step_id).exists()


def _show_waiting(unit: UnitOfWork, state: RunState, request: Wait) -> None:
    step, deadline = request.step, unit.now + timedelta(seconds=request.timeout)
    unit.put_step(
        state,
        step.step_id,
        fresh=False,
        name=step.step_name[:255],
        step_type=step.step_type,
        status=Step.Status.WAITING,
        concurrent=step.concurrent,
        started_at=unit.now,
        due_at=deadline,
        event_id=request.event_id[:255],
    )
    unit.tell(state, "stepStart", stepName=step.step_name, stepId=step.step_id, stepType=step.step_type)
    unit.tell(
        state,
        "waitingForInput",
        eventId=request.event_id,
        message=printable(request.prompt or step.step_name),
        stepName=step.step_name,
        stepId=step.step_id,
        stepType=step.step_type,
    )
    if state.group_open == 0:
        why = f"Waiting for event `{request.event_id}` until {deadline:%Y-%m-%d %H:%M:%S} UTC."
        state.set(status=Run.Status.WAITING, why=why, due_at=deadline)
    else:
        state.in_group = True


def notify(unit: UnitOfWork, request: Notify) -> tuple[Notified, ...]:
    """Give an event to the runs that wait for it, or keep it for the run that it is addressed to."""
    waiting = Waiter.objects.using(unit.alias).filter(event_id=request.event_id)
    if request.deduplication_id:
        known = waiting.filter(deduplication_id=request.deduplication_id).select_related("run")
        seen = tuple(_notified(waiter, waiter.pk, deduplicated=True) for waiter in known)
        if seen:
            return seen
    run_key: UUID | None = None
    if request.run_id is not None:
        run_key = _addressee(unit.alias, request.run_id)
        if run_key is None:
            raise run_ended(request.run_id)
        waiting = waiting.filter(run_id=run_key)
        unit.lock([run_key])
        if not unit.state(run_key).alive:
            raise run_ended(request.run_id)
    else:
        unit.lock(waiting.waiting().values_list("run_id", flat=True))
    data = base64.b64encode(request.body).decode()
    told = []
    for waiter in waiting.waiting().select_related("run").order_by("created_at", "pk"):
        if unit.has(waiter.run_id) and unit.state(waiter.run_id).alive:
            told.append(_give(unit, waiter, data, request.deduplication_id))
    if not told and run_key is not None:
        told.append(_keep(unit, run_key, request, data))
    return tuple(told)


_TOLD = ("event_id", "step", "step_id", "config", "url", "deadline_at", "run__run_id", "run__created_at")
"""What is read of a waiter that gets its event: of its run the least, which may have a large payload and result."""


def notify_together(unit: UnitOfWork, asked: Sequence[Asked]) -> None:
    """Give the events that a committer was asked to tell to the runs that wait for them, and answer.

    One that somebody waits for whose run others hold is handed back: the committer waits for nobody.
    """
    requests = [(one, cast(Notify, one.request)) for one in asked]
    waiting = (
        Waiter.objects.using(unit.alias).waiting().filter(event_id__in={request.event_id for _, request in requests})
    )
    unit.lock(waiting.values_list("run_id", flat=True), skip_locked=True)
    by_event: dict[str, list[Waiter]] = {}
    for waiter in waiting.select_related("run").only(*_TOLD).order_by("created_at", "pk"):
        by_event.setdefault(waiter.event_id, []).append(waiter)
    known = [waiter for waiters in by_event.values() for waiter in waiters if unit.has(waiter.run_id)]
    unit.look_ahead({(waiter.run_id, waiter.step_id) for waiter in known if waiter.step_id is not None})
    for one, request in requests:
        waiters = by_event.pop(request.event_id, [])  # an event that is told twice finds nobody the second time
        if not all(unit.has(waiter.run_id) for waiter in waiters):
            by_event[request.event_id] = waiters
            one.hand_back()
            continue
        data = base64.b64encode(request.body).decode()
        alive = [waiter for waiter in waiters if unit.state(waiter.run_id).alive]
        one.answer = tuple([_give(unit, waiter, data, None) for waiter in alive])


def _addressee(alias: str, run_id: str) -> UUID | None:
    """The run that an event for `run_id` is for: a failed one that was resumed goes on under another id."""
    runs = Run.objects.using(alias)
    row = runs.filter(run_id=run_id).values_list("pk", "status").first()
    while row is not None and row[1] in (Run.Status.FAILED, Run.Status.CANCELED):
        follower = runs.in_place_of(row[0]).values_list("pk", "status").first()
        if follower is None:
            break
        row = follower
    return None if row is None else row[0]


def _give(unit: UnitOfWork, waiter: Waiter, data: str, deduplication_id: str | None) -> Notified:
    unit.change_waiter(
        waiter.pk,
        state=Waiter.State.RESOLVED,
        resolved_at=unit.now,
        event_data=data,
        deduplication_id=deduplication_id or "",
    )
    key = _resolve(unit, unit.state(waiter.run_id), decode_step(waiter.step), waiter.event_id, data)
    return _notified(waiter, key)


def _keep(unit: UnitOfWork, run_key: UUID, request: Notify, data: str) -> Notified:
    earlier = Waiter.objects.using(unit.alias).filter(run_id=run_key, event_id=request.event_id)
    newest: datetime | None = earlier.filter(state=Waiter.State.EARLY).aggregate(at=Max("created_at"))["at"]
    early = Waiter(
        run_id=run_key,
        event_id=request.event_id,
        state=Waiter.State.EARLY,
        event_data=data,
        deduplication_id=request.deduplication_id or "",
        # They are consumed in this order, also when the clock was set back between two of them.
        created_at=unit.now if newest is None else max(unit.now, newest + timedelta(microseconds=1)),
    )
    unit.add_waiter(early)
    return Notified(message_id=message_id_of(early.pk), workflow_run_id=request.run_id)


def _resolve(unit: UnitOfWork, state: RunState, step: WireStep, event_id: str, data: str) -> UUID:
    out = event_result(step, event_id, base64.b64decode(data))
    key = uuid7()
    append_result(unit, state, out, key, encode_step(out).decode())
    return key


def _notified(waiter: Waiter, key: UUID, *, deduplicated: bool = False) -> Notified:
    return Notified(
        message_id=message_id_of(key),
        waiter=waiter_info(waiter),
        deduplicated=deduplicated,
        workflow_run_id=waiter.run.run_id,
        workflow_created_at=int(waiter.run.created_at.timestamp() * 1000),
    )


def waiter_info(waiter: Waiter) -> WaiterInfo:
    """Who waits, with the headers of the message that goes there, whether the event comes or the time is up."""
    deadline = int(waiter.deadline_at.timestamp()) if waiter.deadline_at else 0
    headers = header_lists(encode_headers(_message_decoder.decode(waiter.config))) if waiter.config else {}
    return WaiterInfo(
        url=waiter.url, deadline=deadline, headers=headers, timeout_url=waiter.url, timeout_headers=headers
    )


_message_decoder = msgspec.json.Decoder(Message)


def time_out(unit: UnitOfWork, limit: int = 100) -> int:
    """End waits whose deadline passed. Returns how many."""
    overdue = Waiter.objects.using(unit.alias).overdue(unit.now)
    # Runs that others hold wait for the next round: their transaction may stay open for long.
    unit.lock(list(overdue.order_by("deadline_at").values_list("run_id", flat=True)[:limit]), skip_locked=True)
    ended = 0
    for waiter in overdue.order_by("deadline_at", "pk")[:limit]:
        if not unit.has(waiter.run_id):
            continue
        if not unit.state(waiter.run_id).alive:
            Waiter.objects.using(unit.alias).filter(pk=waiter.pk).update(
                state=Waiter.State.CANCELED, resolved_at=unit.now
            )
            continue
        Waiter.objects.using(unit.alias).filter(pk=waiter.pk).update(state=Waiter.State.TIMED_OUT, resolved_at=unit.now)
        step = timeout_result(decode_step(waiter.step), waiter.event_id)
        append_result(unit, unit.state(waiter.run_id), step, uuid7(), encode_step(step).decode())
        ended += 1
    return ended


def next_deadline(alias: str) -> datetime | None:
    return Waiter.objects.using(alias).timed().order_by("deadline_at").values_list("deadline_at", flat=True).first()
