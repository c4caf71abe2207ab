"""Calls from outside: a request, a schedule or a plain message to the endpoint, which starts a run of itself.

Also the engine's first call of a run that was started by REST, which asks the endpoint to start it properly. In both
the function is tried out first on a context without steps: a function that returns turns the call away.
"""

from __future__ import annotations

import hashlib
import logging
from base64 import urlsafe_b64encode
from dataclasses import replace

import msgspec

from django_workflow.authoring.invocation import dry_run
from django_workflow.client.client import with_default_retries
from django_workflow.client.messages import init_message
from django_workflow.client.options import TriggerOptions
from django_workflow.errors import EngineError, PayloadInvalid
from django_workflow.protocol import headers as h
from django_workflow.protocol.identifiers import RUN_PREFIX, new_run_id
from django_workflow.protocol.invocation import Kind
from django_workflow.replay.outcome import Failed, NoStepReached
from django_workflow.serve import responses
from django_workflow.serve.endpoint import EndpointResponse
from django_workflow.serve.endpoint_call import EndpointCall

logger = logging.getLogger("django_workflow.serve")


def start_run(call: EndpointCall) -> EndpointResponse:
    """Try the function out, then send the message that starts the run, to this endpoint itself."""
    invocation, workflow = call.invocation, call.workflow
    try:
        workflow.decode_payload(invocation.payload)
    except PayloadInvalid as error:
        if invocation.message_id is None:  # a person or a program posts here, and no engine would try again
            return responses.rejected(error.status_code, type(error).__name__, str(error))
        return call.failed(error)
    run_id = invocation.run_id or _run_id(call)
    outcome = dry_run(workflow, call.details(run_id))
    if isinstance(outcome, NoStepReached):
        return responses.not_authenticated()
    if isinstance(outcome, Failed):
        return call.failed(outcome.error, step_name=outcome.step_name)
    by_rest = invocation.kind is Kind.UNKNOWN_SDK
    message = init_message(
        run_id=run_id,
        url=call.request.url,
        body=invocation.payload,
        options=_options(call, by_rest=by_rest),
        content_type=call.request.headers.get(h.CONTENT_TYPE),
        invoke_count=invocation.invoke_count,
        trigger_by_sdk=by_rest,
        keeps_config=by_rest,
    )
    if call.signed and (schedule_id := call.request.headers.get(h.SCHEDULE_ID)):
        # Handed back, as SDKs do with all that came: it tells the engine what has started the run.
        message = msgspec.structs.replace(message, headers={**message.headers, h.SCHEDULE_ID: schedule_id})
    try:
        call.client.batch([message])
    except EngineError as error:
        return call.failed(error, by_engine=True)
    logger.info("run %s of workflow %r starts", run_id, workflow.name, extra={"run_id": run_id})
    if call.observer is not None:
        call.observer.run_started(run_id)
    return responses.acknowledged(run_id)


def _options(call: EndpointCall, *, by_rest: bool) -> TriggerOptions:
    """The workflow's own options, with the headers and labels of the request. By REST the engine has the options."""
    own = call.workflow.options.for_trigger()
    forwarded = h.forwardable(h.context_headers(call.request.headers))
    headers = {name: value for name, value in forwarded.items() if not name.lower().startswith(h.PREFIX.lower())}
    labels = call.invocation.labels
    if by_rest:
        return TriggerOptions(headers=headers, labels=labels, secret=call.workflow.secret)
    labels = tuple(dict.fromkeys((*own.labels, *labels)))
    return with_default_retries(
        replace(own, headers={**own.headers, **headers}, labels=labels, secret=call.workflow.secret)
    )


def _run_id(call: EndpointCall) -> str:
    """A new id; for a message that an engine may deliver twice, an id of that message: it starts one run."""
    message_id = call.invocation.message_id
    if message_id is None or not call.signed:
        return new_run_id()
    digest = hashlib.sha256(f"{call.request.url} {message_id}".encode()).digest()
    return RUN_PREFIX + urlsafe_b64encode(digest).decode()[:21]
