"""Runs paused, and hurried on.

A paused run's deliveries are held: moved to an instant that no claim reaches, which costs claims nothing. Those that
are written while it is paused are held by the unit of work. A delivery that is under way keeps its lease; what it
brings is kept, and what follows from it is held. Called by `transport`.
"""

from __future__ import annotations

from datetime import datetime

from django.db.models import F, QuerySet

from django_workflow.engine.intake import run_ended
from django_workflow.engine.run_state import RunState
from django_workflow.engine.unit_of_work import UnitOfWork
from django_workflow.models import Delivery, Run, Step
from django_workflow.models.delivery import HELD
from django_workflow.protocol.requests import PauseRun, RetryNow, UnpauseRun


def pause(unit: UnitOfWork, request: PauseRun) -> bool:
    """False when it is paused already. Raises RunEnded."""
    state = _locked(unit, request.run_id)
    if state.paused:
        return False
    state.set(status=Run.Status.PAUSED, why="", due_at=None)
    _deliveries(unit, state).filter(held_due_at=None).update(held_due_at=F("due_at"), due_at=HELD)
    unit.tell(state, "runPause")
    return True


def unpause(unit: UnitOfWork, request: UnpauseRun) -> bool:
    """False when it is not paused. Raises RunEnded."""
    state = _locked(unit, request.run_id)
    if not state.paused:
        return False
    _deliveries(unit, state).exclude(held_due_at=None).update(due_at=F("held_due_at"), held_due_at=None)
    state.status = ""  # whatever it is now differs from that, and is written
    _show(unit, state)
    unit.tell(state, "runUnpause")
    unit.after.wake = True
    return True


def retry_now(unit: UnitOfWork, request: RetryNow) -> int:
    """How many deliveries are due now that would have been later. Raises RunEnded."""
    state = _locked(unit, request.run_id)
    later = _deliveries(unit, state).filter(attempt__gt=0, due_at__gt=unit.now, held_due_at=None, worker=None)
    hurried = later.update(due_at=unit.now)
    if hurried:
        retrying = Step.objects.using(unit.alias).filter(run_id=state.key, status=Step.Status.RETRYING)
        retrying.update(due_at=unit.now)
        if state.status == Run.Status.RETRYING:
            state.set(due_at=unit.now, why="")
        unit.after.wake = True
    return hurried


def _locked(unit: UnitOfWork, run_id: str) -> RunState:
    key = Run.objects.using(unit.alias).filter(run_id=run_id).values_list("pk", flat=True).first()
    if key is None or not unit.lock([key]) or not unit.state(key).alive:
        raise run_ended(run_id)
    return unit.state(key)


def _deliveries(unit: UnitOfWork, state: RunState) -> QuerySet[Delivery]:
    return Delivery.objects.using(unit.alias).filter(run_id=state.key)


def _show(unit: UnitOfWork, state: RunState) -> None:
    """The status that a run has now, by what is open of it."""
    waiting = list(_deliveries(unit, state).values_list("attempt", "max_retries", "due_at", "worker_id"))
    later = [row for row in waiting if row[2] > unit.now and row[3] is None]
    retries = [row for row in later if row[0]]
    if state.started_at is None and len(later) == len(waiting):
        due = min(row[2] for row in later) if later else None
        state.set(status=Run.Status.SCHEDULED if due else Run.Status.QUEUED, why="", due_at=due)
    elif state.started_at is None:
        state.set(status=Run.Status.QUEUED, why="", due_at=None)
    elif retries:
        attempt, most, due, _ = min(retries, key=lambda row: row[2])
        state.set(status=Run.Status.RETRYING, why=f"Retry {attempt} of {most} at {due:%H:%M:%S} UTC.", due_at=due)
    else:
        steps = Step.objects.using(unit.alias).filter(run_id=state.key, status__in=Step.OPEN)
        found = list(steps.values_list("status", "due_at", "event_id"))
        status = next((each for each in Run.URGENCY if any(row[0] == each for row in found)), Run.Status.RUNNING)
        state.set(status=status, why=_why(found) if len(found) == 1 else "", due_at=_earliest(found, status))


def _why(found: list[tuple[str, datetime | None, str]]) -> str:
    """The sentence that the single open step of a run explains."""
    ((status, due, event_id),) = found
    if status == Step.Status.SLEEPING and due is not None:
        return f"Sleeping until {due:%Y-%m-%d %H:%M:%S} UTC."
    if status == Step.Status.WAITING and due is not None:
        return f"Waiting for event `{event_id}` until {due:%Y-%m-%d %H:%M:%S} UTC."
    return f"Waiting for run {event_id}." if status == Step.Status.WAITING else ""


def _earliest(found: list[tuple[str, datetime | None, str]], status: str) -> datetime | None:
    if status not in (Run.Status.SLEEPING, Run.Status.WAITING):
        return None
    return min((due for step_status, due, _ in found if step_status == status and due is not None), default=None)
