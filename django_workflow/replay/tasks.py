"""The steps of an async workflow: those that its tasks ask for before all of them wait form one group.

A task that asks for a step gets a turn and waits. When nothing on the invocation's loop is ready to run, the group of
turns is complete: known results are handed out, or one task is told to run its step, or the branches are announced.
Functions of sync steps and everything that the port does run while the loop stands still.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from threading import get_ident
from typing import TYPE_CHECKING, Any, TypeVar

from django_workflow.errors import StepError, WorkflowAbort
from django_workflow.protocol.steps import Step
from django_workflow.replay.loop import InvocationLoop, thread_loop
from django_workflow.replay.mismatch import step_mismatch
from django_workflow.replay.outcome import Discarded, Failed, Outcome
from django_workflow.replay.parallel import First, Last, Partial, decide, is_single
from django_workflow.replay.patches import PatchCall
from django_workflow.replay.step_call import LocalCall, StepCall, current_step, in_hook

if TYPE_CHECKING:
    from django_workflow.replay.executor import Executor

R = TypeVar("R")


@dataclass(slots=True, eq=False)
class Turn:
    """A task that waits with its step. `future` gives an Answer or a Go, or raises."""

    call: StepCall[Any]
    future: asyncio.Future[Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """The recorded step; `is_news` when its arrival has not been told to the middlewares."""

    step: Step
    is_news: bool


@dataclass(frozen=True, slots=True)
class Go:
    """Run the step under this number."""

    step_id: int
    concurrent: int


@dataclass(slots=True)
class TaskSteps:
    executor: Executor
    loop: InvocationLoop
    _pending: list[Turn] = field(default_factory=list)
    _open: list[Turn] = field(default_factory=list)
    _is_performing: bool = False
    _asked: int = 0
    _not_begun: dict[int, str] = field(default_factory=dict)
    """Names of the steps that were asked for, but not awaited as yet."""

    @classmethod
    def invoke(cls, executor: Executor, function: Callable[[Any], Coroutine[Any, Any, Any]], context: Any) -> Outcome:
        """Run an async workflow's function on this thread's loop, which must not be running."""
        loop = thread_loop()
        self = executor.tasks = cls(executor, loop)
        try:
            return loop.run(self._main(function, context), self._when_idle)
        except SystemExit as error:  # asyncio lets it out of a task at once
            return executor.raised(error)
        finally:
            executor.tasks = None

    def ask(self, call: StepCall[R]) -> Coroutine[Any, Any, R]:
        """The result of a step, when awaited. Raises WorkflowAbort when the invocation ends with it."""
        self._asked = number = self._asked + 1
        self._not_begun[number] = call.name
        return self._ask(call, number)

    async def _ask(self, call: StepCall[R], number: int) -> R:
        del self._not_begun[number]
        executor = self.executor
        self._refuse_out_of_place(call)
        if self.loop.tasks.made == 1:
            # Nothing else can be asked for before this task waits, so a known step need not wait for the others.
            step = executor.journal.results.get(executor.asked + 1)
            if (
                step is not None
                and step is not executor.news
                and step.step_name == call.name
                and step.step_type == call.step_type
                and step.concurrent == 1
            ):
                executor.asked += 1
                return call.read(step)
        turn = Turn(call, self.loop.create_future())
        self._pending.append(turn)
        try:
            decision = await turn.future
        except asyncio.CancelledError as error:
            self._withdraw(turn, error)
            raise
        if isinstance(decision, Answer):
            result = call.read(decision.step)
            if decision.is_news and not call.is_local:
                await self._fire("after_execution", call.name, result)
            return result
        return await self._perform(call, decision)

    async def ask_together(self, calls: Sequence[StepCall[Any]]) -> tuple[Any, ...]:
        """The results of steps that run at the same time."""
        if not calls:
            return ()
        return tuple(await asyncio.gather(*map(self.ask, calls)))

    async def patched(self, call: PatchCall) -> bool:
        """Whether the new code of a change runs; True is recorded when nobody has said it yet."""
        self._refuse_out_of_place(call)
        answer = self.executor.known_patch(call, self._markers_ahead)
        if answer is None:
            # Tasks that ask for the same change meanwhile need not wait: it can only be True.
            answer = self.executor.patches[call.name] = True
            await self.ask(call)
        return answer

    async def deprecate_patch(self, call: PatchCall) -> None:
        """Step over a change's marker, if the run has one here."""
        self._refuse_out_of_place(call)
        if self.executor.has_marker(call, self._markers_ahead):
            await self.ask(call)

    @property
    def _markers_ahead(self) -> int:
        """Markers that tasks wait for: each takes a number before whatever is asked for now."""
        return sum(isinstance(turn.call, PatchCall) for turn in self._pending)

    def _refuse_out_of_place(self, call: StepCall[Any]) -> None:
        executor = self.executor
        if executor.is_blocked or current_step.get() is not None or in_hook.get() or get_ident() != executor.thread:
            executor.refuse(call.name)

    def outside(self, function: Callable[[], R]) -> Awaitable[R]:
        """Call something that may use the ORM, from a coroutine of the workflow."""
        return self.loop.outside(function)

    def release(self) -> None:
        """The invocation has ended: tasks that wait for a step are told."""
        waiting, self._pending, self._open = [*self._pending, *self._open], [], []
        for turn in waiting:
            if not turn.future.done():
                turn.future.set_exception(self.executor.abort(turn.call.name))

    def _withdraw(self, turn: Turn, error: asyncio.CancelledError) -> None:
        """The task that waited was cancelled, say by asyncio.timeout()."""
        future = turn.future
        if turn in self._pending:
            self._pending.remove(turn)
            return
        if future.done() and not future.cancelled() and future.exception() is None and isinstance(future.result(), Go):
            # It was about to run its step, and nobody else will.
            self._is_performing = False
            self.executor.fail(error, turn.call.name)

    async def _main(self, function: Callable[[Any], Coroutine[Any, Any, Any]], context: Any) -> Outcome:
        executor = self.executor
        result = None
        if executor.hooks is not None and not executor.journal.steps:
            await self._fire("run_started")
        try:
            result = await function(context)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            outcome = executor.raised(error)
        else:
            outcome = self._unawaited() or executor.returned(function, result)
        executor.close()
        words = executor.last_words(outcome, result)
        if words is not None:
            await self._fire(*words)
        return outcome

    def _unawaited(self) -> Outcome | None:
        """The function returned while a task of it was still busy with a step, or without having awaited one."""
        if self._not_begun and self.executor.ending is None:
            names = ", ".join(map(repr, self._not_begun.values()))
            return Failed(
                StepError(
                    f"The workflow returned without having awaited {names}: such a step does not happen. Write `await` "
                    "in front of ctx.run() and the like."
                )
            )
        waiting = [turn for turn in (*self._pending, *self._open) if not turn.future.done()]
        if self.executor.ending is not None or not (waiting or self._is_performing):
            return None
        names = ", ".join(repr(turn.call.name) for turn in waiting) or "a step"
        return Failed(
            StepError(
                f"The workflow returned while {names} was not finished. Await every step: a task that nobody awaits "
                "is lost when the function returns."
            )
        )

    # Groups

    def _when_idle(self) -> bool:
        """Nothing is ready to run. True when that changed."""
        if not self._pending or self._is_performing or self.executor.ending is not None:
            return False
        self._open, self._pending = self._next_group()
        executor = self.executor
        first = executor.asked + 1
        executor.asked += len(self._open)
        try:
            if len(self._open) == 1:
                self._decide_single(self._open[0], first)
            else:
                self._decide_group(self._open, first)
        except StepError as error:
            turn = self._open[0]
            turn.future.set_exception(error)
            executor.fail(error)
        return True

    def _next_group(self) -> tuple[list[Turn], list[Turn]]:
        """Whose turn it is, and who waits on: a marker goes alone, and first, so that groups are what they would be
        without it."""
        for turn in self._pending:
            if isinstance(turn.call, PatchCall):
                return [turn], [other for other in self._pending if other is not turn]
        return self._pending, []

    def _decide_single(self, turn: Turn, number: int) -> None:
        executor = self.executor
        step = executor.journal.results.get(number)
        recorded = executor.journal.entry(number)
        if recorded is None:
            self._let(turn, Go(number, 1))
        elif step is None or not is_single(step, turn.call):
            raise step_mismatch(executor.run_id, number, recorded, turn.call)
        else:
            self._let(turn, Answer(step, step is executor.news))

    def _decide_group(self, turns: Sequence[Turn], first: int) -> None:
        executor = self.executor
        calls = [turn.call for turn in turns]
        state = decide(executor.journal, first, calls, executor.run_id)
        if isinstance(state, Last):
            for turn, step in zip(turns, state.steps, strict=True):
                self._let(turn, Answer(step, state.is_news and executor.hooks is not None))
        elif isinstance(state, First):
            self._is_performing = True
            self.loop.add_chore(lambda: self._announce(first, calls))
        elif isinstance(state, Partial):
            self._let(turns[state.branch], Go(first + state.branch, len(turns)))
        else:
            executor.end(Discarded())

    def _let(self, turn: Turn, decision: Answer | Go) -> None:
        if isinstance(decision, Go):
            self._is_performing = True
        # A task that was cancelled in the meantime has no use for it.
        if not turn.future.done():
            turn.future.set_result(decision)

    def _announce(self, first: int, calls: Sequence[StepCall[Any]]) -> None:
        # Whatever goes wrong has become the ending, of which the tasks were told.
        with contextlib.suppress(Exception, WorkflowAbort):
            self.executor.announce(first, calls)

    # One step

    async def _perform(self, call: StepCall[R], go: Go) -> R:
        executor = self.executor
        try:
            await self._fire("before_execution", call.name)
            step = await self._run(call, go)
            if step is not None and executor.hooks is not None:
                await self._fire("after_execution", call.name, call.read(step))
        finally:
            self._is_performing = False
        if executor.ending is not None:
            raise executor.abort()
        return call.read(executor.journal.results[go.step_id])

    async def _run(self, call: StepCall[Any], go: Go) -> Step | None:
        executor = self.executor
        if not isinstance(call, LocalCall) or executor.is_atomic(call):
            return await self.loop.outside(lambda: executor.perform(call, go.step_id, go.concurrent))
        with executor.guarded(call.name, go.concurrent):
            if executor.port.writes_starts:
                current = await self.loop.outside(lambda: executor.start(call, go.step_id, go.concurrent))
            else:
                current = executor.start(call, go.step_id, go.concurrent)
            if call.is_async:
                value = executor.work(call, current)
            else:
                value = await self.loop.outside(lambda: executor.work(call, current))
            if inspect.isawaitable(value):
                value = await executor.awaited(value, current)
            return await self.loop.outside(lambda: executor.hand_in(call, value, current, go.concurrent))

    async def _fire(self, event: str, *args: object) -> None:
        hooks = self.executor.hooks
        if hooks is None:
            return
        token = in_hook.set(True)
        try:
            await hooks.afire(self.loop.outside, event, *args)
        finally:
            in_hook.reset(token)
