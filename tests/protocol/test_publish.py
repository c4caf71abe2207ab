from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_workflow.errors import MessageInvalid
from django_workflow.protocol.publish import (
    DEEPEST_CALLBACK,
    CallbackConfig,
    FlowControl,
    Message,
    WorkflowFields,
    callback_message,
    decode_flow_control,
    decode_labels,
    decode_message,
    decode_redact,
    encode_flow_control,
    encode_headers,
    from_batch_item,
    to_batch_item,
)
from tests.protocol.strategies import flow_controls, messages

URL = "https://shop.example/hook"


def decode(**headers: str) -> Message:
    """Decodes headers given as keyword arguments: `Upstash_Retries="3"`."""
    return decode_message(URL, {name.replace("_", "-"): value for name, value in headers.items()})


@given(messages)
def test_headers_carry_all_of_a_message_but_destination_body_and_queue(message: Message) -> None:
    decoded = decode_message(message.destination, encode_headers(message), message.body, queue=message.queue)
    assert decoded == message


@given(messages)
def test_a_batch_item_carries_all_of_a_message(message: Message) -> None:
    assert from_batch_item(to_batch_item(message)) == message


@given(messages, st.booleans())
def test_the_letter_case_of_names_does_not_matter(message: Message, upper: bool) -> None:
    headers = {(name.upper() if upper else name.lower()): value for name, value in encode_headers(message).items()}
    decoded = decode_message(message.destination, headers, message.body, queue=message.queue)
    again = {name.lower(): value for name, value in encode_headers(decoded).items()}
    assert again == {name.lower(): value for name, value in headers.items()}


@given(flow_controls)
def test_flow_control_values_round_trip(flow_control: FlowControl) -> None:
    assert decode_flow_control(flow_control.key, encode_flow_control(flow_control)) == flow_control


def test_a_message_is_written_as_documented() -> None:
    message = Message(
        destination=URL,
        content_type="application/json",
        headers={"X-User": "u"},
        delay=90,
        not_before=1_760_000_000.2,
        retries=5,
        timeout=30,
        flow_control=FlowControl(key="k", parallelism=5, rate=10, period=60),
        labels=("a", "b"),
        redact=("body", "header[Authorization]"),
        failure_callback=CallbackConfig(url=URL, headers={"Upstash-Retries": "1"}),
        workflow=WorkflowFields(run_id="wfr_1", url=URL, init=True, features=("LazyFetch",), sdk_version="1"),
    )
    assert encode_headers(message) == {
        "Upstash-Method": "POST",
        "Content-Type": "application/json",
        "Upstash-Workflow-Init": "true",
        "Upstash-Workflow-RunId": "wfr_1",
        "Upstash-Workflow-Url": URL,
        "Upstash-Feature-Set": "LazyFetch",
        "Upstash-Workflow-Sdk-Version": "1",
        "Upstash-Delay": "90s",
        "Upstash-Not-Before": "1760000001",  # whole seconds, never earlier than asked for
        "Upstash-Retries": "5",
        "Upstash-Timeout": "30s",
        "Upstash-Flow-Control-Key": "k",
        "Upstash-Flow-Control-Value": "parallelism=5, rate=10, period=60s",
        "Upstash-Label": "a,b",
        "Upstash-Redact-Fields": "body,header[Authorization]",
        "Upstash-Failure-Callback": URL,
        "Upstash-Failure-Callback-Retries": "1",
        "Upstash-Forward-X-User": "u",
    }


def test_a_message_without_headers_has_the_defaults() -> None:
    assert decode_message(URL, {}) == Message(destination=URL)


@pytest.mark.parametrize(
    ("name", "value", "field", "expected"),
    [
        ("Upstash-Method", "put", "method", "PUT"),
        ("Upstash-Delay", "1d10h", "delay", 122_400),
        ("Upstash-Timeout", "30", "timeout", 30),  # a call's numeric timeout comes without a unit
        ("Upstash-Not-Before", "1760000000.5", "not_before", 1_760_000_000.5),
        ("Upstash-Retries", " 0 ", "retries", 0),
        ("Upstash-Retries", "", "retries", None),  # empty is not said
        ("Upstash-Content-Based-Deduplication", "True", "content_based_deduplication", True),  # Python's spelling
        ("Upstash-Content-Based-Deduplication", "false", "content_based_deduplication", False),
        ("Upstash-Label", "a, b,", "labels", ("a", "b")),
        ("Upstash-Redact-Fields", "body, headers[X-Key],header", "redact", ("body", "header[X-Key]", "header")),
        ("Content-Type", "text/plain", "content_type", "text/plain"),
        ("Upstash-Forward-Content-Type", "text/plain", "content_type", None),  # not honoured
        ("Upstash-Telemetry-Sdk", "x", "labels", ()),  # ignored
        ("Upstash-Deduplication-Id", "d", "deduplication_id", "d"),
    ],
)
def test_each_header_is_read_into_its_field(name: str, value: str, field: str, expected: object) -> None:
    assert getattr(decode_message(URL, {name: value}), field) == expected


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("Upstash-Method", "P OST", "HTTP method"),
        ("Upstash-Method", "CONNECT", "HTTP method"),  # no delivery can be one
        ("Upstash-Delay", "soon", "no duration"),
        ("Upstash-Timeout", "-1s", "no duration"),
        ("Upstash-Not-Before", "tomorrow", "could not convert"),
        ("Upstash-Not-Before", "nan", "Unix seconds"),
        ("Upstash-Not-Before", "-1", "Unix seconds"),
        ("Upstash-Retries", "many", "whole number"),
        ("Upstash-Retries", "-1", "whole number"),
        ("Upstash-Retries", "٣", "whole number"),  # digits of another script
        ("Upstash-Retry-Delay", "2 **", "no retry delay"),
        ("Upstash-Label", "a b", "letters, digits"),
        ("Upstash-Redact-Fields", "cookies", "none of body"),
        ("Upstash-Content-Based-Deduplication", "maybe", "true or false"),
        ("Upstash-Callback", "/relative", "absolute URL"),
        ("Upstash-Failure-Callback", "ftp://x", "absolute URL"),
        ("Upstash-Callback-Retries", "x", "whole number"),  # refused now, not when the callback is due
        ("Upstash-Callback-Failure-Callback-Delay", "x", "no duration"),
        ("Upstash-Flow-Control-Value", "rate=1", "Flow-Control-Key"),
        ("Upstash-Workflow-Init", "true", "Workflow-RunId"),
        ("Upstash-Workflow-Init", "yes", "true or false"),
        ("Upstash-Workflow-RunId", "wfr_\n", "line break"),
        ("Upstash-Forward-X", "a\r\nX-Evil: 1", "line break"),
        ("Upstash-Forward-a b", "1", "header's name"),
        ("Upstash-Callback-Forward-X:", "1", "header's name"),
    ],
)
def test_a_bad_value_is_refused_by_name(name: str, value: str, reason: str) -> None:
    with pytest.raises(MessageInvalid, match=reason) as caught:
        decode_message(URL, {name: value})
    assert caught.value.name == name
    assert caught.value.status_code == 400
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", FlowControl(key="k")),  # a key alone: to pause or pin it
        ("parallelism=5", FlowControl(key="k", parallelism=5)),
        ("rate=10,period=1m", FlowControl(key="k", rate=10, period=60)),
        ("ratePerSecond=3", FlowControl(key="k", rate=3)),  # its old name
        (" Parallelism = 2 ,  rate=1 ", FlowControl(key="k", parallelism=2, rate=1)),
        ("rate=1, period=90", FlowControl(key="k", rate=1, period=90)),  # no unit: seconds
    ],
)
def test_flow_control_values_are_read_leniently(value: str, expected: FlowControl) -> None:
    assert decode_flow_control("k", value) == expected


@pytest.mark.parametrize(
    "value", ["rate", "rate=0", "rate=-1", "rate=x", "burst=1", "period=8d", "period=0s", "period="]
)
def test_bad_flow_control_values_are_refused(value: str) -> None:
    with pytest.raises(MessageInvalid, match="Upstash-Flow-Control-Value") as caught:
        decode(Upstash_Flow_Control_Key="k", Upstash_Flow_Control_Value=value)
    assert caught.value.value == value


def test_configuration_may_stand_in_the_query_and_loses_against_headers() -> None:
    query = [("upstash-retries", "1"), ("Upstash-Delay", "5s"), ("upstash-forward-x-key", "q")]
    message = decode_message(URL, {"Upstash-Retries": "2", "Upstash-Forward-X-Key": "h"}, b"", query)
    assert (message.retries, message.delay, message.headers) == (2, 5, {"X-Key": "h"})


def test_header_forward_takes_all_headers_but_the_engines_token_and_the_transport() -> None:
    headers = {
        "Upstash-Header-Forward": "true",
        "Upstash-Forward-X-User": "explicit",
        "Authorization": "Bearer engine",
        "Host": "engine",
        "Content-Length": "3",
        "Content-Type": "text/plain",
        "Connection": "close",
        "X-User": "incoming",
        "X-GitHub-Event": "push",
    }
    message = decode_message(URL, headers)
    assert message.headers == {"X-User": "explicit", "X-GitHub-Event": "push"}
    assert message.content_type == "text/plain"
    headers.pop("Upstash-Header-Forward")
    assert decode_message(URL, headers).headers == {"X-User": "explicit"}


def test_forward_headers_are_kept_as_they_came() -> None:
    headers = {"upstash-forward-host": "h", "Upstash-Forward-X-User": "ä"}
    assert decode_message(URL, headers).headers == {"host": "h", "X-User": "ä"}


def test_callback_headers_become_the_headers_of_the_callback_message() -> None:
    message = decode(
        Upstash_Callback="https://cb.example/",
        Upstash_Callback_Retries="2",
        Upstash_Callback_Method="PUT",
        Upstash_Callback_Forward_Upstash_Workflow_Callback="true",
        Upstash_Callback_Workflow_RunId="wfr_1",
        Upstash_Callback_Workflow_CallType="fromCallback",
        Upstash_Callback_Failure_Callback_Forward_X_Key="nested",
        Upstash_Failure_Callback_Forward_X_Key="failure",
    )
    assert message.callback is not None
    assert message.failure_callback == CallbackConfig(url=None, headers={"Upstash-Forward-X-Key": "failure"})
    made = callback_message(message.callback, b"{}", retries=7)
    assert made == Message(
        destination="https://cb.example/",
        body=b"{}",
        method="PUT",
        content_type="application/json",
        headers={"Upstash-Workflow-Callback": "true"},
        retries=2,
        failure_callback=CallbackConfig(url=None, headers={"Upstash-Forward-X-Key": "nested"}),
        workflow=WorkflowFields(run_id="wfr_1", url="https://cb.example/", call_type="fromCallback"),
    )


def test_a_callback_has_the_retries_of_its_parent_unless_it_says_its_own() -> None:
    assert callback_message(CallbackConfig(url=URL), b"", retries=7).retries == 7


def test_a_callback_without_a_url_needs_a_destination() -> None:
    assert callback_message(CallbackConfig(url=None), b"", destination=URL).destination == URL
    with pytest.raises(ValueError, match="no URL"):
        callback_message(CallbackConfig(url=None), b"")


def test_a_callback_is_configured_by_protocol_headers_only() -> None:
    with pytest.raises(MessageInvalid, match="X-Key"):
        encode_headers(Message(destination=URL, callback=CallbackConfig(url=URL, headers={"X-Key": "1"})))


def test_the_url_of_a_run_defaults_to_the_destination() -> None:
    assert decode(Upstash_Workflow_RunId="wfr_1").workflow == WorkflowFields(run_id="wfr_1", url=URL)


def test_workflow_headers_without_a_run_are_an_ordinary_message() -> None:
    assert decode(Upstash_Workflow_Url=URL, Upstash_Feature_Set="InitialBody").workflow is None


def test_an_unknown_call_type_is_refused() -> None:
    with pytest.raises(MessageInvalid, match="toCallback"):
        decode(Upstash_Workflow_RunId="wfr_1", Upstash_Workflow_CallType="other")


@pytest.mark.parametrize(
    "item",
    [
        {
            "destination": URL,
            "headers": {"upstash-retries": 3, "upstash-forward-x": ["a", "b"]},
            "body": "é",
            "queue": None,
        },
        {"destination": URL, "headers": {"Upstash-Retries": "3", "Upstash-Forward-x": "a, b", "X": None}, "body": "é"},
    ],
)
def test_batch_items_are_read_as_every_client_writes_them(item: dict[str, Any]) -> None:
    assert from_batch_item(item) == Message(destination=URL, retries=3, headers={"x": "a, b"}, body="é".encode())


def test_a_batch_item_needs_no_more_than_a_destination() -> None:
    assert from_batch_item({"destination": URL, "headers": None, "body": None}) == Message(destination=URL)
    assert to_batch_item(Message(destination=URL)) == {"destination": URL, "headers": {"Upstash-Method": "POST"}}


def test_a_malformed_batch_item_is_refused_with_the_place() -> None:
    with pytest.raises(MessageInvalid, match=r"\$\.body"):
        from_batch_item({"destination": URL, "body": {"a": 1}})


def test_a_body_that_is_no_text_cannot_be_a_batch_item() -> None:
    with pytest.raises(MessageInvalid, match="publish it by itself"):
        to_batch_item(Message(destination=URL, body=b"\xff"))


def test_labels_and_redacted_fields_are_read_by_themselves() -> None:
    assert decode_labels("a.b,c-d") == ("a.b", "c-d")
    assert decode_redact("Body,HEADER[X]") == ("body", "header[X]")


@pytest.mark.parametrize("kind", ["Callback", "Failure-Callback"])
def test_callbacks_of_callbacks_end_somewhere(kind: str) -> None:
    def nested(depth: int) -> dict[str, str]:
        return {"Upstash-" + "-".join([kind] * level): "https://example.com/" for level in range(1, depth + 1)}

    decode_message("https://example.com/", nested(DEEPEST_CALLBACK))
    with pytest.raises(MessageInvalid, match="5 deep at most"):
        decode_message("https://example.com/", nested(DEEPEST_CALLBACK + 1))
