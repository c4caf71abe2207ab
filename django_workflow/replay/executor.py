"""Answers the steps that a workflow asks for: from the journal, or by running them and ending the invocation.

One Executor serves one invocation. `serve` gives it a journal and a port and calls `invoke`; the context that the
workflow's function gets calls `ask` for each step. Known steps return their results; the first unknown one is run, its
result is submitted, and WorkflowAbort leaves the function. What comes out is an Outcome, never an exception of the
workflow. `tasks` adds what async workflows need, `verdict` says what the end of a function means.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from threading import get_ident
from typing import Any, NoReturn, TypeVar

from django_workflow.errors import (
    NestedStep,
    NonRetryableError,
    RetryAfterError,
    RunEnded,
    StepError,
    WorkflowAbort,
    WorkflowCancelAbort,
)
from django_workflow.protocol.steps import Step
from django_workflow.replay import verdict
from django_workflow.replay.frontier import Frontier
from django_workflow.replay.journal import Journal
from django_workflow.replay.mismatch import step_mismatch
from django_workflow.replay.outcome import (
    Cancelled,
    Discarded,
    DryOutcome,
    Failed,
    Finished,
    NoStepReached,
    Outcome,
    StepFound,
)
from django_workflow.replay.parallel import First, Last, Partial, decide, is_single
from django_workflow.replay.patches import PatchCall
from django_workflow.replay.port import Hooks, Port
from django_workflow.replay.step_call import StepCall, current_step, in_hook
from django_workflow.replay.tasks import TaskSteps

R = TypeVar("R")


class Executor(Frontier):
    """One invocation of a run's function.

    `first_run_id` is the first run of a resume chain (the run itself when it was never resumed): idempotency keys come
    from it. `max_result_bytes` bounds results; `atomic_steps` is what sync steps do that do not say. `refusal` makes an
    executor that has no steps: asking for one raises a StepError with that text (failure functions).
    """

    def __init__(
        self,
        journal: Journal,
        port: Port,
        *,
        run_id: str = "",
        first_run_id: str = "",
        max_result_bytes: int | None = None,
        atomic_steps: bool = False,
        hooks: Hooks | None = None,
        refusal: str | None = None,
    ) -> None:
        super().__init__(
            journal,
            port,
            run_id=run_id,
            first_run_id=first_run_id,
            max_result_bytes=max_result_bytes,
            atomic_steps=atomic_steps,
            hooks=hooks,
        )
        self.asked = 0
        """The number of the newest step that the function asked for."""
        self.patches: dict[str, bool] = {}
        """What this invocation has said of each change: the first answer holds for all of the run."""
        self.is_blocked = refusal is not None
        self.thread = get_ident()
        # The newest entry: its arrival is told to the middlewares.
        self.news = journal.last if hooks is not None else None
        self._results = journal.results
        self._refusal = refusal
        self._is_dry = False
        self._step_was_reached = False

    # For the host of the invocation

    def invoke(self, function: Callable[[Any], Any], context: Any) -> Outcome:
        """Call the workflow's function with its context, and say how that ended.

        Async functions run on this thread's private loop; Misconfigured is raised where a loop is running already.
        """
        self.thread = get_ident()
        token = current_step.set(None)
        try:
            if inspect.iscoroutinefunction(function):
                return TaskSteps.invoke(self, function, context)
            return self._invoke(function, context)
        finally:
            current_step.reset(token)

    def dry_run(self, function: Callable[[Any], Any], context: Any) -> DryOutcome:
        """Call the function on a context without steps, to see whether it gets to one: runs and submits nothing.

        The context must be this executor's own, as for `invoke`. Source: endpoint.md, section 6.4.
        """
        self._is_dry = self.is_blocked = True
        self.hooks = self.news = None
        outcome = self.invoke(function, context)
        if self._step_was_reached:
            return StepFound()
        if isinstance(outcome, Failed):
            is_verdict = isinstance(outcome.error, NonRetryableError | RetryAfterError)
            return StepFound() if is_verdict else outcome
        return NoStepReached()

    # For contexts

    def ask(self, call: StepCall[R]) -> R:
        """The result of a step of a sync workflow. Raises WorkflowAbort when the invocation ends with it."""
        if self.is_blocked or get_ident() != self.thread:
            self.refuse(call.name)
        index = self.asked = self.asked + 1
        step = self._results.get(index)
        if step is None or step is self.news:
            return self._ask_slowly(call, index, step)
        if step.step_name == call.name and step.step_type == call.step_type and step.concurrent == 1:
            return call.read(step)
        raise self.fail(step_mismatch(self.run_id, index, step, call))

    def known(self, name: str, step_type: str) -> Step | None:
        """The step that the function asks for next, when it is in the journal and there is nothing to tell of it.

        None: `ask` finds out what else is the matter. This is the way of nearly every step of a replay, so it is short.
        """
        step = self._results.get(self.asked + 1)
        if (
            step is None
            or step.step_name != name
            or step.step_type != step_type
            or step.concurrent != 1
            or step is self.news
            or self.is_blocked
            or get_ident() != self.thread
        ):
            return None
        self.asked += 1
        return step

    def ask_together(self, calls: Sequence[StepCall[Any]]) -> tuple[Any, ...]:
        """The results of steps of a sync workflow that run at the same time."""
        if len(calls) < 2:
            return tuple(map(self.ask, calls))
        if self.is_blocked or get_ident() != self.thread:
            self.refuse(calls[0].name)
        first = self.asked + 1
        self.asked += len(calls)
        try:
            state = decide(self.journal, first, calls, self.run_id)
        except StepError as error:
            raise self.fail(error) from None
        if isinstance(state, Last):
            results = tuple(call.read(step) for call, step in zip(calls, state.steps, strict=True))
            if state.is_news:
                for call, result in zip(calls, results, strict=True):
                    self._tell_news(call, result)
            return results
        if isinstance(state, First):
            self.announce(first, calls)
        elif isinstance(state, Partial):
            self._perform(calls[state.branch], first + state.branch, len(calls))
        else:
            self.end(Discarded())
        raise self.abort()

    def patched(self, call: PatchCall) -> bool:
        """Whether the new code of a change runs in a sync workflow; True is recorded when nobody has said it yet."""
        answer = None if self.is_blocked else self.known_patch(call)
        if answer is None:
            answer = self.patches[call.name] = self.ask(call)
        return answer

    def known_patch(self, call: PatchCall, ahead: int = 0) -> bool | None:
        """What is certain about a change; None when its marker has still to be read or recorded.

        `ahead`: how many markers have their place before this one's.
        """
        answer = self.patches.get(call.name)
        if answer is None:
            recorded = self.journal.entry(self.asked + 1 + ahead)
            if recorded is not None and not is_single(recorded, call):
                answer = self.patches[call.name] = False
        return answer

    def deprecate_patch(self, call: PatchCall) -> None:
        """Step over a change's marker, if the run of a sync workflow has one here."""
        if self.is_blocked or self.has_marker(call):
            self.ask(call)

    def has_marker(self, call: PatchCall, ahead: int = 0) -> bool:
        """Whether the next step recorded is this marker; `ahead` as above."""
        recorded = self.journal.entry(self.asked + 1 + ahead)
        return recorded is not None and is_single(recorded, call)

    def cancel(self) -> NoReturn:
        """End the run, from the workflow's code or from inside a step's function."""
        if self._refusal is not None:
            raise StepError(self._refusal)
        if self._is_dry:
            self._step_was_reached = True
        # A workflow may give up because a step failed; but what was submitted is submitted.
        elif self.ending is None or (isinstance(self.ending, Failed) and not self.ending.by_engine):
            self.end(Cancelled())
        raise WorkflowCancelAbort

    def emit(self, event: str, data: object) -> None:
        """Tell the run's watchers. Nothing happens in replayed code, in dry runs and after the end."""
        if not self._is_dry and self.ending is None and self.is_new_code:
            self.port.emit(event, data)

    @property
    def is_new_code(self) -> bool:
        """Whether a step's function runs, or code that the journal holds nothing further for."""
        return self.current is not None or self.asked >= self.journal.highest

    def refuse(self, name: str) -> NoReturn:
        """Say why step `name` cannot be asked for now."""
        if self._refusal is not None:
            raise StepError(f"{self._refusal} Tried to run {name!r}.")
        if self._is_dry:
            self._step_was_reached = True
            raise WorkflowAbort(name)
        if in_hook.get():
            raise StepError(
                f"Step {name!r} was asked for by a middleware. Hooks have no steps: do the work in the hook."
            )
        running = self.current
        if running is not None:
            raise NestedStep(
                "A step can not be run inside another step. "
                f"Tried to run '{name}' inside '{running.name}'. Return from the outer step first, or make the inner "
                "one a plain function call."
            )
        if get_ident() != self.thread:
            raise StepError(
                f"Step {name!r} was asked for in another thread than the workflow runs in, so its place among the "
                "steps is not certain. Use ctx.parallel() for steps at the same time."
            )
        if isinstance(self.ending, Failed) and self.ending.step_name is not None:
            raise verdict.handled(self.ending)
        raise self.abort(name)

    def returned(self, function: Callable[[Any], Any], result: Any) -> Outcome:
        """The outcome of a function that returned."""
        if self.ending is not None:
            return verdict.returned_after(self.ending)
        if inspect.isawaitable(result):
            return verdict.not_awaited(result)
        if self.asked == 0:
            return NoStepReached()
        return verdict.finished(function, result, self.limit)

    def raised(self, error: BaseException) -> Outcome:
        """The outcome of a function that raised."""
        return verdict.raised(error, self.ending, self.failed_branch)

    def last_words(self, outcome: Outcome, result: Any) -> tuple[str, Any] | None:
        """Which hook hears of the outcome, and with what."""
        if isinstance(outcome, Finished):
            return "run_completed", result
        if isinstance(outcome, Failed) and not isinstance(outcome.error, RunEnded):
            return "on_error", outcome.error
        return None

    # Sync workflows

    def _invoke(self, function: Callable[[Any], Any], context: Any) -> Outcome:
        result = None
        if self.hooks is not None and not self.journal.steps:
            self._fire("run_started")
        try:
            result = function(context)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            outcome = self.raised(error)
        else:
            outcome = self.returned(function, result)
        self.is_blocked = True
        words = self.last_words(outcome, result)
        if words is not None:
            self._fire(*words)
        return outcome

    def _ask_slowly(self, call: StepCall[R], index: int, step: Step | None) -> R:
        """A step that is not in the journal, or whose arrival has to be told."""
        recorded = self.journal.entry(index)
        if recorded is not None:
            if step is None or not is_single(step, call):
                raise self.fail(step_mismatch(self.run_id, index, recorded, call))
            result = call.read(step)
            self._tell_news(call, result)
            return result
        self._perform(call, index, 1)
        if self.ending is not None:
            raise self.abort()
        return call.read(self._results[index])

    def _perform(self, call: StepCall[Any], step_id: int, concurrent: int) -> None:
        self._fire("before_execution", call.name)
        step = self.perform(call, step_id, concurrent)
        if step is not None and self.hooks is not None:
            self._fire("after_execution", call.name, call.read(step))

    def _tell_news(self, call: StepCall[Any], result: Any) -> None:
        """The engine brought a result. Those of local steps were told where they were made."""
        if not call.is_local:
            self._fire("after_execution", call.name, result)

    def _fire(self, event: str, *args: object) -> None:
        if self.hooks is None:
            return
        blocked, self.is_blocked = self.is_blocked, True
        token = in_hook.set(True)
        try:
            self.hooks.fire(event, *args)
        finally:
            in_hook.reset(token)
            self.is_blocked = blocked
