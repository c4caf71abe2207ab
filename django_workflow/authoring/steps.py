"""Steps for `ctx.parallel`: `step.run(...)` describes a step, and `ctx.parallel(...)` runs several at the same time.

    label, invoice = ctx.parallel(
        step.run("print label", print_label, order_id),
        step.run("render invoice", render_invoice, order_id),
    )

Each function takes what the context's method of the same name takes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from django_workflow.authoring.form_step import FormStep, To
from django_workflow.authoring.remote_steps import CallStep, FlowControlLike, InvokeStep
from django_workflow.authoring.results import (
    CallResponse,
    FormResult,
    InvokeResult,
    NotifyResult,
    WaitResult,
    Webhook,
    WebhookResult,
)
from django_workflow.authoring.step_kinds import (
    NotifyStep,
    RunStep,
    SleepStep,
    SleepUntilStep,
    WaitForWebhookStep,
    WaitStep,
)
from django_workflow.client.options import Duration
from django_workflow.errors import StepError
from django_workflow.replay.step_call import StepCall

if TYPE_CHECKING:
    from django.forms import BaseForm

    from django_workflow.authoring.decorator import Workflow

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

__all__ = ["call", "invoke", "notify", "run", "sleep", "sleep_until", "wait_for_event", "wait_for_webhook"]


@overload
def run(name: str, function: Callable[..., R], /, *args: Any, atomic: bool | None, **kwargs: Any) -> StepCall[R]: ...
@overload
def run(name: str, function: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs) -> StepCall[R]: ...
@overload
def run(name: str, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> StepCall[R]: ...
def run(name: str, function: Any, /, *args: Any, atomic: bool | None = None, **kwargs: Any) -> StepCall[Any]:  # type: ignore[misc]
    """`function(*args, **kwargs)`, once, with its result kept; see `ctx.run`."""
    return RunStep(name, function, args, kwargs, atomic)


def sleep(name: str, duration: Duration) -> StepCall[None]:
    """A pause; see `ctx.sleep`."""
    return SleepStep(name, duration)


def sleep_until(name: str, instant: datetime | float | str) -> StepCall[None]:
    """A pause up to an instant; see `ctx.sleep_until`."""
    return SleepUntilStep(name, instant)


def call(
    name: str,
    url: str | None = None,
    method: str | None = None,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
    retries: int = 0,
    retry_delay: Duration | None = None,
    timeout: Duration | None = None,
    flow_control: FlowControlLike | None = None,
    *,
    workflow: Workflow[Any, Any] | None = None,
) -> StepCall[CallResponse]:
    """An HTTP request that the engine makes; see `ctx.call`."""
    if (url is None) == (workflow is None):
        raise StepError(f"Step {name!r} calls nothing certain: give either url= or workflow=.")
    target = workflow if url is None else url
    assert target is not None
    if method is None:
        method = "GET" if url is not None else "POST"
    return CallStep(name, target, method, body, headers, retries, retry_delay, timeout, flow_control)


@overload
def wait_for_event(
    name: str, event_id: str, timeout: Duration = "7d", *, type: type[T], message: str | None = None
) -> StepCall[WaitResult[T]]: ...
@overload
def wait_for_event(
    name: str, event_id: str, timeout: Duration = "7d", *, type: Any = None, message: str | None = None
) -> StepCall[WaitResult[Any]]: ...
def wait_for_event(
    name: str, event_id: str, timeout: Duration = "7d", *, type: Any = None, message: str | None = None
) -> StepCall[WaitResult[Any]]:
    """A wait for an event; see `ctx.wait_for_event`."""
    return WaitStep(name, event_id, timeout, type, message)


def wait_for_form(
    name: str,
    form: type[BaseForm],
    *,
    to: To = None,
    timeout: Duration = "7d",
    initial: Mapping[str, Any] | None = None,
    message: str | None = None,
    event_id: str | None = None,
    type: Any = None,
) -> StepCall[FormResult[Any]]:
    """A wait for a form; see `ctx.wait_for_form`."""
    return FormStep(name, form, to, timeout, initial, message, event_id, type)


def wait_for_webhook(name: str, webhook: Webhook, timeout: Duration = "7d") -> StepCall[WebhookResult]:
    """A wait for a call of a webhook; see `ctx.wait_for_webhook`."""
    return WaitForWebhookStep(name, webhook.event_id, timeout)


def notify(name: str, event_id: str, data: Any = None, workflow_run_id: str | None = None) -> StepCall[NotifyResult]:
    """An event for runs that wait; see `ctx.notify`."""
    return NotifyStep(name, event_id, data, workflow_run_id)


@overload
def invoke(
    name: str,
    workflow: Workflow[Any, R],
    body: Any = None,
    headers: Mapping[str, str] | None = None,
    workflow_run_id: str | None = None,
    retries: int | None = None,
    retry_delay: Duration | None = None,
    flow_control: FlowControlLike | None = None,
    label: str | list[str] | None = None,
) -> StepCall[InvokeResult[R]]: ...
@overload
def invoke(
    name: str,
    workflow: str,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
    workflow_run_id: str | None = None,
    retries: int | None = None,
    retry_delay: Duration | None = None,
    flow_control: FlowControlLike | None = None,
    label: str | list[str] | None = None,
) -> StepCall[InvokeResult[Any]]: ...
def invoke(
    name: str,
    workflow: Workflow[Any, Any] | str,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
    workflow_run_id: str | None = None,
    retries: int | None = None,
    retry_delay: Duration | None = None,
    flow_control: FlowControlLike | None = None,
    label: str | list[str] | None = None,
) -> StepCall[InvokeResult[Any]]:
    """A run of another workflow, whose end is awaited; see `ctx.invoke`."""
    return InvokeStep(name, workflow, body, headers, workflow_run_id, retries, retry_delay, flow_control, label)
