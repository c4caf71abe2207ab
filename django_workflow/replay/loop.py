"""The event loop of async workflows: one per thread, for one invocation at a time.

Two things are special about it. It notices when nothing on it is ready to run, which is when a group of steps is
complete (`when_idle`). And it can stand still while a function is called (`outside`): the function then finds no
running loop, so Django lets it use the ORM, on this thread's own connection.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import selectors
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, TypeVar

from django_workflow.errors import Misconfigured, WorkflowAbort

T = TypeVar("T")

CANCEL_ROUNDS = 3
CANCEL_SECONDS = 5.0
"""Tasks that a finished invocation leaves behind are cancelled; those that go on for this long are abandoned."""

logger = logging.getLogger("django_workflow.replay")


class _IdleSelector(selectors.DefaultSelector):
    """Asks `when_idle` before it would block: the loop has nothing to run now, and no I/O is ready."""

    when_idle: Callable[[], bool] | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self.when_idle is not None and (timeout is None or timeout > 0):
            ready = super().select(0)
            if ready or self.when_idle():
                return ready
        return super().select(timeout)


class InvocationLoop:
    """A private event loop. `run` one coroutine after another on it; `close` it in the end."""

    def __init__(self) -> None:
        self._selector = _IdleSelector()
        self._loop = asyncio.SelectorEventLoop(self._selector)
        self.tasks = LoopTasks()
        self._loop.set_task_factory(self.tasks.make)
        self._loop.set_exception_handler(_report)
        self._chores: list[tuple[Callable[[], None], contextvars.Context]] = []
        self.is_busy = False
        # Closes the loop when its thread ends. Nothing that the loop holds may point back to self.
        self._finalizer = weakref.finalize(self, self._loop.close)

    def run(self, coroutine: Coroutine[Any, Any, T], when_idle: Callable[[], bool] | None = None) -> T:
        """Run a coroutine to its end, in the caller's context; then cancel and await what it left behind.

        `when_idle` is asked whenever nothing is ready to run; it gives True when it made something ready.
        """
        self.is_busy = True
        self.tasks.made = 0
        self._selector.when_idle = when_idle
        try:
            main = self._loop.create_task(coroutine)
            try:
                self._drive(main)
            finally:
                self._selector.when_idle = None
                self._cancel_the_rest()
                if main.done() and not main.cancelled():
                    main.exception()  # looked at, so that nothing is logged when a KeyboardInterrupt leaves
            return main.result()
        finally:
            self._chores.clear()
            self.is_busy = False

    def create_future(self) -> asyncio.Future[Any]:
        return self._loop.create_future()

    async def outside(self, function: Callable[[], T]) -> T:
        """Call a function while the loop stands still, in a copy of the current context."""
        future: asyncio.Future[T] = self._loop.create_future()
        self.add_chore(lambda: _settle(future, function))
        return await future

    def add_chore(self, function: Callable[[], None]) -> None:
        """Stop the loop soon, and call the function then. It must not raise."""
        self._chores.append((function, contextvars.copy_context()))
        self._loop.stop()

    def close(self) -> None:
        self._finalizer()

    @property
    def is_closed(self) -> bool:
        return self._loop.is_closed()

    def abandon(self) -> None:
        """Forget the loop without closing it: its selector belongs to the parent of this forked process."""
        self._finalizer.detach()
        _abandoned.append(self)

    def _drive(self, until: asyncio.Future[Any]) -> None:
        until.add_done_callback(self._stop)
        while not until.done() or self._chores:
            if not self._chores:
                self._loop.run_forever()
            chores, self._chores = self._chores, []
            for chore, context in chores:
                context.run(chore)

    def _stop(self, future: object) -> None:
        self._loop.stop()

    def _cancel_the_rest(self) -> None:
        for _ in range(CANCEL_ROUNDS):
            rest = self.tasks.unfinished()
            if not rest:
                return
            for task in rest:
                task.cancel()
            self._drive(self._loop.create_task(_wait_for(rest)))
        names = ", ".join(task.get_name() for task in self.tasks.unfinished())
        if names:
            logger.error("Tasks of a workflow did not end when they were cancelled, and are abandoned: %s.", names)
            self._loop.set_exception_handler(lambda loop, context: None)
            self.close()


class LoopTasks:
    """The tasks of a loop, and how many the current invocation made."""

    def __init__(self) -> None:
        self.made = 0
        """One: nothing was started beside the coroutine of the current `run`."""
        self._alive: set[asyncio.Task[Any]] = set()

    def make(
        self,
        loop: asyncio.AbstractEventLoop,
        coroutine: Coroutine[Any, Any, T] | Generator[Any, None, T],
        /,
        **options: Any,
    ) -> asyncio.Task[T]:
        self.made += 1
        task = asyncio.Task(coroutine, loop=loop, **options)
        self._alive.add(task)
        task.add_done_callback(self._alive.discard)
        return task

    def unfinished(self) -> list[asyncio.Task[Any]]:
        return [task for task in self._alive if not task.done()]


async def _wait_for(tasks: list[asyncio.Task[Any]]) -> None:
    await asyncio.wait(tasks, timeout=CANCEL_SECONDS)


def _settle(future: asyncio.Future[T], function: Callable[[], T]) -> None:
    """Give the function's result or exception to the future; nothing is called for a task that was cancelled."""
    if future.done():
        return
    try:
        result = function()
    except KeyboardInterrupt:
        raise
    except StopIteration as error:
        # A future cannot carry it.
        wrapped = RuntimeError(f"A function of a workflow raised StopIteration: {error}")
        wrapped.__cause__ = error
        if not future.done():
            future.set_exception(wrapped)
    except BaseException as error:
        if not future.done():
            future.set_exception(error)
    else:
        if not future.done():
            future.set_result(result)


def _report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """WorkflowAbort ends tasks on purpose; nobody has to look at it."""
    if not isinstance(context.get("exception"), WorkflowAbort):
        loop.default_exception_handler(context)


_local = threading.local()
_abandoned: list[InvocationLoop] = []


def thread_loop() -> InvocationLoop:
    """This thread's loop; a fresh one while that is at work (an invocation inside a step of another).

    Raises Misconfigured where an event loop runs already: a thread has one at a time.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise Misconfigured(
            "An async workflow runs on an event loop of its own, but this thread is running one already. Call it from "
            "another thread, such as `await sync_to_async(function)()`."
        )
    loop: InvocationLoop | None = getattr(_local, "loop", None)
    if loop is None or loop.is_closed:
        loop = _local.loop = InvocationLoop()
    return InvocationLoop() if loop.is_busy else loop


def close_thread_loop() -> None:
    """Close this thread's loop, as a thread that ends does by itself. The next async workflow makes a new one."""
    loop: InvocationLoop | None = getattr(_local, "loop", None)
    if loop is not None and not loop.is_busy:
        loop.close()


def run_on_thread_loop(coroutine_of: Callable[[], Awaitable[T]]) -> T:
    """Run an async function that was called from sync code. Its awaitable is made on the loop."""
    loop = thread_loop()

    async def main() -> T:
        return await coroutine_of()

    return loop.run(main())


def _forget_after_fork() -> None:
    global _local
    loop: InvocationLoop | None = getattr(_local, "loop", None)
    if loop is not None:
        loop.abandon()
    _local = threading.local()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_forget_after_fork)
