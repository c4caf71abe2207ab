"""Dead letters: a delivery that is given up fails its run, is kept with the true reason, and calls the failure URL."""

from __future__ import annotations

import msgspec

from django_workflow import signals
from django_workflow.conf import get_settings
from django_workflow.engine.facts import Answer
from django_workflow.engine.records import Lease, encode_config, milliseconds, printable, raw, stored
from django_workflow.engine.runs import end_run
from django_workflow.engine.unit_of_work import RunState, UnitOfWork
from django_workflow.models import DeadLetter, Delivery, Run
from django_workflow.protocol.callbacks import ErrorBody, FailureBody, encode_callback, encode_error
from django_workflow.protocol.headers import FAILURE_CALLBACK_NOT_FOUND, header_lists
from django_workflow.protocol.publish import callback_message


def fail_run(unit: UnitOfWork, state: RunState, lease: Lease, answer: Answer, error: str, step_name: str) -> None:
    """Fail a run because `lease` was given up with `answer`. The delivery itself is gone already."""
    info = unit.info(state.key)
    failure = info.config.failure_callback
    letter = DeadLetter(
        run_id=state.key,
        message_key=lease.message_key,
        step_name=step_name[:255],
        destination=lease.destination,
        status=answer.status,
        error=error,
        response_headers=msgspec.json.encode(answer.headers).decode(),
        response_body=printable(answer.body.decode("utf-8", "replace")),
        failure_state=DeadLetter.FailureState.IN_PROGRESS if failure else DeadLetter.FailureState.NONE,
        created_at=unit.now,
    )
    unit.add_dead_letter(letter)
    state.set(error_step=step_name[:255])
    end_run(unit, state, Run.Status.FAILED, error=error)
    unit.signal(signals.delivery_failed, state.key, delivery=lease)
    if failure is None or failure.url is None:
        return
    body = encode_callback(
        FailureBody(
            status=answer.status,
            header=answer.headers,
            body=answer.body or encode_error(ErrorBody(error="DeliveryFailed", message=error)),
            retried=lease.attempt,
            max_retries=lease.max_retries,
            source_message_id=lease.message_id,
            url=info.url,
            method=lease.method,
            source_header=header_lists(info.config.headers),
            source_body=raw(info.payload, info.payload_is_base64),
            created_at=milliseconds(lease.created_at),
            dlq_id=str(letter.pk),
            workflow_run_id=state.run_id,
            workflow_created_at=info.created_ms,
        )
    )
    message = callback_message(failure, b"")
    text, is_base64 = stored(body)
    unit.add_delivery(
        Delivery(
            run_id=state.key,
            kind=Delivery.Kind.FAILURE,
            destination=failure.url,
            config=encode_config(message),
            body=text,
            body_is_base64=is_base64,
            max_retries=get_settings().retries if message.retries is None else message.retries,
            due_at=unit.now,
            created_at=unit.now,
        )
    )
    unit.after.wake = True


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
        failure_state=state, failure_response=printable(answer.body.decode("utf-8", "replace") or answer.error)
    )
