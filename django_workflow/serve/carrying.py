"""An answer that carries what its invocation submits, for an engine that asks for it; see `protocol.carried`.

Only for this project's own embedded engine: submissions go into `current_carried` when they would be written to this
project's database otherwise, and a hosted engine never asks.
"""

from __future__ import annotations

from collections.abc import Callable

from django_workflow.client.carried import Carried, current_carried
from django_workflow.conf import get_settings
from django_workflow.protocol import headers as h
from django_workflow.protocol.carried import VERSION, seal
from django_workflow.serve import keys
from django_workflow.serve.endpoint import EndpointResponse
from django_workflow.serve.endpoint_call import EndpointCall


def is_asked_to_carry(call: EndpointCall) -> bool:
    """Whether the engine that made this call takes submissions in the answer, and is the one in this database."""
    if call.session is not None or not call.signed:
        return False
    return call.request.headers.get(h.CARRY) == VERSION and not get_settings().is_hosted


def answer_with_submissions(
    call: EndpointCall, execute: Callable[[EndpointCall], EndpointResponse]
) -> EndpointResponse:
    """The answer of `execute` with what was submitted meanwhile, as far as that was not written down already.

    Another answer than success carries nothing: the engine then makes the call again as if nothing had been submitted.
    """
    carried = Carried(call.run_id)
    token = current_carried.set(carried)
    try:
        response = execute(call)
    finally:
        current_carried.reset(token)
    body = carried.body
    if body is None or response.status != 200:
        return response
    signature = call.request.headers.get(h.SIGNATURE, "")
    sealed = seal(signature, body, keys.verification_keys()[0])
    headers = {**response.headers, h.CARRY: VERSION, h.SEAL: sealed}
    return EndpointResponse(response.status, headers, body)
