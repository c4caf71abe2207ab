"""The doors of an invocation: what the executor may ask of its surroundings.

`serve` implements Port (it knows the client and the delivery's session), `authoring` implements Hooks (it knows the
middlewares). Both are called outside of any running event loop unless they say otherwise, so they may use the ORM.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from django_workflow.protocol.steps import Step
from django_workflow.replay.outcome import Submission

PROGRESS_EVENT = "workflow.progress"
"""Event of `ctx.progress()`: `{"done": 3, "total": 10}`, and `stepName` when it was told from inside a step."""


class Port(Protocol):
    @property
    def writes_starts(self) -> bool:
        """Whether `step_started` uses the ORM."""

    def step_started(self, step: Step) -> None:
        """A step's function is about to run (its `out` is still None). Must be cheap; raises nothing.

        Only the port of a rehearsal raises WorkflowAbort, after it has ended the invocation: no function runs there.

        Of async functions it is told on the workflow's event loop, unless it `writes_starts`: else no ORM here.
        """

    def submit(self, submissions: Sequence[Submission]) -> bool:
        """Hand submissions to the engine, together.

        True: they are committed and the function may go on in this invocation with their results; False (the usual
        case): the executor ends the invocation. Raises RunEnded when the run is over, other EngineErrors as they come.
        """

    def transaction(self) -> AbstractContextManager[None]:
        """Around an atomic step's function *and* its submission: both are committed, or neither."""

    def kept(self, step: Step) -> Step | None:
        """The result of an atomic step that an earlier attempt committed without the engine's knowledge, or None.

        Asked inside `transaction()`; a result is submitted again after it, and the function does not run.
        """

    def emit(self, event: str, data: object) -> None:
        """Tell whoever watches the run. Called when the code is new, not while it is replayed."""


Outside = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Calls a function while the workflow's event loop stands still, and gives its result."""


class Hooks(Protocol):
    """The middlewares of a workflow. `event` is the name of a Middleware method; a hook that fails raises nothing."""

    def fire(self, event: str, *args: object) -> None: ...

    async def afire(self, outside: Outside, event: str, *args: object) -> None:
        """The same for async workflows: coroutine hooks are awaited, the others called through `outside`."""
