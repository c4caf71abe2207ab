"""Many rows quickly, on PostgreSQL: what one run left behind, copied by the database itself.

The copies differ in what is unique (keys and ids, which ascend as those of real runs do), and in their instants, one
after another; sizes and plans are then those of as many real runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db import connection, models, transaction

from django_workflow.models import ChannelEvent, Delivery, JournalEntry, Run, Step
from django_workflow.models.waiter import Waiter

TABLES: tuple[type[models.Model], ...] = (Run, JournalEntry, Step, Delivery, Waiter, ChannelEvent)


def copy_rows(model: type[models.Model], run: Run, count: int, *, first: int = 1) -> None:
    """Copy a run's rows of one table until there are about `count` more. Other tables are left alone, whatever refers
    to them, so this needs a superuser."""
    rows = _rows(model, run)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")  # foreign keys are not looked after
        for index, row in enumerate(rows):
            _copy(model, row, index, count // len(rows), first)


def copy_run(run: Run, count: int, *, first: int = 1, tables: tuple[type[models.Model], ...] = TABLES) -> None:
    """Copy a run and its rows `count` times, as numbers `first` and on; their instants begin with its own, a
    millisecond apart."""
    with transaction.atomic():
        for model in tables:
            for index, row in enumerate(_rows(model, run)):
                _copy(model, row, index, count, first)


def analyze() -> None:
    """Tell the planner of the new rows, and clean up behind them as autovacuum would."""
    names = ", ".join(f'"{model._meta.db_table}"' for model in TABLES)
    with connection.cursor() as cursor:
        cursor.execute(f"VACUUM ANALYZE {names}")


def truncate() -> None:
    """Leave no runs. Deleting a million takes minutes: for each of them each table that may refer to it is asked."""
    with connection.cursor() as cursor:
        cursor.execute(f'TRUNCATE "{Run._meta.db_table}" CASCADE')


def _rows(model: type[models.Model], run: Run) -> list[models.Model]:
    rows = model._default_manager.all()
    if model is Run:
        return list(rows.filter(pk=run.pk))
    return list(rows.filter(channel=run.run_id) if model is ChannelEvent else rows.filter(run=run))


def _copy(model: type[models.Model], row: models.Model, index: int, count: int, first: int) -> None:
    instants = [field.column for field in model._meta.concrete_fields if isinstance(field, models.DateTimeField)]
    later = {name: f"row.\"{name}\" + number * interval '1 millisecond'" for name in instants}
    values = {**_unique(model, index), **later}
    names = [field.column for field in model._meta.concrete_fields if not _by_database(field)]
    quoted = ", ".join(f'"{name}"' for name in names)
    selected = ", ".join(values.get(name, f'row."{name}"') for name in names)
    table = model._meta.db_table
    statement = (
        f'INSERT INTO "{table}" ({quoted}) SELECT {selected} FROM "{table}" AS row, '
        f"generate_series(%s, %s) AS number WHERE row.id = %s"
    )
    with connection.cursor() as cursor:
        cursor.execute(statement, [first, first + count - 1, row.pk])


def _by_database(field: models.Field[Any, Any]) -> bool:
    return isinstance(field, models.BigAutoField)


def _unique(model: type[models.Model], index: int) -> Mapping[str, str]:
    """The columns that differ, as SQL over `number`."""
    run_id = "'wfr_' || lpad(number::text, 12, '0')"
    own = {"id": _key(index + 1), "message_key": _key(index + 1)}
    if model is Run:
        return {"id": _key(0), "run_id": run_id, "first_run_id": "NULL"}
    return {**own, "run_id": _key(0), "channel": run_id}


def _key(kind: int) -> str:
    """A UUIDv7 that ascends with the number; `kind` sets keys of several rows of one run apart."""
    digits = f"'019b0000' || lpad(to_hex(number / 65536), 4, '0') || '7{kind:03x}8000' || lpad(to_hex(number), 12, '0')"
    return f"({digits})::uuid"
