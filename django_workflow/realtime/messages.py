"""The messages between server and browser, the same on every transport. Pure.

Events go out as `{"data", "event", "channel", "id"}`; everything else that the server says has a `type`. Clients send
`subscribe` and `unsubscribe`. Ids are `<ms>-<seq>`, compared as integers, and comparable within one channel only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec

from django_workflow.errors import RequestRejected
from django_workflow.models.channel_event import format_position, parse_position

LONGEST_CHANNEL = 255
LONGEST_FRAME = 64 * 1024
BEGINNING = "0-0"
ONLY_NEW = "$"

_ID_RE = re.compile(r"[0-9]{1,13}(-[0-9]{1,6})?")


@dataclass(frozen=True)
class Message:
    """One event of a channel. `data` is JSON text; `text` is the whole message as it goes out, made once."""

    channel: str
    position: int
    event: str
    data: str

    @property
    def id(self) -> str:
        return format_position(self.position)

    @property
    def value(self) -> Any:
        """The data, decoded."""
        return msgspec.json.decode(self.data)

    @cached_property
    def text(self) -> str:
        raw = msgspec.Raw(self.data.encode())
        return encode({"data": raw, "event": self.event, "channel": self.channel, "id": self.id})


class _System(msgspec.Struct, frozen=True, tag_field="type", omit_defaults=True):
    pass


class Connected(_System, frozen=True, tag="connected"):
    """The channel is followed. `cursor`: id of its newest stored event, `0-0` when it has none."""

    channel: str
    cursor: str


class Gap(_System, frozen=True, tag="gap"):
    """Events after the requested cursor are no longer kept: fetch the state anew instead of showing a hole."""

    channel: str
    oldest: str
    cursor: str


class Ping(_System, frozen=True, tag="ping"):
    """Sign of life. `timestamp`: Unix milliseconds."""

    timestamp: int


class Reconnect(_System, frozen=True, tag="reconnect"):
    """The stream's time is over: come back, and go on from the cursors. `timestamp`: Unix milliseconds."""

    timestamp: int


class Error(_System, frozen=True, tag="error"):
    """`code` is for programs, `error` for people; `channel` is set when the other channels go on."""

    code: str
    error: str
    channel: str = ""


class Disconnected(_System, frozen=True, tag="disconnected"):
    """These channels are no longer followed, as asked."""

    channels: list[str]


class Subscribe(msgspec.Struct, frozen=True, tag="subscribe", tag_field="type"):
    """Follow channels. Each one's cursor is `0-0` (everything kept), `$` (only what is new) or an id to go on from.

    `token` is a signed grant for all of them; without one the connection's user decides.
    """

    channels: dict[str, str]
    token: str = ""


class Unsubscribe(msgspec.Struct, frozen=True, tag="unsubscribe", tag_field="type"):
    channels: list[str]


ClientFrame = Subscribe | Unsubscribe
_frames: msgspec.json.Decoder[ClientFrame] = msgspec.json.Decoder(Subscribe | Unsubscribe)
_encoder = msgspec.json.Encoder()


def encode(value: object) -> str:
    """JSON text of a message; `Raw` values are taken as they are."""
    return _encoder.encode(value).decode()


def decode_frame(text: str) -> ClientFrame:
    """What a client asks for. Raises RequestRejected with the reason."""
    if len(text) > LONGEST_FRAME:
        raise RequestRejected(f"The frame has {len(text)} characters; {LONGEST_FRAME} are the most.")
    try:
        return _frames.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise RequestRejected(f"The frame is not understood: {error}.") from error


def gap_message(channel: str, oldest: int, newest: int) -> Gap:
    return Gap(channel=channel, oldest=format_position(oldest), cursor=format_position(max(newest, oldest)))


def parse_cursor(text: str) -> int | None:
    """The position that a cursor stands for: 0 for the beginning, None for "only what is new".

    A bare number of milliseconds stands for the first position of that millisecond. Raises RequestRejected.
    """
    if text == ONLY_NEW:
        return None
    if not _ID_RE.fullmatch(text):
        raise RequestRejected(f"{text[:40]!r} is not a cursor; give an id such as '1760000000000-3', '0-0' or '$'.")
    return parse_position(text)


def check_channel(name: str) -> str:
    """The name when it can be a channel's. Raises RequestRejected."""
    if not name or len(name) > LONGEST_CHANNEL or "\0" in name:
        raise RequestRejected(
            f"{name[:40]!r} cannot be a channel: a name has 1 to {LONGEST_CHANNEL} characters and no U+0000."
        )
    return name
