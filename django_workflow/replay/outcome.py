"""What one invocation decided, as data.

`Submission`s are what a step hands to the engine (through a `Port`); an `Outcome` is how the invocation ended.
`serve` turns the first into publish requests and the second into an HTTP answer.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from django_workflow.protocol.publish import FlowControl
from django_workflow.protocol.steps import Step
from django_workflow.protocol.waits import FormPrompt


@dataclass(frozen=True, slots=True)
class StepSubmission:
    """A result or plan step, sent to the workflow itself. `delay` in seconds, `not_before` in Unix seconds."""

    step: Step
    delay: float | None = None
    not_before: float | None = None


@dataclass(frozen=True, slots=True)
class CallSubmission:
    """An HTTP request to be made by the engine; its answer becomes the result of `step`."""

    step: Step
    url: str
    method: str = "GET"
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    retries: int = 0
    retry_delay: str | None = None
    timeout: float | None = None
    flow_control: FlowControl | None = None


@dataclass(frozen=True, slots=True)
class WaitSubmission:
    """The run waits for `event_id` for `timeout` seconds (also for webhooks: see the step's type).

    `message` is what people are told who can answer; None for waits that no person answers. `form` is what they fill
    in.
    """

    step: Step
    event_id: str
    timeout: float
    message: str | None = None
    form: FormPrompt | None = None


@dataclass(frozen=True, slots=True)
class InvokeSubmission:
    """Another workflow is started; its end becomes the result of `step`.

    `workflow` is a name, or the URL of an endpoint elsewhere. `body` is JSON, None for no payload; `secret` are the
    paths of what is not shown of it, and of what the run returns.
    """

    step: Step
    workflow: str
    body: bytes | None = None
    run_id: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    retries: int | None = None
    retry_delay: str | None = None
    flow_control: FlowControl | None = None
    labels: tuple[str, ...] = ()
    secret: tuple[str, ...] = ()


Submission = StepSubmission | CallSubmission | WaitSubmission | InvokeSubmission


@dataclass(frozen=True, slots=True)
class Submitted:
    """A step (or the plans of a group) was handed over; the next call goes on."""

    step_name: str


@dataclass(frozen=True, slots=True)
class Discarded:
    """Another branch of a parallel group was delivered; there is nothing to do yet."""


@dataclass(frozen=True, slots=True)
class Finished:
    """The function returned. `result` is its JSON, None when it returned None and declared nothing."""

    result: bytes | None


@dataclass(frozen=True, slots=True)
class NoStepReached:
    """The function returned before its first step, which is how a workflow turns a call away."""


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The workflow cancelled itself."""


@dataclass(frozen=True, slots=True)
class Failed:
    """An exception ended the invocation; `step_name` when a step's function raised it.

    `by_engine`: the engine refused what this invocation submitted, and `error` is its EngineError. An EngineError that
    the workflow's own code met elsewhere is an error like any other.
    """

    error: BaseException
    step_name: str | None = None
    by_engine: bool = False


Outcome = Submitted | Discarded | Finished | NoStepReached | Cancelled | Failed


@dataclass(frozen=True, slots=True)
class StepFound:
    """The dry run came to a step: the workflow accepts the call."""


DryOutcome = StepFound | NoStepReached | Failed
