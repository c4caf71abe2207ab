"""SQLite: one prepared statement for each kind of row, run once per row. One writer: what is read stays true."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import DateTimeField, ForeignKey, UUIDField

from django_workflow.engine.records import Lease
from django_workflow.engine.sql.changes import RUN_COLUMNS, Change, Held, Kind, Row, Table
from django_workflow.engine.sql.prepared import assignments, on_conflict
from django_workflow.models import ChannelEvent, Delivery, Run

MOST_AT_ONCE = 512
"""Parameters of one read: SQLite takes 999 of them in its oldest builds."""

Adapt = Callable[[Any], Any]


class Statements:
    def __init__(self, alias: str) -> None:
        self._alias = alias
        self._texts: dict[tuple[object, ...], str] = {}
        self._adapters: dict[tuple[object, ...], list[tuple[int, Adapt]]] = {}
        self._read_texts: dict[int, str] = {}
        self._lock_texts: dict[int, str] = {}

    def read(self, leases: Sequence[Lease]) -> list[Held]:
        held = []
        for start in range(0, len(leases), MOST_AT_ONCE):
            held += self._read(leases[start : start + MOST_AT_ONCE])
        return held

    def _read(self, leases: Sequence[Lease]) -> list[Held]:
        connection = connections[self._alias]
        by_key = {lease.key.hex: lease for lease in leases}
        rows = _rows_of(connection, list(by_key), self._read_texts, _read_text)
        return [_held(connection, by_key[row[0]], row) for row in rows]

    def lock(self, keys: Sequence[UUID], *, skip_locked: bool) -> list[tuple[Row, int | None]]:
        connection, found = connections[self._alias], []
        for start in range(0, len(keys), MOST_AT_ONCE):
            some = [key.hex for key in keys[start : start + MOST_AT_ONCE]]
            found += _rows_of(connection, some, self._lock_texts, _lock_text)
        return [(_run(connection, row[:-1]), row[-1] or 0) for row in found]

    def write(self, changes: Sequence[Change]) -> dict[str, int]:
        connection = connections[self._alias]
        with connection.cursor() as cursor:
            for change in changes:
                shape = change.shape
                if shape not in self._texts:
                    self._texts[shape] = _text(connection, change)
                    self._adapters[shape] = _adapters(connection, change.table, change.names)
                cursor.executemany(self._texts[shape], _adapted(change.rows, self._adapters[shape]))
        return {}


def _rows_of(
    connection: BaseDatabaseWrapper,
    keys: list[str],
    texts: dict[int, str],
    make: Callable[[BaseDatabaseWrapper, int], str],
) -> list[Row]:
    """What a statement finds for these keys. It has a power of two of them, the rest NULL: few texts, each prepared
    once."""
    if not keys:
        return []
    size = 1 << (len(keys) - 1).bit_length()
    if size not in texts:
        texts[size] = make(connection, size)
    with connection.cursor() as cursor:
        rows: list[Row] = cursor.execute(texts[size], [*keys, *[None] * (size - len(keys))]).fetchall()
    return rows


def _adapted(rows: list[Row], adapters: list[tuple[int, Adapt]]) -> list[Any]:
    adapted = []
    for row in rows:
        values = list(row)
        for index, adapt in adapters:
            value = values[index]
            if value is not None:
                values[index] = adapt(value)
        adapted.append(values)
    return adapted


def _adapters(connection: BaseDatabaseWrapper, table: Table, names: Sequence[str]) -> list[tuple[int, Adapt]]:
    """How the columns become what SQLite keeps, as the ORM does it: keys as hex digits, instants as text."""
    found: list[tuple[int, Adapt]] = []
    for index, name in enumerate(names):
        field: Any = table.fields[name]
        while isinstance(field, ForeignKey):  # a user's key may itself be that of another model
            field = field.target_field
        if isinstance(field, UUIDField):
            found.append((index, _hex))
        elif isinstance(field, DateTimeField):
            own_zone = connection.timezone is not None and connection.timezone is not UTC
            found.append((index, connection.ops.adapt_datetimefield_value if own_zone else _instant))
    return found


def _hex(key: UUID) -> str:
    return f"{key.int:032x}"


@lru_cache(maxsize=1024)  # the rows of a transaction share a few instants
def _instant(at: datetime) -> str:
    if at.tzinfo is not UTC:
        at = at.astimezone(UTC)
    return at.isoformat(" ")[: -len("+00:00")]


def _text(connection: BaseDatabaseWrapper, change: Change) -> str:
    table = change.table.quoted(connection)
    if change.kind is Kind.DELETE:
        return f"DELETE FROM {table} WHERE {change.table.column(connection, change.names[0])} = %s"
    if change.kind is Kind.UPDATE:
        sets = assignments(connection, change, ["%s"] * (len(change.names) - 1))
        return f"UPDATE {table} SET {sets} WHERE {change.table.column(connection, change.names[-1])} = %s"
    columns = change.table.columns(connection, change.names)
    marks = ", ".join(["%s"] * len(change.names))
    return f"INSERT INTO {table} ({columns}) VALUES ({marks}){on_conflict(connection, change)}"


_DELIVERY, _RUN, _EVENT = Table(Delivery), Table(Run), Table(ChannelEvent)


def _read_text(connection: BaseDatabaseWrapper, size: int) -> str:
    return (
        f"SELECT d.id, d.fence, d.worker_id, {_run_columns(connection)}"
        f" FROM {_DELIVERY.quoted(connection)} d JOIN {_RUN.quoted(connection)} r ON r.id = d.run_id"
        f" WHERE d.id IN ({', '.join(['%s'] * size)})"
    )


def _lock_text(connection: BaseDatabaseWrapper, size: int) -> str:
    return (
        f"SELECT {_run_columns(connection)} FROM {_RUN.quoted(connection)} r"
        f" WHERE r.id IN ({', '.join(['%s'] * size)}) ORDER BY r.id"
    )


def _run_columns(connection: BaseDatabaseWrapper) -> str:
    """`RUN_COLUMNS` of a run `r`, and the newest position of its channel."""
    columns = ", ".join(f"r.{_RUN.column(connection, name)}" for name in RUN_COLUMNS)
    return (
        f"{columns}, (SELECT e.position FROM {_EVENT.quoted(connection)} e WHERE e.channel = r.run_id"
        " ORDER BY e.position DESC LIMIT 1)"
    )


def _held(connection: BaseDatabaseWrapper, lease: Lease, row: Row) -> Held:
    _, fence, worker, *run, newest = row
    worker_key = lease.worker_key if worker == lease.worker_key.hex else None
    return Held(lease.key, fence, worker_key, _run(connection, run), newest or 0)


def _run(connection: BaseDatabaseWrapper, row: Sequence[Any]) -> Row:
    key, run_id, status, group_open, started_at, parent, why = row
    return UUID(key), run_id, status, group_open, _aware(connection, started_at), parent and UUID(parent), why


def _aware(connection: BaseDatabaseWrapper, at: datetime | None) -> datetime | None:
    # Django's own converter of the connection has made it a datetime, in the connection's zone.
    return None if at is None else at.replace(tzinfo=connection.timezone or UTC)
