"""Runs held up and hurried on, as calls of the client.

Hosted engines have no such calls: EngineError with status 501.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from django_workflow.protocol.requests import PauseRun, RetryNow, UnpauseRun

if TYPE_CHECKING:
    from django_workflow.client.transports import Transport


class ControlCalls:
    """A part of `Client`. Each raises RunEnded when the run is over or unknown."""

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
