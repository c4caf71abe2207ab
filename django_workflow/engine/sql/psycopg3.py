"""A cursor of psycopg 3 whose statements are prepared on the server at their first execution."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import psycopg
from psycopg import errors

NEVER = 2**31
"""So often has a statement that is not ours to be executed before it is prepared too."""

FIRST_PLANS, LONGEST_PLANS = 32, 4096
"""Executions for which the server's plans are kept: twice as many from time to time. Those that were made while a table
was small read all of it for ever; statistics, by which the server finds out, come a minute later at best."""

logger = logging.getLogger("django_workflow.engine")


@dataclass(slots=True)
class _Plans:
    """Of one connection."""

    executions: int = 0
    until: int = FIRST_PLANS

    def are_old(self) -> bool:
        """Count an execution. True: plan anew."""
        self.executions += 1
        if self.executions < self.until:
            return False
        self.until += min(self.executions, LONGEST_PLANS)
        return True


_plans: WeakKeyDictionary[Any, _Plans] = WeakKeyDictionary()


class PreparingCursor(psycopg.Cursor[Any]):
    """Of a connection of the database `alias`."""

    connections: ClassVar[type[Any]] = psycopg.Connection
    pooled: ClassVar[set[str]] = set()
    """Databases whose statements went to another session than the one that prepared them: nothing is prepared there."""

    def __init__(self, connection: Any, alias: str) -> None:
        super().__init__(connection)
        self._alias = alias
        self._plans = _plans.get(connection) or _plans.setdefault(connection, _Plans())
        if connection.prepare_threshold is None:  # as Django sets it: nothing is prepared then, whoever asks for it
            connection.prepare_threshold = NEVER

    def execute(self, query: Any, params: Any = None, **options: Any) -> PreparingCursor:
        """Execute a statement. Raises psycopg's errors; OperationalError too where another connection mends it: when a
        column has got another type since (a migration beside a worker), and when connections are pooled by transaction.
        """
        if self._plans.are_old():
            super().execute("DEALLOCATE ALL")  # as psycopg does by itself after each rollback
        try:
            super().execute(query, params, prepare=True, **options)
        except errors.FeatureNotSupported as error:
            raise psycopg.OperationalError(*error.args) from error
        except (errors.InvalidSqlStatementName, errors.DuplicatePreparedStatement) as error:
            if self._alias not in self.pooled:
                self.pooled.add(self._alias)
                logger.warning(
                    "The connections of database %r are pooled by transaction (%s), so no statement is prepared there "
                    "from now on. Set DISABLE_SERVER_SIDE_CURSORS in DATABASES, as Django needs it too.",
                    self._alias,
                    error,
                )
            raise psycopg.OperationalError(*error.args) from error
        # Where Django looks for what was executed (DEBUG, `connection.queries`): psycopg leaves it empty here.
        self._query: Any = SimpleNamespace(query=query.encode())
        return self
