from __future__ import annotations

import re
from collections.abc import Mapping

import pytest

from django_workflow.errors import InvocationInvalid
from django_workflow.protocol.callbacks import CallbackBody, FailureBody, encode_callback
from django_workflow.protocol.headers import Headers
from django_workflow.protocol.invocation import Kind, classify
from django_workflow.protocol.steps import CallType, JournalMessage, Step, encode_messages, encode_step

STEP = Step(step_id=1, step_name="one", step_type="Run", out="1", concurrent=1)
MESSAGES = [
    JournalMessage("msg_1", '{"a":1}'),
    JournalMessage("msg_2", "request", CallType.TO_CALLBACK),
    JournalMessage("msg_3", encode_step(STEP).decode()),
]
BODY = encode_messages(MESSAGES)
RUN = {
    "Upstash-Workflow-RunId": "wfr_1",
    "Upstash-Message-Id": "msg_3",
    "Upstash-Workflow-CreatedAt": "1760000000000",
    "Upstash-Retried": "2",
}
VERSION = {"Upstash-Workflow-Sdk-Version": "1"}
CALL = RUN | {
    "Upstash-Workflow-Callback": "true",
    "Upstash-Workflow-StepId": "4",
    "Upstash-Workflow-StepName": "call it",
    "Upstash-Workflow-StepType": "Call",
    "Upstash-Workflow-Concurrent": "2",
    "Upstash-Workflow-ContentType": "application/json",
}
FAILURE = RUN | {"Upstash-Workflow-Is-Failure": "true", "Upstash-Workflow-Failure-Callback": "true"}
ANSWER = CallbackBody(status=200, header={"X": ["1"]}, body=b"hi")


@pytest.mark.parametrize(
    ("headers", "body", "kind"),
    [
        ({}, b"payload", Kind.FIRST),
        ({"Upstash-Message-Id": "msg_1", "Upstash-Schedule-Id": "scd_1"}, b"payload", Kind.FIRST),  # a schedule's
        ({"Upstash-Workflow-RunId": "wfr_1"}, b"payload", Kind.FIRST),  # the version marks a run's deliveries
        (VERSION | {"Upstash-Workflow-Sdk-Version": ""}, b"payload", Kind.FIRST),  # empty is absent
        (RUN | VERSION, BODY, Kind.STEPS),
        (RUN | {"Upstash-Workflow-Unknown-Sdk": "true"}, BODY, Kind.UNKNOWN_SDK),
        (CALL, encode_callback(ANSWER), Kind.CALL_CALLBACK),
        (CALL | VERSION, encode_callback(ANSWER), Kind.CALL_CALLBACK),
        (FAILURE, encode_callback(FailureBody()), Kind.FAILURE_CALLBACK),
        (FAILURE | VERSION, encode_callback(FailureBody()), Kind.FAILURE_CALLBACK),  # a run that REST started
        (RUN | {"Upstash-Workflow-Is-Failure": "true"}, encode_callback(FailureBody()), Kind.FAILURE_CALLBACK),
        (FAILURE | {"Upstash-Workflow-Unknown-Sdk": "true"}, BODY, Kind.UNKNOWN_SDK),  # looked at first
    ],
)
def test_each_kind_is_told_by_its_headers(headers: Mapping[str, str], body: bytes, kind: Kind) -> None:
    assert classify(headers, body).kind is kind
    assert classify({name.lower(): value for name, value in headers.items()}, body).kind is kind
    assert classify(Headers(headers), body).kind is kind


def test_a_first_call_has_its_body_as_payload_and_no_run() -> None:
    invocation = classify({"Upstash-Label": "a, b", "Upstash-Retried": "1"}, b"\xff")
    assert (invocation.payload, invocation.run_id, invocation.steps) == (b"\xff", "", None)
    assert (invocation.labels, invocation.retried, invocation.created_at) == (("a", "b"), 1, None)


def test_a_steps_delivery_has_the_run_so_far() -> None:
    invocation = classify(RUN | VERSION | {"Upstash-Workflow-Invoke-Count": "3", "Upstash-Label": "a"}, BODY)
    assert (invocation.run_id, invocation.message_id, invocation.created_at) == ("wfr_1", "msg_3", 1_760_000_000_000)
    assert (invocation.retried, invocation.invoke_count, invocation.labels) == (2, 3, ("a",))
    assert invocation.payload == b'{"a":1}'
    assert invocation.steps is not None
    assert not invocation.lazy
    assert [message.call_type for message in invocation.steps.messages] == ["step", "toCallback", "step"]
    assert invocation.steps.messages[-1].step == STEP


def test_an_empty_body_has_to_be_fetched() -> None:
    lazy = classify(RUN | VERSION, b"")
    assert lazy.lazy
    assert lazy.steps is None
    fetched = lazy.with_messages(MESSAGES)
    assert not fetched.lazy
    assert fetched.payload == b'{"a":1}'
    assert fetched.steps is not None
    assert fetched.steps.messages == MESSAGES


def test_a_call_callback_may_be_lazy_too() -> None:
    lazy = classify(CALL, b"")
    assert lazy.lazy
    assert lazy.call is not None
    assert lazy.call.body is None
    delivered = JournalMessage("msg_4", encode_callback(ANSWER).decode(), CallType.FROM_CALLBACK)
    fetched = lazy.with_messages([*MESSAGES, delivered])
    assert fetched.call is not None
    assert (fetched.call.body, fetched.lazy) == (ANSWER, False)


def test_a_fetched_list_without_the_delivered_message_is_tried_again() -> None:
    with pytest.raises(InvocationInvalid, match="lacks the delivered message msg_3"):
        classify(RUN | VERSION, b"").with_messages([])


def test_a_call_callback_names_its_step() -> None:
    call = classify(CALL, encode_callback(ANSWER)).call
    assert call is not None
    assert (call.step_id, call.step_type, call.concurrent, call.content_type) == (4, "Call", 2, "application/json")
    assert call.body == ANSWER


def test_step_names_are_utf_8_on_the_wire() -> None:
    name = "grüße 日本"
    call = classify(CALL | {"Upstash-Workflow-StepName": name.encode().decode("latin-1")}, b"").call
    assert call is not None
    assert call.step_name == name


def test_a_failure_callback_has_the_runs_payload() -> None:
    failure = FailureBody(status=500, source_body=b"payload", workflow_run_id="wfr_1", workflow_created_at=7)
    headers = {name: value for name, value in FAILURE.items() if name != "Upstash-Workflow-CreatedAt"}
    invocation = classify(headers, encode_callback(failure))
    assert invocation.failure == failure
    assert (invocation.payload, invocation.created_at) == (b"payload", 7)


@pytest.mark.parametrize("value", ["x", "-1", "1.5", "", "٣", "9" * 30])
def test_numbers_that_cannot_be_read_do_not_fail_a_delivery(value: str) -> None:
    invocation = classify(RUN | VERSION | {"Upstash-Retried": value, "Upstash-Workflow-CreatedAt": value}, BODY)
    assert (invocation.retried, invocation.created_at) == (0, None)


def without(headers: Mapping[str, str], name: str) -> dict[str, str]:
    return {key: value for key, value in headers.items() if key != name}


@pytest.mark.parametrize(
    ("headers", "body", "text"),
    [
        (
            RUN | {"Upstash-Workflow-Sdk-Version": "2"},
            BODY,
            "Incompatible workflow sdk protocol version. Expected 1, got 2 from the request.",
        ),
        (
            CALL | {"Upstash-Workflow-Sdk-Version": "2"},
            BODY,
            "Incompatible workflow sdk protocol version. Expected 1, got 2 from the request.",
        ),
        (VERSION, BODY, "Couldn't get workflow id from header"),
        (
            {"Upstash-Workflow-Unknown-Sdk": "true"},
            BODY,
            "Couldn't get workflow id from header when handling unknown sdk request",
        ),
        (
            without(FAILURE, "Upstash-Workflow-RunId"),
            b"{}",
            "Couldn't get workflow id from header when handling failure callback request",
        ),
        (
            without(CALL, "Upstash-Workflow-StepName") | {"Upstash-Workflow-StepType": "Other"},
            encode_callback(ANSWER),
            "Error when handling call return (isCallReturn=true): Error: Missing info in callback message source "
            'header: {"workflowRunId":"wfr_1","stepIdString":"4","stepName":null,"stepType":"Other",'
            '"concurrentString":"2","contentType":"application/json"}',
        ),
    ],
)
def test_official_texts_say_what_is_missing(headers: Mapping[str, str], body: bytes, text: str) -> None:
    with pytest.raises(InvocationInvalid) as caught:
        classify(headers, body)
    assert str(caught.value) == text
    assert caught.value.status_code == 500


@pytest.mark.parametrize(
    ("headers", "body", "reason"),
    [
        (RUN | VERSION, b"{}", "delivery to run wfr_1 cannot be read"),
        (RUN | VERSION, b"[]", "holds no message"),
        (RUN | VERSION, b"\xff", "cannot be read"),
        (CALL, b"nothing", "answer of a call cannot be read"),
        (FAILURE, b"", "failure callback of run wfr_1 cannot be read"),
        (CALL | {"Upstash-Workflow-StepId": "four"}, b"{}", re.escape('"stepIdString":"four"')),
    ],
)
def test_bodies_that_cannot_be_read_are_named(headers: Mapping[str, str], body: bytes, reason: str) -> None:
    with pytest.raises(InvocationInvalid, match=reason):
        classify(headers, body)
