from __future__ import annotations

import base64
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_workflow.errors import MessageInvalid
from django_workflow.protocol.steps import (
    CallType,
    JournalMessage,
    Step,
    decode_messages,
    decode_step,
    encode_messages,
    encode_step,
)
from tests.protocol.javascript import rewritten
from tests.protocol.strategies import json_text, steps, tokens

RUN = Step(step_id=1, step_name="one", step_type="Run", out='{"a":1}', concurrent=1)


def as_tuple(message: JournalMessage) -> tuple[str, bytes, str]:
    return message.message_id, message.raw, message.call_type


@given(steps)
def test_steps_round_trip(step: Step) -> None:
    assert decode_step(encode_step(step)) == step
    assert decode_step(encode_step(step).decode()) == step


def test_a_step_is_written_in_the_order_of_the_javascript_sdk() -> None:
    assert encode_step(RUN) == b'{"stepId":1,"stepName":"one","stepType":"Run","out":"{\\"a\\":1}","concurrent":1}'
    plan = Step(step_id=0, step_name="one", step_type="SleepFor", sleep_for=5, concurrent=2, target_step=3)
    assert json.loads(encode_step(plan)) == {
        "stepId": 0,
        "stepName": "one",
        "stepType": "SleepFor",
        "concurrent": 2,
        "targetStep": 3,
        "sleepFor": 5,
    }


@pytest.mark.parametrize(
    "body",
    [
        '{"stepId":1,"stepName":"one","stepType":"Run","out":"{\\"a\\":1}","concurrent":1}',
        # The Python SDK writes blanks, another order, and null for everything that is not said.
        '{"method": "POST", "stepId": 1, "stepName": "one", "stepType": "Run", "out": "{\\"a\\":1}", "sleepFor": null, '
        '"sleepUntil": null, "concurrent": 1, "targetStep": null, "callUrl": null, "callHeaders": null}',
        '{"concurrent":1,"out":"{\\"a\\":1}","stepType":"Run","stepName":"\\u006fne","stepId":1,"later":[1]}',
    ],
)
def test_steps_of_every_sdk_are_read_alike(body: str) -> None:
    assert decode_step(body) == RUN


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"stepId":"1"}', "plain"])
def test_other_text_is_no_step(body: str) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_step(body)


def test_a_plan_has_number_zero_and_a_target() -> None:
    assert Step(step_id=0, step_name="a", step_type="Run", concurrent=2, target_step=1).is_plan
    assert not RUN.is_plan


raw_messages = st.lists(
    st.tuples(tokens, json_text, st.sampled_from(list(CallType)).map(str)), min_size=1, max_size=4
).map(lambda parts: [JournalMessage(*part) for part in parts])


@given(raw_messages)
def test_lists_of_messages_round_trip(messages: list[JournalMessage]) -> None:
    assert list(map(as_tuple, decode_messages(encode_messages(messages)))) == list(map(as_tuple, messages))


@given(raw_messages)
def test_a_list_of_messages_survives_being_written_again_by_javascript(messages: list[JournalMessage]) -> None:
    encoded = encode_messages(messages)
    assert rewritten(encoded) == encoded


@given(st.binary(max_size=40))
def test_payloads_may_be_any_bytes(payload: bytes) -> None:
    encoded = json.dumps([{"messageId": "msg_1", "body": base64.b64encode(payload).decode(), "callType": "step"}])
    (message,) = decode_messages(encoded)
    assert message.raw == payload
    assert encode_messages([message]) == rewritten(encoded.encode())


def test_bodies_of_calls_may_be_any_bytes_but_steps_are_text() -> None:
    first = JournalMessage("msg_1", "")
    call = JournalMessage("msg_2", b"\xff".decode("utf-8", "surrogateescape"), CallType.TO_CALLBACK)
    assert decode_messages(encode_messages([first, call]))[1].raw == b"\xff"
    step = JournalMessage("msg_2", call.body)
    with pytest.raises(MessageInvalid, match="no list of a run's messages"):
        decode_messages(encode_messages([first, step]))


def test_only_the_first_message_may_lack_its_call_type() -> None:
    # The hosted engine's form is lenient there, and so is every SDK: what is missing is a step.
    assert decode_messages('[{"messageId":"m","body":"","extra":1}]')[0].call_type == CallType.STEP


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[1]", b'[{"messageId":"m"}]', b'[{"messageId":"m","body":"%"}]', b"\xff"]
)
def test_other_bodies_are_refused(body: bytes) -> None:
    with pytest.raises(MessageInvalid, match="no list of a run's messages"):
        decode_messages(body)


def test_a_message_decodes_its_step_once() -> None:
    message = JournalMessage("msg_1", encode_step(RUN).decode())
    assert message.step == RUN
    assert message.step is message.step
    assert "msg_1" in repr(message)
