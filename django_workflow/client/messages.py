"""The message that starts a run: used by `Client.trigger`, by an endpoint that starts itself, and by invocations.

Also the parts that every message of a run shares. Source: endpoint.md sections 3.3 to 3.5 and 12.1, as the official
SDKs send them.
"""

from __future__ import annotations

from collections.abc import Mapping

from django_workflow.client.options import TriggerOptions
from django_workflow.protocol import headers as h
from django_workflow.protocol.publish import FEATURES, CallbackConfig, Message, WorkflowFields, encode_flow_control
from django_workflow.protocol.steps import CallType

JSON = "application/json"
FEATURE_SET = ",".join(FEATURES)

# What marks a delivery as one of a run's steps: the engine hands it to the endpoint.
STEP_HEADERS: dict[str, str] = {h.WORKFLOW_SDK_VERSION: h.PROTOCOL_VERSION}


def init_message(
    *,
    run_id: str,
    url: str,
    body: bytes,
    options: TriggerOptions,
    content_type: str | None = None,
    invoke: bool = False,
    invoke_count: int = 0,
    trigger_by_sdk: bool = False,
    keeps_config: bool = False,
) -> Message:
    """The message that starts run `run_id` at `url`.

    Users' headers go to every call of the run and of its failure callback; a `content-type` among them is also the
    message's own. `invoke`: `body` is an invoke request, and `invoke_count` the depth of the new run. `keeps_config`:
    the engine knows already where this run's failure is reported.
    """
    headers = dict(options.headers)
    forwarded = {**headers, **STEP_HEADERS}
    if options.labels:
        headers[h.LABEL] = forwarded[h.LABEL] = ",".join(options.labels)
    if invoke_count:
        headers[h.WORKFLOW_INVOKE_COUNT] = forwarded[h.WORKFLOW_INVOKE_COUNT] = str(invoke_count)
    return Message(
        destination=url,
        body=body,
        content_type=content_type or _content_type(options.headers) or JSON,
        headers=forwarded,
        delay=options.delay,
        not_before=options.not_before,
        retries=options.retries,
        retry_delay=options.retry_delay,
        timeout=options.timeout,
        flow_control=options.flow_control,
        labels=options.labels,
        redact=options.redact,
        secret=options.secret,
        attributes=options.attributes,
        failure_callback=None if keeps_config else _failure_callback(run_id, url, options, headers),
        workflow=WorkflowFields(
            run_id=run_id,
            url=url,
            init=True,
            features=FEATURES,
            sdk_version=h.PROTOCOL_VERSION,
            invoke=invoke,
            trigger_by_sdk=trigger_by_sdk,
        ),
    )


def _failure_callback(run_id: str, url: str, options: TriggerOptions, headers: Mapping[str, str]) -> CallbackConfig:
    """How the run's failure is reported: to `failure_url`, or to the workflow, whose failure function then runs."""
    config = {
        h.FORWARD_PREFIX + h.WORKFLOW_IS_FAILURE: "true",
        h.FORWARD_PREFIX + h.WORKFLOW_FAILURE_CALLBACK: "true",
        h.WORKFLOW_RUN_ID: run_id,
        h.WORKFLOW_INIT: "false",
        h.WORKFLOW_URL: url,
        h.WORKFLOW_CALL_TYPE: CallType.FAILURE_CALL.value,
        h.FEATURE_SET: FEATURE_SET,
    }
    if options.retries is not None:
        config[h.RETRIES] = str(options.retries)
    if options.retry_delay is not None:
        config[h.RETRY_DELAY] = options.retry_delay
    if options.flow_control is not None:
        config[h.FLOW_CONTROL_KEY] = options.flow_control.key
        config[h.FLOW_CONTROL_VALUE] = encode_flow_control(options.flow_control)
    for name, value in headers.items():
        config[h.FORWARD_PREFIX + name] = value
    return CallbackConfig(url=options.failure_url or url, headers=config)


def _content_type(headers: Mapping[str, str]) -> str | None:
    return next((value for name, value in headers.items() if name.lower() == "content-type"), None)
