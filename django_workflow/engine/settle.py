"""Settling: what the answer of a delivery means, folded into a unit of work.

Comes from the committer with the facts that deliveries left behind. A lost lease settles nothing; what an endpoint
submitted before it failed still counts; a failure is tried again until its retries are used up, then the run fails.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import msgspec
from django.db.models import Max

from django_workflow import signals
from django_workflow.conf import get_settings
from django_workflow.engine import calls, dead_letters, intake, messages, waiters
from django_workflow.engine.backoff import retry_delay
from django_workflow.engine.facts import Answer, Emitted, Fact, Settlement, StepStarted, Taken
from django_workflow.engine.messages import NON_RETRYABLE_STATUS
from django_workflow.engine.records import Lease, RunInfo, printable, stored
from django_workflow.engine.run_state import RunState
from django_workflow.engine.runs import begin, due_at, end_run, overrides, record_result, show_progress, wake_up
from django_workflow.engine.unit_of_work import UnitOfWork
from django_workflow.models import Attempt, Delivery, JournalEntry, Run, Step, Waiter
from django_workflow.protocol import headers as names
from django_workflow.protocol.publish import Message
from django_workflow.protocol.requests import Batch, CancelRun, FinishRun, Publish, Wait
from django_workflow.protocol.steps import CallType, StepType, decode_step
from django_workflow.protocol.steps import Step as WireStep

NOT_A_WORKFLOW = (
    "detected a non-workflow destination for trigger/invoke. make sure you are sending the request to the correct "
    "endpoint"
)
NO_SDK = "trigger rest api is only usable with sdk versions after v1.0.0 major version"
NOT_STARTED = "The endpoint was asked to start this run, and answered without starting it."
NOTHING_SUBMITTED = "The endpoint answered with status {status}, and submitted nothing that would take the run on."


def fold(unit: UnitOfWork, fact: Fact) -> None:
    """Fold one fact into the unit. Facts of lost leases and of deleted runs change nothing."""
    lease = fact.lease
    if isinstance(fact, Settlement) and fact.continuation is not None:
        fact.continuation.lease = None  # what a batch that was refused had said counts no more
    if isinstance(fact, Settlement) and (lease.flow_key or lease.queue):
        unit.after.wake = True  # its slot or place is free for another
    if lease.kind == Delivery.Kind.MESSAGE:
        if isinstance(fact, Settlement):
            messages.settle(unit, fact)
        return
    if lease.run_key is None or not unit.has(lease.run_key):
        unit.finish_delivery(lease)
        return
    state = unit.state(lease.run_key)
    if isinstance(fact, Settlement):
        _settle(unit, state, fact)
    elif isinstance(fact, StepStarted):
        _step_started(unit, state, fact)
    else:
        _emitted(unit, state, fact)


def _settle(unit: UnitOfWork, state: RunState, fact: Settlement) -> None:
    lease = fact.lease
    if lease.kind == Delivery.Kind.FAILURE:
        _settle_failure_callback(unit, lease, fact)
    elif not state.alive:
        if unit.finish_delivery(lease):
            _show_beginning(unit, lease, fact)
    elif lease.kind == Delivery.Kind.CALL:
        _settle_call(unit, state, lease, fact)
    elif fact.requests:
        _settle_submissions(unit, state, lease, fact)
    elif not fact.answer.ok and _is_done(unit, state, lease):
        unit.finish_delivery(lease)  # its submission arrived, and only the answer was lost: a retry would do it again
    elif problem := _problem(unit.info(state.key), lease, fact.answer):
        _settle_problem(unit, state, lease, fact, problem)
    elif _went_nowhere(unit, state, lease):
        error = NOTHING_SUBMITTED.format(status=fact.answer.status)
        _settle_problem(unit, state, lease, fact, Problem(error, final=False))
    elif unit.finish_delivery(lease):
        begin(unit, state, fact.started_at)
        _show_beginning(unit, lease, fact)


def _is_done(unit: UnitOfWork, state: RunState, lease: Lease) -> bool:
    """Whether what a call was made for is in the journal."""
    if lease.solo:
        return unit.length(state) > lease.position + 1
    return lease.step_id is not None and unit.has_result(state, lease.step_id)


def _went_nowhere(unit: UnitOfWork, state: RunState, lease: Lease) -> bool:
    """Whether a call that was answered well left nothing that takes the run on: its endpoint submitted nothing.

    Other SDKs get a call for each result of a group, and answer all but the last with nothing: those are not asked.
    """
    mine: dict[str, object] = {"run_id": state.key}
    if not lease.solo:
        if lease.step_id is None:
            return False
        mine["step_id"] = lease.step_id
    if _is_done(unit, state, lease):
        return False
    calls = Delivery.objects.using(unit.alias).filter(**mine).exclude(pk=lease.key)
    waits = Waiter.objects.using(unit.alias).waiting().filter(**mine)
    children = Run.objects.using(unit.alias).active().filter(parent_id=state.key)
    return not (calls.exists() or waits.exists() or children.exists())


def _show_beginning(unit: UnitOfWork, lease: Lease, fact: Settlement) -> None:
    """A step whose result an endpoint elsewhere brought by itself began with the call, which is known only now."""
    if lease.run_key is None or lease.kind != Delivery.Kind.STEP or not fact.answer.ok or fact.requests:
        return
    ran = Step.objects.using(unit.alias).filter(
        run_id=lease.run_key, step_type__in=_RUN_AT_ONCE, started_at__gt=fact.started_at
    )
    mine = ran.filter(position=lease.position + 1) if lease.step_id is None else ran.filter(step_id=lease.step_id)
    mine.update(started_at=fact.started_at)


_RUN_AT_ONCE = (StepType.RUN, StepType.NOTIFY)


# Submissions


def _settle_submissions(unit: UnitOfWork, state: RunState, lease: Lease, fact: Settlement) -> None:
    alone = lease.solo and lease.kind == Delivery.Kind.STEP and not unit.careful
    result = _only_result(fact.requests) if alone else None
    if result is not None:
        message, taken, step = result
        _settle_sequential(unit, state, lease, fact, message, taken, step)
        return
    if not unit.finish_delivery(lease):
        return
    wake_up(unit, state, fact.started_at)
    for taken in fact.requests:
        if not state.alive:
            return
        _take(unit, state, lease, taken)


def _only_result(requests: tuple[Taken, ...]) -> tuple[Message, Taken, WireStep] | None:
    """The one sequential result that was submitted, when that is all there was."""
    if len(requests) != 1 or not isinstance(requests[0].request, Batch):
        return None
    messages = requests[0].request.messages
    if len(messages) != 1:
        return None
    fields = messages[0].workflow
    if fields is None or fields.init or fields.call_type != CallType.STEP or overrides(messages[0]):
        return None
    step = decode_step(messages[0].body)
    return (messages[0], requests[0], step) if step.step_id > 0 and step.concurrent == 1 else None


def _settle_sequential(
    unit: UnitOfWork,
    state: RunState,
    lease: Lease,
    fact: Settlement,
    message: Message,
    taken: Taken,
    step: WireStep,
) -> None:
    """The usual case: one result of a run with one live delivery, serialised by that delivery's fence alone."""
    due = due_at(message, unit.now)
    key = taken.keys[0]
    goes_on = due <= unit.now and not lease.flow_key and not state.paused and unit.may_continue(lease)
    position = lease.position + 1
    columns = {"message_key": key, "position": position, "attempt": 0, "rescues": 0, "due_at": due}
    columns |= {"step_id": None, "step_name": ""}
    if not unit.advance(lease, release=not goes_on, **columns):
        return
    wake_up(unit, state, fact.started_at)
    state.length = position
    body, _ = stored(message.body)
    unit.add_entry(state, key, body, call_type=CallType.STEP, step=step)
    record_result(unit, state, step, position, due=due, lease=lease, started_at=fact.started_at)
    if goes_on and fact.continuation is not None:
        fact.continuation.lease = _next_lease(lease, key, position)
    elif goes_on:
        unit.continue_with(_next_lease(lease, key, position))
    else:
        unit.after.wake = True


def _next_lease(lease: Lease, key: UUID, position: int) -> Lease:
    return Lease(
        key=lease.key,
        run_key=lease.run_key,
        kind=lease.kind,
        message_key=key,
        position=position,
        solo=True,
        step_id=None,
        step_name="",
        destination=lease.destination,
        method=lease.method,
        config=None,
        body="",
        body_is_base64=False,
        attempt=0,
        max_retries=lease.max_retries,
        flow_key=lease.flow_key,
        created_at=lease.created_at,
        worker_key=lease.worker_key,
        fence=lease.fence + 1,
        rescues=0,
        chain=lease.chain + 1,
    )


def _take(unit: UnitOfWork, state: RunState, lease: Lease, taken: Taken) -> None:
    request = taken.request
    if isinstance(request, Batch):
        for message, key in zip(request.messages, taken.keys, strict=True):
            intake.append_message(unit, state, message, key, lease=lease)
    elif isinstance(request, Publish):
        intake.append_message(unit, state, request.message, taken.keys[0], lease=lease)
    elif isinstance(request, Wait):
        waiters.wait(unit, state, request, first_time=intake.is_first_call(lease))
    elif isinstance(request, FinishRun):
        result = request.result.decode() if request.result is not None else None
        end_run(unit, state, Run.Status.SUCCESS, result=result)
    elif isinstance(request, CancelRun):
        end_run(unit, state, Run.Status.CANCELED)
    else:
        raise TypeError(f"{type(request).__name__} cannot be taken into a delivery's session.")


# Calls, failure callbacks


def _settle_call(unit: UnitOfWork, state: RunState, lease: Lease, fact: Settlement) -> None:
    answer = fact.answer
    if answer.ok or lease.attempt >= lease.max_retries:
        if unit.finish_delivery(lease):
            calls.bring_back(unit, state, lease, answer)
        return
    retry_at = _retry_at(lease, lease.config.retry_delay if lease.config else None, answer, unit.now)
    if unit.advance(lease, release=True, attempt=lease.attempt + 1, due_at=retry_at):
        error = _error_text(answer)
        _note_attempt(unit, lease, fact, error, lease.step_name, retry_at)
        _show_failure(unit, state, lease, fact, error, lease.step_name, retry_at)
        _show_retry(state, lease, error, retry_at)
        unit.after.wake = True


def _settle_failure_callback(unit: UnitOfWork, lease: Lease, fact: Settlement) -> None:
    answer = fact.answer
    if answer.ok or answer.status == NON_RETRYABLE_STATUS or lease.attempt >= lease.max_retries:
        if unit.finish_delivery(lease):
            if not answer.ok:
                _note_attempt(unit, lease, fact, _error_text(answer), "", None)
            dead_letters.settle_failure_callback(unit, lease, answer)
        return
    retry_at = _retry_at(lease, lease.config.retry_delay if lease.config else None, answer, unit.now)
    if unit.advance(lease, release=True, attempt=lease.attempt + 1, due_at=retry_at):
        _note_attempt(unit, lease, fact, _error_text(answer), "", retry_at)
        unit.after.wake = True


# Failures


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a delivery to a workflow did not succeed. `final`: trying again cannot help."""

    error: str
    final: bool


def _problem(info: RunInfo, lease: Lease, answer: Answer) -> Problem | None:
    if answer.ok:
        first = lease.kind == Delivery.Kind.STEP and lease.position == 0
        detect = info.config.awaits_sdk or "WF_DetectTrigger" in info.config.features
        if first and detect and answer.header(names.WORKFLOW_SDK_VERSION) is None:
            return Problem(NOT_A_WORKFLOW, final=True)
        if first and info.config.awaits_sdk:  # it answered well, and sent nothing
            return Problem(NO_SDK if answer.header(names.WORKFLOW_SDK) is None else NOT_STARTED, final=True)
        return None
    final = answer.status == NON_RETRYABLE_STATUS and answer.header(names.NON_RETRYABLE_ERROR) == "true"
    return Problem(_error_text(answer), final=final)


def _settle_problem(unit: UnitOfWork, state: RunState, lease: Lease, fact: Settlement, problem: Problem) -> None:
    answer, info = fact.answer, unit.info(state.key)
    step_name = answer.header(names.ERROR_STEP_NAME) or lease.step_name
    if lease.running is None:
        lease.running = _running_elsewhere(unit, state, lease, step_name)
    if lease.running is not None and not step_name:
        step_name = lease.running.step_name
    if not problem.final and lease.attempt < lease.max_retries:
        config = lease.config
        expression = config.retry_delay if config and config.retry_delay else info.config.retry_delay
        retry_at = _retry_at(lease, expression, answer, unit.now)
        columns = {"attempt": lease.attempt + 1, "due_at": retry_at, "step_name": step_name[:255]}
        if not unit.advance(lease, release=True, **columns):
            return
        wake_up(unit, state, fact.started_at)
        _note_attempt(unit, lease, fact, problem.error, step_name, retry_at)
        _show_failure(unit, state, lease, fact, problem.error, step_name, retry_at)
        _show_retry(state, lease, problem.error, retry_at)
        unit.after.wake = True
        return
    if not unit.finish_delivery(lease):
        return
    wake_up(unit, state, fact.started_at)
    _note_attempt(unit, lease, fact, problem.error, step_name, None)
    _show_failure(unit, state, lease, fact, problem.error, step_name, None)
    dead_letters.fail_run(unit, state, lease, answer, problem.error, step_name)


def _running_elsewhere(unit: UnitOfWork, state: RunState, lease: Lease, name: str) -> WireStep | None:
    """The step that failed in an endpoint elsewhere, when it told the name: what the call carried gives the number."""
    if not name or lease.kind != Delivery.Kind.STEP:
        return None
    if lease.step_id is not None:
        planned = Step.objects.using(unit.alias).filter(run_id=state.key, step_id=lease.step_id).first()
        if planned is None:
            return None
        number, kind, concurrent = lease.step_id, planned.step_type, planned.concurrent
    else:
        entries = JournalEntry.objects.using(unit.alias).filter(run_id=state.key, position__lte=lease.position)
        newest: int | None = entries.aggregate(newest=Max("step_id"))["newest"]
        number, kind, concurrent = (newest or 0) + 1, StepType.RUN.value, 1
    return WireStep(step_id=number, step_name=name, step_type=kind, concurrent=concurrent)


def _show_retry(state: RunState, lease: Lease, error: str, retry_at: datetime) -> None:
    why = f"Retry {lease.attempt + 1} of {lease.max_retries} at {retry_at:%H:%M:%S} UTC after {error[:200]}"
    state.set(status=Run.Status.RETRYING, why=why, due_at=retry_at)
    state.in_group = False  # nothing is more urgent


def _show_failure(
    unit: UnitOfWork,
    state: RunState,
    lease: Lease,
    fact: Settlement,
    error: str,
    step_name: str,
    retry_at: datetime | None,
) -> None:
    step_id, concurrent = lease.step_id, 1
    step_type: str = StepType.CALL if lease.kind == Delivery.Kind.CALL else StepType.RUN
    if lease.running is not None:
        step_id, step_type = lease.running.step_id, lease.running.step_type
        concurrent = lease.running.concurrent
    if step_id is not None:
        unit.put_step(
            state,
            step_id,
            fresh=False,
            name=step_name[:255],
            step_type=step_type,
            status=Step.Status.FAILED if retry_at is None else Step.Status.RETRYING,
            concurrent=concurrent,
            attempts=lease.attempt + 1,
            **({} if lease.kind == Delivery.Kind.CALL else {"started_at": fact.started_at}),
            finished_at=None if retry_at else unit.now,
            due_at=retry_at,
            error=error,
        )
        if not lease.start_written and lease.kind != Delivery.Kind.CALL:
            unit.tell(
                state,
                "stepStart",
                at=fact.started_at,
                stepName=step_name,
                stepId=step_id,
                stepType=step_type,
                attempt=lease.attempt + 1,
            )
    unit.tell(
        state,
        "stepFail",
        stepName=step_name,
        stepId=step_id,
        error=error[:2000],
        attempt=lease.attempt + 1,
        maxAttempts=lease.max_retries + 1,
        willRetry=retry_at is not None,
        nextRetryAt=int(retry_at.timestamp() * 1000) if retry_at else None,
    )
    unit.signal(signals.step_failed, state.key, step_name=step_name, error=error, will_retry=retry_at is not None)


def _retry_at(lease: Lease, expression: str | None, answer: Answer, now: datetime) -> datetime:
    return now + retry_delay(lease.attempt, expression or get_settings().retry_delay, answer.headers, now)


def _note_attempt(
    unit: UnitOfWork, lease: Lease, fact: Settlement, error: str, step_name: str, retry_at: datetime | None
) -> None:
    unit.add_attempt(
        Attempt(
            run_id=lease.run_key,
            message_key=lease.message_key,
            kind=lease.kind,
            step_id=lease.running.step_id if lease.running else lease.step_id,
            step_name=step_name[:255],
            number=lease.attempt + 1,
            status=fact.answer.status,
            error=error,
            response_headers=msgspec.json.encode(fact.answer.headers).decode(),
            response_body=printable(fact.answer.body.decode("utf-8", "replace")),
            started_at=fact.started_at,
            finished_at=fact.finished_at,
            retry_at=retry_at,
        )
    )


def _error_text(answer: Answer) -> str:
    """One line for a failed answer: the error that an SDK reported, else what the engine saw."""
    if answer.error:
        return printable(answer.error)
    try:
        body = msgspec.json.decode(answer.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        body = None
    if isinstance(body, dict) and body.get("message"):
        name = body.get("error")
        return printable(f"{name}: {body['message']}" if name else str(body["message"]))
    return f"HTTP status {answer.status}" + (
        f": {printable(answer.body[:500].decode('utf-8', 'replace'))}" if answer.body else ""
    )


# What happens while a delivery is under way


def _step_started(unit: UnitOfWork, state: RunState, fact: StepStarted) -> None:
    lease, step = fact.lease, fact.lease.running
    if step is None or not state.alive:
        return
    if not unit.mark(lease, step_id=step.step_id, step_name=step.step_name[:255]):
        return
    wake_up(unit, state, fact.started_at)
    lease.start_written = True
    unit.put_step(
        state,
        step.step_id,
        fresh=False,
        name=step.step_name[:255],
        step_type=step.step_type,
        status=Step.Status.RUNNING,
        concurrent=step.concurrent,
        attempts=lease.attempt + 1,
        started_at=fact.started_at,
    )
    unit.tell(
        state,
        "stepStart",
        at=fact.started_at,
        stepName=step.step_name,
        stepId=step.step_id,
        stepType=step.step_type,
        attempt=lease.attempt + 1,
    )
    if state.group_open == 0:
        state.set(status=Run.Status.RUNNING, why="", due_at=None)
    else:
        state.in_group = True


def _emitted(unit: UnitOfWork, state: RunState, fact: Emitted) -> None:
    if not state.alive or not unit.holds(fact.lease):
        return
    wake_up(unit, state, fact.lease.started_at or unit.now)
    if fact.done is not None:
        show_progress(unit, state, fact.done, fact.total)
    else:
        unit.emit(state, fact.event, fact.data)
