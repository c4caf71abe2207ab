"""A cursor of psycopg 3 whose statements are prepared on the server at their first execution."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, ClassVar

import psycopg

NEVER = 2**31
"""So often has a statement that is not ours to be executed before it is prepared too."""


class PreparingCursor(psycopg.Cursor[Any]):
    connections: ClassVar[type[Any]] = psycopg.Connection

    def __init__(self, connection: Any) -> None:
        super().__init__(connection)
        if connection.prepare_threshold is None:  # as Django sets it: nothing is prepared then, whoever asks for it
            connection.prepare_threshold = NEVER

    def execute(self, query: Any, params: Any = None, **options: Any) -> PreparingCursor:
        """Execute a statement. Raises psycopg's errors; OperationalError too when a column that it reads has got
        another type since it was prepared (a migration beside a worker), which another connection mends."""
        try:
            super().execute(query, params, prepare=True, **options)
        except psycopg.errors.FeatureNotSupported as error:
            raise psycopg.OperationalError(*error.args) from error
        # Where Django looks for what was executed (DEBUG, `connection.queries`): psycopg leaves it empty here.
        self._query: Any = SimpleNamespace(query=query.encode())
        return self
