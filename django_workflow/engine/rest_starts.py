"""Runs started by REST, without an SDK: their endpoint is asked first to start them with its own.

The HTTP door makes the run (`rest_start` completes its message). Its first delivery says that the SDK is unknown; the
endpoint answers by sending the message that starts a run, for the same run id: `adopt` takes that in, and the first
step is delivered. What was asked for by REST stays; what only the endpoint knows is added. Source: engine protocol,
12.1 and 12.8.
"""

from __future__ import annotations

from uuid import UUID

import msgspec

from django_workflow.engine import intake
from django_workflow.engine.messages import is_url
from django_workflow.engine.records import RunConfig, decode_config, encode_config
from django_workflow.engine.unit_of_work import UnitOfWork
from django_workflow.errors import MessageInvalid
from django_workflow.models import Delivery, Run
from django_workflow.protocol import headers as h
from django_workflow.protocol.identifiers import new_run_id
from django_workflow.protocol.publish import CallbackConfig, Message, WorkflowFields, encode_flow_control
from django_workflow.protocol.steps import CallType


def rest_start(message: Message) -> Message:
    """The message that makes a run, of what came by REST: with a run id, and with a failure callback to the workflow
    itself unless another was named. Raises MessageInvalid for a destination that is no URL."""
    if not is_url(message.destination):
        raise MessageInvalid(
            f"A run is started at the URL of its workflow, not at {message.destination[:200]!r}.", name="destination"
        )
    run_id = message.workflow.run_id if message.workflow is not None else new_run_id()
    return msgspec.structs.replace(
        message,
        queue=None,
        failure_callback=_failure_callback(message, run_id),
        workflow=WorkflowFields(run_id=run_id, url=message.destination, init=True),
    )


def _failure_callback(message: Message, run_id: str) -> CallbackConfig:
    """Where the run's failure is reported and how, as SDKs say it when they start a run."""
    headers = {
        h.FORWARD_PREFIX + h.WORKFLOW_IS_FAILURE: "true",
        h.FORWARD_PREFIX + h.WORKFLOW_FAILURE_CALLBACK: "true",
        h.WORKFLOW_RUN_ID: run_id,
        h.WORKFLOW_INIT: "false",
        h.WORKFLOW_URL: message.destination,
        h.WORKFLOW_CALL_TYPE: CallType.FAILURE_CALL.value,
    }
    if message.retries is not None:
        headers[h.RETRIES] = str(message.retries)
    if message.retry_delay is not None:
        headers[h.RETRY_DELAY] = message.retry_delay
    if message.flow_control is not None:
        headers[h.FLOW_CONTROL_KEY] = message.flow_control.key
        headers[h.FLOW_CONTROL_VALUE] = encode_flow_control(message.flow_control)
    headers |= {h.FORWARD_PREFIX + name: value for name, value in message.headers.items()}
    given = message.failure_callback or CallbackConfig(url=None)
    return CallbackConfig(url=given.url or message.destination, headers=_merged(headers, given.headers))


def adopt(unit: UnitOfWork, run_key: UUID, message: Message) -> bool:
    """Take in what the endpoint of a run that was started by REST says, and deliver its first step.

    False when nothing waits for that: the run was adopted already, is over, or was started otherwise.
    """
    unit.lock([run_key])
    if not unit.has(run_key) or not unit.state(run_key).alive:
        return False
    # Read under the lock, also where a transaction sees the rows of its beginning.
    rows = Run.objects.using(unit.alias).locked([run_key])
    run = rows.only("config", "labels", "url").get()
    config = decode_config(run.config)
    if not config.awaits_sdk:
        return False
    labels = dict.fromkeys((*run.label_list, *message.labels))
    config = _adopted(config, message)
    unit.state(run_key).set(config=encode_config(config), labels=f",{','.join(labels)}," if labels else "")
    unit.after.forgotten.append(run_key)
    # The delivery that asked is over, however it comes back.
    Delivery.objects.using(unit.alias).filter(run_id=run_key, kind=Delivery.Kind.STEP, position=0).delete()
    intake.add_first_delivery(unit, run_key, run.url, config, unit.now)
    return True


def _adopted(config: RunConfig, message: Message) -> RunConfig:
    assert message.workflow is not None
    return msgspec.structs.replace(
        config,
        awaits_sdk=False,
        headers=_merged(message.headers, config.headers),
        content_type=config.content_type or message.content_type,
        retries=message.retries if config.retries is None else config.retries,
        retry_delay=config.retry_delay or message.retry_delay,
        timeout=message.timeout if config.timeout is None else config.timeout,
        flow_control=config.flow_control or message.flow_control,
        redact=config.redact or message.redact,
        secret=config.secret or message.secret,
        features=message.workflow.features,
    )


def _merged(first: dict[str, str], second: dict[str, str]) -> dict[str, str]:
    """Headers of both; `second` wins, in any letter case of its names."""
    return dict(h.Headers([*first.items(), *second.items()]))
