"""Steps as they travel and as they are kept: the JSON object inside a message's body.

A *result step* (`step_id >= 1`) is the outcome of a step; a *plan step* (`step_id == 0`, `target_step >= 1`)
announces one branch of a parallel group. `out` is JSON text inside the JSON (base64 for waits).
Readers treat a missing key and `null` alike and do not depend on the order of keys.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

import msgspec

from django_workflow.errors import MessageInvalid


class StepType(StrEnum):
    INITIAL = "Initial"
    RUN = "Run"
    SLEEP_FOR = "SleepFor"
    SLEEP_UNTIL = "SleepUntil"
    CALL = "Call"
    WAIT = "Wait"
    NOTIFY = "Notify"
    INVOKE = "Invoke"
    CREATE_WEBHOOK = "CreateWebhook"
    WAIT_FOR_WEBHOOK = "WaitForWebhook"


class CallType(StrEnum):
    """What a message of a run is: a step, a call on its way out or back, a failure callback."""

    STEP = "step"
    TO_CALLBACK = "toCallback"
    FROM_CALLBACK = "fromCallback"
    FAILURE_CALL = "failureCall"


class Step(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, gc=False):
    """One step in JSON form. `sleep_for` is seconds or a duration, `sleep_until` Unix seconds.

    `secret` is ours, and nothing to other SDKs: the paths (`protocol.secrets`) of what is not shown of its result.
    """

    step_id: int
    step_name: str
    step_type: str
    out: str | None = None
    concurrent: int
    target_step: int | None = None
    sleep_for: int | float | str | None = None
    sleep_until: int | float | None = None
    wait_event_id: str | None = None
    timeout: str | int | float | None = None
    wait_timeout: bool | None = None
    secret: tuple[str, ...] = ()

    @property
    def is_plan(self) -> bool:
        return self.step_id == 0 and bool(self.target_step)


_step_decoder = msgspec.json.Decoder(Step)
_encoder = msgspec.json.Encoder()


def encode_step(step: Step) -> bytes:
    return _encoder.encode(step)


def decode_step(body: bytes | str) -> Step:
    """Raises msgspec.DecodeError when the body is not a step."""
    return _step_decoder.decode(body)


class JournalMessage:
    """One message of a run's journal: id, call type and body as received. Its step is decoded once, when asked for.

    Journals are handed around by reference, so the same object serves every later invocation of its run.
    """

    __slots__ = ("_step", "body", "call_type", "message_id")

    def __init__(self, message_id: str, body: str, call_type: str = CallType.STEP, step: Step | None = None) -> None:
        self.message_id = message_id
        self.body = body
        self.call_type = call_type
        self._step = step

    @property
    def step(self) -> Step:
        if self._step is None:
            self._step = decode_step(self.body)
        return self._step

    @property
    def raw(self) -> bytes:
        """The body's bytes; those that are no UTF-8 stand in `body` as lone surrogates."""
        return self.body.encode("utf-8", "surrogateescape")

    def __repr__(self) -> str:
        return f"JournalMessage({self.message_id!r}, {self.call_type!r}, {self.body[:60]!r})"


class _Element(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """One message of a steps delivery. msgspec reads and writes bytes as base64."""

    message_id: str
    body: bytes
    call_type: str = CallType.STEP


_elements_decoder = msgspec.json.Decoder(list[_Element])


def encode_messages(messages: Iterable[JournalMessage]) -> bytes:
    """The body of a steps delivery, and the answer of a fetch: `[{"messageId", "body": base64, "callType"}]`."""
    return _encoder.encode([_Element(message.message_id, message.raw, message.call_type) for message in messages])


def decode_messages(body: bytes | str) -> list[JournalMessage]:
    """The inverse; the first message is the run's payload. Raises MessageInvalid, also for a step that is no text."""
    try:
        elements = _elements_decoder.decode(body)
        return [
            JournalMessage(
                element.message_id,
                # Payloads and the bodies of calls may be any bytes; steps are JSON.
                str(element.body, "utf-8", "strict" if index and element.call_type == "step" else "surrogateescape"),
                element.call_type,
            )
            for index, element in enumerate(elements)
        ]
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise MessageInvalid(f"This is no list of a run's messages: {error}.", name="body") from error
