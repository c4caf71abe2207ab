"""What an invocation submits to have it carried by its answer, instead of writing it itself.

`serve` makes one when the engine that made the call asks for it, and writes its answer from it; while the workflow
runs it stands in `current_carried`, where the embedded engine's transport finds it and hands submissions over. The
worker then writes them together with the acknowledgement: one commit, which it shares with other runs, and none here.

Only what took a moment is carried. A worker that dies meanwhile loses it, as it loses what it ran in its own process;
a step that took longer is written down by the process that ran it, and outlives the worker.
"""

from __future__ import annotations

import time
from contextvars import ContextVar
from typing import Any

from django_workflow.client.submissions import Accepted, is_of_run
from django_workflow.errors import EngineError
from django_workflow.protocol.carried import encode_submitted, joined
from django_workflow.protocol.requests import EngineRequest

LONGEST_SECONDS = 0.1
"""What may be lost with the engine's worker: above it, a commit of its own costs next to nothing."""

LARGEST_BYTES = 256 * 1024
"""The largest first submission that is carried."""


class Carried:
    """The submissions of one invocation of `run_id`. They all go the same way, which the first one decides."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._until = time.monotonic() + LONGEST_SECONDS
        self._submitted: list[bytes] = []
        self._closed = False

    @property
    def body(self) -> bytes | None:
        """The answer's body; None when it carries nothing."""
        return joined(self._submitted) if self._submitted else None

    def take(self, request: EngineRequest[Any]) -> Accepted | None:
        """What the request's sender is told; None when whoever submits has to write it.

        Raises EngineError for what cannot be sent although something is carried already.
        """
        if self._closed or not is_of_run(request, self._run_id):
            return None
        accepted = Accepted.of(request)
        try:
            encoded = encode_submitted(request, accepted.keys)
        except (UnicodeError, RecursionError) as error:
            if self._submitted:
                raise EngineError(f"A submission of run {self._run_id} cannot be sent: {error}", status=500) from error
            encoded = None
        if not self._submitted and not self._fits(encoded):
            self._closed = True
            return None
        assert encoded is not None
        self._submitted.append(encoded)
        return accepted

    def _fits(self, encoded: bytes | None) -> bool:
        return encoded is not None and len(encoded) <= LARGEST_BYTES and time.monotonic() < self._until


current_carried: ContextVar[Carried | None] = ContextVar("django_workflow_carried", default=None)
