"""Waiting for events and webhooks: the body of `POST /v2/wait/…`, and the result steps that end a wait."""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from typing import Any

import msgspec

from django_workflow.errors import MessageInvalid
from django_workflow.protocol.steps import Step


class FormPrompt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A form that people fill in to end a wait: the dotted path of its class, what its fields start with, and who may
    answer (`user:<key>`, `group:<name>`, `perm:<app.codename>`; nobody named: whoever may answer the run)."""

    form: str
    initial: dict[str, Any] = {}
    to: tuple[str, ...] = ()


class WaitBody(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What a run waits with. `step` is its plain step, `timeout` a duration or seconds; the `timeout_*` fields say
    what to send when the time is up, and SDKs make them equal to the request's own address and headers.
    `message` and `form` are ours: what people are told and shown who can answer; other engines pass over them."""

    url: str
    timeout: str | int | float
    timeout_url: str = ""
    timeout_headers: dict[str, list[str]] = {}
    timeout_body: str | None = None
    step: Step
    message: str | None = None
    form: FormPrompt | None = None


class WebhookEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The call of a webhook, as event data. `proto://host` and `url` (path and query) make the URL that was called;
    `body` is base64 in JSON and absent when the call had none."""

    method: str
    header: dict[str, list[str]]
    body: bytes = b""
    proto: str
    host: str
    url: str


_encoder = msgspec.json.Encoder()
_wait_decoder = msgspec.json.Decoder(WaitBody)
_prompt_decoder = msgspec.json.Decoder(FormPrompt)
_webhook_decoder = msgspec.json.Decoder(WebhookEvent)


def encode_wait(body: WaitBody) -> bytes:
    return _encoder.encode(body)


def decode_wait(body: bytes) -> WaitBody:
    """Raises MessageInvalid."""
    try:
        return _wait_decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MessageInvalid(f"This is no body of a wait: {error}.", name="body") from error


def encode_prompt(prompt: FormPrompt) -> str:
    return _encoder.encode(prompt).decode()


def decode_prompt(text: str) -> FormPrompt:
    """Raises msgspec.DecodeError."""
    return _prompt_decoder.decode(text)


def encode_webhook(event: WebhookEvent) -> bytes:
    return _encoder.encode(event)


def decode_webhook(data: bytes) -> WebhookEvent:
    """Raises MessageInvalid."""
    try:
        return _webhook_decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MessageInvalid(f"This event is no call of a webhook: {error}.", name="event") from error


def event_result(step: Step, event_id: str, data: bytes) -> Step:
    """The result of a wait that an event ended. Its `out` is base64 of the data, missing when there is none."""
    out = b64encode(data).decode("ascii") if data else None
    return msgspec.structs.replace(step, wait_event_id=event_id, out=out, wait_timeout=False)


def timeout_result(step: Step, event_id: str) -> Step:
    """The result of a wait whose time was up."""
    return msgspec.structs.replace(step, wait_event_id=event_id, out=None, wait_timeout=True)


def event_data(step: Step) -> bytes | None:
    """What the event brought; None when it brought nothing or the time was up. Raises MessageInvalid."""
    if not step.out:
        return None
    try:
        return b64decode(step.out, validate=True)
    except (binascii.Error, ValueError) as error:
        raise MessageInvalid(
            f"The result of {step.step_name!r} is no base64 ({error}).", name="out", value=step.out
        ) from error
