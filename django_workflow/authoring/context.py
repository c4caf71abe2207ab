"""WorkflowContext: the documented surface that workflows meet.

Each method describes a step (the functions of `steps`) and asks the executor for its result.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from types import FunctionType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from msgspec import MsgspecError

from django_workflow.authoring import steps
from django_workflow.authoring.context_base import BaseContext, checked_calls
from django_workflow.authoring.form_step import To
from django_workflow.authoring.remote_steps import FlowControlLike
from django_workflow.authoring.results import (
    CallResponse,
    FormResult,
    InvokeResult,
    NotifyResult,
    WaitResult,
    Webhook,
    WebhookResult,
)
from django_workflow.authoring.step_kinds import CreateWebhookStep, RunStep
from django_workflow.client.options import Duration
from django_workflow.protocol.steps import StepType
from django_workflow.replay.patches import PatchCall
from django_workflow.replay.step_call import StepCall
from django_workflow.replay.values import return_decoder

if TYPE_CHECKING:
    from django.forms import BaseForm

    from django_workflow.authoring.decorator import Workflow

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")
F = TypeVar("F")

_RUN = StepType.RUN.value


class WorkflowContext(BaseContext[T]):
    """What a workflow is given: its payload, its steps, and the facts of the run. `T` is the payload's type.

    The workflow's function is called again for every step; steps that are done give their kept results. So whatever
    touches the world, or gives another value each time, belongs into a step. Names tell steps apart for people; the
    order of the steps must stay the same while runs are in flight.
    """

    @overload
    def run(self, name: str, function: Callable[..., R], /, *args: Any, atomic: bool | None, **kwargs: Any) -> R: ...
    @overload
    def run(self, name: str, function: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def run(self, name: str, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    def run(self, name: str, function: Any, /, *args: Any, atomic: bool | None = None, **kwargs: Any) -> Any:  # type: ignore[misc]
        """Run `function(*args, **kwargs)` as a step: once, with its result kept.

        Later calls of the workflow get the kept result and do not run the function. An exception fails the step, and
        the engine tries it again as often as `retries` says; raise NonRetryableError to fail the run at once, or
        RetryAfterError to choose the time. It may be any function, sync or async, a `functools.partial`, or a task of
        `django.tasks` (whose function is taken).

        The result must be JSON, a dataclass, a TypedDict, a msgspec.Struct, an attrs class or a pydantic model. The
        function's return annotation decides as what it comes back; without one it comes back as plain JSON.

        `atomic=True` runs a sync function in one database transaction with the storing of its result: its rows are
        committed together with the result, or neither is.
        """
        executor = self._executor
        step = executor.known(name, _RUN)
        if step is not None and type(function) is FunctionType:
            out = step.out
            if out is None:
                return None
            try:
                return return_decoder(function)(out)
            except (MsgspecError, ValueError, TypeError):
                # Once more, slowly, to say what is wrong.
                return RunStep(name, function, args, kwargs, atomic).read(step)
        call: RunStep[Any] = RunStep(name, function, args, kwargs, atomic)
        return executor.ask(call) if step is None else call.read(step)

    def sleep(self, name: str, duration: Duration) -> None:
        """Wait for a duration: seconds, a timedelta, or text such as `"10s"` or `"1d12h"`. Holds no thread."""
        return self._executor.ask(steps.sleep(name, duration))

    def sleep_until(self, name: str, instant: datetime | float | str) -> None:
        """Wait up to an instant: an aware datetime, Unix seconds, or ISO 8601 text with a zone.

        Take the instant from a step's result or from the payload: `timezone.now()` in the workflow itself is another
        one in every call.
        """
        return self._executor.ask(steps.sleep_until(name, instant))

    def call(
        self,
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
    ) -> CallResponse:
        """Have the engine make an HTTP request, and get its answer. No worker waits for it, however long it takes.

        A status of 400 and above is no exception: look at `.ok` or `.status`. `body` is sent as it is when it is text
        or bytes, else as JSON. `retries` are attempts of the request after the first one (0), `timeout` is that of one
        attempt. `workflow=` starts a run of another workflow, with `body` as its payload, without waiting for its end.
        """
        return self._executor.ask(
            steps.call(name, url, method, body, headers, retries, retry_delay, timeout, flow_control, workflow=workflow)
        )

    @overload
    def wait_for_event(
        self, name: str, event_id: str, timeout: Duration = "7d", *, type: type[R], message: str | None = None
    ) -> WaitResult[R]: ...
    @overload
    def wait_for_event(
        self, name: str, event_id: str, timeout: Duration = "7d", *, type: Any = None, message: str | None = None
    ) -> WaitResult[Any]: ...
    def wait_for_event(
        self, name: str, event_id: str, timeout: Duration = "7d", *, type: Any = None, message: str | None = None
    ) -> WaitResult[Any]:
        """Wait until somebody notifies `event_id`, for at most `timeout`.

        Somebody is `ctx.notify`, `Client.notify` or the API. Look at `.timeout` first; `.event_data` is what the event
        brought, as a `type` if given. `message` tells people what is asked of them. An event that is sent before the
        run waits is kept only when it is addressed to the run.
        """
        return self._executor.ask(steps.wait_for_event(name, event_id, timeout, type=type, message=message))

    def wait_for_form(
        self,
        name: str,
        form: type[BaseForm],
        *,
        to: To = None,
        timeout: Duration = "7d",
        initial: Mapping[str, Any] | None = None,
        message: str | None = None,
        event_id: str | None = None,
        type: Any = None,
    ) -> FormResult[Any]:
        """Wait until somebody fills in a Django form, for at most `timeout`. Look at `.timeout` first.

        `form` is a class at the top of a module; it is shown by the widget and validated on the server, and `.values`
        are its cleaned data (as a `type`, if given). `to` says who may answer: a user, a group, the name of a
        permission, or several; without it whoever may answer the run. `initial` fills the fields, `message` stands
        above them. The event's id is the step's name unless you give another.
        """
        return self._executor.ask(
            steps.wait_for_form(
                name,
                form,
                to=to,
                timeout=timeout,
                initial=initial,
                message=message,
                event_id=event_id,
                type=type,
            )
        )

    def notify(self, name: str, event_id: str, data: Any = None, workflow_run_id: str | None = None) -> NotifyResult:
        """Send an event to the runs that wait for it, with `data` for them (anything that JSON holds).

        With `workflow_run_id` it goes to that run alone, and is kept when the run does not wait yet. `.notified` of the
        result has an entry for each run that was reached.
        """
        return self._executor.ask(steps.notify(name, event_id, data, workflow_run_id))

    @overload
    def invoke(
        self,
        name: str,
        workflow: Workflow[Any, R],
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        workflow_run_id: str | None = None,
        retries: int | None = None,
        retry_delay: Duration | None = None,
        flow_control: FlowControlLike | None = None,
        label: str | list[str] | None = None,
    ) -> InvokeResult[R]: ...
    @overload
    def invoke(
        self,
        name: str,
        workflow: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        workflow_run_id: str | None = None,
        retries: int | None = None,
        retry_delay: Duration | None = None,
        flow_control: FlowControlLike | None = None,
        label: str | list[str] | None = None,
    ) -> InvokeResult[Any]: ...
    def invoke(
        self,
        name: str,
        workflow: Workflow[Any, Any] | str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        workflow_run_id: str | None = None,
        retries: int | None = None,
        retry_delay: Duration | None = None,
        flow_control: FlowControlLike | None = None,
        label: str | list[str] | None = None,
    ) -> InvokeResult[Any]:
        """Run another workflow with `body` as its payload, and wait for its end.

        Look at `.is_failed` and `.is_canceled` first: the other run's failure is no exception here. `.body` is what it
        returned. `workflow_run_id`, `retries`, `retry_delay`, `flow_control`, `label` and `headers` are those of the
        new run; what is not given comes from its own options.
        """
        return self._executor.ask(
            steps.invoke(name, workflow, body, headers, workflow_run_id, retries, retry_delay, flow_control, label)
        )

    def create_webhook(self, name: str) -> Webhook:
        """Make a URL that the outside may call; hand it on in a step, then wait with `ctx.wait_for_webhook`.

        Needs the setting `base_url`. Whoever knows the URL can call it: treat it like a secret.
        """
        return self._executor.ask(CreateWebhookStep(name, self.workflow_run_id))

    def wait_for_webhook(self, name: str, webhook: Webhook, timeout: Duration = "7d") -> WebhookResult:
        """Wait until a webhook is called, for at most `timeout`. Calls that came earlier count."""
        return self._executor.ask(steps.wait_for_webhook(name, webhook, timeout))

    @overload
    def parallel(self, a: StepCall[A], /) -> tuple[A]: ...
    @overload
    def parallel(self, a: StepCall[A], b: StepCall[B], /) -> tuple[A, B]: ...
    @overload
    def parallel(self, a: StepCall[A], b: StepCall[B], c: StepCall[C], /) -> tuple[A, B, C]: ...
    @overload
    def parallel(self, a: StepCall[A], b: StepCall[B], c: StepCall[C], d: StepCall[D], /) -> tuple[A, B, C, D]: ...
    @overload
    def parallel(
        self, a: StepCall[A], b: StepCall[B], c: StepCall[C], d: StepCall[D], e: StepCall[E], /
    ) -> tuple[A, B, C, D, E]: ...
    @overload
    def parallel(
        self, a: StepCall[A], b: StepCall[B], c: StepCall[C], d: StepCall[D], e: StepCall[E], f: StepCall[F], /
    ) -> tuple[A, B, C, D, E, F]: ...
    @overload
    def parallel(self, *calls: StepCall[R]) -> tuple[R, ...]: ...
    def parallel(self, *calls: StepCall[Any]) -> Any:
        """Run steps at the same time, each kept and retried on its own; gives their results in order.

        Describe them with `step`, whose functions take what the methods here take:

            label, invoice = ctx.parallel(step.run("print label", print_label, order),
                                          step.run("render invoice", render_invoice, order))
        """
        return self._executor.ask_together(checked_calls(calls))

    def patched(self, patch_id: str) -> bool:
        """Whether the run takes the new code of a change: `if ctx.patched("check-address"): ... else: ...`.

        False for runs that passed this place before the change, True for all others. True is recorded as a step of its
        own, named `patched: check-address`; the first answer holds for the whole run, in loops too. Once no run is
        active that got False, write `ctx.deprecate_patch("check-address")` in place of the `if`.
        """
        return self._executor.patched(PatchCall(patch_id))

    def deprecate_patch(self, patch_id: str) -> None:
        """Step over what `ctx.patched(patch_id)` has recorded. New runs record nothing.

        Stands where `patched` stood, until the last run that recorded it is over.
        """
        self._executor.deprecate_patch(PatchCall(patch_id))

    def emit(self, event: str, data: Any = None) -> None:
        """Tell whoever watches the run: `event` is a name of yours, `data` anything that JSON holds.

        Inside a step's function it is sent at once (of an atomic step: with its transaction), and again when the step
        is tried again. Between steps it is sent when the code is new, not when it is replayed.
        """
        self._executor.emit(event, data)

    def progress(self, done: float, total: float) -> None:
        """Tell how far the work is, such as `ctx.progress(rows_done, rows)`. Sent as `emit` says."""
        self._executor.emit(*self._progress_event(done, total))
