"""What was missed: rows of hosted runs, put right from the engine's logs.

A delivery that never came, or whose rows could not be written, leaves a run behind as it last was. Every change of a
run says when to ask about it next (`Run.check_at`); workers ask about those that are due, `manage.py workflow_sync`
about any. Asking again changes nothing.
"""

from __future__ import annotations

import base64
import binascii
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec

from django_workflow.client.transports import Transport
from django_workflow.client.urls import workflow_url
from django_workflow.conf import get_settings
from django_workflow.errors import EngineError, RunEnded, WorkflowError
from django_workflow.mirror.change import SLEEPS, WAITS, RunChange, changing
from django_workflow.mirror.failures import note_failure_function, put_dead_letter
from django_workflow.mirror.run_rows import CHECK_AFTER, discovered_run, from_ms
from django_workflow.mirror.surroundings import surroundings
from django_workflow.models import DeadLetter, Delivery, Outbox, Run, Step
from django_workflow.protocol.bodies import printable
from django_workflow.protocol.callbacks import CallResult, decode_error, encode_call_result
from django_workflow.protocol.durations import to_seconds
from django_workflow.protocol.headers import ERROR_STEP_NAME, utf8_value
from django_workflow.protocol.requests import FetchRun, FetchRunLogs
from django_workflow.protocol.resources import RunLog, StepError, StepLog
from django_workflow.protocol.states import FailureCallbackState, RunState, StepState
from django_workflow.protocol.steps import Step as WireStep
from django_workflow.protocol.steps import StepType

logger = logging.getLogger("django_workflow.mirror")

GIVE_UP_AFTER = timedelta(hours=1)
"""How old a run must be before the engine's not knowing it counts: logs lag behind."""

_ENDS = {
    RunState.SUCCESS: Run.Status.SUCCESS,
    RunState.FAILED: Run.Status.FAILED,
    RunState.CANCELED: Run.Status.CANCELED,
}
_FAILURE_STATES = {
    FailureCallbackState.IN_PROGRESS: DeadLetter.FailureState.IN_PROGRESS,
    FailureCallbackState.SUCCESS: DeadLetter.FailureState.SUCCESS,
    FailureCallbackState.FAIL: DeadLetter.FailureState.FAILED,
    FailureCallbackState.CANCELED: DeadLetter.FailureState.CANCELED,
}


@dataclass(slots=True)
class Checked:
    """How many runs were asked about, how many rows came out different, and how many could not be read."""

    asked: int = 0
    changed: int = 0
    failed: int = 0

    def __add__(self, other: Checked) -> Checked:
        return Checked(self.asked + other.asked, self.changed + other.changed, self.failed + other.failed)


def check_due(transport: Transport, *, limit: int = 20) -> Checked:
    """Ask about runs that have been silent for too long, the longest first."""
    alias, now = get_settings().database, surroundings().now()
    due = Run.objects.using(alias).filter(check_at__lte=now).order_by("check_at").values_list("run_id", "check_at")
    checked = Checked()
    for run_id, check_at in list(due[:limit]):
        # Moved on first: no two processes ask about one run, and one that cannot be read holds up no others.
        taken = Run.objects.using(alias).filter(run_id=run_id, check_at=check_at)
        if taken.update(check_at=now + CHECK_AFTER):
            checked += check_run(transport, run_id)
    return checked


def check_run(transport: Transport, run_id: str) -> Checked:
    """Ask about one run. Raises nothing: what goes wrong is logged, and counted as failed."""
    try:
        logs = transport.send(FetchRunLogs(run_ids=(run_id,), count=1))
        if logs.runs:
            return Checked(asked=1, changed=int(apply(logs.runs[0])))
        return Checked(asked=1, changed=int(_unknown(transport, run_id)))
    except WorkflowError as error:
        logger.warning("The engine could not be asked about run %s: %s", run_id, error)
        return Checked(asked=1, failed=1)


def check_since(transport: Transport, since: datetime) -> Checked:
    """Bring every run of this site's workflows up to date that was made since then. Raises EngineError."""
    checked = Checked()
    for log in _logs(transport, since):
        if is_ours(log):
            checked += Checked(asked=1, changed=int(apply(log)))
    return checked


def _logs(transport: Transport, since: datetime) -> Iterator[RunLog]:
    cursor = None
    while True:
        page = transport.send(FetchRunLogs(from_date=int(since.timestamp() * 1000), count=10, cursor=cursor))
        yield from page.runs
        cursor = page.cursor
        if not cursor:
            return


def is_ours(log: RunLog) -> bool:
    """Whether a run is of a workflow of this site: others may use the same account."""
    if log.workflow_url.startswith(workflow_url("-").removesuffix("-/")):
        return True
    return Run.objects.using(get_settings().database).filter(run_id=log.workflow_run_id).exists()


def apply(log: RunLog) -> bool:
    """Bring a run's rows up to its log. True when something was different."""

    def made() -> Run:
        initial = next((step.out for group in log.steps for step in group.steps if not step.step_id and step.out), "")
        return discovered_run(
            log.workflow_run_id,
            log.workflow_url,
            surroundings().now(),
            created_ms=log.workflow_run_created_at,
            payload=initial.encode(),
            labels=log.labels or ((log.label,) if log.label else ()),
        )

    with changing(log.workflow_run_id, create=made) as change:
        if change is None:
            return False
        before = _outline(change)
        _apply(change, log)
        different = change.is_new or change.has_news or _outline(change) != before
    if log.failure_function is not None and log.workflow_state == RunState.FAILED:
        state = _FAILURE_STATES.get(FailureCallbackState(log.failure_function.state), DeadLetter.FailureState.NONE)
        note_failure_function(log.workflow_run_id, state, log.failure_function.response_body or "")
    return different


def _outline(change: RunChange) -> tuple[object, ...]:
    run = change.run
    return (run.status, run.result, run.error, run.parent_id)


def _apply(change: RunChange, log: RunLog) -> None:
    run = change.run
    if log.workflow_state == RunState.STARTED and run.status == Run.Status.FAILED and run.check_at is not None:
        change.reopen()
    if log.invoker is not None and run.parent_id is None:
        parents = Run.objects.using(change.alias).filter(run_id=log.invoker.workflow_run_id)
        run.parent_id = parents.values_list("pk", flat=True).first()
        if run.parent_id is not None:
            run.trigger_kind = Run.TriggerKind.PARENT
    if not change.alive:
        change.finish(_ENDS.get(RunState(log.workflow_state), Run.Status(run.status)))  # certain now
        if log.workflow_state == RunState.FAILED and log.dlq_id:  # else its letter was deleted, or made into a run
            _note_letter(change, log)
        return
    steps = [step for group in log.steps if group.type != "next" for step in group.steps if step.step_id]
    following = [step for group in log.steps if group.type == "next" for step in group.steps]
    change.read_steps(step.step_id for step in steps if step.step_id)
    if steps or any(step.errors for step in following) or log.workflow_state != RunState.STARTED:
        change.begin(from_ms(log.workflow_run_created_at))
    wakes_at = next((from_ms(step.next_delivery_time) for step in following if step.next_delivery_time), None)
    for step in steps:
        _apply_step(change, step, wakes_at)
    for step in following:
        _apply_following(change, step)
    end = _ENDS.get(RunState(log.workflow_state))
    if end is not None:
        error, step_name = _why_failed(log) if end == Run.Status.FAILED else ("", "")
        result = log.workflow_run_response
        at = from_ms(log.workflow_run_completed_at)
        change.finish(end, result=result, error=error, error_step=step_name, at=at)
        if end == Run.Status.FAILED:
            _note_letter(change, log)


# Steps


def _apply_step(change: RunChange, log: StepLog, wakes_at: datetime | None) -> None:
    step = _wire_step(log)
    if step is None:
        return
    _note_errors(change, log)
    if step.step_type in SLEEPS and log.state != StepState.SUCCESS and step.concurrent == 1:
        change.record_result(step, due=wakes_at or _wakes_at(log))
    elif log.state == StepState.SUCCESS or step.out is not None or step.wait_timeout:
        change.record_result(step, at=from_ms(log.created_at))
        row = change.step(step.step_id)
        if step.step_type in SLEEPS and row is not None and row.status == Step.Status.SLEEPING:
            change.goes_on(step)
    elif log.state in (StepState.PROGRESS, StepState.RETRY):
        _apply_open(change, step, log)


def _apply_open(change: RunChange, step: WireStep, log: StepLog) -> None:
    """A step that is under way."""
    if step.step_type in WAITS:
        deadline = from_ms(log.wait_timeout_deadline * 1000) if log.wait_timeout_deadline else None
        change.wait(step, log.wait_event_id or "", deadline)
    elif step.step_type == StepType.CALL:
        change.call(step, log.call_method or "GET", log.call_url or "")
    elif step.step_type == StepType.INVOKE:
        name = (log.invoked_workflow_url or "").rstrip("/").rpartition("/")[2]
        change.invoke(step, name, log.invoked_workflow_run_id or "")
    elif step.concurrent > 1:
        plan = msgspec.structs.replace(step, step_id=0, target_step=step.step_id)
        change.plan(plan, _wakes_at(log) or change.now)


def _wakes_at(log: StepLog) -> datetime | None:
    """Until when a step sleeps."""
    if log.next_delivery_time:
        return from_ms(log.next_delivery_time)
    if log.sleep_until:
        return from_ms(round(log.sleep_until * 1000))
    created = from_ms(log.created_at)
    try:
        return created + timedelta(seconds=to_seconds(log.sleep_for)) if created and log.sleep_for else None
    except (ValueError, OverflowError):
        return None


def _wire_step(log: StepLog) -> WireStep | None:
    """The step as the run's journal has it; None for the payload and for what has no name yet."""
    if not log.step_id or not log.step_name or not log.step_type:
        return None
    out = log.out
    if log.step_type == StepType.CALL and out is None and log.call_response_status is not None:
        answer = CallResult(
            log.call_response_status, log.call_response_headers or {}, (log.call_response_body or "").encode()
        )
        out = encode_call_result(answer)
    if log.step_type in WAITS and out is not None and not _is_base64(out):
        out = base64.b64encode(out.encode()).decode()
    return WireStep(
        step_id=log.step_id,
        step_name=log.step_name,
        step_type=log.step_type,
        out=out,
        concurrent=log.concurrent or 1,
        wait_event_id=log.wait_event_id,
        wait_timeout=log.wait_timeout if log.state == StepState.SUCCESS else None,
    )


def _is_base64(text: str) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return False
    return True


def _apply_following(change: RunChange, log: StepLog) -> None:
    """The call that comes next: it may have failed already. Its step has no number yet, but the endpoint named it."""
    news = _note_errors(change, log)
    if not news or log.state not in (StepState.RETRY, StepState.FAILED):
        return
    name = log.step_name or _named_step(log.errors[-1])
    number = max(change.known_results(), default=0) + 1
    step = WireStep(step_id=number, step_name=name, step_type=StepType.RUN, concurrent=1) if name else None
    final = log.state == StepState.FAILED
    change.fail_step(
        _error_text(log.errors[-1]),
        step=step,
        step_name=name,
        attempt=len(log.errors),
        most=log.retries + 1 if log.retries else None,
        final=final,
        retry_at=None if final else from_ms(log.next_delivery_time),
    )


def _named_step(error: StepError) -> str:
    """The step that an endpoint says its answer is about."""
    values = next((values for name, values in error.headers.items() if name.lower() == ERROR_STEP_NAME.lower()), [])
    return utf8_value(values[0]) if values else ""


def _note_errors(change: RunChange, log: StepLog) -> bool:
    """Keep the failed attempts. False when all of them are known."""
    news = False
    for number, error in enumerate(log.errors, 1):
        at = from_ms(error.time) or change.now
        news |= change.note_attempt(
            log.message_id or change.run.run_id,
            kind=Delivery.Kind.STEP,
            step_id=log.step_id,
            step_name=(log.step_name or "")[:255],
            number=number,
            status=error.status,
            error=_error_text(error),
            response_headers=msgspec.json.encode(error.headers).decode(),
            response_body=printable(error.body),
            started_at=at,
            finished_at=at,
        )
    return news


def _error_text(error: StepError) -> str:
    told = decode_error(error.body.encode())
    if told.error:
        return printable(f"{told.error}: {told.message}")
    return printable(error.error or error.body or f"HTTP status {error.status}")


# Failures


def _why_failed(log: RunLog) -> tuple[str, str]:
    """The error of a failed run and the step that it came out of."""
    steps = [step for group in log.steps for step in group.steps if step.errors]
    if steps:
        last = steps[-1].errors[-1]
        return _error_text(last), steps[-1].step_name or _named_step(last)
    failed = log.failure_function
    if failed is not None:
        return _error_text(StepError(body=failed.fail_response, status=failed.fail_status)), ""
    return "The engine gave the run up.", ""


def _note_letter(change: RunChange, log: RunLog) -> None:
    dlq_id = log.dlq_id or (log.failure_function.dlq_id if log.failure_function else "")
    if not dlq_id:
        return
    failed = log.failure_function
    last = [step.errors[-1] for group in log.steps for step in group.steps if step.errors][-1:]
    put_dead_letter(
        change,
        dlq_id=dlq_id,
        message_id=failed.message_id if failed else "",
        status=failed.fail_status if failed else last[0].status if last else 0,
        error=change.run.error,
        response_headers=msgspec.json.encode(failed.fail_headers).decode() if failed else "",
        response_body=printable(failed.fail_response) if failed else "",
    )


def _unknown(transport: Transport, run_id: str) -> bool:
    """The engine's logs do not know a run: it is on its way there, or they lag behind, or it is long gone."""
    alias, now = get_settings().database, surroundings().now()
    unsent = Outbox.objects.using(alias).unsent().filter(run_id=run_id, kind=Outbox.Kind.TRIGGER)
    if unsent.exists():
        return False
    try:
        transport.send(FetchRun(run_id=run_id))
        return False
    except RunEnded:
        pass
    except EngineError as error:
        logger.warning("The engine could not be asked for run %s: %s", run_id, error)
        return False
    with changing(run_id) as change:
        if change is None or not change.alive or now - change.run.created_at < GIVE_UP_AFTER:
            return False
        text = "The engine does not know this run any more: it has ended, and nobody was told how."
        return change.finish(Run.Status.FAILED, error=text)
