"""Bodies of callbacks: what became of a message, of a call's target, of a failed run.

The engine writes them (`encode_callback`), endpoints read them (`decode_callback`, `decode_failure`). The JSON is
byte-stable: `JSON.stringify(JSON.parse(body))` gives the same bytes, because some adapters of the JavaScript SDK
write a body again before they check its signature.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from django_workflow.errors import MessageInvalid
from django_workflow.protocol.headers import header_lists, javascript_order


def _no_headers() -> dict[str, list[str]]:
    return {}


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return "callerIP" if name == "caller_ip" else first + "".join(map(str.capitalize, rest))


# Fields with a factory are written even when empty (`omit_defaults` leaves out plain defaults only): some SDKs read
# them by key. The others are left out when there is nothing to say.
class CallbackBody(msgspec.Struct, frozen=True, kw_only=True, rename=_camel, omit_defaults=True):
    """What one attempt at a message came to. `status` is 0 when there was no answer; `body` and `source_body` are
    base64 in JSON, headers are made by `headers.header_lists`, instants are Unix milliseconds."""

    status: int = msgspec.field(default_factory=int)
    header: dict[str, list[str]] = msgspec.field(default_factory=_no_headers)
    body: bytes = msgspec.field(default_factory=bytes)
    retried: int = msgspec.field(default_factory=int)
    max_retries: int = msgspec.field(default_factory=int)
    source_message_id: str = ""
    topic_name: str = ""
    endpoint_name: str = ""
    url: str = msgspec.field(default_factory=str)
    method: str = ""
    source_header: dict[str, list[str]] = msgspec.field(default_factory=_no_headers)
    source_body: bytes = msgspec.field(default_factory=bytes)
    not_before: int = 0
    created_at: int = 0
    schedule_id: str = ""
    caller_ip: str = ""
    workflow_run_id: str = ""

    @property
    def will_retry(self) -> bool:
        """Whether the engine tries again, so that this is not yet the result of a call."""
        return not 200 <= self.status < 300 and self.max_retries > 0 and self.retried != self.max_retries


class FailureBody(CallbackBody, frozen=True, kw_only=True, rename=_camel, omit_defaults=True):
    """The same after the last attempt, with the dead letter's id. For a run, `source_body` is its initial payload,
    `url` that of the workflow, and `body` what the failing delivery was answered (see `ErrorBody`)."""

    dlq_id: str = ""
    workflow_created_at: int = 0
    workflow_url: str = ""


class ErrorBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an endpoint answers when a step failed: the error's name, its message, and where it happened."""

    error: str = ""
    message: str = ""
    stack: str = ""


class CallResult(msgspec.Struct, frozen=True):
    """What a call's target answered, as the `out` of a Call step keeps it."""

    status: int
    header: dict[str, list[str]]
    body: bytes


class _CallOut(msgspec.Struct):
    # The order in which the JavaScript SDK writes them.
    status: int = 0
    body: str | None = ""
    header: dict[str, list[str]] = {}


Body = TypeVar("Body", bound=CallbackBody)

_encoder = msgspec.json.Encoder()
_callback_decoder = msgspec.json.Decoder(CallbackBody)
_failure_decoder = msgspec.json.Decoder(FailureBody)
_out_decoder = msgspec.json.Decoder(_CallOut)
_error_decoder = msgspec.json.Decoder(ErrorBody)


def encode_callback(body: CallbackBody) -> bytes:
    """The JSON of a callback or, for a FailureBody, of a failure callback."""
    header, source_header = javascript_order(body.header), javascript_order(body.source_header)
    if header is not body.header or source_header is not body.source_header:
        body = msgspec.structs.replace(body, header=header, source_header=source_header)
    return _encoder.encode(body)


def decode_callback(body: bytes) -> CallbackBody:
    """Reads a call's callback. Raises MessageInvalid, which is a ValueError."""
    return _decode(body, _callback_decoder, CallbackBody)


def decode_failure(body: bytes) -> FailureBody:
    """Reads a failure callback. Raises MessageInvalid, which is a ValueError."""
    return _decode(body, _failure_decoder, FailureBody)


def _decode(body: bytes, decoder: msgspec.json.Decoder[Body], kind: type[Body]) -> Body:
    try:
        try:
            return decoder.decode(body)
        except msgspec.ValidationError:
            # The documentation also shows instants as text, headers as plain strings, and null for what is missing.
            return msgspec.convert(_leniently(msgspec.json.decode(body)), kind, strict=False)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MessageInvalid(f"This is no callback's body: {error}.", name="body") from error


def _leniently(raw: Any) -> Any:
    if not isinstance(raw, dict):
        return raw
    fields = {name: value for name, value in raw.items() if value is not None}
    for name in ("header", "sourceHeader"):
        if isinstance(fields.get(name), dict):
            fields[name] = {
                key: value if isinstance(value, list) else [str(value)] for key, value in fields[name].items()
            }
    return fields


def encode_call_result(result: CallResult) -> str:
    """`out` of a Call step: JSON whose `body` holds one character per byte.

    That is how the JavaScript SDK writes it, so that any bytes survive; it reads text types back as UTF-8.
    """
    out = _CallOut(status=result.status, body=result.body.decode("latin-1"), header=header_lists(_pairs(result.header)))
    return _encoder.encode(out).decode()


def decode_call_result(out: str) -> CallResult:
    """The inverse. Also reads what the Python SDK wrote, whose `body` is decoded text. Raises MessageInvalid."""
    try:
        read = _out_decoder.decode(out)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise MessageInvalid(f"This is no result of a call: {error}.", name="out") from error
    return CallResult(status=read.status, header=read.header, body=_bytes(read.body or "", content_type(read.header)))


def _bytes(text: str, type_: str) -> bytes:
    try:
        body = text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode()  # characters that are no bytes: decoded text
    if not text.isascii() and is_text(type_):
        try:
            body.decode()
        except UnicodeDecodeError:
            return text.encode()  # a text type, yet not UTF-8 byte by byte: decoded text
    return body


def _pairs(header: dict[str, list[str]]) -> list[tuple[str, str]]:
    return [(name, value) for name, values in header.items() for value in values]


def content_type(header: dict[str, list[str]]) -> str:
    """The content type among the headers of a callback or of a call's result; empty when there is none."""
    for name, values in header.items():
        if name.lower() == "content-type" and values:
            return values[0]
    return ""


_TEXT_TYPES = tuple(
    f"application/{name}"
    for name in ("json", "xml", "javascript", "x-www-form-urlencoded", "xhtml+xml", "ld+json", "rss+xml", "atom+xml")
)


def is_text(type_: str) -> bool:
    """Whether a content type's body is UTF-8 text. Source: JavaScript SDK, reading the result of a call."""
    type_ = type_.lower()
    return type_.startswith("text/") or any(name in type_ for name in _TEXT_TYPES)


def encode_error(error: ErrorBody) -> bytes:
    return _encoder.encode(error)


def decode_error(body: bytes) -> ErrorBody:
    """What an endpoint's answer says went wrong. Never raises: other text than its JSON becomes the message."""
    if not body:
        return ErrorBody()
    try:
        read = _error_decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        read = ErrorBody()
    if read.message:
        return read
    # The official wording, which failure functions may know.
    text = body.decode("utf-8", "replace")
    message = f"Couldn't parse 'failResponse' in 'failureFunction', received: '{text}'"
    return msgspec.structs.replace(read, message=message)
