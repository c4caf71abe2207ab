"""Logs of runs, as calls of the client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

from django_workflow.client.filters import LogFilters, request_fields
from django_workflow.protocol.requests import FetchRunLogs
from django_workflow.protocol.resources import RunLogs

if TYPE_CHECKING:
    from django_workflow.client.transports import Transport


class LogCalls:
    """A part of `Client`."""

    __slots__ = ()

    transport: Transport

    def logs(
        self,
        *,
        count: int | None = None,
        cursor: str | None = None,
        trim_body: int | None = None,
        **filters: Unpack[LogFilters],
    ) -> RunLogs:
        """Runs with all their steps, the newest first: at most 10, and a cursor for the next ones.

        `trim_body` cuts bodies to so many bytes; -1 leaves them out.
        """
        return self.transport.send(
            FetchRunLogs(count=count, cursor=cursor, trim_body=trim_body, **request_fields(filters))
        )

    async def alogs(
        self,
        *,
        count: int | None = None,
        cursor: str | None = None,
        trim_body: int | None = None,
        **filters: Unpack[LogFilters],
    ) -> RunLogs:
        return await self.transport.asend(
            FetchRunLogs(count=count, cursor=cursor, trim_body=trim_body, **request_fields(filters))
        )
