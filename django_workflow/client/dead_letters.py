"""Failed runs, as calls of the client: listed, resumed, restarted, forgotten, and their failure functions run again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Unpack

from django_workflow.client.filters import DeadLetterFilters, Texts, request_fields
from django_workflow.protocol.requests import (
    NO_OVERRIDES,
    CancelFailureCallback,
    DeleteDeadLetters,
    FetchDeadLetter,
    FetchDeadLetters,
    RerunFailureCallback,
    RestartRuns,
    ResumeRuns,
    RunOverrides,
)
from django_workflow.protocol.resources import Deleted, RunDeadLetter, RunDeadLetters, StartedRun, StartedRuns

if TYPE_CHECKING:
    from django_workflow.client.transports import Transport


class DeadLetterCalls:
    """A part of `Client`. What acts on dead letters takes their ids, filters, or `everything=True`."""

    __slots__ = ()

    transport: Transport

    def dead_letters(
        self, *, count: int | None = None, cursor: str | None = None, **filters: Unpack[DeadLetterFilters]
    ) -> RunDeadLetters:
        """Failed runs, the newest first: at most 100, and a cursor for the next ones."""
        return self.transport.send(FetchDeadLetters(count=count, cursor=cursor, **request_fields(filters)))

    async def adead_letters(
        self, *, count: int | None = None, cursor: str | None = None, **filters: Unpack[DeadLetterFilters]
    ) -> RunDeadLetters:
        return await self.transport.asend(FetchDeadLetters(count=count, cursor=cursor, **request_fields(filters)))

    def dead_letter(self, dlq_id: str) -> RunDeadLetter:
        """One failed run. Raises EngineError with status 404 when there is no such dead letter."""
        return self.transport.send(FetchDeadLetter(dlq_id=dlq_id))

    async def adead_letter(self, dlq_id: str) -> RunDeadLetter:
        return await self.transport.asend(FetchDeadLetter(dlq_id=dlq_id))

    def resume(
        self,
        dlq_ids: Texts | None = None,
        *,
        everything: bool = False,
        count: int | None = None,
        cursor: str | None = None,
        overrides: RunOverrides = NO_OVERRIDES,
        **filters: Unpack[DeadLetterFilters],
    ) -> StartedRuns:
        """Go on with failed runs where they failed: each becomes a new run that has its finished steps.

        At most 50 at once; the answer's cursor asks for more. An unknown id is an EngineError with status 404, after
        which none was resumed.
        """
        fields = _chosen(dlq_ids, everything, count, cursor, filters)
        return NONE if fields is None else self.transport.send(ResumeRuns(overrides=overrides, **fields))

    async def aresume(
        self,
        dlq_ids: Texts | None = None,
        *,
        everything: bool = False,
        count: int | None = None,
        cursor: str | None = None,
        overrides: RunOverrides = NO_OVERRIDES,
        **filters: Unpack[DeadLetterFilters],
    ) -> StartedRuns:
        fields = _chosen(dlq_ids, everything, count, cursor, filters)
        return NONE if fields is None else await self.transport.asend(ResumeRuns(overrides=overrides, **fields))

    def restart(
        self,
        dlq_ids: Texts | None = None,
        *,
        everything: bool = False,
        count: int | None = None,
        cursor: str | None = None,
        overrides: RunOverrides = NO_OVERRIDES,
        **filters: Unpack[DeadLetterFilters],
    ) -> StartedRuns:
        """Begin failed runs anew with the same payload, each as a new run; else as `resume`."""
        fields = _chosen(dlq_ids, everything, count, cursor, filters)
        return NONE if fields is None else self.transport.send(RestartRuns(overrides=overrides, **fields))

    async def arestart(
        self,
        dlq_ids: Texts | None = None,
        *,
        everything: bool = False,
        count: int | None = None,
        cursor: str | None = None,
        overrides: RunOverrides = NO_OVERRIDES,
        **filters: Unpack[DeadLetterFilters],
    ) -> StartedRuns:
        fields = _chosen(dlq_ids, everything, count, cursor, filters)
        return NONE if fields is None else await self.transport.asend(RestartRuns(overrides=overrides, **fields))

    def delete_dead_letters(
        self,
        dlq_ids: Texts | None = None,
        *,
        everything: bool = False,
        count: int | None = None,
        cursor: str | None = None,
        **filters: Unpack[DeadLetterFilters],
    ) -> Deleted:
        """Forget dead letters: their runs stay, but cannot be started again. Unknown ids are passed over."""
        fields = _chosen(dlq_ids, everything, count, cursor, filters)
        return Deleted(deleted=0) if fields is None else self.transport.send(DeleteDeadLetters(**fields))

    async def adelete_dead_letters(
        self,
        dlq_ids: Texts | None = None,
        *,
        everything: bool = False,
        count: int | None = None,
        cursor: str | None = None,
        **filters: Unpack[DeadLetterFilters],
    ) -> Deleted:
        fields = _chosen(dlq_ids, everything, count, cursor, filters)
        return Deleted(deleted=0) if fields is None else await self.transport.asend(DeleteDeadLetters(**fields))

    def rerun_failure_function(self, dlq_id: str) -> StartedRun:
        """Call a failed run's failure function again, which must have failed; gives the run."""
        return self.transport.send(RerunFailureCallback(dlq_id=dlq_id))

    async def arerun_failure_function(self, dlq_id: str) -> StartedRun:
        return await self.transport.asend(RerunFailureCallback(dlq_id=dlq_id))

    def cancel_failure_function(self, dlq_id: str) -> None:
        """Stop the calls of a failed run's failure function, which must be in progress."""
        self.transport.send(CancelFailureCallback(dlq_id=dlq_id))

    async def acancel_failure_function(self, dlq_id: str) -> None:
        await self.transport.asend(CancelFailureCallback(dlq_id=dlq_id))


NONE = StartedRuns(workflow_runs=())


def _chosen(
    dlq_ids: Texts | None, everything: bool, count: int | None, cursor: str | None, filters: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The request's fields that say which dead letters; None when a list of ids is empty: then there is nothing to ask.

    Raises ValueError when nothing says which, and for ids beside filters, which engines would pass over.
    """
    fields = request_fields(filters)
    if dlq_ids is not None:
        ids = (dlq_ids,) if isinstance(dlq_ids, str) else tuple(dlq_ids)
        if fields or everything:
            raise ValueError("Name dead letters by their ids or by filters, not by both.")
        if not all(ids):
            raise ValueError("An id of a dead letter is empty.")
        return {"dlq_ids": ids} if ids else None
    if not fields and not everything:
        raise ValueError("Nothing says which dead letters are meant: give ids, a filter, or everything=True.")
    return fields | {"count": count, "cursor": cursor}
