"""The first step that has no result yet: run, submitted, and then the invocation ends.

`Frontier` is the part of an Executor that acts. It runs one step's function, hands its result to the port, and keeps
`ending`: why the invocation has ended, whatever the workflow does with the exceptions that tell it so.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from django_workflow.errors import EngineError, StepError, WorkflowAbort, WorkflowCancelAbort
from django_workflow.protocol.steps import Step
from django_workflow.replay.instruments import instrument
from django_workflow.replay.journal import Journal
from django_workflow.replay.loop import run_on_thread_loop
from django_workflow.replay.outcome import Cancelled, Failed, StepSubmission, Submission, Submitted
from django_workflow.replay.patches import PatchCall, is_marker
from django_workflow.replay.port import Hooks, Port
from django_workflow.replay.step_call import CurrentStep, LocalCall, StepCall, check_text, current_step
from django_workflow.replay.verdict import Ending

if TYPE_CHECKING:
    from django_workflow.replay.tasks import TaskSteps


class Frontier:
    """Where an invocation acts; see `Executor` for the arguments."""

    def __init__(
        self,
        journal: Journal,
        port: Port,
        *,
        run_id: str,
        first_run_id: str,
        max_result_bytes: int | None,
        atomic_steps: bool,
        hooks: Hooks | None,
    ) -> None:
        self.journal = journal
        self.port = port
        self.run_id = run_id
        self.first_run_id = first_run_id or run_id
        self.limit = max_result_bytes
        self.hooks = hooks
        self.tasks: TaskSteps | None = None
        """The steps of an async workflow's tasks; None in sync workflows."""
        self.ending: Ending | None = None
        """Why no further step can be asked for."""
        self.failed_branch = False
        """The step that failed is a branch of a parallel group."""
        self.is_blocked = False
        """There is some reason to refuse a step; `Executor.refuse` finds out which."""
        self._atomic_steps = atomic_steps
        self._running: CurrentStep | None = None
        self._work_error: BaseException | None = None

    @property
    def current(self) -> CurrentStep | None:
        """The step whose function runs."""
        return current_step.get() or self._running

    def perform(self, call: StepCall[Any], step_id: int, concurrent: int) -> Step | None:
        """Run a step and submit it, on a thread without a running loop. Gives the result of a local step.

        Afterwards `ending` is None when the invocation goes on. Raises what the step's function raised.
        """
        with self.guarded(call.name, concurrent):
            if not isinstance(call, LocalCall):
                check_text(call.name, "step name")
                submission = call.submission(step_id, concurrent)
                self.submit(call.name, [submission], concurrent)
                return None
            current = self.start(call, step_id, concurrent)
            if self.is_atomic(call):
                return self._perform_atomic(call, current, concurrent)
            return self.hand_in(call, self._result_of(call, current), current, concurrent)

    def _perform_atomic(self, call: LocalCall[Any], current: CurrentStep, concurrent: int) -> Step:
        """Run a step and submit it in one transaction; one that has a result already is only submitted again."""
        with self.port.transaction():
            kept = self.port.kept(call.result_step(current.step_id, concurrent))
            if kept is None:
                return self.hand_in(call, self._result_of(call, current), current, concurrent)
        self.submit(call.name, [StepSubmission(kept)], concurrent)
        return kept

    def start(self, call: LocalCall[Any], step_id: int, concurrent: int) -> CurrentStep:
        """Announce that a step's function is about to run."""
        check_text(call.name, "step name")
        if is_marker(call.name) and not isinstance(call, PatchCall):
            raise StepError(
                f"Step {call.name!r} is named like the marker of a change: ctx.patched() makes those alone."
            )
        self.port.step_started(call.result_step(step_id, concurrent))
        return CurrentStep(call.name, step_id, self.first_run_id)

    def is_atomic(self, call: LocalCall[Any]) -> bool:
        if call.atomic and call.is_async:
            raise StepError(
                f"Step {call.name!r} is atomic=True, but its function is async, and a transaction belongs to a thread. "
                "Make the function sync, or leave atomic out."
            )
        return self._atomic_steps and not call.is_async if call.atomic is None else call.atomic

    def work(self, call: LocalCall[Any], current: CurrentStep) -> Any:
        """Call the step's function; the result may be awaitable."""
        token = current_step.set(current)
        self._running, self.is_blocked = current, True
        try:
            watcher = instrument()
            if watcher is None or call.is_async:
                return call.work()
            with watcher.step(call.name, current.step_id):
                return call.work()
        except BaseException as error:
            self._work_error = error
            raise
        finally:
            self._running, self.is_blocked = None, self.ending is not None
            current_step.reset(token)

    async def awaited(self, value: Awaitable[Any], current: CurrentStep) -> Any:
        """The result of a step's function that is async."""
        token = current_step.set(current)
        try:
            watcher = instrument()
            if watcher is None:
                return await value
            with watcher.step(current.name, current.step_id):
                return await value
        except BaseException as error:
            self._work_error = error
            raise
        finally:
            current_step.reset(token)

    def hand_in(self, call: LocalCall[Any], value: Any, current: CurrentStep, concurrent: int) -> Step:
        """Submit what a step's function returned."""
        if self.ending is not None:  # ctx.cancel() inside the function
            raise self.abort(call.name)
        step = call.result_step(current.step_id, concurrent, call.encode(value, self.limit))
        self.submit(call.name, [StepSubmission(step)], concurrent)
        return step

    def announce(self, first: int, calls: Sequence[StepCall[Any]]) -> None:
        """Submit the plans of a group."""
        names = [call.name for call in calls]
        together = ", ".join(names[:5]) + (" …" if len(names) > 5 else "")
        with self.guarded(together, 1):
            for name in names:
                check_text(name, "step name")
            plans = [call.plan(number, len(calls)) for number, call in enumerate(calls, first)]
            self.submit(together, plans, len(calls))

    def submit(self, name: str, submissions: Sequence[Submission], concurrent: int) -> None:
        """Hand over to the engine. Sets `ending`, unless the invocation goes on with the result."""
        try:
            goes_on = self.port.submit(submissions)
        except EngineError as error:
            self.end(Failed(error, by_engine=True))
            raise self.abort(name) from error
        (submission, *_) = submissions
        if goes_on and concurrent == 1 and isinstance(submission, StepSubmission):
            self.journal.append(submission.step)
        else:
            self.end(Submitted(name))

    @contextmanager
    def guarded(self, name: str, concurrent: int) -> Iterator[None]:
        """Around a step: whatever comes out of it ends the invocation, even if the workflow catches it."""
        try:
            yield
        except (WorkflowAbort, KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:
            if isinstance(error, EngineError) and error is not self._work_error:
                # The transaction of an atomic step was refused when it was committed.
                self.end(Failed(error, by_engine=True))
                raise self.abort(name) from error
            self.fail(error, name, concurrent > 1)
            raise

    def _result_of(self, call: LocalCall[Any], current: CurrentStep) -> Any:
        """What a step's function gives in the end."""
        value = self.work(call, current)
        if not inspect.isawaitable(value):
            return value
        if self.is_atomic(call):
            if inspect.iscoroutine(value):
                value.close()
            raise StepError(f"Step {call.name!r} is atomic, but its function gave something to await. Make it sync.")

        self._running, self.is_blocked = current, True
        try:
            return run_on_thread_loop(lambda: self.awaited(value, current))
        finally:
            self._running, self.is_blocked = None, self.ending is not None

    # Ends

    def end(self, ending: Ending) -> None:
        self.ending = ending
        self.close()

    def close(self) -> None:
        """No step can be asked for from now on; tasks that wait for one are told."""
        self.is_blocked = True
        if self.tasks is not None:
            self.tasks.release()

    def fail(self, error: BaseException, step_name: str | None = None, is_branch: bool = False) -> BaseException:
        """End with an error, and give it to be raised."""
        self.failed_branch = is_branch
        self.end(Failed(error, step_name))
        return error

    def abort(self, name: str = "") -> WorkflowAbort:
        """What leaves the function once the invocation has ended."""
        if isinstance(self.ending, Cancelled):
            return WorkflowCancelAbort()
        return WorkflowAbort(self.ending.step_name if isinstance(self.ending, Submitted) else name)
