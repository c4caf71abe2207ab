"""Starting a workflow from another one: the body of the request, and the result that its end brings."""

from __future__ import annotations

import msgspec

from django_workflow.errors import MessageInvalid
from django_workflow.protocol.steps import Step


class InvokeBody(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """`body` is the new run's payload (None: no payload). The rest is about the invoking run: `step` is its plain
    step, `headers` those of the message that brings its result, the instant Unix milliseconds."""

    body: str | None = None
    headers: dict[str, list[str]] = {}
    workflow_run_id: str
    workflow_run_created_at: int | float = 0
    workflow_url: str
    step: Step


class InvokeResult(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """How the invoked run ended. `body` is its result's JSON text, None when it has none."""

    body: str | None = None
    # No defaults: readers compare with false, so both must be there.
    is_canceled: bool
    is_failed: bool


_encoder = msgspec.json.Encoder()
_body_decoder = msgspec.json.Decoder(InvokeBody)
_result_decoder = msgspec.json.Decoder(InvokeResult)


def encode_invoke(body: InvokeBody) -> bytes:
    return _encoder.encode(body)


def decode_invoke(body: bytes) -> InvokeBody:
    """Raises MessageInvalid."""
    try:
        return _body_decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MessageInvalid(f"This is no request to invoke a workflow: {error}.", name="body") from error


def encode_invoke_result(result: InvokeResult) -> str:
    """`out` of an Invoke step."""
    return _encoder.encode(result).decode()


def decode_invoke_result(out: str) -> InvokeResult:
    """Raises MessageInvalid."""
    try:
        return _result_decoder.decode(out)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise MessageInvalid(f"This is no result of an invoked workflow: {error}.", name="out") from error


def invoke_result(step: Step, result: InvokeResult) -> Step:
    """The result step for the invoking run."""
    return msgspec.structs.replace(step, out=encode_invoke_result(result))
