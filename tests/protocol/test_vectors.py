"""The codecs against captured traffic of the official SDKs: nothing that they send is lost or misread."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

import jwt
import pytest

from django_workflow.errors import (
    EngineError,
    InvocationInvalid,
    QuotaExceeded,
    RunEnded,
    SignatureInvalid,
)
from django_workflow.protocol.answers import decode_answer, encode_answer
from django_workflow.protocol.callbacks import (
    CallbackBody,
    FailureBody,
    decode_call_result,
    decode_callback,
    decode_error,
    encode_call_result,
    encode_callback,
)
from django_workflow.protocol.durations import to_seconds
from django_workflow.protocol.headers import forwardable
from django_workflow.protocol.invocation import Invocation, Kind, classify
from django_workflow.protocol.invoke import decode_invoke, decode_invoke_result, encode_invoke, encode_invoke_result
from django_workflow.protocol.publish import Message, callback_message, decode_flow_control, encode_headers
from django_workflow.protocol.requests import Batch, EngineRequest, FetchRun, Notify, Publish, Wait
from django_workflow.protocol.signature import verify
from django_workflow.protocol.steps import CallType, Step, decode_step, encode_messages, encode_step
from django_workflow.protocol.waits import decode_webhook, encode_webhook, event_data
from django_workflow.protocol.wire import decode_request, encode_request
from tests.protocol.javascript import rewritten
from tests.vectors import CURRENT_SIGNING_KEY, ENGINE, NEXT_SIGNING_KEY, Exchange, exchanges, names

KEYS = [CURRENT_SIGNING_KEY, NEXT_SIGNING_KEY]

to_engine = list(exchanges("sdk->engine"))
to_endpoint = list(exchanges("engine->endpoint"))
from_clients = list(exchanges("client->endpoint"))
calls = [exchange for exchange in to_engine if "/v2/workflows/dlq" not in exchange.url]


def path_of(exchange: Exchange) -> str:
    assert exchange.url.startswith(ENGINE)
    return exchange.url.removeprefix(ENGINE)


def decode(exchange: Exchange) -> EngineRequest[Any]:
    return decode_request(exchange.method, path_of(exchange), exchange.headers, exchange.body)


def messages_of(request: EngineRequest[Any]) -> tuple[Message, ...]:
    if isinstance(request, Batch):
        return request.messages
    return (request.message,) if isinstance(request, Publish | Wait) else ()


def test_the_files_are_all_here() -> None:
    assert len([name for name in names() if name.startswith("js/")]) == 76
    assert len([name for name in names() if name.startswith("py/")]) == 21
    assert (len(to_engine), len(to_endpoint), len(from_clients)) == (241, 228, 31)


# SDK -> engine


def normalised(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers as an engine reads them: names in one case, defaults left out, lengths in seconds."""
    found = {name.lower(): value for name, value in headers.items()}
    found = {name: value for name, value in found.items() if not name.startswith("upstash-telemetry-")}
    found.pop("authorization", None)  # the token
    defaults = {"upstash-method": "POST", "upstash-workflow-calltype": "step"}
    for name, value in found.items():
        if name in ("upstash-delay", "upstash-timeout"):
            found[name] = str(to_seconds(value))
        elif name == "upstash-flow-control-value":
            found[name] = repr(decode_flow_control("", value))
        elif name.endswith("-feature-set") or name == "upstash-label":
            found[name] = value.replace(" ", "")
    return {name: value for name, value in found.items() if defaults.get(name) != value}


@pytest.mark.parametrize("exchange", to_engine, ids=str)
def test_every_request_decodes_and_comes_out_again(exchange: Exchange) -> None:
    request = decode(exchange)
    encoded = encode_request(request)
    assert encoded.method == exchange.method
    if isinstance(request, Batch):
        items, again = json.loads(exchange.body), json.loads(encoded.body)
        assert len(items) == len(again) == len(request.messages)
        for sent, ours in zip(items, again, strict=True):
            assert normalised(ours["headers"]) == normalised(sent["headers"])
            assert ours["destination"] == sent["destination"]
            assert ours.get("body", "") == sent.get("body", "")
    elif isinstance(request, Wait):
        sent, ours = json.loads(exchange.body), json.loads(encoded.body)
        assert encoded.path == path_of(exchange)
        assert normalised(encoded.headers) == normalised(exchange.headers)
        assert (ours["url"], ours["timeoutUrl"], ours["step"]) == (sent["url"], sent["timeoutUrl"], sent["step"])
        assert to_seconds(ours["timeout"]) == to_seconds(sent["timeout"])
        first = {name: values[0] for name, values in sent["timeoutHeaders"].items()}
        assert normalised({name: values[0] for name, values in ours["timeoutHeaders"].items()}) == normalised(first)
    else:
        assert encoded.body == exchange.body
        assert sorted(re.split("[?&]", encoded.path)) == sorted(re.split("[?&]", label_list(path_of(exchange))))
        if isinstance(request, Publish):
            assert normalised(encoded.headers) == normalised(exchange.headers)
    # And what came out is what went in.
    assert decode_request(encoded.method, encoded.path, encoded.headers, encoded.body) == request


def label_list(path: str) -> str:
    """Repeated labels as the comma list that we write."""
    return path.replace("label=l1&label=l2", "label=l1%2Cl2")


@pytest.mark.parametrize("exchange", to_engine, ids=str)
def test_every_answer_decodes(exchange: Exchange) -> None:
    request = decode(exchange)
    errors: dict[int, type[EngineError]] = {400: RunEnded, 412: QuotaExceeded, 500: EngineError, 404: RunEnded}
    if exchange.status in errors:
        with pytest.raises(EngineError) as caught:
            decode_answer(request, exchange.status, exchange.answer)
        assert type(caught.value) is errors[exchange.status]
        return
    answer = decode_answer(request, exchange.status, exchange.answer)
    assert len(answer) == len(messages_of(request)) if isinstance(request, Batch) else True
    if isinstance(request, FetchRun):
        assert [message.message_id for message in answer] == [
            element["messageId"] for element in json.loads(exchange.answer)
        ]
    elif not isinstance(request, Notify):
        assert decode_answer(request, *encode_answer(request, answer)) == answer


def test_each_status_of_a_refusal_occurs() -> None:
    assert {exchange.status for exchange in to_engine} >= {200, 400, 404, 412, 500}


published = [(exchange, message) for exchange in to_engine for message in messages_of(decode(exchange))]


def ids_of(pairs: list[tuple[Exchange, Any]]) -> list[str]:
    return [f"{exchange}-{index}" for index, (exchange, _) in enumerate(pairs)]


@pytest.mark.parametrize(("exchange", "message"), published, ids=ids_of(published))
def test_every_message_belongs_to_a_run(exchange: Exchange, message: Message) -> None:
    workflow = message.workflow
    assert workflow is not None
    assert workflow.url.startswith(("http://127.0.0.1:18090/", "http://127.0.0.1:18091/"))
    assert workflow.features
    if workflow.call_type == CallType.TO_CALLBACK:
        assert message.callback is not None
        assert not workflow.init
        back = callback_message(message.callback, b"{}")
        assert back.destination == workflow.url
        assert back.workflow is not None
        assert (back.workflow.run_id, back.workflow.call_type) == (workflow.run_id, CallType.FROM_CALLBACK)
        carried = {name.lower(): value for name, value in forwardable(back.headers).items()}
        assert carried["upstash-workflow-callback"] == "true"
        assert {f"upstash-workflow-{name}" for name in ("stepid", "stepname", "steptype", "concurrent")} <= set(carried)
        # Never what would make the target or the endpoint take it for a delivery of steps.
        assert "upstash-workflow-sdk-version" not in carried
    else:
        assert message.destination == workflow.url
        # The forwarded version marks deliveries of steps.
        assert {name.lower() for name in forwardable(message.headers)} >= {"upstash-workflow-sdk-version"}


failure_callbacks = [
    (exchange, message) for exchange, message in published if message.failure_callback and message.failure_callback.url
]


@pytest.mark.parametrize(("exchange", "message"), failure_callbacks, ids=ids_of(failure_callbacks))
def test_every_failure_callback_can_be_made(exchange: Exchange, message: Message) -> None:
    assert message.failure_callback is not None
    assert message.workflow is not None
    made = callback_message(message.failure_callback, b"{}", retries=message.retries)
    assert made.workflow is not None
    assert (made.workflow.run_id, made.workflow.call_type) == (message.workflow.run_id, CallType.FAILURE_CALL)
    carried = {name.lower(): value for name, value in forwardable(made.headers).items()}
    assert (carried["upstash-workflow-is-failure"], carried["upstash-workflow-failure-callback"]) == ("true", "true")
    assert made.retries == message.retries
    assert made.flow_control == message.flow_control


def test_transport_headers_of_a_first_call_are_not_delivered() -> None:
    (trigger,) = messages_of(next(decode(exchange) for exchange in to_engine if exchange.name == "js/run"))
    assert {"host", "content-length", "connection", "upstash-signature"} <= set(trigger.headers)
    assert forwardable(trigger.headers) == {"upstash-workflow-sdk-version": "1", "x-user-header": "uv"}


# Steps


def known(step: Mapping[str, Any]) -> dict[str, Any]:
    """A step without what no SDK reads: null, and the Python SDK's fields of calls that are made in memory."""
    meaningless = {"method", "callUrl", "callMethod", "callBody", "callHeaders"}
    return {name: value for name, value in step.items() if value is not None and name not in meaningless}


def step_bodies() -> list[tuple[Exchange, bytes]]:
    found = []
    for exchange, message in published:
        workflow = message.workflow
        if workflow is not None and not workflow.init and workflow.call_type == CallType.STEP and message.body:
            found.append((exchange, message.body))
    for exchange in to_endpoint:
        for element in json.loads(exchange.body)[1:] if "decoded_steps" in exchange.raw else []:
            if element["callType"] == "step":
                found.append((exchange, base64.b64decode(element["body"])))
    return found


@pytest.mark.parametrize(("exchange", "body"), step_bodies(), ids=ids_of(step_bodies()))
def test_every_step_round_trips(exchange: Exchange, body: bytes) -> None:
    step = decode_step(body)
    assert json.loads(encode_step(step)) == known(json.loads(body))
    if exchange.name.startswith("js/") and step.step_type == "Run":
        assert encode_step(step) == rewritten(body)  # the JavaScript SDK's bytes, not only its meaning
    if step.is_plan or step.out is None:
        return
    if step.step_type == "Call" and "with_version" not in exchange.name:  # those record a fault
        result = decode_call_result(step.out)
        assert result.status >= 200
        assert decode_call_result(encode_call_result(result)) == result
    elif step.step_type == "Invoke":
        assert json.loads(encode_invoke_result(decode_invoke_result(step.out))) == json.loads(step.out)
    elif step.step_type == "WaitForWebhook":
        data = event_data(step)
        assert data is not None
        assert json.loads(encode_webhook(decode_webhook(data))) == json.loads(data)
    elif step.step_type == "Wait":
        assert event_data(step) == base64.b64decode(step.out)


def test_every_type_of_step_occurs() -> None:
    assert {decode_step(body).step_type for _, body in step_bodies()} == {
        "Run",
        "SleepFor",
        "SleepUntil",
        "Call",
        "Wait",
        "Notify",
        "Invoke",
        "CreateWebhook",
        "WaitForWebhook",
    }


invokes = [(exchange, message) for exchange, message in published if message.workflow and message.workflow.invoke]


@pytest.mark.parametrize(("exchange", "message"), invokes, ids=ids_of(invokes))
def test_every_invoke_round_trips(exchange: Exchange, message: Message) -> None:
    body = decode_invoke(message.body)
    assert body.step.step_type == "Invoke"
    assert json.loads(encode_invoke(body)) == json.loads(message.body)


# Engine -> endpoint


def expected_kind(exchange: Exchange) -> Kind:
    """What a delivery is, from the recorder's remarks and not from its headers."""
    if exchange.name == "js/unknown_sdk":
        return Kind.UNKNOWN_SDK
    if exchange.raw.get("note") == "failure callback":
        return Kind.FAILURE_CALLBACK
    if "decoded" in exchange.raw or (exchange.name.startswith("js/lazy_fetch_callback") and not exchange.body):
        return Kind.CALL_CALLBACK
    return Kind.STEPS


valid = [exchange for exchange in to_endpoint if exchange.name != "js/bad_protocol_version"]


@pytest.mark.parametrize("exchange", valid, ids=str)
def test_every_delivery_is_told_by_its_kind(exchange: Exchange) -> None:
    invocation = classify(exchange.headers, exchange.body)
    assert invocation.kind is expected_kind(exchange)
    assert invocation.run_id == exchange.headers["Upstash-Workflow-RunId"]
    assert invocation.message_id == exchange.headers["Upstash-Message-Id"]
    assert invocation.lazy is (exchange.body == b"")
    if "decoded_steps" in exchange.raw:
        check_steps(invocation, exchange)
    elif invocation.call is not None and invocation.call.body is not None:
        check_body(invocation.call.body, exchange)
        assert invocation.call.step_type == "Call"
        assert (json.loads(exchange.answer).get("finishCondition", "fromCallback")) == "fromCallback"
    elif invocation.failure is not None:
        check_body(invocation.failure, exchange)
        assert invocation.payload == invocation.failure.source_body
        assert decode_error(invocation.failure.body).message


def check_steps(invocation: Invocation, exchange: Exchange) -> None:
    assert invocation.steps is not None
    elements = json.loads(exchange.body)
    assert invocation.payload == base64.b64decode(elements[0]["body"])
    assert [message.call_type for message in invocation.steps.messages] == [item["callType"] for item in elements]
    assert encode_messages(invocation.steps.messages) == exchange.body
    for message in invocation.steps.messages[1:]:
        assert isinstance(message.step, Step) if message.call_type == "step" else message.raw is not None


def check_body(body: CallbackBody, exchange: Exchange) -> None:
    sent = {name: value for name, value in json.loads(exchange.body).items() if value not in ("", None, {})}
    ours = {name: value for name, value in json.loads(encode_callback(body)).items() if value not in ("", None, {})}
    assert ours == sent
    assert isinstance(body, FailureBody) == (exchange.raw.get("note") == "failure callback")


def test_every_kind_of_delivery_occurs() -> None:
    assert {expected_kind(exchange) for exchange in valid} == set(Kind) - {Kind.FIRST}


def test_another_protocol_version_is_refused_with_the_official_words() -> None:
    (exchange,) = (exchange for exchange in to_endpoint if exchange.name == "js/bad_protocol_version")
    with pytest.raises(InvocationInvalid) as caught:
        classify(exchange.headers, exchange.body)
    assert str(caught.value) == decode_error(exchange.answer).message
    assert caught.value.status_code == exchange.status


@pytest.mark.parametrize("exchange", from_clients, ids=str)
def test_every_direct_call_is_a_first_one(exchange: Exchange) -> None:
    invocation = classify(exchange.headers, exchange.body)
    assert invocation.kind is Kind.FIRST
    assert invocation.payload == exchange.body


def test_a_call_that_will_be_tried_again_is_no_result() -> None:
    seen = {
        name: [
            decode_callback(exchange.body).will_retry
            for exchange in to_endpoint
            if exchange.name == name and expected_kind(exchange) is Kind.CALL_CALLBACK
        ]
        for name in ("js/call_failing", "py/call_failing", "js/call")
    }
    assert seen == {"js/call_failing": [True, False], "py/call_failing": [True, False], "js/call": [False]}


def test_lazy_deliveries_go_on_with_what_was_fetched() -> None:
    files = [exchange for exchange in exchanges("engine->endpoint", "sdk->engine") if exchange.name == "js/lazy_fetch"]
    fetched = 0
    for delivery, fetch in pairwise(files):
        if delivery.kind != "engine->endpoint":
            continue
        lazy = classify(delivery.headers, delivery.body)
        request = FetchRun(run_id=lazy.run_id, message_id=lazy.message_id)
        assert path_of(fetch) == encode_request(request).path
        messages = decode_answer(request, fetch.status, fetch.answer)
        full = lazy.with_messages(messages)
        assert full.steps is not None
        assert full.steps.messages[-1].message_id == lazy.message_id
        assert json.loads(full.payload) == {"l": 1}
        fetched += 1
    assert fetched == 6


# Signatures


signed = [exchange for exchange in [*to_endpoint, *from_clients] if "Upstash-Signature" in exchange.headers]


@pytest.mark.parametrize("exchange", signed, ids=str)
def test_every_signature_verifies_at_its_own_time(exchange: Exchange) -> None:
    token = exchange.headers["Upstash-Signature"]
    if token.count(".") != 2:  # the recorder's garbage
        assert exchange.name.endswith("/signature")
        with pytest.raises(SignatureInvalid) as caught:
            verify(token, exchange.body, KEYS, 0)
        assert caught.value.reason == "malformed"
        return
    issued = jwt.decode(token, options={"verify_signature": False})["iat"]
    verify(token, exchange.body, KEYS, issued, url=exchange.url)
    verify(token, exchange.body, KEYS, issued, url=urlsplit(exchange.url).path, compare_path_only=True)
    with pytest.raises(SignatureInvalid) as caught:
        verify(token, exchange.body + b" ", KEYS, issued)
    assert caught.value.reason == "body_mismatch"


def test_headers_of_our_messages_are_understood_like_theirs() -> None:
    for _, message in published:
        decoded = messages_of(
            decode_request("POST", f"/v2/publish/{message.destination}", encode_headers(message), message.body)
        )
        assert decoded == (message,)
