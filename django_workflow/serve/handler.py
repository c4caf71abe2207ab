"""One request to a workflow's endpoint, without Django's request: verify, classify, replay, submit, answer.

Comes from `views` with the workflow and the request; an EndpointResponse goes back. `authoring.invocation` runs the
function and says how that ended, a `Submitter` carries its steps to the engine. Source: endpoint.md, sections 5 and 6.
"""

from __future__ import annotations

import logging
from typing import Any

from django_workflow.authoring.decorator import Workflow
from django_workflow.authoring.invocation import invoke
from django_workflow.client.client import Client
from django_workflow.client.observer import Delivered, Observer, observe
from django_workflow.client.session import DeliverySession, current_region, current_session
from django_workflow.conf import region_name
from django_workflow.errors import EngineError, InvocationInvalid, Misconfigured, RunEnded, SignatureInvalid, StepError
from django_workflow.protocol import headers as h
from django_workflow.protocol.invocation import Invocation, Kind, classify
from django_workflow.replay.journal import Journal
from django_workflow.replay.outcome import Cancelled, Failed, Finished, NoStepReached, Outcome
from django_workflow.serve import keys, responses
from django_workflow.serve.call_return import record_call
from django_workflow.serve.carrying import answer_with_submissions, is_asked_to_carry
from django_workflow.serve.endpoint import EndpointRequest, EndpointResponse
from django_workflow.serve.endpoint_call import EndpointCall
from django_workflow.serve.failure import report_failure
from django_workflow.serve.start import start_run
from django_workflow.serve.submit import Submitter

logger = logging.getLogger("django_workflow.serve")


def handle(
    workflow: Workflow[Any, Any],
    request: EndpointRequest,
    *,
    client: Client,
    session: DeliverySession | None = None,
) -> EndpointResponse:
    """Answer one request. Raises nothing for what the workflow does.

    `session` is that of a delivery made in this process; without one the request must be signed.
    """
    signed = session is not None
    if not signed:
        try:
            signed = keys.verify(request)
        except SignatureInvalid as error:
            logger.warning("request to workflow %r refused: %s (%s)", workflow.name, error, error.reason)
            return responses.unsigned(error)
    token = current_session.set(session)
    region = current_region.set(None if session is not None else region_name(request.headers.get(h.REGION)))
    try:
        return _answer(workflow, request, client, session, signed)
    finally:
        current_region.reset(region)
        current_session.reset(token)


def _answer(
    workflow: Workflow[Any, Any],
    request: EndpointRequest,
    client: Client,
    session: DeliverySession | None,
    signed: bool,
) -> EndpointResponse:
    """Find out what the request is, and do that."""
    run_id = ""
    try:
        invocation = classify(request.headers, request.body)
        run_id = invocation.run_id
        if invocation.lazy:
            invocation = invocation.with_messages(client.fetch_run(run_id, invocation.message_id))
    except RunEnded:
        if observer := _observer(workflow, request, invocation, session):
            observer.run_ended()
        return responses.acknowledged(run_id, responses.ALREADY_ENDED)
    except (InvocationInvalid, EngineError) as error:
        logger.error("delivery of run %s to workflow %r cannot be read: %s", run_id or "?", workflow.name, error)
        return responses.failed(error, show_stack=signed)
    observer = _observer(workflow, request, invocation, session)
    call = EndpointCall(workflow, request, invocation, client, session, signed, observer)
    if invocation.kind is Kind.STEPS:
        return answer_with_submissions(call, execute) if is_asked_to_carry(call) else execute(call)
    if invocation.kind is Kind.CALL_CALLBACK:
        return record_call(call)
    if invocation.kind is Kind.FAILURE_CALLBACK:
        return report_failure(call)
    return start_run(call)


def _observer(
    workflow: Workflow[Any, Any], request: EndpointRequest, invocation: Invocation, session: DeliverySession | None
) -> Observer | None:
    """Who watches a delivery; nobody one of this process's own engine, which writes everything down itself."""
    if session is not None:
        return None
    return observe(Delivered(workflow=workflow.name, url=request.url, headers=request.headers, invocation=invocation))


def execute(call: EndpointCall) -> EndpointResponse:
    """Replay the run's known steps and run the next one."""
    steps = call.invocation.steps
    assert steps is not None
    if call.observer is not None:
        call.observer.arrived()
    submitter = call.submitter()
    try:
        # A call of several steps adds them to its journal.
        journal = call.session.replay() if call.session is not None and call.steps_per_call == 1 else None
        if journal is None:
            journal = Journal.from_messages(steps.messages)
        if journal.is_last_duplicate:
            logger.info("run %s got a step twice; the second is dropped", call.run_id, extra={"run_id": call.run_id})
            return responses.acknowledged(call.run_id, responses.DUPLICATE_STEP)
        outcome = invoke(call.workflow, call.details(), journal, submitter)
    except (StepError, Misconfigured) as error:
        return call.failed(error)
    return _conclude(call, submitter, outcome)


def _conclude(call: EndpointCall, submitter: Submitter, outcome: Outcome) -> EndpointResponse:
    """Tell the engine how the run ended, if it did, and answer."""
    if isinstance(outcome, Failed):
        return call.failed(outcome.error, step_name=outcome.step_name, by_engine=outcome.by_engine)
    if isinstance(outcome, NoStepReached):
        return call.turned_away()
    try:
        if isinstance(outcome, Finished):
            submitter.finish(outcome.result)
        elif isinstance(outcome, Cancelled):
            submitter.cancel()
    except EngineError as error:
        return call.failed(error, by_engine=True)
    return responses.acknowledged(call.run_id)
