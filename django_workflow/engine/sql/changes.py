"""What a unit of work hands to the hot statements, and what it gets from them: plain rows, no model instances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any
from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Field, Model
from django.db.models.fields import AutoFieldMixin

Row = tuple[Any, ...]

RUN_COLUMNS = ("id", "run_id", "status", "group_open", "started_at", "parent_id", "why")
"""What is read of a run together with its lock: see `run_state.RunState`."""


class Table:
    """A model's table. `names` are its columns as attributes of the model, without a key that the database makes."""

    def __init__(self, model: type[Model]) -> None:
        self.model = model

    @cached_property
    def fields(self) -> dict[str, Field[Any, Any]]:
        concrete: Sequence[Any] = self.model._meta.concrete_fields
        return {field.attname: field for field in concrete if not isinstance(field, AutoFieldMixin)}

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(self.fields)

    @cached_property
    def defaults(self) -> dict[str, Any]:
        """What columns hold that nobody gives a value. Keys and the like, whose default is a function, must get one."""
        made = {name for name, field in self.fields.items() if field.has_default() and callable(field.default)}
        return {name: None if name in made else field.get_default() for name, field in self.fields.items()}

    def row(self, instance: Model) -> Row:
        values = instance.__dict__
        return tuple([values[name] for name in self.names])

    def quoted(self, connection: BaseDatabaseWrapper) -> str:
        return connection.ops.quote_name(self.model._meta.db_table)

    def column(self, connection: BaseDatabaseWrapper, name: str) -> str:
        column = self.fields[name].column
        assert column is not None
        return connection.ops.quote_name(column)

    def columns(self, connection: BaseDatabaseWrapper, names: Sequence[str]) -> str:
        return ", ".join(self.column(connection, name) for name in names)


class Kind(Enum):
    INSERT = "insert"
    UPSERT = "upsert"
    UPDATE = "update"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Change:
    """Rows that are written alike. `names` says what stands in each.

    An UPDATE's rows end with the key of the row to change; a DELETE's hold the key alone. An UPSERT inserts all of
    the table's columns, and of a row that is there already (by `unique`) it sets `updates`.
    """

    kind: Kind
    table: Table
    names: tuple[str, ...]
    rows: list[Row]
    unique: tuple[str, ...] = ()
    updates: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[object, ...]:
        """What its statement depends on."""
        return (self.kind, self.table.model, self.names, self.updates)


@dataclass(frozen=True, slots=True)
class Held:
    """A delivery as it stands, and its run: `RUN_COLUMNS`. `newest` None: not read."""

    key: UUID
    fence: int
    worker_key: UUID | None
    run: Row
    newest: int | None


def inserts(table: Table, rows: list[Row]) -> list[Change]:
    return [Change(Kind.INSERT, table, table.names, list(rows))] if rows else []


def updates(table: Table, said: dict[UUID, dict[str, Any]]) -> list[Change]:
    """One change for each set of columns that are set together."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for key, values in said.items():
        groups.setdefault((*values, "id"), []).append((*values.values(), key))
    return [Change(Kind.UPDATE, table, names, rows) for names, rows in groups.items()]


def deletes(table: Table, keys: list[UUID]) -> list[Change]:
    return [Change(Kind.DELETE, table, ("id",), [(key,) for key in keys])] if keys else []
