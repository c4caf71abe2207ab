"""Options of a workflow: how its runs are started, retried, limited and watched.

`@workflow(retries=5)` sets them for every run, `checkout.using(delay="1h")` for some. They are checked where they are
written, so a mistake shows at import.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import timedelta
from typing import Any, TypedDict

from django.db.models import Model

from django_workflow.authoring.middleware import Middleware
from django_workflow.client.options import (
    Duration,
    Instant,
    TriggerOptions,
    as_flow_control,
    as_headers,
    as_labels,
    as_object,
    as_owner,
    as_redact,
    as_retries,
    as_retry_delay,
    as_unix_seconds,
)
from django_workflow.errors import Misconfigured, among
from django_workflow.protocol.durations import parse_duration, to_seconds
from django_workflow.protocol.identifiers import prefixed_run_id
from django_workflow.protocol.publish import FlowControl

FailureFunction = Callable[..., Any]


class RunOptions(TypedDict, total=False):
    """What `using(...)` takes, in the forms that people write; `WorkflowOptions` tells what each means."""

    retries: int | None
    retry_delay: Duration | None
    timeout: Duration | None
    delay: Duration | None
    not_before: Instant | None
    label: str | Iterable[str] | None
    labels: Iterable[str]
    flow_control: FlowControl | Mapping[str, Any] | None
    workflow_run_id: str | None
    headers: Mapping[str, str] | None
    redact: str | Iterable[str]
    failure_url: str | None
    owner: Model | None
    for_object: Model | None
    trigger_kind: str | None


class DeclaredOptions(RunOptions, total=False):
    """What `@workflow(...)` takes besides."""

    on_failure: FailureFunction | None
    middlewares: Iterable[Middleware | type[Middleware]]
    schedule: str | None
    timezone: str
    steps_per_call: int | None
    atomic_steps: bool | None
    retention: Duration | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowOptions:
    """None means: not said, so the settings or the engine decide."""

    retries: int | None = None
    """Retries of each step after its first attempt."""

    retry_delay: str | None = None
    """Delay before a retry: an expression in milliseconds with the variable `retried`."""

    timeout: float | None = None
    """Seconds that one call of the workflow may take."""

    delay: float | None = None
    """Seconds from the trigger to the first call."""

    not_before: float | None = None
    """Unix seconds of the first call; wins over `delay`."""

    labels: tuple[str, ...] = ()
    """Words by which runs are found again."""

    flow_control: FlowControl | None = None
    """Limits that all calls of the run share with others of the same key."""

    workflow_run_id: str | None = None
    """Id of the run: a second trigger with it starts no second run."""

    headers: Mapping[str, str] = field(default_factory=dict)
    """Headers that every call of the run gets; `ctx.headers` shows them."""

    redact: tuple[str, ...] = ()
    """What logs hide: `body`, `header`, `header[Name]`."""

    failure_url: str | None = None
    """Where a failed run is reported; None: to the workflow itself, for `on_failure`."""

    owner: str | None = None
    """Key of the user whom the run belongs to: he may follow and answer it."""

    for_object: tuple[str, str] | None = None
    """The object that the run is for: its model's label and its key."""

    trigger_kind: str | None = None
    """How lists say that the run was started: a value of `Run.TriggerKind`; `code` when it is not said."""

    on_failure: FailureFunction | None = None
    """Called once when a run has failed for good: `on_failure(ctx, status, response, headers)`."""

    middlewares: tuple[Middleware, ...] = ()
    """Hooks around runs and steps."""

    schedule: str | None = None
    """Cron expression (five fields) by which runs start."""

    timezone: str = "UTC"
    """Time zone of the schedule."""

    steps_per_call: int | None = None
    """Steps that one call may run, each committed before the next begins; None: as the setting says."""

    atomic_steps: bool | None = None
    """Whether sync steps run in one transaction with their result when they do not say."""

    retention: timedelta | None = None
    """How long its finished runs are kept; None: as long as the setting says."""

    def using(self, **changes: Any) -> WorkflowOptions:
        """A copy with other options, in the forms that people write: `delay="1h"`, `label="vip"`.

        Raises Misconfigured for an unknown option, ValueError or TypeError for a bad value.
        """
        return replace(self, **_normalised(changes))

    def for_trigger(self) -> TriggerOptions:
        """The part that travels with a trigger."""
        return TriggerOptions(**{name: getattr(self, ours) for name, ours in _TRIGGER_FIELDS.items()})


_TRIGGER_FIELDS = {
    f.name: {"run_id": "workflow_run_id"}.get(f.name, f.name)
    for f in fields(TriggerOptions)
    if f.name in WorkflowOptions.__dataclass_fields__ or f.name == "run_id"
}

DECLARED_ONLY = ("on_failure", "middlewares", "schedule", "timezone", "steps_per_call", "atomic_steps", "retention")
"""Options of the workflow as such: a single trigger cannot change them."""

_CONVERTERS: dict[str, Callable[[Any], Any]] = {
    "retries": as_retries,
    "retry_delay": as_retry_delay,
    "timeout": lambda value: None if value is None else to_seconds(value),
    "delay": lambda value: None if value is None else to_seconds(value),
    "not_before": lambda value: None if value is None else as_unix_seconds(value),
    "labels": as_labels,
    "flow_control": as_flow_control,
    "workflow_run_id": lambda value: None if value is None else prefixed_run_id(value),
    "headers": as_headers,
    "redact": as_redact,
    "failure_url": lambda value: _as_url(value),
    "owner": as_owner,
    "for_object": as_object,
    "trigger_kind": lambda value: value,
    "on_failure": lambda value: _as_function(value),
    "middlewares": lambda value: _as_middlewares(value),
    "schedule": lambda value: value,
    "timezone": str,
    "steps_per_call": lambda value: _as_count(value),
    "atomic_steps": lambda value: value,
    "retention": lambda value: None if value is None else parse_duration(value),
}

_OTHER_NAMES = {"label": "labels", "run_id": "workflow_run_id", "failure_function": "on_failure"}


def _normalised(given: Mapping[str, Any]) -> dict[str, Any]:
    result = {}
    for name, value in given.items():
        ours = _OTHER_NAMES.get(name, name)
        if ours not in _CONVERTERS:
            raise Misconfigured(f"{name!r} is no option of a workflow; {among(name, _CONVERTERS)}")
        if ours in result:
            raise Misconfigured(f"{name!r} and {ours!r} are the same option: give one of them.")
        result[ours] = _CONVERTERS[ours](value)
    return result


def _as_url(value: str | None) -> str | None:
    if value is not None and not value.startswith(("http://", "https://")):
        raise ValueError(f"failure_url is {value!r}, but a URL starts with http:// or https://.")
    return value


def _as_function(value: FailureFunction | None) -> FailureFunction | None:
    if value is not None and not callable(value):
        raise TypeError(f"on_failure is {value!r}, but must be a function (ctx, status, response, headers).")
    if value is not None:
        try:
            signature = inspect.signature(value, follow_wrapped=False)
        except ValueError:  # something in C has none
            return value
        try:
            signature.bind("ctx", "status", "response", "headers")
        except TypeError:
            raise TypeError(
                f"on_failure takes {signature}, but is called with four arguments: (ctx, status, response, headers)."
            ) from None
    return value


def _as_middlewares(value: Iterable[Any]) -> tuple[Middleware, ...]:
    """Instances; of a class, one is made."""
    found = tuple(item() if isinstance(item, type) else item for item in value)
    for item in found:
        if not isinstance(item, Middleware):
            raise TypeError(f"{item!r} is no Middleware: derive its class from django_workflow.Middleware.")
    return found


def _as_count(value: Any) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ValueError(f"steps_per_call is {value!r}, but must be a whole number from 1.")
    return None if value is None else int(value)
