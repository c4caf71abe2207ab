"""The session of an in-process delivery: what ties the engine's call and the endpoint's answer together.

The worker puts one into the environ of the request that it makes, under `SESSION_KEY`; no request from the network
can carry such an object, so it is the proof that the delivery is the engine's own. While the workflow runs, the same
session stands in `current_session`, where the engine's transport finds it and takes submissions into it.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Protocol

from django_workflow.protocol.steps import Step

SESSION_KEY = "django_workflow.session"


class DeliverySession(Protocol):
    """What `serve` may know of it: that it exists, and how to say that a step's function starts."""

    run_id: str

    def step_started(self, step: Step) -> None: ...


current_session: ContextVar[DeliverySession | None] = ContextVar("django_workflow_session", default=None)

current_region: ContextVar[str | None] = ContextVar("django_workflow_region", default=None)
"""Region of the hosted engine whose delivery is served; None outside of one."""
