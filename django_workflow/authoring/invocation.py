"""One call of a workflow: context, executor and middlewares put together, for `serve`.

    journal = Journal.from_messages(messages)
    outcome = invoke(workflow, details, journal, port)

The settings fill in what the workflow leaves open. Nothing here knows requests or transports.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from django_workflow.authoring.async_context import AsyncWorkflowContext
from django_workflow.authoring.context import WorkflowContext
from django_workflow.authoring.context_base import BaseContext, RunDetails
from django_workflow.authoring.decorator import Workflow
from django_workflow.authoring.middleware import MiddlewareHooks
from django_workflow.conf import get_settings
from django_workflow.protocol.steps import Step
from django_workflow.replay.executor import Executor
from django_workflow.replay.instruments import RunningCall, current_run, instrument
from django_workflow.replay.journal import Journal
from django_workflow.replay.outcome import DryOutcome, Failed, Outcome, Submission
from django_workflow.replay.port import Port

NO_STEPS = "A failure function has no steps: the run is over. Trigger another workflow for work that has to be durable."


def invoke(workflow: Workflow[Any, Any], details: RunDetails, journal: Journal, port: Port) -> Outcome:
    """Replay the run's known steps, run the next one, and say how that ended.

    Raises Misconfigured when an async workflow is called where an event loop runs; nothing else, except
    KeyboardInterrupt.
    """
    settings = get_settings()
    atomic_steps = workflow.options.atomic_steps
    hooks = MiddlewareHooks(workflow.middlewares) if workflow.middlewares else None
    executor = Executor(
        journal,
        port,
        run_id=details.run_id,
        first_run_id=details.first_run_id,
        max_result_bytes=settings.max_result_bytes,
        atomic_steps=settings.atomic_steps if atomic_steps is None else atomic_steps,
        hooks=hooks,
    )
    context = make_context(workflow, details, executor, is_async=workflow.is_async)
    if hooks is not None:
        hooks.context = context
    return _watched(executor, workflow.function, context, _call_of(workflow, details))


def dry_run(workflow: Workflow[Any, Any], details: RunDetails) -> DryOutcome:
    """Call the workflow on a context without steps: StepFound when it accepts the call."""
    executor = Executor(Journal(), NO_PORT, run_id=details.run_id, first_run_id=details.first_run_id)
    return executor.dry_run(workflow.function, make_context(workflow, details, executor, is_async=workflow.is_async))


def call_failure_function(
    workflow: Workflow[Any, Any],
    details: RunDetails,
    status: int,
    response: str,
    headers: dict[str, list[str]],
    port: Port | None = None,
) -> str | None:
    """Call `on_failure(ctx, status, response, headers)`; gives the text that it returned, if any.

    Status, message and headers are those of the last failed call. Raises what the function raises. `port` takes what
    the function emits.
    """
    function = workflow.on_failure
    assert function is not None
    executor = Executor(
        Journal(), port or NO_PORT, run_id=details.run_id, first_run_id=details.first_run_id, refusal=NO_STEPS
    )
    returned: list[Any] = []
    call = _capturing(function, (status, response, headers), returned)
    context = make_context(workflow, details, executor, is_async=inspect.iscoroutinefunction(function))
    outcome = _watched(executor, call, context, _call_of(workflow, details))
    if isinstance(outcome, Failed):
        raise outcome.error
    return returned[0] if returned and isinstance(returned[0], str) else None


def _call_of(workflow: Workflow[Any, Any], details: RunDetails) -> RunningCall:
    return RunningCall(workflow.name, details.run_id, details.retried, details.headers)


def _watched(executor: Executor, function: Callable[[Any], Any], context: Any, call: RunningCall) -> Outcome:
    """Call the function where log lines find its run, and under the eyes of a tracer if there is one."""
    token = current_run.set(call)
    try:
        watcher = instrument()
        if watcher is None:
            return executor.invoke(function, context)
        with watcher.call(call) as ended:
            outcome = executor.invoke(function, context)
            ended(outcome)
            return outcome
    finally:
        current_run.reset(token)


def make_context(
    workflow: Workflow[Any, Any], details: RunDetails, executor: Executor, *, is_async: bool
) -> BaseContext[Any]:
    return (AsyncWorkflowContext if is_async else WorkflowContext)(executor, workflow, details)


def _capturing(function: Callable[..., Any], args: Sequence[Any], returned: list[Any]) -> Callable[[Any], Any]:
    """The function as one of the context alone, which leaves its result in `returned`."""
    if inspect.iscoroutinefunction(function):

        async def acall(context: Any) -> None:
            returned.append(await function(context, *args))

        return acall

    def call(context: Any) -> None:
        returned.append(function(context, *args))

    return call


class _NoPort:
    """Where there is no run to submit to."""

    writes_starts = False

    def step_started(self, step: Step) -> None:
        raise AssertionError("nothing is run here")

    def submit(self, submissions: Sequence[Submission]) -> bool:
        raise AssertionError("nothing is submitted here")

    def transaction(self) -> AbstractContextManager[None]:
        return nullcontext()

    def kept(self, step: Step) -> Step | None:
        return None

    def emit(self, event: str, data: object) -> None:
        pass


NO_PORT: Port = _NoPort()
