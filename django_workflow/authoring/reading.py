"""Reading the recorded results of steps: `out` as this package, the engine or another SDK wrote it.

The codecs of `protocol` give what was sent; here it becomes what a workflow's code gets. Source: endpoint.md,
sections 7.6 and 8.
"""

from __future__ import annotations

from typing import Any

import msgspec

from django_workflow.authoring.results import (
    CallResponse,
    InvokeResult,
    NotifyResult,
    WaitResult,
    Webhook,
    WebhookRequest,
    WebhookResult,
)
from django_workflow.errors import MessageInvalid, PayloadInvalid, StepError
from django_workflow.protocol.callbacks import content_type, decode_call_result, is_text
from django_workflow.protocol.invoke import decode_invoke_result
from django_workflow.protocol.requests import Notified
from django_workflow.protocol.steps import Step
from django_workflow.protocol.waits import decode_webhook, event_data
from django_workflow.replay.values import Decode, decode_json


class _NotifyOut(msgspec.Struct, rename="camel"):
    event_id: str
    event_data: Any = None
    notify_response: tuple[Notified, ...] | None = None


class _WebhookOut(msgspec.Struct, rename="camel"):
    webhook_url: str
    event_id: str


_notify_out = msgspec.json.Decoder(_NotifyOut)
_webhook_out = msgspec.json.Decoder(_WebhookOut)


def read_call(step: Step) -> CallResponse:
    """The target's answer."""
    try:
        result = decode_call_result(_out(step))
    except MessageInvalid as error:
        raise _unreadable(step, error) from error
    kind = content_type(result.header)
    try:
        # A server that does not say what it sends is taken to send UTF-8.
        text = result.body.decode() if is_text(kind) or not kind else result.body.decode("latin-1")
    except UnicodeDecodeError:
        text = result.body.decode("latin-1")
    return CallResponse(result.status, result.header, _json_or_text(text), result.body)


def read_wait(step: Step, decode: Decode) -> WaitResult[Any]:
    """What the event brought. Raises PayloadInvalid when its data does not fit the type that the code declares."""
    try:
        raw = event_data(step)
    except MessageInvalid as error:
        raise _unreadable(step, error) from error
    return WaitResult(_typed_event(raw, step, decode) if raw else None, bool(step.wait_timeout))


def _typed_event(raw: bytes, step: Step, decode: Decode) -> Any:
    try:
        return decode(raw)
    except (msgspec.MsgspecError, ValueError, TypeError) as error:
        if decode is decode_json:
            return raw.decode("utf-8", "replace")
        raise PayloadInvalid(
            f"The data of event {step.wait_event_id!r} does not fit the type of step {step.step_name!r}: {error}.",
            field=path_of(error),
        ) from error


def read_notify(step: Step) -> NotifyResult:
    out = _decode(_notify_out, step)
    data = out.event_data
    return NotifyResult(out.event_id, _json_or_text(data) if isinstance(data, str) else data, out.notify_response or ())


def read_invoke(step: Step, decode: Decode) -> InvokeResult[Any]:
    """How the other run ended. Raises StepError when its result does not fit its return annotation."""
    try:
        out = decode_invoke_result(_out(step))
    except MessageInvalid as error:
        raise _unreadable(step, error) from error
    body: Any = None
    if out.body is not None and not (out.is_failed or out.is_canceled):
        try:
            body = decode(out.body)
        except (msgspec.MsgspecError, ValueError, TypeError) as error:
            if decode is not decode_json:
                raise StepError(
                    f"What the run of step {step.step_name!r} returned does not fit its workflow's type: {error}."
                ) from error
            body = out.body
    return InvokeResult(body, out.is_failed, out.is_canceled)


def read_webhook(step: Step) -> Webhook:
    out = _decode(_webhook_out, step)
    return Webhook(out.webhook_url, out.event_id)


def read_webhook_request(step: Step) -> WebhookResult:
    try:
        raw = event_data(step)
        if not raw:
            return WebhookResult(None, bool(step.wait_timeout))
        event = decode_webhook(raw)
    except MessageInvalid as error:
        raise _unreadable(step, error) from error
    body = b"" if event.method in ("GET", "HEAD") else event.body
    url = f"{event.proto}://{event.host}{event.url}"
    return WebhookResult(WebhookRequest(event.method, url, event.header, body), timeout=False)


def path_of(error: Exception) -> str:
    """The path at the end of msgspec's words for JSON that does not fit: `$.email`."""
    _, found, path = str(error).rpartition(" - at `")
    return path.removesuffix("`") if found else "$"


def _out(step: Step) -> str:
    if step.out is None:
        raise StepError(
            f"Error while parsing output of {step.step_type} step. Expected a string, but got: undefined. "
            f"Step: {step.step_name!r}."
        )
    return step.out


def _decode(decoder: msgspec.json.Decoder[Any], step: Step) -> Any:
    try:
        return decoder.decode(_out(step))
    except msgspec.MsgspecError as error:
        raise _unreadable(step, error) from error


def _unreadable(step: Step, error: Exception) -> StepError:
    return StepError(f"The recorded result of {step.step_type} step {step.step_name!r} cannot be read: {error}")


def _json_or_text(text: str) -> Any:
    try:
        return decode_json(text)
    except (msgspec.MsgspecError, ValueError):
        return text
