"""How large tables and indexes are on PostgreSQL, at 1 and 10 million rows: `python -m tests.benchmarks.sizes`.

The rows are copies of those that a finished run of 10 steps and a sleeping run left behind, so that they are as long as
real ones. Each table is filled alone, as its rows come in real life (keys ascend), and emptied again.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

from django.db import connection

from tests.benchmarks.figures import row
from tests.benchmarks.places import place, wait_for
from tests.benchmarks.sleepers import a_sleeping_run

COUNTS, STEPS = (1_000_000, 10_000_000), 10


def main(counts: Sequence[int]) -> None:
    with place() as found:
        from django_workflow.models import ChannelEvent, Delivery, JournalEntry, Run, Step

        sleeping, finished = a_sleeping_run(), a_finished_run()
        found.worker.drain()  # type: ignore[attr-defined]
        for model, run in (
            (Delivery, sleeping),
            (JournalEntry, finished),
            (Step, finished),
            (ChannelEvent, finished),
            (Run, sleeping),
        ):
            measure(model, run, counts)


def a_finished_run() -> Any:
    from django_workflow.models import Run
    from tests.benchmarks.workflows import sequence

    handle = sequence.trigger(STEPS)
    wait_for(lambda: Run.objects.filter(run_id=handle.id, status=Run.Status.SUCCESS).exists(), "a run that is over")
    return handle.run


def measure(model: Any, run: Any, counts: Sequence[int]) -> None:
    from tests.benchmarks.copies import copy_rows

    table, made = model._meta.db_table, 0
    for count in counts:
        started = time.monotonic()
        copy_rows(model, run, count - made, first=made + 1)
        made = count
        print(f"# {table}: {count} rows after {time.monotonic() - started:.0f} s more", flush=True)
        sizes = {name: size / 2**20 for name, size in sizes_of(table)}
        indexes = {name: round(size) for name, size in sizes.items() if name != table}
        title = f"{table.removeprefix('django_workflow_')} at {count} rows"
        row(f"{title}, table", sizes[table], "MiB", bytes_per_row=round(sizes[table] * 2**20 / count))
        row(f"{title}, indexes", sum(indexes.values()), "MiB", **indexes)
    with connection.cursor() as cursor:
        cursor.execute(f'TRUNCATE "{table}" CASCADE')


def sizes_of(table: str) -> list[tuple[str, int]]:
    """The table with what it keeps out of line, and each of its indexes, in bytes."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT %s, pg_table_size(%s::regclass) UNION ALL "
            "SELECT indexrelid::regclass::text, pg_relation_size(indexrelid) "
            "FROM pg_index WHERE indrelid = %s::regclass",
            [table, table, table],
        )
        return [(name, size) for name, size in cursor.fetchall()]


if __name__ == "__main__":
    main([int(argument) for argument in sys.argv[1:]] or COUNTS)
