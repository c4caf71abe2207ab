"""Stored values for readers: JSON laid out, secrets hidden, results of steps fetched from the journal.

Everything here gives text or plain values; nothing gives HTML.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from django.db.models.functions import Length

from django_workflow.engine.records import decode_config, decode_message_config
from django_workflow.models import JournalEntry, Run, Step
from django_workflow.protocol.steps import StepType, decode_step

REDACTED = "REDACTED"
LARGEST_LAID_OUT = 256 * 1024

_SECRET_HEADERS = ("authorization", "cookie", "x-api-key")
_SECRET_WORDS = ("token", "secret", "password", "api-key", "apikey")
_HEADER_KEYS = ("header", "headers")
_WAITS = (StepType.WAIT, StepType.WAIT_FOR_WEBHOOK)


def is_secret_header(name: str) -> bool:
    """Whether a header's value is never shown: credentials, also under a prefix (`Upstash-Forward-Authorization`)."""
    name = name.lower()
    return name.endswith(_SECRET_HEADERS) or any(word in name for word in _SECRET_WORDS)


def masked_headers(headers: Mapping[str, Any]) -> dict[str, Any]:
    return {name: REDACTED if is_secret_header(name) else value for name, value in headers.items()}


def masked(value: Any) -> Any:
    """A JSON value whose `header` and `headers` objects (as in the result of a call) have their secrets hidden."""
    if isinstance(value, dict):
        return {
            key: masked_headers(item) if isinstance(item, dict) and key.lower() in _HEADER_KEYS else masked(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [masked(item) for item in value]
    return value


def is_redacted(run: Run) -> bool:
    """Whether the run was triggered with its bodies hidden from logs."""
    try:
        return "body" in decode_config(run.config).redact
    except msgspec.MsgspecError:
        return False


def is_redacted_message(config: str) -> bool:
    """Whether a message outside workflows, by its stored settings, was published with its bodies hidden from logs."""
    try:
        message = decode_message_config(config)
    except msgspec.MsgspecError:
        return False
    return message is not None and "body" in message.redact


def parsed(text: str | None, *, is_base64: bool = False) -> Any:
    """The value of a stored body: JSON parsed and masked, other text as it is, other bytes as `{"base64": …}`."""
    if not text:
        return None
    if is_base64:
        raw = base64.b64decode(text)
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            return {"base64": text}
    try:
        return masked(json.loads(text))
    except (ValueError, RecursionError):
        return text


def payload_of(run: Run) -> Any:
    return REDACTED if is_redacted(run) else parsed(run.payload, is_base64=run.payload_is_base64)


def result_of(run: Run) -> Any:
    return REDACTED if is_redacted(run) and run.result is not None else parsed(run.result)


def laid_out(value: Any) -> str:
    """A value as indented JSON; text stays text, and "" shows its quotes."""
    return value if isinstance(value, str) and value else json.dumps(value, indent=2, ensure_ascii=False)


def on_one_line(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def step_results(run: Run, steps: Iterable[Step], *, largest: int | None = None) -> dict[int, Any]:
    """Results by step id, in one query; without those of steps whose message is longer than `largest` characters."""
    positions = {step.position: step.step_id for step in steps if step.position is not None}
    if not positions:
        return {}
    if is_redacted(run):
        return dict.fromkeys(positions.values(), REDACTED)
    entries = JournalEntry.objects.using(run._state.db).filter(run=run, position__in=positions)
    if largest is not None:
        entries = entries.annotate(length=Length("body")).filter(length__lte=largest)
    return {
        positions[position]: _out(body, is_base64)
        for position, body, is_base64 in entries.values_list("position", "body", "body_is_base64")
    }


def _out(body: str, is_base64: bool) -> Any:
    """The result inside a journalled step: its `out` is JSON text, in waits base64 of what the event carried."""
    raw = base64.b64decode(body) if is_base64 else body
    try:
        step = decode_step(raw)
    except msgspec.MsgspecError:
        return parsed(body, is_base64=is_base64)
    if step.step_type in _WAITS and step.out and not step.wait_timeout:
        return parsed(step.out, is_base64=True)
    return parsed(step.out)


def event_data(data: str, *, redacted: bool) -> Any:
    """The data of a channel's event; of a run whose bodies are hidden, without the result in it."""
    value = parsed(data)
    if redacted and isinstance(value, dict) and "result" in value:
        value["result"] = REDACTED
    return value


def headers_text(stored: str) -> str:
    """Stored response headers, one `Name: value` a line, secrets hidden; what is no JSON object is hidden whole."""
    if not stored:
        return ""
    try:
        headers = json.loads(stored)
    except ValueError:
        headers = None
    if not isinstance(headers, dict):
        return REDACTED
    return "\n".join(
        f"{name}: {', '.join(map(str, value)) if isinstance(value, list) else value}"
        for name, value in sorted(masked_headers(headers).items())
    )
