"""Calls: HTTP requests that a workflow asks the engine to make, and the way of their answers back.

A call is a delivery to a third party. When it succeeded, or its retries are used up, its answer goes to the
workflow's endpoint as a callback, and the endpoint submits it as the step's result. A failing target fails no run.
"""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID

import msgspec

from django_workflow.conf import get_settings
from django_workflow.engine.facts import Answer
from django_workflow.engine.flow_control import note_limits
from django_workflow.engine.records import Lease, encode_config, lease_of, milliseconds, raw, stored
from django_workflow.engine.run_state import RunState
from django_workflow.engine.runs import due_at
from django_workflow.engine.unit_of_work import UnitOfWork
from django_workflow.errors import EngineError
from django_workflow.models import Delivery, Run, Step
from django_workflow.protocol.callbacks import CallbackBody, encode_callback
from django_workflow.protocol.headers import (
    WORKFLOW_CONCURRENT,
    WORKFLOW_STEP_ID,
    WORKFLOW_STEP_NAME,
    any_case,
    header_lists,
)
from django_workflow.protocol.identifiers import uuid7
from django_workflow.protocol.publish import Message, callback_message
from django_workflow.protocol.steps import CallType, StepType


class CalledStep(NamedTuple):
    step_id: int
    step_name: str
    concurrent: int


def called_step(message: Message) -> CalledStep:
    """The step that a call belongs to, as the headers of its callback say; also of the callback itself."""
    callback = message if message.callback is None else callback_message(message.callback, b"")
    headers = any_case(callback.headers)
    return CalledStep(
        int(headers.get(WORKFLOW_STEP_ID, "0") or 0),
        headers.get(WORKFLOW_STEP_NAME, ""),
        int(headers.get(WORKFLOW_CONCURRENT, "1") or 1),
    )


def start_call(unit: UnitOfWork, state: RunState, message: Message, key: UUID) -> None:
    """Journal a call and write its delivery."""
    if message.callback is None or message.callback.url is None:
        raise EngineError(f"A call of run {state.run_id} names no Upstash-Callback to bring its answer to.", status=400)
    called = called_step(message)
    step_id, name, concurrent = called.step_id, called.step_name, called.concurrent
    body, is_base64 = stored(message.body)
    config = encode_config(msgspec.structs.replace(message, body=b""))
    position = unit.add_entry(state, key, body, call_type=CallType.TO_CALLBACK, is_base64=is_base64, config=config)
    due = due_at(message, unit.now)
    if message.flow_control is not None:
        note_limits(unit.alias, message.flow_control)
    unit.add_delivery(
        Delivery(
            run_id=state.key,
            kind=Delivery.Kind.CALL,
            message_key=key,
            position=position,
            step_id=step_id,
            step_name=name[:255],
            destination=message.destination,
            method=message.method,
            config=config,
            body=body,
            body_is_base64=is_base64,
            max_retries=message.retries or 0,
            flow_key=message.flow_control.key if message.flow_control else "",
            due_at=due,
            created_at=unit.now,
        )
    )
    unit.put_step(
        state,
        step_id,
        fresh=False,
        name=name[:255],
        step_type=StepType.CALL,
        status=Step.Status.RUNNING,
        concurrent=concurrent,
        started_at=unit.now,
    )
    unit.tell(state, "stepStart", stepName=name, stepId=step_id, stepType=StepType.CALL)
    unit.after.wake = True
    if state.group_open == 0:
        state.set(status=Run.Status.RUNNING, why=f"Calling {message.method} {message.destination}.")
    else:
        state.in_group = True


def bring_back(unit: UnitOfWork, state: RunState, lease: Lease, answer: Answer) -> None:
    """Write the callback that carries a call's last answer to the workflow's endpoint."""
    message = lease.config
    assert message is not None
    assert message.callback is not None
    info = unit.info(state.key)
    body = encode_callback(
        CallbackBody(
            status=answer.status,
            header=answer.headers,
            body=answer.body or answer.error.encode(),
            retried=lease.attempt,
            max_retries=lease.max_retries,
            source_message_id=lease.message_id,
            url=lease.destination,
            method=lease.method,
            source_header=header_lists(message.headers),
            source_body=raw(lease.body, lease.body_is_base64),
            created_at=milliseconds(lease.created_at),
            workflow_run_id=state.run_id,
        )
    )
    if lease.attempt and lease.step_id is not None:
        name = lease.step_name
        unit.put_step(state, lease.step_id, fresh=False, name=name, step_type=StepType.CALL, attempts=lease.attempt + 1)
    callback = callback_message(message.callback, b"")
    text, _ = stored(body)
    key = uuid7()
    config = encode_config(callback)
    position = unit.add_entry(state, key, text, call_type=CallType.FROM_CALLBACK, config=config)
    retries, control = info.config.retries, info.config.flow_control
    row = Delivery(
        run_id=state.key,
        kind=Delivery.Kind.CALLBACK,
        message_key=key,
        position=position,
        step_id=lease.step_id,
        step_name=lease.step_name,
        destination=callback.destination,
        config=config,
        body=text,
        max_retries=get_settings().retries if retries is None else retries,
        flow_key=control.key if control else "",
        due_at=unit.now,
        created_at=unit.now,
    )
    if unit.worker_key is not None and not row.flow_key and not state.paused:
        row.worker_id, row.fence = unit.worker_key, 1
        unit.continue_with(lease_of(row, unit.worker_key))
    unit.add_delivery(row)
    unit.after.wake = True
