"""The texts of the hot statements that SQLite and PostgreSQL have in common: made once for each shape of change."""

from __future__ import annotations

from collections.abc import Sequence

from django.db.backends.base.base import BaseDatabaseWrapper

from django_workflow.engine.sql.changes import Change


def on_conflict(connection: BaseDatabaseWrapper, change: Change) -> str:
    """What an INSERT does with rows that are there already; empty when there are none."""
    if not change.updates:
        return ""
    unique = change.table.columns(connection, change.unique)
    names = (change.table.column(connection, name) for name in change.updates)
    sets = ", ".join(f"{name} = excluded.{name}" for name in names)
    return f" ON CONFLICT ({unique}) DO UPDATE SET {sets}"


def assignments(connection: BaseDatabaseWrapper, change: Change, values: Sequence[str]) -> str:
    """The SET of an UPDATE; the last of its names is the key."""
    names = (change.table.column(connection, name) for name in change.names[:-1])
    return ", ".join(f"{name} = {value}" for name, value in zip(names, values, strict=False))
