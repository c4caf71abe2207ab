"""Taking messages in: new runs, messages of running runs, calls and invocations.

Comes from `transport` (a request on its caller's connection) or from `settle` (what an endpoint submitted during its
in-process delivery). Raises RunEnded when the run is over or unknown.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django_workflow.client.urls import code_version_of, workflow_name
from django_workflow.conf import get_settings
from django_workflow.engine import calls
from django_workflow.engine.addresses import is_internal
from django_workflow.engine.flow_control import note_limits
from django_workflow.engine.journal_cache import info_of
from django_workflow.engine.records import Invoker, Lease, RunConfig, encode_config, stored
from django_workflow.engine.run_state import RunState
from django_workflow.engine.runs import append_plan, append_result, due_at, wake_up
from django_workflow.engine.unit_of_work import UnitOfWork
from django_workflow.errors import EngineError, RunEnded
from django_workflow.models import Delivery, Run, Step
from django_workflow.models.objects import columns_of
from django_workflow.protocol.headers import any_case, first_values
from django_workflow.protocol.identifiers import uuid7
from django_workflow.protocol.invoke import InvokeResult, decode_invoke, invoke_result
from django_workflow.protocol.publish import Message
from django_workflow.protocol.steps import CallType, StepType, decode_step, encode_step
from django_workflow.protocol.steps import Step as WireStep

MAX_INVOKE_DEPTH = 100


def run_ended(run_id: str) -> RunEnded:
    return RunEnded(
        f"Run {run_id} is finished, canceled or unknown; nothing can be added to it. Trigger a new run.", run_id=run_id
    )


def append_message(
    unit: UnitOfWork, state: RunState, message: Message, key: UUID, *, lease: Lease | None = None
) -> bool:
    """Append one message to a locked, living run: a plan, a result, a call or an invocation.

    False: its step has a result already, or is under way, and the message was dropped.
    """
    fields = message.workflow
    assert fields is not None
    if not state.alive:
        raise run_ended(state.run_id)
    started_at = lease.started_at if lease is not None else None
    wake_up(unit, state, started_at or unit.now)
    if fields.invoke:
        if _was_submitted(unit, state, decode_invoke(message.body).step.step_id, lease):
            return False
        invoke(unit, state, message)
    elif fields.call_type == CallType.TO_CALLBACK:
        if _was_submitted(unit, state, calls.called_step(message).step_id, lease):
            return False
        calls.start_call(unit, state, message, key)
    else:
        body, _ = stored(message.body)
        step = decode_step(body)
        if step.is_plan:
            append_plan(unit, state, message, key, step)
        else:
            return append_result(
                unit,
                state,
                step,
                key,
                body,
                due=due_at(message, unit.now),
                message=message,
                lease=lease,
                started_at=started_at,
                attempts=None if lease is not None else _attempts_elsewhere(unit, state, step),
            )
    return True


def is_first_call(lease: Lease) -> bool:
    """Whether no earlier call can have brought what this one does: one of an endpoint elsewhere brings it by itself,
    whatever becomes of its answer."""
    return is_internal(lease.destination) and not lease.attempt and not lease.rescues


def _was_submitted(unit: UnitOfWork, state: RunState, step_id: int, lease: Lease | None) -> bool:
    """Whether a step that calls or invokes was submitted before, by a call whose answer was lost or came late.

    Nobody is called a second time then, and no second run is started.
    """
    if lease is not None and is_first_call(lease):
        return False
    if unit.has_result(state, step_id):
        return True
    mine = {"run_id": state.key, "step_id": step_id}
    called = Delivery.objects.using(unit.alias).filter(kind__in=(Delivery.Kind.CALL, Delivery.Kind.CALLBACK), **mine)
    # A branch that is only planned has a row too, and invoked nothing yet.
    invoked = Step.objects.using(unit.alias).filter(step_type=StepType.INVOKE, **mine).exclude(event_id="")
    return called.exists() or invoked.exists()


def _attempts_elsewhere(unit: UnitOfWork, state: RunState, step: WireStep) -> int:
    """How often the call was made that brought this result, while it is under way at an endpoint elsewhere."""
    held = Delivery.objects.using(unit.alias).filter(
        run_id=state.key,
        kind=Delivery.Kind.STEP,
        step_id=step.step_id if step.concurrent > 1 else None,
        worker__isnull=False,
    )
    # What carries the whole journal is what goes on; other calls of a group that just ended do nothing any more.
    attempt = held.order_by("-position").values_list("attempt", flat=True).first()
    return (attempt or 0) + 1


def known_run(unit: UnitOfWork, run_id: str) -> Run | None:
    return Run.objects.using(unit.alias).filter(run_id=run_id).only("pk", "run_id", "created_at").first()


def start_run(
    unit: UnitOfWork,
    message: Message,
    *,
    trigger_kind: Run.TriggerKind = Run.TriggerKind.CODE,
    payload: bytes | None = None,
    parent_key: UUID | None = None,
    invoker: Invoker | None = None,
    key: UUID | None = None,
    caller_ip: str = "",
    by_rest: bool = False,
    leased: bool = False,
) -> Run:
    """Create a run and its first delivery. The caller made sure that the run id is free.

    `leased`: the delivery is the unit's worker's at once, if that has room for it.
    """
    fields = message.workflow
    assert fields is not None
    text, is_base64 = stored(message.body if payload is None else payload)
    due = due_at(message, unit.now)
    if message.flow_control is not None:
        note_limits(unit.alias, message.flow_control)
    config = RunConfig(
        headers=message.headers,
        content_type=message.content_type,
        retries=message.retries,
        retry_delay=message.retry_delay,
        timeout=message.timeout,
        flow_control=message.flow_control,
        redact=message.redact,
        secret=message.secret,
        features=fields.features,
        failure_callback=message.failure_callback,
        invoker=invoker,
        awaits_sdk=by_rest,
    )
    run = Run(
        id=key or uuid7(),
        run_id=fields.run_id,
        workflow=workflow_name(fields.url or message.destination),
        url=message.destination,
        status=Run.Status.SCHEDULED if due > unit.now else Run.Status.QUEUED,
        payload=text,
        payload_is_base64=is_base64,
        flow_key=message.flow_control.key if message.flow_control else "",
        labels=f",{','.join(message.labels)}," if message.labels else "",
        trigger_kind=trigger_kind,
        parent_id=parent_key,
        caller_ip=caller_ip,
        code_version=code_version_of(message.destination),
        created_at=unit.now,
        due_at=due if due > unit.now else None,
        config=encode_config(config),
    )
    for name, value in columns_of(message.attributes, unit.alias).items():
        setattr(run, name, value)
    unit.add_run(run, info_of(run))
    add_first_delivery(unit, run.pk, run.url, config, due, leased=leased)
    return run


def add_first_delivery(
    unit: UnitOfWork, run_key: UUID, url: str, config: RunConfig, due: datetime, *, leased: bool = False
) -> None:
    """The delivery that carries the payload alone."""
    row = Delivery(
        run_id=run_key,
        message_key=run_key,
        solo=True,
        destination=url,
        max_retries=get_settings().retries if config.retries is None else config.retries,
        flow_key=config.flow_control.key if config.flow_control else "",
        due_at=due,
        created_at=unit.now,
    )
    at_once = leased and due <= unit.now and not row.flow_key
    if not at_once or not unit.lease_at_once(row):
        unit.after.wake = True
    unit.add_delivery(row)


def invoke(unit: UnitOfWork, state: RunState, message: Message) -> None:
    """Start the run that a step invokes. Its end becomes the step's result; an id in use makes the step fail so."""
    body = decode_invoke(message.body)
    depth = int(any_case(message.headers).get("Upstash-Workflow-Invoke-Count", "0") or 0)
    if depth > MAX_INVOKE_DEPTH:
        raise EngineError(
            f"Run {state.run_id} invokes {depth} deep; at most {MAX_INVOKE_DEPTH} are allowed.", status=400
        )
    invoker = Invoker(run_id=state.run_id, url=body.workflow_url, step=body.step, headers=first_values(body.headers))
    fields = message.workflow
    assert fields is not None
    step = body.step
    if known_run(unit, fields.run_id) is not None:
        failed = invoke_result(step, InvokeResult(is_canceled=False, is_failed=True))
        append_result(unit, state, failed, uuid7(), encode_step(failed).decode())
        return
    start_run(
        unit,
        message,
        trigger_kind=Run.TriggerKind.PARENT,
        payload=(body.body or "").encode(),
        parent_key=state.key,
        invoker=invoker,
    )
    unit.put_step(
        state,
        step.step_id,
        fresh=False,
        name=step.step_name[:255],
        step_type=StepType.INVOKE,
        status=Step.Status.WAITING,
        concurrent=step.concurrent,
        started_at=unit.now,
        event_id=fields.run_id[:255],
    )
    unit.tell(state, "stepStart", stepName=step.step_name, stepId=step.step_id, stepType=step.step_type)
    if state.group_open == 0:
        name = workflow_name(message.destination)
        state.set(status=Run.Status.WAITING, why=f"Waiting for {name}, run {fields.run_id}.")
    else:
        state.in_group = True
