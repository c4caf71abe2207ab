"""The hot statements mean on every database what the ORM's do: each is compared with what the ORM then reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from typing import Any

import pytest
from django.db import IntegrityError, OperationalError, connection, transaction

from django_workflow.engine.sql import hot_statements
from django_workflow.engine.sql.changes import Change, Kind, Table
from django_workflow.engine.sql.orm import Statements as OrmStatements
from django_workflow.models import ChannelEvent, Delivery, JournalEntry, Run, Step
from django_workflow.models.channel_event import position_at
from django_workflow.protocol.identifiers import uuid7
from django_workflow.testing import WorkflowClock
from tests.engine.deliveries import Hand, start

pytestmark = pytest.mark.django_db

STEP, ENTRY, DELIVERY, EVENT, RUN = map(Table, (Step, JournalEntry, Delivery, ChannelEvent, Run))
TEXTS = (
    "",
    "x",
    "Grüße, 世界 🎉",
    "quotes \" ' and \\ and %s {} $1",
    "line\nbreak\ttab\r",
    "null",
    "  ends in blanks  ",
)
INSTANTS = (
    datetime(2026, 2, 28, 23, 59, 59, 999999, tzinfo=UTC),
    datetime(2026, 1, 1, tzinfo=UTC),  # no fraction of a second
    datetime(2026, 7, 1, 12, 0, 0, 5, tzinfo=timezone(timedelta(hours=5, minutes=30))),
)


@pytest.fixture
def hand(workflow_clock: WorkflowClock) -> Hand:
    return Hand(workflow_clock)


def write(*changes: Change) -> dict[str, int]:
    with transaction.atomic():
        return hot_statements("default").write(changes)


def step_row(run: Run, number: int, **values: Any) -> tuple[Any, ...]:
    row = {**STEP.defaults, "id": uuid7(), "run_id": run.pk, "step_id": number, "name": "n", "step_type": "Run"}
    return tuple({**row, "status": Step.Status.RUNNING, **values}.values())


def stored(row: Any, table: Table) -> dict[str, Any]:
    return {name: getattr(row, name) for name in table.names}


def test_inserted_rows_are_those_that_the_orm_would_have_written(hand: Hand) -> None:
    run = start()
    instances = [
        Step(
            run=run,
            step_id=number,
            name=text or "-",
            step_type="Run",
            status=Step.Status.SUCCESS,
            started_at=INSTANTS[number % 3],
            finished_at=None,
            position=number or None,
            preview=text,
            error=text,
        )
        for number, text in enumerate(TEXTS, 1)
    ]
    write(Change(Kind.INSERT, STEP, STEP.names, [STEP.row(row) for row in instances]))
    mine = list(Step.objects.filter(run=run).order_by("step_id").values())
    Step.objects.filter(run=run).delete()
    Step.objects.bulk_create(instances)
    assert mine == list(Step.objects.filter(run=run).order_by("step_id").values())


def test_what_is_written_is_found_by_the_orm(hand: Hand) -> None:
    """Keys and instants are compared as what stands in the table: as text, on SQLite."""
    run = start()
    key, at = uuid7(), INSTANTS[1]
    row = (key, run.pk, 1, "step", 1, "{}", False, "", at)
    write(Change(Kind.INSERT, ENTRY, ENTRY.names, [row]))
    found = JournalEntry.objects.get(pk=key, created_at=at, body_is_base64=False)
    assert stored(found, ENTRY) == dict(zip(ENTRY.names, row, strict=True))
    assert JournalEntry.objects.filter(created_at__lt=at + timedelta(microseconds=1), run_id=run.pk).exists()


def test_an_upsert_sets_what_it_says_and_leaves_the_rest(hand: Hand) -> None:
    run = start()
    write(Change(Kind.INSERT, STEP, STEP.names, [step_row(run, 1, name="first", attempts=3, error="old")]))
    rows = [step_row(run, number, name="second", status=Step.Status.SUCCESS, attempts=9) for number in (1, 2)]
    write(Change(Kind.UPSERT, STEP, STEP.names, rows, unique=("run_id", "step_id"), updates=("status",)))
    there, new = Step.objects.filter(run=run).order_by("step_id")
    assert (there.name, there.attempts, there.error, there.status) == ("first", 3, "old", "success")
    assert (new.name, new.attempts, new.status) == ("second", 9, "success")


def test_updates_and_deletes_reach_the_rows_that_they_name_alone(hand: Hand) -> None:
    runs = [start() for _ in range(4)]
    first, second, third, fourth = Delivery.objects.order_by("created_at", "pk")
    write(
        Change(
            Kind.UPDATE,
            DELIVERY,
            ("position", "due_at", "step_id", "step_name", "worker_id", "id"),
            [(7, INSTANTS[0], None, "Ä", hand.key, first.pk), (8, INSTANTS[1], 2, "", None, second.pk)],
        ),
        Change(Kind.DELETE, DELIVERY, ("id",), [(third.pk,)]),
        Change(Kind.UPDATE, RUN, ("why", "result", "id"), [("waits", None, runs[0].pk), ("", '"x"', runs[1].pk)]),
    )
    for row in (first, second):
        row.refresh_from_db()
    assert (first.position, first.due_at, first.step_name, first.worker_id) == (7, INSTANTS[0], "Ä", hand.key)
    assert (second.position, second.due_at, second.step_id, second.worker_id) == (8, INSTANTS[1], 2, None)
    assert not Delivery.objects.filter(pk=third.pk).exists()
    assert Delivery.objects.get(pk=fourth.pk).position == 0
    assert list(Run.objects.order_by("created_at", "pk").values_list("why", "result")[:2]) == [
        ("waits", None),
        ("", '"x"'),
    ]


def test_a_row_that_is_there_already_is_refused(hand: Hand) -> None:
    run = start()
    write(Change(Kind.INSERT, STEP, STEP.names, [step_row(run, 1)]))
    with pytest.raises(IntegrityError):
        write(Change(Kind.INSERT, STEP, STEP.names, [step_row(run, 1)]))


def test_events_stand_behind_those_of_others_that_came_meanwhile(hand: Hand) -> None:
    """Where `read` does not tell the newest event, the statement itself takes positions above it."""
    run = start()
    (lease,) = hand.claim()
    (held,) = hot_statements("default").read([lease])
    base = max(position_at(hand.clock.now()), (held.newest or 0) + 1)
    if held.newest is None:
        ChannelEvent.objects.create(
            channel=run.run_id, position=base + 40, event="other", data="1", created_at=hand.clock.now()
        )
    rows = [(run.run_id, base + number, "mine", str(number), hand.clock.now()) for number in range(3)]
    newest = write(Change(Kind.INSERT, EVENT, EVENT.names, rows))
    events = list(ChannelEvent.objects.filter(channel=run.run_id).order_by("position"))
    assert [event.data for event in events if event.event == "mine"] == ["0", "1", "2"]
    assert events[-1].data == "2"
    assert newest.get(run.run_id, events[-1].position) == events[-1].position


def as_rows(held: Any) -> dict[Any, Any]:
    return {row.key: (row.fence, row.worker_key, row.run) for row in held}


def test_reading_gives_what_the_orm_gives(hand: Hand) -> None:
    runs = [start() for _ in range(5)]
    Run.objects.filter(pk=runs[0].pk).update(started_at=INSTANTS[0], why=TEXTS[2])
    Run.objects.filter(pk=runs[1].pk).update(parent_id=runs[0].pk)
    leases = hand.claim()
    Delivery.objects.filter(pk=leases[0].key).delete()
    Delivery.objects.filter(pk=leases[1].key).update(worker_id=None, fence=9)
    found = hot_statements("default").read(leases)
    assert len(found) == 4
    assert as_rows(found) == as_rows(OrmStatements("default").read(leases))
    assert found[0].worker_key is None or len({row.worker_key for row in found}) > 1


@pytest.mark.parametrize("skip_locked", [False, True])
def test_locking_gives_what_the_orm_gives(hand: Hand, skip_locked: bool) -> None:
    runs = [start() for _ in range(5)]
    Run.objects.filter(pk=runs[0].pk).update(started_at=INSTANTS[0], why=TEXTS[2])
    Run.objects.filter(pk=runs[1].pk).update(parent_id=runs[0].pk)
    now = hand.clock.now()
    for position in (7, 9):
        ChannelEvent.objects.create(channel=runs[2].run_id, position=position, event="e", data="1", created_at=now)
    gone = uuid7()
    keys = sorted([*(run.pk for run in runs[:4]), gone])

    def locked(statements: Any) -> list[tuple[tuple[Any, ...], int | None]]:
        with transaction.atomic():
            return [(tuple(row), newest) for row, newest in statements.lock(keys, skip_locked=skip_locked)]

    found, expected = locked(hot_statements("default")), locked(OrmStatements("default"))
    assert [row for row, _ in found] == [row for row, _ in expected]
    assert [row[0] for row, _ in found] == [key for key in keys if key != gone]
    assert {row[0]: newest for row, newest in expected}[runs[2].pk] == 9
    for (_, newest), (_, true_newest) in zip(found, expected, strict=True):
        assert newest in (None, true_newest)


def test_many_runs_are_locked_at_once(hand: Hand) -> None:
    copies = [Run(run_id=f"many-{number}", url="x", created_at=hand.clock.now()) for number in range(600)]
    Run.objects.bulk_create(copies)
    with transaction.atomic():
        found = hot_statements("default").lock(sorted(run.pk for run in copies), skip_locked=False)
        assert len(found) == 600
        assert hot_statements("default").lock([], skip_locked=False) == []


def test_many_leases_are_read_at_once(hand: Hand) -> None:
    run = start()
    (lease,) = hand.claim()
    Delivery.objects.bulk_create(
        Delivery(run=run, destination="x", due_at=hand.clock.now(), created_at=hand.clock.now()) for _ in range(600)
    )
    keys = Delivery.objects.values_list("pk", flat=True)
    leases = [replace(lease, key=key) for key in keys]
    assert len(hot_statements("default").read(leases)) == len(leases) == 601


@pytest.fixture
def unprepared() -> Callable[[], int]:
    """Nothing is prepared on the connection. Gives how many statements are by now."""

    def count() -> int:
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_prepared_statements")
            return int(cursor.fetchone()[0])

    with connection.cursor() as cursor:
        cursor.execute("DEALLOCATE ALL")
    connection.connection._prepared.clear()
    return count


@pytest.mark.postgresql
def test_statements_are_prepared_at_their_first_execution(hand: Hand, unprepared: Callable[[], int]) -> None:
    start()
    leases = hand.claim()
    before = unprepared()
    hot_statements("default").read(leases)
    assert unprepared() == before + 1
    hot_statements("default").read(leases)
    Run.objects.first()
    assert unprepared() == before + 1


@pytest.mark.postgresql
def test_statements_are_planned_anew_from_time_to_time(hand: Hand, unprepared: Callable[[], int]) -> None:
    """What was planned while a table was small would read all of it for ever."""
    from django_workflow.engine.sql import psycopg3

    start()
    leases = hand.claim()
    psycopg3._plans.pop(connection.connection, None)
    names = []
    for _ in range(psycopg3.FIRST_PLANS * 4):
        assert len(hot_statements("default").read(leases)) == 1
        with connection.cursor() as cursor:
            cursor.execute("SELECT name FROM pg_prepared_statements")
            names.append([name for (name,) in cursor.fetchall()])
    changes = [number for number, (before, after) in enumerate(pairwise(names), start=2) if before != after]
    assert changes == [32, 64, 128]
    assert len(names[-1]) == 1


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_a_column_of_another_type_asks_for_another_connection(hand: Hand) -> None:
    """A migration beside a worker: the prepared statement is of no more use, and its facts are written again."""
    start()
    leases = hand.claim()
    hot_statements("default").read(leases)
    beside = connection.copy()
    status = Run._meta.get_field("status")
    try:
        with beside.cursor() as cursor:
            cursor.execute(f'ALTER TABLE {Run._meta.db_table} ALTER COLUMN "status" TYPE varchar(99)')
        with pytest.raises(OperationalError):
            hot_statements("default").read(leases)
        connection.close()
        assert len(hot_statements("default").read(leases)) == 1
    finally:
        with beside.cursor() as cursor:
            cursor.execute(f'ALTER TABLE {Run._meta.db_table} ALTER COLUMN "status" TYPE {status.db_type(connection)}')
        beside.close()


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_a_pool_that_nobody_told_of_is_noticed_once(hand: Hand, caplog: pytest.LogCaptureFixture) -> None:
    """Another session answers than the one that prepared the statement."""
    from django_workflow.engine.sql.psycopg3 import PreparingCursor

    start()
    leases = hand.claim()
    hot_statements("default").read(leases)
    connection.connection.pgconn.exec_(b"DEALLOCATE ALL")  # psycopg does not see it
    try:
        with pytest.raises(OperationalError):
            hot_statements("default").read(leases)
        connection.close()
        assert len(hot_statements("default").read(leases)) == 1
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_prepared_statements")
            assert cursor.fetchone() == (0,)
        assert "DISABLE_SERVER_SIDE_CURSORS" in caplog.text
    finally:
        PreparingCursor.pooled.clear()


@pytest.mark.postgresql
def test_pooled_connections_get_no_prepared_statements(
    hand: Hand, unprepared: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    start()
    leases = hand.claim()
    before = unprepared()
    monkeypatch.setitem(connection.settings_dict, "DISABLE_SERVER_SIDE_CURSORS", True)
    hot_statements("default").read(leases)
    assert unprepared() == before
