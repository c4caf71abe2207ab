"""What a step must offer so that the executor can plan it, run it and read its result.

`authoring` has one class per kind of step; the executor knows only this base. A *local* call has a function that runs
here (`ctx.run`); the others are something that the engine does (sleep, call, wait, invoke) and only submit it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from contextvars import ContextVar
from typing import Any, ClassVar, Generic, TypeVar

from django_workflow.errors import StepError
from django_workflow.protocol.steps import Step, StepType
from django_workflow.replay.outcome import StepSubmission, Submission

R = TypeVar("R", covariant=True)


class StepCall(Generic[R]):
    """One step that the code asks for; `R` is the type of its result.

    Arguments other than the name are looked at when the step is executed, not when it is replayed.
    """

    __slots__ = ("name",)

    name: str
    step_type: ClassVar[StepType]
    is_local: ClassVar[bool] = False

    def plan(self, target: int, concurrent: int) -> StepSubmission:
        """The announcement of this step as a branch of a parallel group."""
        return StepSubmission(
            Step(step_id=0, step_name=self.name, step_type=self.step_type, concurrent=concurrent, target_step=target)
        )

    def submission(self, step_id: int, concurrent: int) -> Submission:
        """What the engine is asked to do. Raises for arguments that make no sense."""
        raise NotImplementedError

    def read(self, step: Step) -> R:
        """The result, from the recorded step: made anew each time. Raises StepError when it does not fit."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<{self.step_type} step {self.name!r}>"


class LocalCall(StepCall[R]):
    """A step whose function runs in this process, and whose result is submitted."""

    __slots__ = ()

    is_local: ClassVar[bool] = True

    @property
    def is_async(self) -> bool:
        """Whether `work` gives an awaitable for sure, so that it has to be called on an event loop."""
        return False

    @property
    def atomic(self) -> bool | None:
        """Whether function and submission share a transaction; None: as the workflow or the settings say."""
        return None

    def work(self) -> Any:
        """Run the function. The result may be awaitable."""
        raise NotImplementedError

    def encode(self, value: Any, limit: int | None) -> str:
        """`out` for the function's result. Raises ResultInvalid."""
        raise NotImplementedError

    def result_step(self, step_id: int, concurrent: int, out: str | None = None) -> Step:
        return Step(step_id=step_id, step_name=self.name, step_type=self.step_type, out=out, concurrent=concurrent)


def check_name(name: object) -> None:
    """Raises StepError for a step name that is empty or no text."""
    if not isinstance(name, str):
        raise StepError(
            f'A workflow step name must be a string. Received "{name}" ({type(name).__name__}). The name comes first: '
            'ctx.run("charge card", charge, order_id).'
        )
    if not name:
        raise StepError(
            "A workflow step name cannot be undefined or an empty string. Please provide a name for your workflow step."
        )


LONGEST_NAME = 255


def check_text(text: str, what: str) -> None:
    """Raises StepError for text that cannot be stored as a name or id."""
    if len(text) > LONGEST_NAME:
        raise StepError(f"The {what} {text[:40]!r}... has {len(text)} characters, but {LONGEST_NAME} is the limit.")
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise StepError(f"The {what} {text!r} holds a character that cannot be stored.")


class CurrentStep:
    """The step whose function runs. Found in `current_step` by what the function calls (triggers, notifies)."""

    __slots__ = ("_counts", "_first_run_id", "name", "step_id")

    def __init__(self, name: str, step_id: int, first_run_id: str) -> None:
        self.name = name
        self.step_id = step_id
        self._first_run_id = first_run_id
        self._counts: Counter[str] | None = None

    @property
    def idempotency_key(self) -> str:
        return idempotency_key(self._first_run_id, self.step_id)

    def derive(self, purpose: str) -> str:
        """An id for something that the step makes: the same on every attempt, another one for each time asked."""
        self._counts = self._counts or Counter()
        self._counts[purpose] += 1
        text = f"{self.idempotency_key}:{purpose}:{self._counts[purpose]}"
        return hashlib.sha256(text.encode()).hexdigest()[:32]


current_step: ContextVar[CurrentStep | None] = ContextVar("django_workflow_step", default=None)
"""Set while a step's function runs, also in tasks that the function starts."""

in_hook: ContextVar[bool] = ContextVar("django_workflow_hook", default=False)
"""Set while a middleware's hook runs: it has no steps."""


def idempotency_key(first_run_id: str, step_id: int) -> str:
    """The same on every attempt of a step and after a resume; another one after a restart. 32 hex digits."""
    return hashlib.sha256(f"{first_run_id}:{step_id}".encode()).hexdigest()[:32]
