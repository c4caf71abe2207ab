"""The failure callback: a run has failed for good, and its workflow's failure function is called.

Source: endpoint.md, section 9.
"""

from __future__ import annotations

import logging

from django_workflow.authoring.invocation import call_failure_function, dry_run
from django_workflow.errors import PayloadInvalid, WorkflowError
from django_workflow.protocol import headers as h
from django_workflow.protocol.callbacks import decode_error
from django_workflow.replay.outcome import NoStepReached
from django_workflow.serve import responses
from django_workflow.serve.endpoint import EndpointResponse
from django_workflow.serve.endpoint_call import EndpointCall

logger = logging.getLogger("django_workflow.serve")


def report_failure(call: EndpointCall) -> EndpointResponse:
    """Call the failure function with the answer of the call that failed last. A failing one is tried again.

    The workflow is tried out first, as it may turn callers away by returning before its first step. An exception there
    turns nobody away: it may be the very reason of the failure.
    """
    workflow, failure, observer = call.workflow, call.invocation.failure, call.observer
    assert failure is not None
    if observer is not None:
        observer.arrived()
    if workflow.on_failure is None:
        if observer is not None:
            observer.failure_handled(found=False)
        found_none = {h.FAILURE_CALLBACK_NOT_FOUND: "true"}
        return responses.acknowledged(call.run_id, responses.NO_FAILURE_FUNCTION, found_none)
    details = call.details()
    if _payload_fits(call) and isinstance(dry_run(workflow, details), NoStepReached):
        return call.failed(WorkflowError("Not authorized to run the failure function."))
    message = decode_error(failure.body).message
    try:
        result = call_failure_function(
            workflow, details, failure.status, message, failure.header, port=call.submitter()
        )
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return call.failed(error)
    logger.info("failure function of run %s has run", call.run_id, extra={"run_id": call.run_id})
    if observer is not None:
        observer.failure_handled(result=result)
    return responses.failure_handled(result)


def _payload_fits(call: EndpointCall) -> bool:
    """A run may have failed because its payload does not; then the workflow cannot be tried out with it."""
    try:
        call.workflow.decode_payload(call.invocation.payload)
    except PayloadInvalid:
        return False
    return True
