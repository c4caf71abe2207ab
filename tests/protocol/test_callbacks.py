from __future__ import annotations

import json
import shutil
import subprocess

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_workflow.errors import MessageInvalid
from django_workflow.protocol.callbacks import (
    CallbackBody,
    CallResult,
    ErrorBody,
    FailureBody,
    content_type,
    decode_call_result,
    decode_callback,
    decode_error,
    decode_failure,
    encode_call_result,
    encode_callback,
    encode_error,
    is_text,
)
from django_workflow.protocol.headers import header_lists
from tests.protocol.javascript import rewritten
from tests.protocol.strategies import json_text, tokens

header_maps = st.dictionaries(tokens | st.integers(0, 2**33).map(str), json_text, max_size=5).map(header_lists)
milliseconds = st.integers(0, 2**53 - 1)
common = {
    "status": st.integers(0, 599),
    "header": header_maps,
    "body": st.binary(max_size=60),
    "retried": st.integers(0, 100),
    "max_retries": st.integers(0, 100),
    "source_message_id": json_text,
    "topic_name": json_text,
    "endpoint_name": json_text,
    "url": json_text,
    "method": st.sampled_from(["", "GET", "POST"]),
    "source_header": header_maps,
    "source_body": st.binary(max_size=60),
    "not_before": milliseconds,
    "created_at": milliseconds,
    "schedule_id": json_text,
    "caller_ip": json_text,
    "workflow_run_id": json_text,
}
callbacks = st.builds(CallbackBody, **common)
failures = st.builds(FailureBody, **common, dlq_id=json_text, workflow_created_at=milliseconds, workflow_url=json_text)


@given(callbacks)
def test_callbacks_round_trip(body: CallbackBody) -> None:
    assert decode_callback(encode_callback(body)) == body


@given(failures)
def test_failures_round_trip(body: FailureBody) -> None:
    assert decode_failure(encode_callback(body)) == body


@given(callbacks | failures)
def test_bodies_survive_being_written_again_by_javascript(body: CallbackBody) -> None:
    encoded = encode_callback(body)
    assert rewritten(encoded) == encoded


def test_header_maps_in_another_order_are_written_in_javascripts() -> None:
    encoded = encode_callback(CallbackBody(header={"X": ["1"], "7": ["2"]}, source_header={"b": [], "0": []}))
    assert rewritten(encoded) == encoded


@pytest.mark.node
@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js")
def test_node_writes_a_body_as_it_came() -> None:
    awkward = '\x00\x08\x0c\x1f\x7f\x85\u2028\ufeff/<>&"\\é日😀'
    encoded = encode_callback(
        FailureBody(
            status=500,
            header=header_lists([("x", awkward), ("10", "a"), ("9", "b"), ("4294967295", "c"), ("__proto__", "d")]),
            url=awkward,
            body=b"\xff\x00",
            created_at=2**53 - 1,
        )
    )
    script = "process.stdout.write(JSON.stringify(JSON.parse(require('fs').readFileSync(0, 'utf8'))))"
    written = subprocess.run(["node", "-e", script], input=encoded, capture_output=True, check=True).stdout
    assert written == encoded == rewritten(encoded)


def test_a_failure_holds_every_key_that_the_python_sdk_reads() -> None:
    written = json.loads(encode_callback(FailureBody(workflow_run_id="wfr_1")))
    assert set(written) >= {"status", "header", "body", "url", "sourceBody", "workflowRunId"}
    assert "dlqId" not in written  # and leaves out what is not known


def test_names_are_spelt_as_documented() -> None:
    written = json.loads(encode_callback(CallbackBody(source_message_id="m", caller_ip="1.2.3.4", topic_name="t")))
    assert {"sourceMessageId", "callerIP", "topicName", "maxRetries", "sourceHeader"} <= set(written)


@pytest.mark.parametrize(
    "body",
    [
        b'{"status":200,"header":{"A":["1"]},"body":"eA==","createdAt":5}',
        b'{"status":200,"header":{"A":"1"},"body":"eA==","createdAt":5}',  # documented as plain strings
        b'{"status":"200","header":{"A":["1"]},"body":"eA==","createdAt":"5"}',  # instants documented as text
        b'{"status":200,"header":{"A":["1"]},"body":"eA==","createdAt":5,"dlqId":null,"sourceHeader":null}',
        b'{"status":200,"header":{"A":["1"]},"body":"eA==","createdAt":5,"futureField":[1]}',
    ],
)
def test_callbacks_are_read_in_every_documented_form(body: bytes) -> None:
    assert decode_callback(body) == CallbackBody(status=200, header={"A": ["1"]}, body=b"x", created_at=5)


def test_a_callback_without_a_body_has_an_empty_one() -> None:
    assert decode_callback(b'{"status":204,"header":{}}').body == b""


@pytest.mark.parametrize("body", [b"", b"[]", b"\xff", b'{"status":"many"}', b'{"body":"%"}', b"[" * 20_000])
def test_other_bodies_are_refused(body: bytes) -> None:
    with pytest.raises(MessageInvalid, match="no callback's body"):
        decode_callback(body)


@pytest.mark.parametrize(
    ("status", "retried", "max_retries", "expected"),
    [
        (500, 0, 2, True),
        (500, 2, 2, False),  # the last attempt: this is the result
        (500, 0, 0, False),  # calls are not retried by default
        (200, 0, 2, False),
        (299, 0, 2, False),
        (300, 0, 2, True),  # redirects are not followed
        (0, 0, 2, True),  # no answer at all
    ],
)
def test_a_failed_attempt_is_a_result_once_no_retry_is_left(
    status: int, retried: int, max_retries: int, expected: bool
) -> None:
    assert CallbackBody(status=status, retried=retried, max_retries=max_retries).will_retry is expected


@given(st.integers(0, 599), st.binary(max_size=60), st.sampled_from(["image/png", ""]))
def test_call_results_keep_any_bytes(status: int, body: bytes, type_: str) -> None:
    result = CallResult(status=status, header={"Content-Type": [type_]}, body=body)
    assert decode_call_result(encode_call_result(result)) == result


@given(json_text, st.sampled_from(["text/plain", "application/json; charset=utf-8"]))
def test_call_results_keep_text_whichever_sdk_wrote_it(text: str, type_: str) -> None:
    ours = CallResult(status=200, header={"Content-Type": [type_]}, body=text.encode())
    assert decode_call_result(encode_call_result(ours)) == ours


def test_a_call_result_of_the_python_sdk_holds_decoded_text() -> None:
    out = json.dumps({"status": 200, "body": "né €", "header": {"content-type": ["text/plain"]}})
    assert decode_call_result(out).body == "né €".encode()
    out = json.dumps({"status": 200, "body": "né", "header": {"content-type": ["text/plain"]}})
    assert decode_call_result(out).body == "né".encode()


def test_a_call_result_may_lack_all_but_something() -> None:
    assert decode_call_result('{"body":null}') == CallResult(status=0, header={}, body=b"")
    with pytest.raises(MessageInvalid, match="no result of a call"):
        decode_call_result("nothing")


def test_the_content_type_is_found_in_any_case() -> None:
    assert content_type({"X": ["1"], "content-TYPE": ["text/plain"]}) == "text/plain"
    assert content_type({"Content-Type": []}) == ""


@pytest.mark.parametrize(
    ("type_", "expected"),
    [
        ("text/html", True),
        ("application/json; charset=utf-8", True),
        ("Application/LD+JSON", True),
        ("application/octet-stream", False),
        ("image/svg+xml", False),  # not in the official list
        ("", False),
    ],
)
def test_text_types_are_those_of_the_official_sdk(type_: str, expected: bool) -> None:
    assert is_text(type_) is expected


@given(st.builds(ErrorBody, error=json_text, message=json_text.filter(bool), stack=json_text))
def test_errors_round_trip(error: ErrorBody) -> None:
    assert decode_error(encode_error(error)) == error


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", ""),
        (b'{"error":"E","message":"m"}', "m"),
        (b'{"message":"AUTH","workflowRunId":"w"}', "AUTH"),
        (b"<html>", "Couldn't parse 'failResponse' in 'failureFunction', received: '<html>'"),
        (b"{}", "Couldn't parse 'failResponse' in 'failureFunction', received: '{}'"),
        (b"\xff", "Couldn't parse 'failResponse' in 'failureFunction', received: '\ufffd'"),
    ],
)
def test_any_answer_gives_a_message(body: bytes, message: str) -> None:
    assert decode_error(body).message == message


def test_structs_are_frozen() -> None:
    with pytest.raises(AttributeError):
        CallbackBody().status = 1  # type: ignore[misc]
    assert msgspec.structs.replace(CallbackBody(), status=1).status == 1
