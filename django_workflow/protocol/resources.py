"""What an engine tells of runs: their logs, and the dead letters of those that failed.

The engine encodes these, the client decodes them. Names and shapes are those of the hosted engine; instants are Unix
milliseconds, headers `{"Canonical-Name": [values]}`. Source: engine protocol, "Workflow logs document" and "Dead
letter queues".
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

HeaderLists = dict[str, list[str]]


def _no_headers() -> HeaderLists:
    return {}


# Fields with a factory are written even when they are empty: clients read them without asking whether they are there.


class StepError(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A failed attempt: what went wrong, and what the endpoint answered (`status` 0: it did not)."""

    error: str = msgspec.field(default_factory=str)
    body: str = msgspec.field(default_factory=str)
    headers: HeaderLists = msgspec.field(default_factory=_no_headers)
    status: int = msgspec.field(default_factory=int)
    time: int = msgspec.field(default_factory=int)


class StepLog(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A step of a run. One of a `next` group is a call that is pending or was given up: it has a name at most, that of
    the step which failed last.

    `retries` says how many may be made. `out` is missing while the step has no result; `sleep_for` is in seconds,
    `sleep_until` in Unix seconds, `wait_timeout_duration` as in "20s", `wait_timeout_deadline` in Unix seconds.
    """

    step_id: int | None = None
    step_name: str | None = None
    step_type: str | None = None
    call_type: str | None = None
    message_id: str = ""
    out: str | None = None
    concurrent: int | None = None
    state: str
    retries: int = msgspec.field(default_factory=int)
    retry_delay: str | None = None
    created_at: int | None = None
    headers: HeaderLists | None = None
    next_delivery_time: int | None = None
    errors: tuple[StepError, ...] = ()
    sleep_for: int | float | str | None = None
    sleep_until: int | float | None = None
    call_url: str | None = None
    call_method: str | None = None
    call_body: str | None = None
    call_headers: HeaderLists | None = None
    call_response_status: int | None = None
    call_response_body: str | None = None
    call_response_headers: HeaderLists | None = None
    wait_event_id: str | None = None
    wait_timeout_duration: str | None = None
    wait_timeout_deadline: int | None = None
    wait_timeout: bool | None = None
    invoked_workflow_run_id: str | None = None
    invoked_workflow_url: str | None = None
    invoked_workflow_created_at: int | None = None
    invoked_workflow_run_body: str | None = None
    invoked_workflow_run_headers: HeaderLists | None = None


class StepGroup(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Steps that belong together: one (`sequential`), the branches of a block (`parallel`), or what comes (`next`)."""

    type: str
    steps: tuple[StepLog, ...]


class InvokerLog(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The run that invoked this one."""

    workflow_run_id: str
    workflow_url: str
    workflow_run_created_at: int = 0


class FailureFunctionLog(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The failure callback of a run: `fail_*` is the answer that failed the run, `response_*` the callback's own."""

    message_id: str = msgspec.field(default_factory=str)
    url: str = msgspec.field(default_factory=str)
    state: str
    fail_headers: HeaderLists = msgspec.field(default_factory=_no_headers)
    fail_status: int = msgspec.field(default_factory=int)
    fail_response: str = msgspec.field(default_factory=str)
    dlq_id: str = msgspec.field(default_factory=str)
    response_body: str | None = None
    response_headers: HeaderLists | None = None
    response_status: int | None = None
    errors: tuple[StepError, ...] = ()
    max_retries: int | None = None
    next_delivery_time: int | None = None


class RunLog(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """All of one run. `workflow_run_response` is the JSON text of what it returned."""

    workflow_run_id: str
    workflow_url: str = msgspec.field(default_factory=str)
    workflow_state: str
    workflow_run_created_at: int
    workflow_run_completed_at: int | None = None
    workflow_run_caller_ip: str | None = None
    workflow_run_response: str | None = None
    invoker: InvokerLog | None = None
    failure_function: FailureFunctionLog | None = None
    dlq_id: str | None = None
    label: str | None = None
    labels: tuple[str, ...] = ()
    flow_control_key: str | None = None
    steps: tuple[StepGroup, ...]


class RunLogs(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A page of runs; `cursor` asks for the next one, None on the last."""

    cursor: str | None = None
    runs: tuple[RunLog, ...]


class RunEvent(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One thing that happened to a run or to a step of it."""

    time: int
    state: str
    workflow_run_id: str
    workflow_url: str = msgspec.field(default_factory=str)
    workflow_created_at: int = msgspec.field(default_factory=int)
    step_info: StepLog | None = None
    next_delivery_time: int | None = None
    error: str | None = None
    response_status: int | None = None
    response_body: str | None = None
    response_headers: HeaderLists | None = None
    headers: HeaderLists | None = None
    invoker_workflow_run_id: str | None = None
    invoker_workflow_url: str | None = None
    invoker_workflow_created_at: int | None = None
    workflow_run_response: str | None = None
    dlq_id: str | None = None
    label: str | None = None
    labels: tuple[str, ...] = ()
    caller_ip: str | None = None


class RunEvents(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    cursor: str | None = None
    events: tuple[RunEvent, ...]


class FailureCallbackInfo(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """How a run's failure callback ended; empty when there is none."""

    state: str | None = None
    response_status: int | None = None
    response_body: str | None = None
    response_headers: HeaderLists | None = None


class RunDeadLetter(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A failed run: what was asked of its endpoint, and the answer it was given up with.

    `header` and `body` are those of the run; a body that is no text stands in `body_base64`.
    """

    dlq_id: str
    message_id: str = msgspec.field(default_factory=str)
    workflow_run_id: str
    workflow_created_at: int = msgspec.field(default_factory=int)
    workflow_url: str = msgspec.field(default_factory=str)
    url: str = msgspec.field(default_factory=str)
    method: str = msgspec.field(default_factory=str)
    header: HeaderLists = msgspec.field(default_factory=_no_headers)
    body: str = msgspec.field(default_factory=str)
    body_base64: str = msgspec.field(default="", name="bodyBase64")
    max_retries: int = msgspec.field(default_factory=int)
    not_before: int = msgspec.field(default_factory=int)
    created_at: int = msgspec.field(default_factory=int)
    caller_ip: str = msgspec.field(default_factory=str, name="callerIP")
    label: str | None = None
    labels: tuple[str, ...] = ()
    flow_control_key: str | None = None
    response_status: int = msgspec.field(default_factory=int)
    response_header: HeaderLists = msgspec.field(default_factory=_no_headers)
    response_body: str = msgspec.field(default_factory=str)
    response_body_base64: str = msgspec.field(default="", name="responseBodyBase64")
    failure_callback: str | None = None
    failure_callback_info: FailureCallbackInfo | None = None
    failure_function_state: str | None = None


class RunDeadLetters(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    cursor: str | None = None
    messages: tuple[RunDeadLetter, ...]


class StartedRun(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A run that a dead letter was turned into, or (for its failure callback) the run itself."""

    workflow_run_id: str
    workflow_created_at: int = 0


class StartedRuns(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Runs in the order of their dead letters; with `cursor` there may be more to start."""

    cursor: str | None = None
    workflow_runs: tuple[StartedRun, ...]


class Deleted(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    cursor: str | None = None
    deleted: int


def decode_resource(body: bytes, kind: type[T]) -> T:
    """An answer as one of these structs. Raises msgspec.DecodeError.

    Engines differ in small things: null for what is missing, JSON where text is documented, numbers as text, headers as
    plain texts, an empty cursor on the last page.
    """
    try:
        read = msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError:
        read = msgspec.convert(_leniently(msgspec.json.decode(body)), kind, strict=False)
    if getattr(read, "cursor", None) == "":
        return msgspec.structs.replace(read, cursor=None)  # type: ignore[type-var]
    return read


_TEXTS = frozenset(
    (
        "body",
        "callBody",
        "callResponseBody",
        "failResponse",
        "invokedWorkflowRunBody",
        "out",
        "responseBody",
        "workflowRunResponse",
    )
)


def _leniently(raw: Any) -> Any:
    if isinstance(raw, list):
        return [_leniently(item) for item in raw]
    if not isinstance(raw, dict):
        return raw
    return {name: _lenient_value(name, value) for name, value in raw.items() if value is not None}


def _lenient_value(name: str, value: Any) -> Any:
    if name in _TEXTS:
        return value if isinstance(value, str) else msgspec.json.encode(value).decode()
    if name.lower().endswith(("headers", "header")) and isinstance(value, dict):
        return {key: item if isinstance(item, list) else [str(item)] for key, item in value.items()}
    return _leniently(value)
