"""SQLite: one prepared statement for each kind of row, run once per row. One writer: what is read stays true."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
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

    def read(self, leases: Sequence[Lease]) -> list[Held]:
        held = []
        for start in range(0, len(leases), MOST_AT_ONCE):
            held += self._read(leases[start : start + MOST_AT_ONCE])
        return held

    def _read(self, leases: Sequence[Lease]) -> list[Held]:
        connection = connections[self._alias]
        by_key = {lease.key.hex: lease for lease in leases}
        # A power of two, the rest NULL: few texts, each of them prepared once.
        size = 1 << (len(by_key) - 1).bit_length()
        if size not in self._read_texts:
            self._read_texts[size] = _read_text(connection, size)
        keys: list[str | None] = [*by_key, *[None] * (size - len(by_key))]
        with connection.cursor() as cursor:
            rows = cursor.execute(self._read_texts[size], keys).fetchall()
        return [_held(connection, by_key[row[0]], row) for row in rows]

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
        if isinstance(field, ForeignKey):
            field = field.target_field
        if isinstance(field, UUIDField):
            found.append((index, _hex))
        elif isinstance(field, DateTimeField):
            own_zone = connection.timezone is not None and connection.timezone is not UTC
            found.append((index, connection.ops.adapt_datetimefield_value if own_zone else _instant))
    return found


def _hex(key: UUID) -> str:
    return f"{key.int:032x}"


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
    run_columns = ", ".join(f"r.{_RUN.column(connection, name)}" for name in RUN_COLUMNS)
    return (
        f"SELECT d.id, d.fence, d.worker_id, {run_columns},"
        f" (SELECT e.position FROM {_EVENT.quoted(connection)} e WHERE e.channel = r.run_id"
        " ORDER BY e.position DESC LIMIT 1)"
        f" FROM {_DELIVERY.quoted(connection)} d JOIN {_RUN.quoted(connection)} r ON r.id = d.run_id"
        f" WHERE d.id IN ({', '.join(['%s'] * size)})"
    )


def _held(connection: BaseDatabaseWrapper, lease: Lease, row: Row) -> Held:
    _, fence, worker, key, run_id, status, group_open, started_at, parent, why, newest = row
    run = (UUID(key), run_id, status, group_open, _aware(connection, started_at), parent and UUID(parent), why)
    return Held(lease.key, fence, lease.worker_key if worker == lease.worker_key.hex else None, run, newest or 0)


def _aware(connection: BaseDatabaseWrapper, at: datetime | None) -> datetime | None:
    # Django's own converter of the connection has made it a datetime, in the connection's zone.
    return None if at is None else at.replace(tzinfo=connection.timezone or UTC)
