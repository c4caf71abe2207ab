"""A cursor of psycopg 3 whose statements are prepared on the server at their first execution."""

from __future__ import annotations

from typing import Any, ClassVar

import psycopg


class PreparingCursor(psycopg.Cursor[Any]):
    connections: ClassVar[type[Any]] = psycopg.Connection

    def execute(self, query: Any, params: Any = None, **options: Any) -> PreparingCursor:
        return super().execute(query, params, prepare=True, **options)
