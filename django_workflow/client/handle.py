"""The handle of a run: its id, and what can be asked of it from where it was triggered.

Given by `Client.trigger`. The run's row is found through the app registry, so that the client needs no models; it is
the engine's own row, or the one that `mirror` keeps of a hosted run.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec
from asgiref.sync import sync_to_async
from django.apps import apps
from django.core.exceptions import SynchronousOnlyOperation
from django.db import connections

from django_workflow.conf import get_settings
from django_workflow.errors import RunEnded, WorkflowError

if TYPE_CHECKING:
    from django_workflow.client.client import Client

FIRST_PAUSE_SECONDS = 0.02
LONGEST_PAUSE_SECONDS = 1.0


class RunFailed(WorkflowError):
    """The run that was waited for did not succeed. `status` is `failed` or `canceled`, `error` the run's own words."""

    def __init__(self, message: str, *, run_id: str, status: str, error: str) -> None:
        super().__init__(message)
        self.run_id = run_id
        self.status = status
        self.error = error


class RunHandle:
    """A triggered run.

    `deduplicated`: a run with this id existed already, and no new one was made. `decode` turns the result's JSON into
    what `wait()` returns.
    """

    __slots__ = ("_client", "_decode", "deduplicated", "id")

    def __init__(
        self,
        id: str,
        client: Client,
        *,
        deduplicated: bool = False,
        decode: Callable[[bytes], Any] = msgspec.json.decode,
    ) -> None:
        self.id = id
        self.deduplicated = deduplicated
        self._client = client
        self._decode = decode

    def __repr__(self) -> str:
        return f"<RunHandle {self.id}{' (deduplicated)' if self.deduplicated else ''}>"

    def __str__(self) -> str:
        return self.id

    @property
    def run(self) -> Any:
        """The run's row (`django_workflow.models.Run`), as it is now. Raises Run.DoesNotExist."""
        row = self._row()
        if row is None:
            raise _run_model().DoesNotExist(self._nowhere())
        return row

    def wait(self, timeout: float | None = None) -> Any:
        """Block until the run is over and return its result.

        Raises RunFailed when it failed or was canceled, TimeoutError after `timeout` seconds, RunEnded when there is
        no such run, WorkflowError when called inside a transaction, which could never see the run's end.
        """
        pauses = _pauses(timeout)
        while (row := self._row()) is None or not row.is_finished:
            self._refuse_endless(row)
            if (pause := next(pauses, None)) is None:
                raise self._too_late(row, timeout)
            time.sleep(pause)
        return self._result(row)

    async def await_run(self, timeout: float | None = None) -> Any:
        """`wait()` for async code: `result = await handle.await_run()`."""
        pauses = _pauses(timeout)
        while (row := await sync_to_async(self._row)()) is None or not row.is_finished:
            await sync_to_async(self._refuse_endless)(row)
            if (pause := next(pauses, None)) is None:
                raise self._too_late(row, timeout)
            await asyncio.sleep(pause)
        return self._result(row)

    def cancel(self) -> bool:
        """Stop the run. False when it was over already."""
        return self._client.cancel([self.id]) > 0

    async def acancel(self) -> bool:
        return await self._client.acancel([self.id]) > 0

    def _row(self) -> Any:
        try:
            return _run_model()._default_manager.using(get_settings().database).filter(run_id=self.id).first()
        except SynchronousOnlyOperation as error:
            raise SynchronousOnlyOperation(
                "You cannot call this from async code. Write `await handle.await_run()` for handle.wait(), and "
                "`await sync_to_async(lambda: handle.run)()` for handle.run."
            ) from error

    def _result(self, row: Any) -> Any:
        if row.status != "success":
            raise RunFailed(
                f"Run {self.id} of {row.workflow!r} {'failed' if row.status == 'failed' else 'was canceled'}"
                f"{': ' + row.error if row.error else ''}.",
                run_id=self.id,
                status=row.status,
                error=row.error,
            )
        return None if not row.result else self._decode(row.result.encode())

    def _nowhere(self) -> str:
        return (
            f"There is no run {self.id}: its transaction was rolled back, or has not committed yet, or the run was "
            "deleted, or this was never the id of one."
        )

    def _too_late(self, row: Any, timeout: float | None) -> TimeoutError:
        if row is not None and row.status == "queued" and get_settings().engine == "embedded":
            rest = "It has not started: is a worker running (manage.py workflow_worker)?"
        else:
            rest = "It goes on; wait again if you like."
        return TimeoutError(f"Run {self.id} was not over after {timeout:g} s. {rest}")

    def _refuse_endless(self, row: Any) -> None:
        """Raise for a wait that would have no end. Rows of the hosted engine's runs may come later."""
        if row is None and get_settings().engine == "embedded":
            raise RunEnded(self._nowhere(), run_id=self.id)
        if connections[get_settings().database].in_atomic_block:
            raise WorkflowError(
                f"wait() for run {self.id} was called inside transaction.atomic(): the run starts when the transaction "
                "commits, so it would wait for ever. Wait after the block; in a TestCase, call run_workflows() of "
                "django_workflow.testing first."
            )


def _run_model() -> Any:
    return apps.get_model("django_workflow", "Run")


def _pauses(timeout: float | None) -> Iterator[float]:
    """Growing pauses between two looks, up to the timeout."""
    deadline = None if timeout is None else time.monotonic() + timeout
    pause = FIRST_PAUSE_SECONDS
    while deadline is None or (left := deadline - time.monotonic()) > 0:
        yield pause if deadline is None else min(pause, left)
        pause = min(pause * 1.5, LONGEST_PAUSE_SECONDS)
