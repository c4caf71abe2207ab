"""Options of a trigger, as the engine understands them, and the forms in which users may give them.

`TriggerOptions.of(...)` takes what people write (`"1h"`, a timedelta, an aware datetime, one label or many), checks it
and gives plain values; `client` builds the message from those without looking again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Model

from django_workflow.protocol.durations import to_seconds
from django_workflow.protocol.headers import PREFIX, is_header_name, is_safe_value
from django_workflow.protocol.identifiers import prefixed_run_id
from django_workflow.protocol.publish import FlowControl, RunAttributes
from django_workflow.protocol.requests import RunOverrides
from django_workflow.protocol.retry_delay import check_expression

Duration = timedelta | float | int | str
Instant = datetime | float | int

_WORD = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerOptions:
    """How a run is started. None means: not said, so the default of the workflow, the settings or the engine holds."""

    run_id: str | None = None
    """Id of the run (`wfr_` is put in front when missing): a second trigger with it makes no second run."""

    delay: float | None = None
    """Seconds until the first call."""

    not_before: float | None = None
    """Unix seconds of the first call; wins over `delay`."""

    retries: int | None = None
    """Retries of each call of the run after its first attempt."""

    retry_delay: str | None = None
    """Delay before a retry: an expression in milliseconds with the variable `retried`."""

    timeout: float | None = None
    """Seconds that one call of the run may take."""

    flow_control: FlowControl | None = None
    """Limits that all calls of the run share with others of the same key."""

    labels: tuple[str, ...] = ()
    """Words by which runs are found again."""

    headers: Mapping[str, str] = field(default_factory=dict)
    """Headers of every call of the run; `ctx.headers` shows them."""

    failure_url: str | None = None
    """Where a failed run is reported; None: to the workflow itself, for its failure function."""

    redact: tuple[str, ...] = ()
    """What is hidden wherever runs are shown: `body`, `header`, `header[Name]`."""

    secret: tuple[str, ...] = ()
    """Paths (`protocol.secrets`) of what the types of payload and result mark as secret."""

    owner: str | None = None
    """Key of the user whom the run belongs to: he may follow and answer it."""

    for_object: tuple[str, str] | None = None
    """The object that the run is for: its model's label and its key."""

    trigger_kind: str | None = None
    """How lists say that the run was started: a value of `Run.TriggerKind`."""

    @property
    def attributes(self) -> RunAttributes | None:
        """What this site keeps beside the run."""
        found = RunAttributes(self.owner, self.for_object, self.trigger_kind)
        return None if found == RunAttributes() else found

    @classmethod
    def of(
        cls,
        *,
        run_id: str | None = None,
        delay: Duration | None = None,
        not_before: Instant | None = None,
        retries: int | None = None,
        retry_delay: Duration | None = None,
        timeout: Duration | None = None,
        flow_control: FlowControl | Mapping[str, Any] | None = None,
        label: str | Iterable[str] | None = None,
        headers: Mapping[str, str] | None = None,
        failure_url: str | None = None,
        redact: str | Iterable[str] = (),
    ) -> TriggerOptions:
        """Options from the forms that people write. Raises ValueError or TypeError, each naming the value."""
        return cls(
            run_id=None if run_id is None else prefixed_run_id(run_id),
            delay=None if delay is None else to_seconds(delay),
            not_before=None if not_before is None else as_unix_seconds(not_before),
            retries=as_retries(retries),
            retry_delay=as_retry_delay(retry_delay),
            timeout=None if timeout is None else to_seconds(timeout),
            flow_control=as_flow_control(flow_control),
            labels=as_labels(label),
            headers=as_headers(headers),
            failure_url=failure_url,
            redact=as_redact(redact),
        )


def run_overrides(
    *,
    retries: int | None = None,
    delay: Duration | None = None,
    retry_delay: Duration | None = None,
    flow_control: FlowControl | Mapping[str, Any] | None = None,
    label: str | Iterable[str] | None = None,
    failure_url: str | None = None,
) -> RunOverrides:
    """What a resumed or restarted run has otherwise than before, from the forms that people write. Raises as
    `TriggerOptions.of`."""
    return RunOverrides(
        retries=as_retries(retries),
        delay=None if delay is None else to_seconds(delay),
        retry_delay=as_retry_delay(retry_delay),
        flow_control=as_flow_control(flow_control),
        labels=as_labels(label),
        failure_url=failure_url,
    )


def as_unix_seconds(value: Any) -> float:
    """Unix seconds of an instant. Raises ValueError for a naive datetime."""
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone. Use timezone.make_aware() or datetime(..., tzinfo=UTC).")
        return value.timestamp()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"An instant cannot be a {type(value).__name__} ({value!r}). Give an aware datetime.")
    return value


def as_retries(value: Any) -> int | None:
    """Raises ValueError below 0."""
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
        return value
    raise ValueError(f"retries is {value!r}, but must be a whole number from 0.")


def as_retry_delay(value: Duration | None) -> str | None:
    """An expression in milliseconds: of seconds and timedeltas, their length; text is an expression already."""
    if value is None:
        return None
    if isinstance(value, str):
        check_expression(value)
        return value
    return str(round(to_seconds(value) * 1000))


def as_flow_control(value: FlowControl | Mapping[str, Any] | None) -> FlowControl | None:
    """A FlowControl, or a dict with `key` and any of `parallelism`, `rate`, `period` (a duration)."""
    if value is None:
        return None
    if isinstance(value, Mapping):
        unknown = set(value) - {"key", "parallelism", "rate", "period"}
        if unknown or "key" not in value:
            raise ValueError(f"flow_control is {dict(value)!r}, but takes key (needed), parallelism, rate, period.")
        value = FlowControl(
            key=value["key"],
            parallelism=value.get("parallelism"),
            rate=value.get("rate"),
            period=round(to_seconds(value.get("period", 1))),
        )
    if not isinstance(value, FlowControl):
        raise TypeError(f'flow_control is {value!r}, but must be a dict such as {{"key": "mail", "parallelism": 2}}.')
    if not _is_word(value.key):
        raise ValueError(f"{value.key!r} cannot be a flow control key: use letters, digits and -_. only.")
    for name, limit in (("parallelism", value.parallelism), ("rate", value.rate)):
        if limit is not None and limit < 1:
            raise ValueError(f"{name} of the flow control key {value.key!r} is {limit}, but must be at least 1.")
    if value.parallelism is None and value.rate is None:
        raise ValueError(f"The flow control key {value.key!r} limits nothing: give parallelism, rate, or both.")
    if value.period < 1:
        raise ValueError(f"period of the flow control key {value.key!r} is {value.period}, but must be at least 1.")
    return value


def as_labels(value: str | Iterable[str] | None) -> tuple[str, ...]:
    """One label or several."""
    if value is None:
        return ()
    labels = (value,) if isinstance(value, str) else tuple(value)
    for label in labels:
        if not _is_word(label):
            raise ValueError(f"{label!r} cannot be a label: use letters, digits, hyphen, underscore, period.")
    return labels


def as_headers(value: Mapping[str, str] | None) -> dict[str, str]:
    """Headers of one's own: their names are tokens, their values one line of text, none is an engine's."""
    headers: dict[Any, Any] = dict(value or {})
    for name, text in headers.items():
        if not isinstance(name, str) or not is_header_name(name):
            raise ValueError(f"{name!r} cannot be the name of a header.")
        if name.lower().startswith(PREFIX.lower()):
            raise ValueError(f"The header {name!r} is the engine's; use the options of the trigger instead.")
        if not isinstance(text, str) or not is_safe_value(text):
            raise ValueError(f"The header {name!r} has the value {text!r}, but must be one line of text.")
    return headers


def _is_word(value: object) -> bool:
    """Whether this can be a label or a flow control key: engines put them into headers, lists and paths."""
    return isinstance(value, str) and _WORD.fullmatch(value) is not None


def as_owner(value: Model | None) -> str | None:
    """The key of a user. Raises TypeError for what is none, ValueError for one that is not saved."""
    return None if value is None else _key_of(value, "owner")


def as_object(value: Model | None) -> tuple[str, str] | None:
    """Label of the model and key of an object. Raises as `as_owner`."""
    if value is None:
        return None
    key = _key_of(value, "for_object")
    return (value._meta.concrete_model or type(value))._meta.label_lower, key


def _key_of(value: Any, name: str) -> str:
    if not isinstance(value, Model):
        raise TypeError(f"{name} is {value!r}, but must be an object of a model.")
    if value.pk is None:
        raise ValueError(f"{name} is {value!r}, which is not saved: save it first, so that it has a key.")
    return str(value.pk)


def as_redact(value: str | Iterable[str]) -> tuple[str, ...]:
    """`body`, `header` or `header[Name]`; one or several."""
    fields = tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else tuple(value)
    fields = tuple(part for part in fields if part)
    for part in fields:
        if part not in ("body", "header") and not (part.startswith("header[") and part.endswith("]") and len(part) > 8):
            raise ValueError(f'{part!r} cannot be redacted: name "body", "header" or "header[Name]".')
    return fields
