"""The session of an in-process delivery: what ties the engine's call and the endpoint's answer together.

The worker puts one into the environ of the request that it makes, under `SESSION_KEY`; no request from the network
can carry such an object, so it is the proof that the delivery is the engine's own. While the workflow runs, the same
session stands in `current_session`, where the engine's transport finds it and takes submissions into it.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Protocol

from django_workflow.protocol.steps import Step
from django_workflow.replay.journal import Journal

SESSION_KEY = "django_workflow.session"


class DeliverySession(Protocol):
    """What `serve` may know of it: that it exists, its journal, and how to say that a step starts or is done."""

    run_id: str

    def step_started(self, step: Step) -> None: ...

    def replay(self) -> Journal | None:
        """The run's journal, when it need not be made from its messages; for this delivery alone, which adds nothing to
        it."""

    def go_on(self) -> bool:
        """Have the step that was just submitted committed now. True: the invocation may go on with the next one."""


current_session: ContextVar[DeliverySession | None] = ContextVar("django_workflow_session", default=None)

current_region: ContextVar[str | None] = ContextVar("django_workflow_region", default=None)
"""Region of the hosted engine whose delivery is served; None outside of one."""
