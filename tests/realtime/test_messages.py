from __future__ import annotations

import json

import pytest

from django_workflow.errors import RequestRejected
from django_workflow.realtime.messages import (
    Connected,
    Error,
    Message,
    Subscribe,
    Unsubscribe,
    check_channel,
    decode_frame,
    encode,
    parse_cursor,
)


def test_a_message_carries_its_data_as_stored() -> None:
    message = Message("wfr_1", (5 << 20) + 3, "workflow.update", '{"b": 1, "a": 1e3}')
    assert message.text == '{"data":{"b": 1, "a": 1e3},"event":"workflow.update","channel":"wfr_1","id":"5-3"}'


def test_system_messages_have_a_type() -> None:
    assert json.loads(encode(Connected(channel="a", cursor="0-0"))) == {
        "type": "connected",
        "channel": "a",
        "cursor": "0-0",
    }
    assert json.loads(encode(Error(code="forbidden", error="no"))) == {
        "type": "error",
        "code": "forbidden",
        "error": "no",
    }


def test_frames_of_clients_are_decoded() -> None:
    assert decode_frame('{"type":"subscribe","channels":{"a":"$"}}') == Subscribe(channels={"a": "$"})
    assert decode_frame('{"type":"unsubscribe","channels":["a"]}') == Unsubscribe(channels=["a"])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "[]",
        '{"type":"shout"}',
        '{"type":"subscribe"}',
        '{"type":"subscribe","channels":["a"]}',
        '{"type":"subscribe","channels":{"a":7}}',
        "[" * 60_000,
        " " * 70_000,
    ],
)
def test_a_frame_that_is_not_understood_is_refused(text: str) -> None:
    with pytest.raises(RequestRejected):
        decode_frame(text)


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("$", None),
        ("0-0", 0),
        ("1760000000000-3", (1760000000000 << 20) + 3),
        ("1760000000000", 1760000000000 << 20),  # the first of that millisecond
    ],
)
def test_a_cursor_is_a_position(text: str, position: int | None) -> None:
    assert parse_cursor(text) == position


@pytest.mark.parametrize("text", ["", "-1", "1-", "1-2-3", "1_0", " 1", "1e3", "٣", "9" * 20, "1-" + "9" * 9])
def test_what_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(RequestRejected):
        parse_cursor(text)


@pytest.mark.parametrize("name", ["wfr_1", "with spaces", "a/b", "日本", "x" * 255])
def test_a_channel_may_have_any_name(name: str) -> None:
    assert check_channel(name) == name


@pytest.mark.parametrize("name", ["", "x" * 256, "a\0b"])
def test_a_name_that_no_channel_can_have_is_refused(name: str) -> None:
    with pytest.raises(RequestRejected):
        check_channel(name)
