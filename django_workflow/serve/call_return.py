"""The answer of a call's target, on its way into the run: it becomes the result of the call's step.

The function is not run: the callback is trusted by its signature, and brings no payload to run it with. Source:
endpoint.md, section 8.5.
"""

from __future__ import annotations

import logging

from django_workflow.errors import EngineError
from django_workflow.protocol.callbacks import CallResult, encode_call_result
from django_workflow.protocol.steps import Step
from django_workflow.serve import responses
from django_workflow.serve.endpoint import EndpointResponse
from django_workflow.serve.endpoint_call import EndpointCall

logger = logging.getLogger("django_workflow.serve")


def record_call(call: EndpointCall) -> EndpointResponse:
    """Submit the call's result step; an attempt that failed and will be repeated is no result yet."""
    returned = call.invocation.call
    assert returned is not None
    answer = returned.body
    assert answer is not None
    if answer.will_retry:
        logger.info(
            "call %r of run %s was answered with %s and will be tried again",
            returned.step_name,
            call.run_id,
            answer.status,
            extra={"run_id": call.run_id, "step": returned.step_name},
        )
        if call.observer is not None:
            call.observer.call_returned(None)
        return responses.acknowledged(call.run_id, responses.FROM_CALLBACK)
    step = Step(
        step_id=returned.step_id,
        step_name=returned.step_name,
        step_type=returned.step_type,
        out=encode_call_result(CallResult(status=answer.status, header=answer.header, body=answer.body)),
        concurrent=returned.concurrent,
    )
    try:
        call.submitter().publish_step(step)
    except EngineError as error:
        return call.failed(error, by_engine=True)
    return responses.acknowledged(call.run_id, responses.FROM_CALLBACK)
