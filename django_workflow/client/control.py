"""Runs held up, hurried on and started again by their ids, as calls of the client.

Hosted engines have no such calls: EngineError with status 501.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from django_workflow.protocol.identifiers import prefixed_run_id
from django_workflow.protocol.requests import NO_OVERRIDES, PauseRun, RetryNow, RunOverrides, StartAgain, UnpauseRun
from django_workflow.protocol.resources import StartedRun

if TYPE_CHECKING:
    from django_workflow.client.transports import Transport


class ControlCalls:
    """A part of `Client`. Each raises RunEnded when the run is unknown; the first ones also when it is over."""

    __slots__ = ()

    transport: Transport

    def pause(self, run_id: str) -> bool:
        """Start no step of a run until `unpause`; one that runs may end, and its result is kept. False: it is paused.

        Events, timers and results of invoked runs are taken meanwhile, and take effect when the run goes on.
        """
        return self.transport.send(PauseRun(run_id=run_id))

    async def apause(self, run_id: str) -> bool:
        return await self.transport.asend(PauseRun(run_id=run_id))

    def unpause(self, run_id: str) -> bool:
        """Let a paused run go on. False: it is not paused."""
        return self.transport.send(UnpauseRun(run_id=run_id))

    async def aunpause(self, run_id: str) -> bool:
        return await self.transport.asend(UnpauseRun(run_id=run_id))

    def retry_now(self, run_id: str) -> int:
        """Try again now what a run would try again later; how many calls that are. It counts as the retry that it is.

        A paused run tries nothing: 0.
        """
        return self.transport.send(RetryNow(run_id=run_id))

    async def aretry_now(self, run_id: str) -> int:
        return await self.transport.asend(RetryNow(run_id=run_id))

    def resume_run(self, run_id: str, *, overrides: RunOverrides = NO_OVERRIDES) -> StartedRun:
        """Go on with a failed or canceled run where it ended, as a new run that has its finished steps.

        Raises EngineError with status 409 when it is not over, has succeeded, or was gone on with already.
        """
        return self.transport.send(StartAgain(run_id=run_id, overrides=overrides))

    async def aresume_run(self, run_id: str, *, overrides: RunOverrides = NO_OVERRIDES) -> StartedRun:
        return await self.transport.asend(StartAgain(run_id=run_id, overrides=overrides))

    def restart_run(
        self,
        run_id: str,
        *,
        payload: bytes | None = None,
        new_run_id: str | None = None,
        overrides: RunOverrides = NO_OVERRIDES,
    ) -> StartedRun:
        """Begin a run that is over anew, as a new run; with another `payload` (JSON), if one is given.

        Raises EngineError with status 409 when the run is not over, or `new_run_id` is in use.
        """
        return self.transport.send(_restart(run_id, payload, new_run_id, overrides))

    async def arestart_run(
        self,
        run_id: str,
        *,
        payload: bytes | None = None,
        new_run_id: str | None = None,
        overrides: RunOverrides = NO_OVERRIDES,
    ) -> StartedRun:
        return await self.transport.asend(_restart(run_id, payload, new_run_id, overrides))

    def fork(
        self, run_id: str, step: int, *, payload: bytes | None = None, overrides: RunOverrides = NO_OVERRIDES
    ) -> StartedRun:
        """Make a new run that has the results of a run's steps up to number `step` (0: none), and goes on from there.

        The run itself, in whatever state, stays as it is. Steps that run again have new idempotency keys. `payload`
        (JSON) replaces the run's with `step` 0 alone: results belong to the payload that they were made with.
        Raises EngineError with status 400 when that step has no result.
        """
        return self.transport.send(_fork(run_id, step, payload, overrides))

    async def afork(
        self, run_id: str, step: int, *, payload: bytes | None = None, overrides: RunOverrides = NO_OVERRIDES
    ) -> StartedRun:
        return await self.transport.asend(_fork(run_id, step, payload, overrides))


def _restart(run_id: str, payload: bytes | None, new_run_id: str | None, overrides: RunOverrides) -> StartAgain:
    new_run_id = prefixed_run_id(new_run_id) if new_run_id else None
    return StartAgain(run_id=run_id, steps=0, payload=payload, new_run_id=new_run_id, overrides=overrides)


def _fork(run_id: str, step: int, payload: bytes | None, overrides: RunOverrides) -> StartAgain:
    if step < 0:
        raise ValueError(f"step is {step}, but must be the number of a finished step, or 0.")
    if step and payload is not None:
        raise ValueError(f"A fork after step {step} keeps the payload: the results belong to it. Use step 0.")
    return StartAgain(run_id=run_id, steps=step, aside=True, payload=payload, overrides=overrides)
