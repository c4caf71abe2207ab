"""Changes of a workflow's code that its live runs can tell apart: `ctx.patched("id")`.

A run that reaches the place of a change for the first time records a marker there, which is a step of its own; replayed
code finds either the marker (the new code goes on) or another step (the run has passed that place before the change).
As a step it is kept by every engine, and shown wherever steps are.
"""

from __future__ import annotations

from typing import Any, ClassVar

from django_workflow.errors import StepError
from django_workflow.protocol.steps import Step, StepType
from django_workflow.replay.step_call import LocalCall, check_text

PATCH_PREFIX = "patched: "
"""What the names of markers begin with; no other step's name may."""


class PatchCall(LocalCall[bool]):
    """The marker of a change. It never runs at the same time as other steps, so its place is certain."""

    __slots__ = ()

    step_type: ClassVar[StepType] = StepType.RUN

    def __init__(self, patch_id: str) -> None:
        if type(patch_id) is not str or not patch_id:
            raise StepError(f"The id of a change must be a text such as 'check-address'. Received {patch_id!r}.")
        check_text(patch_id, "id of a change")
        self.name = PATCH_PREFIX + patch_id

    @property
    def atomic(self) -> bool | None:
        return False

    def work(self) -> bool:
        return True

    def encode(self, value: Any, limit: int | None) -> str:
        return "true"

    def read(self, step: Step) -> bool:
        return True


def is_marker(name: str) -> bool:
    """Whether a step of this name is the marker of a change."""
    return name.startswith(PATCH_PREFIX)
