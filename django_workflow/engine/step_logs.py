"""A run's steps as its log shows them: one group after the other, from the payload to the call that comes next.

`run_rows` gives what is stored, `run_logs` and `run_events` take the documents.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from http import HTTPStatus
from typing import Any
from uuid import UUID

from django_workflow.conf import get_settings
from django_workflow.engine.failed_runs import retries_of
from django_workflow.engine.records import RunConfig, decode_config, decode_message_config, milliseconds, raw
from django_workflow.engine.run_rows import RunRows, read_step
from django_workflow.engine.shown import Shown
from django_workflow.errors import MessageInvalid
from django_workflow.models import Attempt, Delivery, JournalEntry, Run, Step, Waiter
from django_workflow.protocol.callbacks import decode_call_result
from django_workflow.protocol.durations import format_duration
from django_workflow.protocol.headers import header_lists
from django_workflow.protocol.identifiers import message_id_of
from django_workflow.protocol.resources import StepError, StepGroup, StepLog
from django_workflow.protocol.secrets import PAYLOAD, shown_out
from django_workflow.protocol.states import StepState
from django_workflow.protocol.steps import CallType, StepType
from django_workflow.protocol.steps import Step as WireStep

STATES = {
    Step.Status.QUEUED: StepState.PROGRESS,
    Step.Status.RUNNING: StepState.PROGRESS,
    Step.Status.WAITING: StepState.PROGRESS,
    Step.Status.SLEEPING: StepState.PROGRESS,
    Step.Status.RETRYING: StepState.RETRY,
    Step.Status.SUCCESS: StepState.SUCCESS,
    Step.Status.FAILED: StepState.FAILED,
    Step.Status.CANCELED: StepState.CANCELED,
}
_WAITS = (StepType.WAIT, StepType.WAIT_FOR_WEBHOOK)
# They are shown while they are under way; of other sequential steps only the call is known until they have a result.
_SHOWN_OPEN = (*_WAITS, StepType.CALL, StepType.INVOKE)


def groups(rows: RunRows) -> tuple[StepGroup, ...]:
    """The groups of a run, in their order."""
    return (_group("sequential", [_initial(rows)]), *_finished_and_open(rows), *_next(rows))


def _group(kind: str, steps: Iterable[StepLog]) -> StepGroup:
    return StepGroup(type=kind, steps=tuple(steps))


def _initial(rows: RunRows) -> StepLog:
    run, config = rows.run, rows.config
    text, base64 = rows.shown.payload(raw(run.payload, run.payload_is_base64))
    return StepLog(
        step_name="init",
        step_type=StepType.INITIAL,
        call_type=CallType.STEP,
        message_id=message_id_of(run.pk),
        out=rows.shown.trimmed(text or base64),
        concurrent=1,
        state=StepState.SUCCESS,
        retries=retries_of(run, config),
        retry_delay=config.retry_delay,
        created_at=milliseconds(run.created_at),
        headers=rows.headers,
    )


def _finished_and_open(rows: RunRows) -> Iterator[StepGroup]:
    branches: list[Step] = []
    for step in rows.steps:
        if branches and (step.concurrent != branches[0].concurrent or len(branches) == branches[0].concurrent):
            yield _group("parallel", [step_log(rows, branch) for branch in branches])
            branches = []
        if step.concurrent > 1:
            branches.append(step)
        elif step.position is not None or step.step_type in _SHOWN_OPEN:
            yield _group("sequential", [step_log(rows, step)])
    if branches:
        yield _group("parallel", [step_log(rows, branch) for branch in branches])


# One step


def step_log(rows: RunRows, step: Step) -> StepLog:
    """One step, finished or under way."""
    result = rows.results.get(step.position) if step.position is not None else None
    wire = read_step(result.body) if result is not None else None
    if wire is None and step.step_id in rows.plans:
        wire = rows.plans[step.step_id][1]
    finished = step.status in (Step.Status.SUCCESS, Step.Status.SLEEPING) and result is not None
    key, call_type, created_at = _message(rows, step, result)
    retries, retry_delay = _retries(rows, step, result)
    return StepLog(
        step_id=step.step_id,
        step_name=step.name,
        step_type=step.step_type,
        call_type=call_type,
        message_id=message_id_of(key),
        out=rows.shown.text(shown_out(wire)) if result is not None and wire is not None else None,
        concurrent=step.concurrent,
        state=STATES[Step.Status(step.status)],
        retries=retries,
        retry_delay=retry_delay,
        created_at=milliseconds(created_at),
        headers=rows.headers,
        next_delivery_time=_next_delivery(step),
        errors=() if finished else tuple(step_errors(rows, lambda attempt: attempt.step_id == step.step_id)),
        **_details(rows, step, wire),
    )


def _message(rows: RunRows, step: Step, result: JournalEntry | None) -> tuple[UUID, str, datetime]:
    """The message that a step stands in: its key, what it is, and when it came."""
    number = step.step_id
    if result is not None:
        return result.pk, CallType.STEP, result.created_at
    if number in rows.answers:
        return rows.answers[number].pk, CallType.FROM_CALLBACK, rows.answers[number].created_at
    if number in rows.calls:
        return rows.calls[number][0].pk, CallType.TO_CALLBACK, rows.calls[number][0].created_at
    for row in (rows.waiters.get(number), rows.children.get(number), rows.plans.get(number, (None,))[0]):
        if row is not None:
            return row.pk, CallType.STEP, row.created_at
    return step.pk, CallType.STEP, step.queued_at or rows.run.created_at


def _retries(rows: RunRows, step: Step, result: JournalEntry | None) -> tuple[int, str | None]:
    if step.step_type == StepType.CALL and step.step_id in rows.calls:
        message = rows.calls[step.step_id][1]
        return message.retries or 0, message.retry_delay
    return _own_retries(rows, result)


def _own_retries(rows: RunRows, entry: JournalEntry | None) -> tuple[int, str | None]:
    """What the message itself says (SDKs that repeat their configuration), else its run."""
    own = decode_message_config(entry.config) if entry is not None and entry.config else None
    if own is None:
        return retries_of(rows.run, rows.config), rows.config.retry_delay
    return get_settings().retries if own.retries is None else own.retries, own.retry_delay or rows.config.retry_delay


def _next_delivery(step: Step) -> int | None:
    # What waits is due at its deadline, and is not delivered then.
    due = step.due_at if step.status in (Step.Status.RETRYING, Step.Status.SLEEPING) else None
    return None if due is None else milliseconds(due)


def _details(rows: RunRows, step: Step, wire: WireStep | None) -> dict[str, Any]:
    """The fields of one kind of step."""
    kind = step.step_type
    if kind == StepType.SLEEP_FOR:
        return {"sleep_for": wire.sleep_for if wire else None}
    if kind == StepType.SLEEP_UNTIL:
        return {"sleep_until": wire.sleep_until if wire else None}
    if kind == StepType.CALL:
        return _call(rows, step, wire)
    if kind in _WAITS:
        return _wait(rows.waiters.get(step.step_id), step, wire)
    if kind == StepType.INVOKE and (child := rows.children.get(step.step_id)) is not None:
        return _invoked(rows, child)
    return {}


def _call(rows: RunRows, step: Step, wire: WireStep | None) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    shown = rows.shown
    if step.step_id in rows.calls:
        entry, message = rows.calls[step.step_id]
        shown = Shown((*rows.config.redact, *message.redact), rows.shown.trim)
        body = raw(entry.body, entry.body_is_base64).decode("utf-8", "replace")
        fields = {
            "call_url": message.destination,
            "call_method": message.method,
            "call_body": shown.text(body),
            "call_headers": shown.headers(header_lists(message.headers)),
        }
    if step.position is None or wire is None or wire.out is None:
        return fields
    try:
        result = decode_call_result(wire.out)
    except MessageInvalid:
        return fields
    return fields | {
        "call_response_status": result.status,
        "call_response_body": shown.text(result.body.decode("utf-8", "replace")),
        "call_response_headers": shown.headers(result.header),
    }


def _wait(waiter: Waiter | None, step: Step, wire: WireStep | None) -> dict[str, Any]:
    fields: dict[str, Any] = {"wait_event_id": step.event_id or (wire.wait_event_id if wire else None)}
    if step.position is not None and wire is not None:
        fields["wait_timeout"] = bool(wire.wait_timeout)
    if waiter is not None and waiter.deadline_at is not None:
        since = waiter.resolved_at if waiter.state == Waiter.State.CONSUMED else waiter.created_at
        length = (waiter.deadline_at - (since or waiter.created_at)).total_seconds()
        fields["wait_timeout_duration"] = format_duration(length)
        fields["wait_timeout_deadline"] = int(waiter.deadline_at.timestamp())
    return fields


def _invoked(rows: RunRows, child: Run) -> dict[str, Any]:
    config: RunConfig = decode_config(child.config)
    shown = Shown((*rows.config.redact, *config.redact), rows.shown.trim, config.secret)
    payload = shown.part(PAYLOAD, raw(child.payload, child.payload_is_base64))
    return {
        "invoked_workflow_run_id": child.run_id,
        "invoked_workflow_url": child.url,
        "invoked_workflow_created_at": milliseconds(child.created_at),
        "invoked_workflow_run_body": shown.text(payload.decode("utf-8", "replace")),
        "invoked_workflow_run_headers": shown.headers(header_lists(config.headers)),
    }


# The call that comes next, or that was given up


def _next(rows: RunRows) -> Iterator[StepGroup]:
    log = _pending(rows) or _failed(rows) or _canceled(rows)
    if log is not None:
        yield _group("next", [log])


def _pending(rows: RunRows) -> StepLog | None:
    calls = [row for row in rows.deliveries if row.solo and row.kind == Delivery.Kind.STEP]
    if rows.run.is_finished or not calls:
        return None
    call = max(calls, key=lambda row: row.position)
    config = decode_message_config(call.config)
    return StepLog(
        step_name=_failed_step(rows, call.message_key),
        message_id=message_id_of(call.message_key),
        state=StepState.RETRY if call.attempt else StepState.PROGRESS,
        retries=call.max_retries,
        retry_delay=(config.retry_delay if config else None) or rows.config.retry_delay,
        next_delivery_time=milliseconds(call.due_at) if call.worker_id is None else None,
        errors=_errors_of(rows, call.message_key),
    )


def _failed(rows: RunRows) -> StepLog | None:
    """The call that failed the run, unless that was a branch's or brought the answer of a call."""
    if rows.run.status != Run.Status.FAILED:
        return None
    last = [attempt.message_key for attempt in rows.attempts if attempt.retry_at is None and attempt.kind == "step"]
    key = rows.letter.message_key if rows.letter is not None else last[-1] if last else None
    elsewhere = {entry.pk for entry, _ in rows.plans.values()} | {entry.pk for entry in rows.answers.values()}
    if key is None or key in elsewhere:
        return None
    return _ended(rows, key, StepState.FAILED)


def _canceled(rows: RunRows) -> StepLog | None:
    """The call that was under way when the run was cancelled, unless a step that is shown was."""
    canceled = rows.run.status == Run.Status.CANCELED
    shown = any(
        step.status == Step.Status.CANCELED and (step.concurrent > 1 or step.step_type in _SHOWN_OPEN)
        for step in rows.steps
    )
    if not canceled or shown:
        return None
    return _ended(rows, rows.last.pk if rows.last is not None else rows.run.pk, StepState.CANCELED)


def _ended(rows: RunRows, key: UUID, state: StepState) -> StepLog:
    entry = next((entry for entry in rows.results.values() if entry.pk == key), None)
    retries, retry_delay = _own_retries(rows, entry)
    errors = _errors_of(rows, key)
    if not errors and state is StepState.FAILED and rows.letter is not None:  # given up without a last attempt
        errors = (StepError(error=rows.letter.error, time=milliseconds(rows.letter.created_at)),)
    return StepLog(
        step_name=_failed_step(rows, key),
        message_id=message_id_of(key),
        state=state,
        retries=retries,
        retry_delay=retry_delay,
        errors=errors,
    )


def _failed_step(rows: RunRows, key: UUID) -> str | None:
    """The step that the call's last attempt failed in, where its endpoint said which one it was."""
    names = [attempt.step_name for attempt in rows.attempts if attempt.message_key == key and attempt.kind == "step"]
    return names[-1] or None if names else None


def _errors_of(rows: RunRows, key: UUID) -> tuple[StepError, ...]:
    return tuple(step_errors(rows, lambda attempt: attempt.message_key == key))


def step_errors(rows: RunRows, which: Any) -> Iterator[StepError]:
    """The failed attempts that fit, in their order."""
    for attempt in rows.attempts:
        if attempt.kind != Delivery.Kind.FAILURE and which(attempt):
            yield step_error(rows.shown, attempt)


def step_error(shown: Shown, attempt: Attempt) -> StepError:
    return StepError(
        error=error_line(attempt),
        body=shown.text(attempt.response_body) or "",
        headers=shown.answer_headers(attempt.response_headers),
        status=attempt.status,
        time=milliseconds(attempt.finished_at),
    )


def error_line(attempt: Attempt) -> str:
    """What went wrong: what the engine or an SDK said of it, else the answer's own text."""
    if not attempt.error.startswith(f"HTTP status {attempt.status}"):
        return attempt.error
    if attempt.response_body:
        return attempt.response_body[:2000]
    phrases = {status.value: status.phrase for status in HTTPStatus}
    return f"{attempt.status} {phrases.get(attempt.status, '')}".strip()
