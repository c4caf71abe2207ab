"""Stored values for readers: JSON laid out, secrets hidden, results of steps fetched from the journal.

Everything here gives text or plain values; nothing gives HTML. What is secret is said by the run (its trigger, its
steps) and by the types that its workflow's code has now: either is enough.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from django.db.models.functions import Length
from django.utils.translation import gettext as _

from django_workflow.authoring.registry import registry
from django_workflow.client.urls import workflow_name
from django_workflow.engine.addresses import is_own
from django_workflow.engine.records import decode_config, decode_message_config
from django_workflow.engine.redaction import redact_headers
from django_workflow.errors import WorkflowError
from django_workflow.models import JournalEntry, Run, Schedule, Step, Waiter
from django_workflow.presentation.json_text import TooDeep, read_json
from django_workflow.protocol.secrets import PAYLOAD, RESULT, Paths, mask_result, within
from django_workflow.protocol.secrets import REDACTED as REDACTED
from django_workflow.protocol.steps import StepType, decode_step

STEP_COLUMNS = (
    "step_id",
    "name",
    "step_type",
    "status",
    "concurrent",
    "attempts",
    "queued_at",
    "started_at",
    "finished_at",
    "due_at",
    "event_id",
    "error",
)
"""What a step's row tells as it stands: beside these come its result, and what follows from its instants."""

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


def parsed(text: str | None, *, is_base64: bool = False, secret: Paths = (), step_type: str = "") -> Any:
    """The value of a stored body: JSON parsed and masked, other text as it is, other bytes as `{"base64": …}`.

    `secret` are the paths of what is not shown; of a body that is no JSON they hide everything. `step_type`: the body
    is the result of such a step.
    """
    if not text:
        return None
    if is_base64:
        raw = base64.b64decode(text)
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            return REDACTED if secret else {"base64": text}
    try:
        value = read_json(text)
    except TooDeep:  # nor as text: secrets inside could not be hidden
        return REDACTED if secret else _("Nested too deeply to be shown.")
    except ValueError:
        return REDACTED if secret else text
    return masked(mask_result(step_type, value, secret))


def secrets_of(run: Run) -> Paths:
    """The paths of a run's secrets, under `payload` and `result`: as its trigger said, and as its code says now."""
    try:
        said = decode_config(run.config).secret
    except msgspec.MsgspecError:
        said = ()
    return tuple(dict.fromkeys((*said, *declared_secrets(run.workflow))))


def declared_secrets(workflow: str) -> Paths:
    """The same for a workflow of that name; empty when this code has none."""
    found = registry.find(workflow)
    try:
        return () if found is None else found.secret
    except WorkflowError:  # a type that is nowhere: nothing can be triggered with it either
        return ()


def payload_of(run: Run, *, revealed: bool = False) -> Any:
    """A run's payload. `revealed`: with what is hidden of it, for `control.reveal`."""
    if is_redacted(run) and not revealed:
        return REDACTED
    secret = () if revealed else within(PAYLOAD, secrets_of(run))
    return parsed(run.payload, is_base64=run.payload_is_base64, secret=secret)


def headers_of(run: Run) -> dict[str, Any]:
    """The headers that a run was triggered with, without those that its publisher or everybody hides."""
    try:
        config = decode_config(run.config)
    except msgspec.MsgspecError:
        return {}
    return masked_headers(redact_headers(config.headers, config.redact))


def result_of(run: Run, *, revealed: bool = False) -> Any:
    """What a run returned. `revealed`: with what is hidden of it, for `control.reveal`."""
    if is_redacted(run) and run.result is not None and not revealed:
        return REDACTED
    return parsed(run.result, secret=() if revealed else within(RESULT, secrets_of(run)))


def scheduled_payload(schedule: Schedule) -> Any:
    """What a schedule starts its runs with. One that was made by the API knows its workflow by the URL."""
    workflow = schedule.workflow or (workflow_name(schedule.destination) if is_own(schedule.destination) else "")
    secret = within(PAYLOAD, declared_secrets(workflow))
    return parsed(schedule.payload, is_base64=schedule.payload_is_base64, secret=secret)


def laid_out(value: Any) -> str:
    """A value as indented JSON; text stays text, and "" shows its quotes."""
    return value if isinstance(value, str) and value else json.dumps(value, indent=2, ensure_ascii=False)


def on_one_line(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def step_results(
    run: Run, steps: Iterable[Step], *, largest: int | None = None, revealed: bool = False
) -> dict[int, Any]:
    """Results by step id, in one query; without those of steps whose message is longer than `largest` characters.

    `revealed`: with what is hidden of them, for `control.reveal`.
    """
    positions = {step.position: step.step_id for step in steps if step.position is not None}
    if not positions:
        return {}
    if is_redacted(run) and not revealed:
        return dict.fromkeys(positions.values(), REDACTED)
    entries = JournalEntry.objects.using(run._state.db).filter(run=run, position__in=positions)
    if largest is not None:
        entries = entries.annotate(length=Length("body")).filter(length__lte=largest)
    return {
        positions[position]: _out(body, is_base64, revealed)
        for position, body, is_base64 in entries.values_list("position", "body", "body_is_base64")
    }


def _out(body: str, is_base64: bool, revealed: bool) -> Any:
    """The result inside a journalled step: its `out` is JSON text, in waits base64 of what the event carried."""
    raw = base64.b64decode(body) if is_base64 else body
    try:
        step = decode_step(raw)
    except msgspec.MsgspecError:
        return parsed(body, is_base64=is_base64)
    is_event = step.step_type in _WAITS and bool(step.out) and not step.wait_timeout
    secret = () if revealed else step.secret
    return parsed(step.out, is_base64=is_event, secret=secret, step_type=step.step_type)


def waiter_answer(waiter: Waiter, *, redacted: bool) -> Any:
    """What an event brought to a wait; None when it brought nothing, or has not come."""
    if redacted and waiter.event_data:
        return REDACTED
    try:
        secret = decode_step(waiter.step).secret if waiter.step else ()
    except msgspec.MsgspecError:
        secret = ()
    return parsed(waiter.event_data, is_base64=True, secret=secret)


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
