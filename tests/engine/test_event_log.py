"""The event log: what is read of it, in which order, and at what cost. Its form is tested with the HTTP API."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from django_workflow.engine import event_log
from django_workflow.engine.event_log import EventQuery, Page, Place
from django_workflow.models import Attempt, MessageLog
from django_workflow.protocol.states import MessageState
from tests.engine.posting import ALIAS, URL

pytestmark = pytest.mark.django_db
START = datetime(2026, 1, 1, tzinfo=UTC)
State = MessageLog.State


def make_log(second: float = 0, **values: object) -> MessageLog:
    """A message that was created so many seconds after the start."""
    at = START + timedelta(seconds=second)
    return MessageLog.objects.create(**{"url": URL, "created_at": at, "due_at": at, **values})


def make_attempt(log: MessageLog, number: int, started: float, finished: float, **values: object) -> Attempt:
    """A failed attempt that is followed by another one."""
    at = [START + timedelta(seconds=seconds) for seconds in (started, finished)]
    fields = {"message_key": log.pk, "kind": "message", "number": number, "status": 500, "retry_at": at[1]}
    return Attempt.objects.create(**{**fields, "started_at": at[0], "finished_at": at[1], **values})


def random_logs(number: int, seed: int = 7) -> None:
    """Messages of every state whose instants often coincide."""
    random = Random(seed)
    for _ in range(number):
        created = random.randrange(5)
        log = make_log(created, state=random.choice(list(State)))
        at = created
        for attempt in range(random.randrange(3)):
            finished = at + random.randrange(2)
            make_attempt(log, attempt + 1, at, finished)
            log.attempt, at = attempt + 1, finished + random.randrange(2)
        if log.state not in (State.CREATED, State.RETRY):
            log.active_at = START + timedelta(seconds=at)
        if log.state == State.CANCELED:
            log.cancel_requested_at = START + timedelta(seconds=at)
        if log.is_finished:
            log.finished_at = START + timedelta(seconds=at + random.randrange(2))
        log.save()


def everything(**query: object) -> list[tuple[Place, MessageState]]:
    return shown(event_log.read(ALIAS, EventQuery(count=10_000, **query)))  # type: ignore[arg-type]


def shown(page: Page) -> list[tuple[Place, MessageState]]:
    return [(event.place, event.state) for event in page.events]


def in_pages(count: int, **query: object) -> list[tuple[Place, MessageState]]:
    found: list[tuple[Place, MessageState]] = []
    after = None
    while True:
        page = event_log.read(ALIAS, EventQuery(count=count, after=after, **query))  # type: ignore[arg-type]
        assert len(page.events) <= count
        found += shown(page)
        if page.following is None:
            return found
        after = page.following


@pytest.mark.parametrize("earliest_first", [False, True])
@pytest.mark.parametrize("count", [1, 3, 7])
def test_pages_of_any_size_give_every_entry_once_in_one_order(count: int, earliest_first: bool) -> None:
    random_logs(12)
    whole = everything(earliest_first=earliest_first)
    assert len(set(whole)) == len(whole)
    assert whole == sorted(whole, reverse=not earliest_first)
    assert in_pages(count, earliest_first=earliest_first) == whole


@pytest.mark.parametrize("states", [{MessageState.ERROR}, {MessageState.RETRY, MessageState.CREATED}])
def test_pages_of_some_states_do_so_too(states: set[MessageState]) -> None:
    random_logs(25)
    chosen = [entry for entry in everything() if entry[1] in states]
    assert in_pages(2, states=frozenset(states)) == everything(states=frozenset(states)) == chosen


def test_what_happens_in_one_instant_is_told_in_the_order_of_its_life() -> None:
    log = make_log(state=State.DELIVERED, attempt=2, active_at=START, finished_at=START)
    make_attempt(log, 1, 0, 0)
    make_attempt(log, 2, 0, 0)
    states = [state.value for _, state in everything(earliest_first=True)]
    assert states == ["CREATED", *["ACTIVE", "ERROR", "RETRY"] * 2, "ACTIVE", "DELIVERED"]


def test_entries_that_come_while_pages_are_read_move_none_of_the_older_ones() -> None:
    random_logs(10)
    whole = everything()
    first = event_log.read(ALIAS, EventQuery(count=5))
    random_logs(10, seed=8)
    second = event_log.read(ALIAS, EventQuery(count=10_000, after=first.following))
    older = set(shown(second))
    assert set(whole[5:]) <= older
    assert not set(whole[:5]) & older


def test_the_attempt_under_way_stands_where_it_stood_once_it_failed() -> None:
    log = make_log(state=State.ACTIVE, active_at=START + timedelta(seconds=1))
    before = everything(states=frozenset({MessageState.ACTIVE}))
    MessageLog.objects.filter(pk=log.pk).update(state=State.RETRY, active_at=None, attempt=1)
    make_attempt(log, 1, 1, 3)
    assert everything(states=frozenset({MessageState.ACTIVE})) == before


def test_the_last_failed_attempt_is_its_messages_end_and_no_error_besides() -> None:
    log = make_log(state=State.FAILED, active_at=START, finished_at=START + timedelta(seconds=1))
    make_attempt(log, 1, 0, 1, retry_at=None)
    assert [state.value for _, state in everything()] == ["FAILED", "ACTIVE", "CREATED"]


def test_attempts_of_runs_are_none_of_it() -> None:
    make_attempt(MessageLog(pk=make_log().pk), 1, 0, 1, kind="step")
    assert [state.value for _, state in everything()] == ["CREATED"]


def test_long_bodies_end_a_page_early_and_none_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_log, "LARGEST_PAGE", 250)
    for second in range(5):
        log = make_log(second, body="x" * 90, state=State.RETRY)
        make_attempt(log, 1, second, second, response_body="y" * 30)
    assert len(event_log.read(ALIAS, EventQuery(count=50)).events) == 2  # 90 + 30 each: RETRY, ERROR
    assert len(in_pages(50)) == 20
    monkeypatch.setattr(event_log, "LARGEST_PAGE", 10)
    assert len(in_pages(50)) == 20


def test_a_page_takes_few_statements_and_reads_no_more_than_it_shows() -> None:
    costs = []
    for seed in (1, 2):
        random_logs(60, seed=seed)
        with CaptureQueriesContext(connection) as found:
            event_log.read(ALIAS, EventQuery(count=10))
        costs.append(len(found))
    assert max(costs) <= 10
    limited = [query["sql"] for query in found if "ORDER BY" in query["sql"]]
    assert len(limited) == 6
    assert all("LIMIT 12" in sql for sql in limited)
    assert not any('"body"' in sql or "`body`" in sql for sql in limited)
