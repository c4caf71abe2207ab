"""PostgreSQL: one statement reads and locks, one writes everything. Their rows travel as one JSON text for each table.

What a transaction costs there is its round trips. Both statements are prepared once for each shape of a batch, unless
the project says that its connections are pooled by transaction (`DISABLE_SERVER_SIDE_CURSORS`).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any
from uuid import UUID

import msgspec
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import CharField

from django_workflow.engine.records import Lease
from django_workflow.engine.sql.changes import RUN_COLUMNS, Change, Held, Kind, Row, Table
from django_workflow.engine.sql.prepared import assignments, on_conflict
from django_workflow.models import ChannelEvent, Delivery, Run

_encode = msgspec.json.Encoder().encode


class Statements:
    def __init__(self, alias: str) -> None:
        self._alias = alias
        self._parts: dict[tuple[object, ...], str] = {}
        self._texts: dict[tuple[tuple[object, ...], ...], str] = {}
        self._read_texts: dict[bool, str] = {}

    def read(self, leases: Sequence[Lease]) -> list[Held]:
        connection = connections[self._alias]
        # One has a text of its own: of an array the server expects ten, and would rather plan each time than that.
        is_one = len(leases) == 1
        text = self._read_texts.get(is_one) or self._read_texts.setdefault(is_one, _read_text(connection, is_one))
        with _cursor(connection) as cursor:
            cursor.execute(text, [leases[0].key.hex if is_one else _array([lease.key for lease in leases])])
            rows = cursor.fetchall()
        return [Held(row[0], row[1], row[2], row[3:], None) for row in rows]

    def lock(self, keys: Sequence[UUID], *, skip_locked: bool) -> list[tuple[Row, int | None]]:
        connection = connections[self._alias]
        columns = ", ".join(f"r.{_RUN.column(connection, name)}" for name in RUN_COLUMNS)
        text = (
            f"SELECT {columns} FROM {_RUN.quoted(connection)} r WHERE r.id = ANY(%s::uuid[])"
            f" ORDER BY r.id FOR NO KEY UPDATE{' SKIP LOCKED' if skip_locked else ''}"
        )
        with _cursor(connection) as cursor:
            cursor.execute(text, [_array(keys)])
            return [(row, None) for row in cursor.fetchall()]

    def write(self, changes: Sequence[Change]) -> dict[str, int]:
        if not changes:
            return {}
        connection = connections[self._alias]
        shapes = tuple([change.shape for change in changes])
        text = self._texts.get(shapes)
        if text is None:
            text = self._texts[shapes] = self._text(connection, changes)
        with _cursor(connection) as cursor:
            cursor.execute(text, [_rows(change) for change in changes])
            return dict(cursor.fetchall())

    def _text(self, connection: BaseDatabaseWrapper, changes: Sequence[Change]) -> str:
        parts = []
        newest = "SELECT NULL::text, NULL::bigint WHERE false"
        for number, change in enumerate(changes):
            is_events = change.table.model is ChannelEvent
            part = _events_text(connection, change) if is_events else _part(connection, change)
            parts.append(f"c{number} AS ({part})")
            if is_events:
                newest = f"SELECT channel, max(position) FROM c{number} GROUP BY channel"
        return f"WITH {', '.join(parts)} {newest}"


def _cursor(connection: BaseDatabaseWrapper) -> AbstractContextManager[Any]:
    """A cursor that prepares its statements on the server, still watched by Django (logs, wrappers, errors)."""
    try:
        from django_workflow.engine.sql.psycopg3 import PreparingCursor
    except ImportError:  # psycopg 2 prepares nothing
        return connection.cursor()
    connection.ensure_connection()
    pooled = connection.settings_dict.get("DISABLE_SERVER_SIDE_CURSORS") or connection.alias in PreparingCursor.pooled
    if pooled or not isinstance(connection.connection, PreparingCursor.connections):
        return connection.cursor()
    watched: AbstractContextManager[Any] = connection._prepare_cursor(  # type: ignore[attr-defined]
        PreparingCursor(connection.connection, connection.alias)
    )
    return watched


def _array(keys: Sequence[UUID]) -> str:
    return f"{{{','.join([key.hex for key in keys])}}}"


def _rows(change: Change) -> str:
    names = [f"c{index}" for index in range(len(change.names))]
    return _encode([dict(zip(names, row, strict=True)) for row in change.rows]).decode()


def _recordset(connection: BaseDatabaseWrapper, change: Change) -> str:
    """The rows of a change as a table `x` with columns c0, c1 …"""
    columns = (f"c{index} {_type(connection, change.table, name)}" for index, name in enumerate(change.names))
    return f"json_to_recordset(%s::json) AS x({', '.join(columns)})"


def _type(connection: BaseDatabaseWrapper, table: Table, name: str) -> str:
    field: Any = table.fields[name]
    # A cast to varchar(n) would cut the text; assigned to the column, one too long is refused.
    if isinstance(field, CharField):
        return "text"
    return str(field.db_type(connection)).split(" COLLATE")[0]


def _part(connection: BaseDatabaseWrapper, change: Change) -> str:
    table, recordset = change.table.quoted(connection), _recordset(connection, change)
    values = [f"x.c{index}" for index in range(len(change.names))]
    key = change.table.column(connection, change.names[-1])
    if change.kind is Kind.DELETE:
        return f"DELETE FROM {table} USING {recordset} WHERE {table}.{key} = x.c0"
    if change.kind is Kind.UPDATE:
        sets = assignments(connection, change, values)
        return f"UPDATE {table} SET {sets} FROM {recordset} WHERE {table}.{key} = {values[-1]}"
    columns = change.table.columns(connection, change.names)
    selected = ", ".join(values)
    return f"INSERT INTO {table} ({columns}) SELECT {selected} FROM {recordset}{on_conflict(connection, change)}"


def _events_text(connection: BaseDatabaseWrapper, change: Change) -> str:
    """Events whose channel has newer ones already are moved up behind those, in their order.

    The run is locked, and this statement's snapshot is younger than that lock: no event of others is missed.
    """
    table, recordset = change.table.quoted(connection), _recordset(connection, change)
    columns = change.table.columns(connection, change.names)
    at = {name: f"x.c{index}" for index, name in enumerate(change.names)}
    channel, position = at["channel"], at["position"]
    newest = f"(SELECT e.position FROM {table} e WHERE e.channel = {channel} ORDER BY e.position DESC LIMIT 1)"
    first = f"min({position}) OVER (PARTITION BY {channel})"
    values = {**at, "position": f"{position} + GREATEST(0, COALESCE({newest}, 0) + 1 - {first})"}
    selected = ", ".join(values[name] for name in change.names)
    return f"INSERT INTO {table} ({columns}) SELECT {selected} FROM {recordset} RETURNING channel, position"


_DELIVERY, _RUN = Table(Delivery), Table(Run)


def _read_text(connection: BaseDatabaseWrapper, is_one: bool) -> str:
    run_columns = ", ".join(f"r.{_RUN.column(connection, name)}" for name in RUN_COLUMNS)
    return (
        f"SELECT d.id, d.fence, d.worker_id, {run_columns}"
        f" FROM {_DELIVERY.quoted(connection)} d JOIN {_RUN.quoted(connection)} r ON r.id = d.run_id"
        f" WHERE d.id = {'%s::uuid' if is_one else 'ANY(%s::uuid[])'}"
        " ORDER BY r.id FOR NO KEY UPDATE OF r, d SKIP LOCKED"
    )
