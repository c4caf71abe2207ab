"""A rehearsal: a run's known steps are replayed with today's code, and the first new one is where it stops.

No step's function is called, nothing is submitted, no middleware hears of it. What stands between the steps does run,
as in every call of a workflow. `control.code_check` asks this of each live run before a deploy.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from django_workflow.authoring.context_base import RunDetails
from django_workflow.authoring.decorator import Workflow
from django_workflow.authoring.invocation import make_context
from django_workflow.protocol.steps import Step
from django_workflow.replay.executor import Executor
from django_workflow.replay.journal import Journal
from django_workflow.replay.outcome import Outcome, Submission, Submitted


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """`outcome` is Submitted when a new step was reached. `asked`: how many steps the code asked for in all."""

    outcome: Outcome
    asked: int


def rehearse(workflow: Workflow[Any, Any], details: RunDetails, journal: Journal) -> Rehearsed:
    """Replay the run's known steps. Raises Misconfigured where an event loop runs, as `invoke` does."""
    port = _End()
    executor = port.executor = Executor(journal, port, run_id=details.run_id, first_run_id=details.first_run_id)
    context = make_context(workflow, details, executor, is_async=workflow.is_async)
    return Rehearsed(executor.invoke(workflow.function, context), executor.asked)


class _End:
    """The port at which a rehearsal ends: a step that would start does not."""

    writes_starts = False
    executor: Executor

    def step_started(self, step: Step) -> None:
        self.executor.end(Submitted(step.step_name))
        raise self.executor.abort()

    def submit(self, submissions: Sequence[Submission]) -> bool:
        return False

    def transaction(self) -> AbstractContextManager[None]:
        return nullcontext()

    def kept(self, step: Step) -> Step | None:
        return None

    def emit(self, event: str, data: object) -> None:
        pass
