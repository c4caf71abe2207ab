"""Dead letters of runs: a delivery that is given up fails its run, is kept with the true reason, and calls the failure
URL. That callback can be made again when it failed, and stopped while it is in progress.

Which dead letters a request means, and how they are shown, is `failed_runs`' business; `resuming` starts them again.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from django_workflow import signals
from django_workflow.conf import get_settings
from django_workflow.engine import failed_runs
from django_workflow.engine.facts import Answer
from django_workflow.engine.flow_control import note_limits
from django_workflow.engine.records import Lease, RunInfo, encode_config, milliseconds, printable, raw, stored
from django_workflow.engine.run_state import RunState
from django_workflow.engine.runs import end_run
from django_workflow.engine.unit_of_work import UnitOfWork
from django_workflow.errors import EngineError
from django_workflow.models import Attempt, DeadLetter, Delivery, Run
from django_workflow.models.dead_letter import kind_of_error
from django_workflow.protocol.callbacks import ErrorBody, FailureBody, encode_callback, encode_error
from django_workflow.protocol.headers import FAILURE_CALLBACK_NOT_FOUND, header_lists
from django_workflow.protocol.identifiers import message_id_of
from django_workflow.protocol.publish import CallbackConfig, callback_message
from django_workflow.protocol.requests import CancelFailureCallback, DeleteDeadLetters, RerunFailureCallback
from django_workflow.protocol.resources import Deleted, StartedRun

DELETED_AT_ONCE = 100
MOST_DELETED_AT_ONCE = 1000


def fail_run(unit: UnitOfWork, state: RunState, lease: Lease, answer: Answer, error: str, step_name: str) -> None:
    """Fail a run because `lease` was given up with `answer`. The delivery itself is gone already."""
    info = unit.info(state.key)
    failure = failure_callback_of(info)
    letter = DeadLetter(
        run_id=state.key,
        message_key=lease.message_key,
        step_name=step_name[:255],
        destination=lease.destination,
        status=answer.status,
        error=error,
        error_kind=kind_of_error(error, answer.status),
        response_headers=msgspec.json.encode(answer.headers).decode(),
        response_body=printable(answer.body.decode("utf-8", "replace")),
        failure_state=DeadLetter.FailureState.IN_PROGRESS if failure else DeadLetter.FailureState.NONE,
        created_at=unit.now,
    )
    unit.add_dead_letter(letter)
    state.set(error_step=step_name[:255])
    end_run(unit, state, Run.Status.FAILED, error=error)
    unit.signal(signals.delivery_failed, state.key, delivery=lease)
    if failure is not None:
        body = _failure_body(
            info, letter, answer.body, created_at=lease.created_at, retried=lease.attempt, max_retries=lease.max_retries
        )
        letter.failure_key = _call_back(unit, info, failure, body).message_key


def failure_callback_of(info: RunInfo) -> CallbackConfig | None:
    """Where and how a run's failure is told; None when nobody is to be told."""
    failure = info.config.failure_callback
    return failure if failure is not None and failure.url is not None else None


def _failure_body(
    info: RunInfo, letter: DeadLetter, body: bytes, *, created_at: datetime, retried: int, max_retries: int
) -> FailureBody:
    return FailureBody(
        status=letter.status,
        header=msgspec.json.decode(letter.response_headers or "{}"),
        body=body or encode_error(ErrorBody(error="DeliveryFailed", message=letter.error)),
        retried=retried,
        max_retries=max_retries,
        source_message_id=message_id_of(letter.message_key),
        url=info.url,
        method="POST",
        source_header=header_lists(info.config.headers),
        source_body=raw(info.payload, info.payload_is_base64),
        created_at=milliseconds(created_at),
        dlq_id=str(letter.pk),
        workflow_run_id=info.run_id,
        workflow_created_at=info.created_ms,
    )


def _call_back(unit: UnitOfWork, info: RunInfo, failure: CallbackConfig, body: FailureBody) -> Delivery:
    message = callback_message(failure, b"")
    text, is_base64 = stored(encode_callback(body))
    control = message.flow_control
    if control is not None:
        note_limits(unit.alias, control)
    row = Delivery(
        run_id=info.key,
        kind=Delivery.Kind.FAILURE,
        destination=message.destination,
        config=encode_config(message),
        body=text,
        body_is_base64=is_base64,
        max_retries=get_settings().retries if message.retries is None else message.retries,
        flow_key=control.key if control else "",
        due_at=unit.now,
        created_at=unit.now,
    )
    unit.add_delivery(row)
    unit.after.wake = True
    return row


def settle_failure_callback(unit: UnitOfWork, lease: Lease, answer: Answer) -> None:
    """Note how the failure function ended, once it answered well or its retries are used up."""
    if not answer.ok:
        state = DeadLetter.FailureState.FAILED
    elif answer.header(FAILURE_CALLBACK_NOT_FOUND):
        state = DeadLetter.FailureState.NONE
    else:
        state = DeadLetter.FailureState.SUCCESS
    assert lease.run_key is not None
    DeadLetter.objects.using(unit.alias).filter(run_id=lease.run_key).update(
        failure_state=state,
        failure_status=answer.status,
        failure_headers=msgspec.json.encode(answer.headers).decode(),
        failure_response=printable(answer.body.decode("utf-8", "replace") or answer.error),
    )


# What people do about them


def rerun_failure_callback(unit: UnitOfWork, request: RerunFailureCallback) -> StartedRun:
    """Make a failed run's failure callback again; the dead letter stays. Raises EngineError: 404, 400 when the callback
    did not fail."""
    letter = failed_runs.find(unit.alias, request.dlq_id)
    assert letter.run is not None
    info = unit.info(letter.run.pk)
    failure = failure_callback_of(info)
    states = DeadLetter.FailureState
    failed = DeadLetter.objects.using(unit.alias).filter(pk=letter.pk, failure_state=states.FAILED)
    if failure is None or not failed.update(failure_state=states.IN_PROGRESS):
        raise EngineError(
            f"The failure callback of run {info.run_id} is not made again: its state is {letter.failure_state}, not "
            "CALLBACK_FAIL.",
            status=400,
        )
    attempts = Attempt.objects.using(unit.alias).filter(run_id=info.key, message_key=letter.message_key)
    tried = attempts.order_by("-number").values_list("number", flat=True).first() or 1
    body = _failure_body(
        info,
        letter,
        letter.response_body.encode(),
        created_at=failed_runs.sent_at(unit.alias, [letter])[letter.pk],
        retried=tried - 1,
        max_retries=failed_runs.retries_of(letter.run),
    )
    row = _call_back(unit, info, failure, body)
    DeadLetter.objects.using(unit.alias).filter(pk=letter.pk).update(failure_key=row.message_key)
    return StartedRun(workflow_run_id=info.run_id, workflow_created_at=info.created_ms)


def cancel_failure_callback(unit: UnitOfWork, request: CancelFailureCallback) -> None:
    """Stop a failure callback that is in progress; an attempt under way ends unheard. Raises EngineError: 404, 400."""
    letter = failed_runs.find(unit.alias, request.dlq_id)
    assert letter.run is not None
    unit.lock([letter.run.pk])  # as the settlement of the callback does, which takes delivery and letter the other way
    states = DeadLetter.FailureState
    running = DeadLetter.objects.using(unit.alias).filter(pk=letter.pk, failure_state=states.IN_PROGRESS)
    if not running.update(failure_state=states.CANCELED):
        raise EngineError(
            f"No failure callback of dead letter {request.dlq_id} is in progress: there is nothing to cancel.",
            status=400,
        )
    Delivery.objects.using(unit.alias).filter(run=letter.run, kind=Delivery.Kind.FAILURE).delete()


def delete(unit: UnitOfWork, request: DeleteDeadLetters) -> Deleted:
    """Forget dead letters; their runs stay, and can be started again no more. Unknown ids are passed over."""
    chosen = failed_runs.choose(unit.alias, request, default=DELETED_AT_ONCE, most=MOST_DELETED_AT_ONCE)
    letters = DeadLetter.objects.using(unit.alias).filter(pk__in=[letter.pk for letter in chosen.letters])
    return Deleted(deleted=letters.delete()[0], cursor=chosen.cursor)
