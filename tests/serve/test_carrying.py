"""Which deliveries are answered with what was submitted, and which submit it by themselves."""

from __future__ import annotations

import time
from typing import Any

import pytest
from django.test import override_settings

from django_workflow.authoring.decorator import Workflow
from django_workflow.authoring.options import WorkflowOptions
from django_workflow.client.carried import current_carried
from django_workflow.client.client import Client
from django_workflow.protocol import headers as h
from django_workflow.protocol.carried import decode_carried, is_sealed
from django_workflow.protocol.requests import Batch, EngineRequest
from django_workflow.protocol.signature import sign
from django_workflow.protocol.steps import JournalMessage, encode_messages
from django_workflow.serve.endpoint import EndpointRequest, EndpointResponse
from django_workflow.serve.handler import handle
from tests.client.fakes import RecordingTransport

SITE = "https://shop.example"
URL = f"{SITE}/workflows/serve/checkout/"
KEYS = {"current_signing_key": "sig_current", "next_signing_key": "sig_next"}
EMBEDDED = {"base_url": SITE, **KEYS}


class Transport(RecordingTransport):
    """Takes what may be carried, as the embedded engine's does, and keeps the rest."""

    def send(self, request: EngineRequest[Any]) -> Any:
        bag = current_carried.get()
        if bag is not None and (accepted := bag.take(request)) is not None:
            return accepted.answer
        return super().send(request)


@pytest.fixture
def transport() -> Transport:
    return Transport()


def answer_of(
    client: Client,
    function: Any = lambda ctx: ctx.run("charge", lambda: "paid"),
    *,
    session: Any = None,
    **headers: str,
) -> tuple[EndpointRequest, EndpointResponse]:
    body = encode_messages([JournalMessage("msg_0", "{}")])
    given = {
        h.WORKFLOW_SDK_VERSION: "1",
        h.WORKFLOW_RUN_ID: "wfr_1",
        h.MESSAGE_ID: "msg_0",
        h.SIGNATURE: sign(URL, body, "sig_next", time.time()),
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    request = EndpointRequest("POST", URL, given, body)
    workflow = Workflow(function, name="checkout", options=WorkflowOptions())
    return request, handle(workflow, request, client=client)


@override_settings(DJANGO_WORKFLOW=EMBEDDED)
def test_an_engine_that_asks_gets_submissions_in_the_answer_sealed_for_its_delivery(
    client: Client, transport: Transport
) -> None:
    request, response = answer_of(client, Django_Workflow_Carry="1")
    assert not transport.sent
    assert response.headers[h.CARRY] == "1"
    assert response.headers[h.WORKFLOW_SDK_VERSION] == "1"
    ((submitted, keys),) = decode_carried(response.body)
    assert isinstance(submitted, Batch)
    assert len(keys) == len(submitted.messages) == 1
    signature = request.headers[h.SIGNATURE]
    assert is_sealed(response.headers[h.SEAL], signature, response.body, ["sig_current"])
    assert current_carried.get() is None


@override_settings(DJANGO_WORKFLOW=EMBEDDED)
@pytest.mark.parametrize("headers", [{}, {"Django_Workflow_Carry": "2"}, {"Django_Workflow_Carry": ""}])
def test_who_does_not_ask_gets_the_answer_of_ever(
    client: Client, transport: Transport, headers: dict[str, str]
) -> None:
    _, response = answer_of(client, **headers)
    assert len(transport.sent) == 1
    assert h.CARRY not in response.headers


@override_settings(DJANGO_WORKFLOW={"engine": "qstash", "token": "t", **EMBEDDED})
def test_steps_of_a_hosted_engine_go_to_it_whatever_a_request_says(client: Client, transport: Transport) -> None:
    _, response = answer_of(client, Django_Workflow_Carry="1")
    assert len(transport.sent) == 1
    assert h.CARRY not in response.headers


@override_settings(DJANGO_WORKFLOW=EMBEDDED)
def test_an_unsigned_request_is_refused_before_that(client: Client, transport: Transport) -> None:
    _, response = answer_of(client, Django_Workflow_Carry="1", Upstash_Signature="a.b.c")
    assert response.status == 401
    assert not transport.sent


@override_settings(DJANGO_WORKFLOW=EMBEDDED)
def test_an_answer_that_is_no_success_carries_nothing(client: Client, transport: Transport) -> None:
    def fails(ctx: Any) -> None:
        bag = current_carried.get()
        assert bag is not None
        client.cancel_run("wfr_1")
        raise ValueError("no")

    _, response = answer_of(client, fails, Django_Workflow_Carry="1")
    assert response.status == 500
    assert h.CARRY not in response.headers
    assert not transport.sent
