from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_workflow.errors import MessageInvalid
from django_workflow.protocol.steps import Step, decode_step, encode_step
from django_workflow.protocol.waits import (
    WaitBody,
    WebhookEvent,
    decode_wait,
    decode_webhook,
    encode_wait,
    encode_webhook,
    event_data,
    event_result,
    timeout_result,
)
from tests.protocol.strategies import json_text, steps, tokens, urls

WAIT = Step(step_id=1, step_name="approval", step_type="Wait", concurrent=1)
header_maps = st.dictionaries(tokens, st.lists(json_text, min_size=1, max_size=2), max_size=3)


@given(
    st.builds(
        WaitBody,
        url=urls,
        timeout=st.sampled_from(["20s", 30, 1.5]),
        timeout_url=urls,
        timeout_headers=header_maps,
        timeout_body=st.none() | json_text,
        step=steps,
    )
)
def test_bodies_of_waits_round_trip(body: WaitBody) -> None:
    assert decode_wait(encode_wait(body)) == body


@given(
    st.builds(
        WebhookEvent,
        method=st.sampled_from(["GET", "POST"]),
        header=header_maps,
        body=st.binary(max_size=40),
        proto=st.sampled_from(["http", "https"]),
        host=tokens,
        url=json_text,
    )
)
def test_webhook_events_round_trip(event: WebhookEvent) -> None:
    assert decode_webhook(encode_webhook(event)) == event


def test_a_webhook_without_a_body_leaves_it_out() -> None:
    event = WebhookEvent(method="GET", header={}, proto="http", host="h", url="/")
    assert json.loads(encode_webhook(event)) == {
        "method": "GET",
        "header": {},
        "proto": "http",
        "host": "h",
        "url": "/",
    }


@given(steps, json_text, st.binary(max_size=40))
def test_an_event_is_kept_in_the_result_step(step: Step, event_id: str, data: bytes) -> None:
    result = decode_step(encode_step(event_result(step, event_id, data)))
    assert event_data(result) == (data or None)
    assert (result.wait_event_id, result.wait_timeout, result.step_id) == (event_id, False, step.step_id)


def test_a_timeout_leaves_no_data() -> None:
    result = timeout_result(WAIT, "evt")
    assert json.loads(encode_step(result)) == {
        "stepId": 1,
        "stepName": "approval",
        "stepType": "Wait",
        "concurrent": 1,
        "waitEventId": "evt",
        "waitTimeout": True,
    }
    assert event_data(result) is None


def test_an_empty_event_leaves_no_data_and_is_no_timeout() -> None:
    result = event_result(WAIT, "evt", b"")
    assert (result.out, result.wait_timeout) == (None, False)


def test_what_cannot_be_read_is_refused() -> None:
    with pytest.raises(MessageInvalid, match="no body of a wait"):
        decode_wait(b'{"url":"u"}')
    with pytest.raises(MessageInvalid, match="no call of a webhook"):
        decode_webhook(b"plain data")
    with pytest.raises(MessageInvalid, match="'approval' is no base64"):
        event_data(Step(step_id=1, step_name="approval", step_type="Wait", concurrent=1, out="%"))
