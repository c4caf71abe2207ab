"""The hot path's statements, one module per database: what every step of every run reads and writes.

A unit of work hands over `Change`s, plain rows that were made before; here they become as few statements as the
database allows. All other statements of the engine are the ORM's.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Protocol
from uuid import UUID

from django.db import connections

from django_workflow.engine.records import Lease
from django_workflow.engine.sql import orm, postgresql, sqlite
from django_workflow.engine.sql.changes import Change, Held, Row, Table

__all__ = ["Change", "Held", "HotStatements", "Table", "hot_statements"]


class HotStatements(Protocol):
    """The statements of one database; all of them run inside a transaction that the caller has begun."""

    def read(self, leases: Sequence[Lease]) -> list[Held]:
        """Lock the deliveries of these leases and their runs; those that are gone or locked by others are left out."""

    def lock(self, keys: Sequence[UUID], *, skip_locked: bool) -> list[tuple[Row, int | None]]:
        """Lock these runs in the order of their keys: `RUN_COLUMNS` of each, and the newest position of its channel.

        A position of None was not read. Left out are runs that are gone, and with `skip_locked` those that others hold.
        """

    def write(self, changes: Sequence[Change]) -> dict[str, int]:
        """Write the changes; their order counts only for kinds of rows that point at each other.

        Events get positions above the newest one of their channel where `read` or `lock` did not tell it; the answer
        has the newest position of each such channel.
        """


@cache
def hot_statements(alias: str) -> HotStatements:
    vendor = connections[alias].vendor
    if vendor == "sqlite":
        return sqlite.Statements(alias)
    if vendor == "postgresql":
        return postgresql.Statements(alias)
    return orm.Statements(alias)
