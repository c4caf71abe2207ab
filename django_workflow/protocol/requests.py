"""What can be asked of an engine, as structs: one per API call, each naming its answer.

A transport takes a request and gives its answer: over HTTP (encoded by `protocol.wire`) or in this process. Refusals
are errors of `django_workflow.errors`: RunEnded (400 on a submission, 404 on a fetch), QuotaExceeded (412),
EngineError (any other status), EngineUnavailable (no answer).
"""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

from django_workflow.protocol.publish import Message
from django_workflow.protocol.steps import JournalMessage, Step

R = TypeVar("R")


class EngineRequest(msgspec.Struct, Generic[R], frozen=True, kw_only=True):
    """Base of all requests; `R` is the answer's type."""


class Published(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """The engine took a message. `deduplicated`: it was known already and nothing new was made."""

    message_id: str
    url: str | None = None
    deduplicated: bool = False
    workflow_run_id: str | None = None
    workflow_created_at: int | None = None


class WaiterInfo(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A run that waits for an event. `deadline` in Unix seconds."""

    url: str
    deadline: int
    headers: dict[str, list[str]] = {}
    timeout_url: str | None = None
    timeout_body: str | None = None
    timeout_headers: dict[str, list[str]] = {}


class Notified(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """One waiter that an event reached; `waiter` is None when the event was kept for a later wait."""

    message_id: str
    waiter: WaiterInfo | None = None
    error: str = ""
    deduplicated: bool = False
    workflow_run_id: str | None = None
    workflow_created_at: int | None = None


class Publish(EngineRequest[Published], frozen=True, kw_only=True):
    """`POST /v2/publish/<destination>`: one message."""

    message: Message


class Batch(EngineRequest[tuple[Published, ...]], frozen=True, kw_only=True):
    """`POST /v2/batch`: messages taken together, answers in their order."""

    messages: tuple[Message, ...]


class Wait(EngineRequest[None], frozen=True, kw_only=True):
    """`POST /v2/wait/<event id>`: `message` is the step message to send when the event comes (body empty); its
    `workflow` fields name the run. `timeout` in seconds; `prompt` is what people are told who can answer."""

    event_id: str
    message: Message
    step: Step
    timeout: float
    prompt: str | None = None


class Notify(EngineRequest[tuple[Notified, ...]], frozen=True, kw_only=True):
    """`POST /v2/notify/[<run id>/]<event id>`: with `run_id` the event is kept for the run's next wait."""

    event_id: str
    body: bytes = b""
    run_id: str | None = None
    deduplication_id: str | None = None


class GetWaiters(EngineRequest[tuple[WaiterInfo, ...]], frozen=True, kw_only=True):
    """`GET /v2/waiters/<event id>`."""

    event_id: str


class FetchRun(EngineRequest[tuple[JournalMessage, ...]], frozen=True, kw_only=True):
    """`GET /v2/workflows/runs/<run id>`: the run's journal; RunEnded when it is over.

    With `message_id` the answer ends with that message (cut by the client over HTTP), without it holds all.
    """

    run_id: str
    message_id: str | None = None


class FinishRun(EngineRequest[None], frozen=True, kw_only=True):
    """`DELETE /v2/workflows/runs/<run id>?cancel=false`: the run returned `result` (JSON text, None for no body)."""

    run_id: str
    result: bytes | None = None


class CancelRun(EngineRequest[None], frozen=True, kw_only=True):
    """`DELETE /v2/workflows/runs/<run id>?cancel=true`."""

    run_id: str


class CancelRuns(EngineRequest[int], frozen=True, kw_only=True):
    """`DELETE /v2/workflows/runs?…`: how many were cancelled; unknown and ended runs are skipped.

    Every filter that is given must hold; without any, all runs are meant (up to `count`, the oldest first).
    `workflow_url` is the start of a URL unless `exact_url`; `label` is one label or several with commas between, any
    of which will do; `from_date` and `to_date` bound the creation, in Unix milliseconds, both inclusive.
    """

    run_ids: tuple[str, ...] = ()
    workflow_url: str | None = None
    exact_url: bool = False
    label: str | None = None
    count: int | None = None
    from_date: int | None = None
    to_date: int | None = None
    caller_ip: str | None = None
    flow_control_key: str | None = None
