"""What can be asked of an engine, as structs: one per API call, each naming its answer.

A transport takes a request and gives its answer: over HTTP (encoded by `protocol.wire`) or in this process. Refusals
are errors of `django_workflow.errors`: RunEnded (400 on a submission, 404 on a fetch), QuotaExceeded (412),
EngineError (any other status), EngineUnavailable (no answer).
"""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

from django_workflow.protocol.publish import FlowControl, Message
from django_workflow.protocol.resources import (
    Deleted,
    RunDeadLetter,
    RunDeadLetters,
    RunEvents,
    RunLogs,
    StartedRun,
    StartedRuns,
)
from django_workflow.protocol.steps import JournalMessage, Step
from django_workflow.protocol.waits import FormPrompt

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
    `workflow` fields name the run. `timeout` in seconds; `prompt` is what people are told who can answer, `form` what
    they fill in."""

    event_id: str
    message: Message
    step: Step
    timeout: float
    prompt: str | None = None
    form: FormPrompt | None = None


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

    With `run_ids` nothing else counts. Every other filter that is given must hold; without any, all runs are meant (up
    to `count`, the oldest first).
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


class RunsChosen(EngineRequest[R], Generic[R], frozen=True, kw_only=True):
    """Base of requests about the runs that fit: every filter that is given must hold, its values are alternatives.

    URLs are whole ones. Instants are Unix milliseconds; `created_at` is that of the run, `from_date` and `to_date`
    (both inclusive) bound the run's creation in logs, and its failure among the dead letters. `cursor` is what the
    page before gave.
    """

    run_ids: tuple[str, ...] = ()
    workflow_urls: tuple[str, ...] = ()
    created_at: int | None = None
    labels: tuple[str, ...] = ()
    caller_ips: tuple[str, ...] = ()
    flow_control_keys: tuple[str, ...] = ()
    from_date: int | None = None
    to_date: int | None = None
    count: int | None = None
    cursor: str | None = None


class LogsChosen(RunsChosen[R], Generic[R], frozen=True, kw_only=True):
    """Base of requests for logs. `runs` are pairs of a run id and its creation; given, they are the only filter.

    `states` are those of runs or of steps. `trim_body` cuts bodies to so many bytes; -1 leaves them out.
    """

    states: tuple[str, ...] = ()
    message_ids: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    runs: tuple[tuple[str, int], ...] = ()
    trim_body: int | None = None


class FetchRunLogs(LogsChosen[RunLogs], frozen=True, kw_only=True):
    """`GET /v2/workflows/events?groupBy=workflowRunId`: runs with their steps, the newest first; at most 10."""


class FetchRunEvents(LogsChosen[RunEvents], frozen=True, kw_only=True):
    """`GET /v2/workflows/events`: what happened, one entry each, the newest first; at most 1000."""


class DeadLettersChosen(RunsChosen[R], Generic[R], frozen=True, kw_only=True):
    """Base of requests about failed runs. `failure_states` are those of the failure callback."""

    failure_states: tuple[str, ...] = ()
    response_status: int | None = None


class FetchDeadLetters(DeadLettersChosen[RunDeadLetters], frozen=True, kw_only=True):
    """`GET /v2/dlq?source=workflow`: failed runs, the newest first; at most 100."""


class FetchDeadLetter(EngineRequest[RunDeadLetter], frozen=True, kw_only=True):
    """`GET /v2/workflows/dlq/<id>`; EngineError with status 404 when there is none."""

    dlq_id: str


class DeleteDeadLetters(DeadLettersChosen[Deleted], frozen=True, kw_only=True):
    """`DELETE /v2/workflows/dlq`: forget dead letters, chosen by id (then no filter counts) or by filters; else all."""

    dlq_ids: tuple[str, ...] = ()


class RunOverrides(msgspec.Struct, frozen=True, kw_only=True):
    """What a run that is started again has otherwise than before; None and empty: as before. Lengths in seconds."""

    retries: int | None = None
    delay: float | None = None
    retry_delay: str | None = None
    flow_control: FlowControl | None = None
    labels: tuple[str, ...] = ()
    failure_url: str | None = None


NO_OVERRIDES = RunOverrides()


class ResumeRuns(DeadLettersChosen[StartedRuns], frozen=True, kw_only=True):
    """`POST /v2/workflows/dlq/resume`: go on with failed runs where they failed, each as a new run; at most 50.

    Chosen as in DeleteDeadLetters. EngineError with status 404 when one of the ids is unknown: then none is resumed.
    """

    dlq_ids: tuple[str, ...] = ()
    overrides: RunOverrides = NO_OVERRIDES


class RestartRuns(DeadLettersChosen[StartedRuns], frozen=True, kw_only=True):
    """`POST /v2/workflows/dlq/restart`: failed runs from their beginning, each as a new run; else as ResumeRuns."""

    dlq_ids: tuple[str, ...] = ()
    overrides: RunOverrides = NO_OVERRIDES


class RerunFailureCallback(EngineRequest[StartedRun], frozen=True, kw_only=True):
    """`POST /v2/workflows/dlq/callback/<id>`: make the failure callback again, which must have failed (else 400)."""

    dlq_id: str


class CancelFailureCallback(EngineRequest[None], frozen=True, kw_only=True):
    """`DELETE /v2/workflows/dlq/callback/<id>`: stop a failure callback that is in progress (else 400)."""

    dlq_id: str


class OwnRequest(EngineRequest[R], Generic[R], frozen=True, kw_only=True):
    """Base of what the documented API has no call for: this package's engine takes it in its own process, others never.

    Each raises RunEnded when the run is over or unknown, unless it is for runs that are over.
    """

    run_id: str


class PauseRun(OwnRequest[bool], frozen=True, kw_only=True):
    """Start no delivery of a run any more; what is under way may end. False: it is paused already."""


class UnpauseRun(OwnRequest[bool], frozen=True, kw_only=True):
    """Let a paused run go on; what came due meanwhile is due now. False: it is not paused."""


class RetryNow(OwnRequest[int], frozen=True, kw_only=True):
    """Make what a run tries again later due now: how many deliveries that were. Their attempts count on."""


class StartAgain(OwnRequest[StartedRun], frozen=True, kw_only=True):
    """Make a new run of one: RunEnded when there is none, EngineError with status 409 when it is not over.

    `steps` are those whose results the new run has: None all that are finished, which goes on with the run (an
    EngineError with status 409 when that was done already); 0 none, which begins it anew. `aside` makes a fork: the
    steps up to that number, of a run in any state, which goes on as it does; EngineError with status 400 when that
    step has no result. `payload` replaces that of a run begun anew, `new_run_id` is the id that the new run gets.
    """

    steps: int | None = None
    aside: bool = False
    payload: bytes | None = None
    new_run_id: str | None = None
    overrides: RunOverrides = NO_OVERRIDES
