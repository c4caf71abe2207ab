from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from django_workflow.engine import pruner
from django_workflow.engine.pruner import Pruned, Pruner, prune, prune_batch
from django_workflow.models import (
    Attempt,
    Channel,
    ChannelEvent,
    DeadLetter,
    Delivery,
    JournalEntry,
    MessageLog,
    Queue,
    Run,
    Step,
    Waiter,
    Worker,
)
from django_workflow.realtime.stores import History, NewEvent
from django_workflow.realtime.stores.database import DatabaseStore
from django_workflow.testing import CallAnswer, mock_calls, run_workflows, workflow_clock
from django_workflow.testing.factories import make_delivery, make_run, make_step, make_waiter, make_worker
from tests.admin.builders import make_attempt, make_dead_letter, make_event, make_result
from tests.engine.posting import post

pytestmark = pytest.mark.django_db
RETENTION = timedelta(days=30)


@pytest.fixture
def now() -> datetime:
    return timezone.now()


def ended(now: datetime, days: float, **values: object) -> Run:
    """A run that succeeded so many days ago."""
    return make_run(**{"status": Run.Status.SUCCESS, "finished_at": now - timedelta(days=days), **values})


def test_runs_go_with_all_that_belongs_to_them_once_retention_is_over(now: datetime) -> None:
    old, young = ended(now, 31), ended(now, 29)
    for run in (old, young):
        make_result(make_step(run), {"a": 1})
        make_attempt(run)
        make_event(run)
        make_waiter(run)
        make_dead_letter(run)
    assert prune(now, RETENTION) == Pruned(runs=1)
    assert list(Run.objects.all()) == [young]
    for model in (Step, JournalEntry, Attempt, Waiter):
        assert model.objects.get().run == young
    assert ChannelEvent.objects.get().channel == young.run_id


@pytest.mark.parametrize("status", [Run.Status.RUNNING, Run.Status.SLEEPING, Run.Status.PAUSED])
def test_runs_that_go_on_stay_however_old_they_are(now: datetime, status: str) -> None:
    make_event(make_run(status=status, created_at=now - timedelta(days=400)))
    assert not prune(now, timedelta(0))
    assert ChannelEvent.objects.exists()


def test_a_run_stays_while_something_alive_needs_it(now: datetime) -> None:
    first = ended(now, 40, status=Run.Status.FAILED)
    resumed = make_run(status=Run.Status.RUNNING, first_run=first, resumed_from=first)
    failing = ended(now, 40, status=Run.Status.FAILED)
    callback = make_delivery(failing, kind="failure")
    assert not prune(now, RETENTION)
    callback.delete()
    assert prune(now, RETENTION).runs == 1
    resumed.status = Run.Status.FAILED  # it may be resumed once more
    resumed.finished_at = now
    resumed.save()
    assert not prune(now, RETENTION)
    resumed.finished_at = now - timedelta(days=31)
    resumed.save()
    assert prune(now, RETENTION).runs == 2


def test_rows_of_no_run_go_by_their_own_age(now: datetime) -> None:
    old = now - timedelta(days=31)
    for position, created_at in enumerate((old, now)):
        ChannelEvent.objects.create(channel="news", position=position, event="e", data="{}", created_at=created_at)
    make_worker(heartbeat_at=now - timedelta(days=2))
    busy = make_worker(heartbeat_at=now - timedelta(days=2))
    make_delivery(worker=busy)
    make_worker(heartbeat_at=now)
    assert prune(now, RETENTION) == Pruned(events=1, workers=1)
    assert Worker.objects.count() == 2
    assert ChannelEvent.objects.count() == 1


def test_batches_are_bounded_and_the_oldest_goes_first(now: datetime) -> None:
    runs = [ended(now, 31 + number) for number in range(5)]
    assert prune_batch(now, RETENTION, batch=2).runs == 2
    assert set(Run.objects.all()) == set(runs[:3])
    assert prune(now, RETENTION, batch=1, batches=2).runs == 2
    assert list(Run.objects.all()) == [runs[0]]
    assert prune(now, RETENTION, batch=1).runs == 1


def test_the_number_of_statements_does_not_grow_with_the_rows_of_a_run(
    now: datetime, django_assert_max_num_queries: object
) -> None:
    def statements(steps: int) -> int:
        run = ended(now, 31)
        for _number in range(steps):
            make_result(make_step(run), {"a": 1})
        with django_assert_max_num_queries(100) as captured:  # type: ignore[operator]
            pruner.delete_runs([run])
        return len(captured)

    assert statements(20) == statements(1)


def test_messages_go_with_their_attempts_and_dead_letters_once_retention_is_over() -> None:
    with workflow_clock(timezone.now() - RETENTION - timedelta(days=1)) as clock, mock_calls(CallAnswer(503)):
        old, waiting = post(retries="1", retry_delay="0"), post(delay="90d")
        run_workflows()
        clock.advance("2d")
        young = post(retries="0")
        run_workflows()
        now = clock.now() + RETENTION - timedelta(days=1)
    assert Attempt.objects.count() == 3
    assert prune(now, RETENTION) == Pruned(messages=1)
    assert set(MessageLog.objects.all()) == {waiting, young}
    assert Attempt.objects.get().message_key == young.pk
    assert DeadLetter.objects.get().message == young
    assert not MessageLog.objects.filter(pk=old.pk).exists()
    assert prune(now + RETENTION, RETENTION) == Pruned(messages=1)
    assert not DeadLetter.objects.exists()


def test_attempts_stay_as_long_as_their_message_is_tried(now: datetime) -> None:
    with workflow_clock(now - RETENTION - timedelta(days=1)):
        log = post()
        with mock_calls(CallAnswer(503)):
            run_workflows()
    assert prune(now, RETENTION) == Pruned()
    assert Attempt.objects.get().message_key == log.pk
    log.delete()
    assert prune(now, RETENTION) == Pruned(attempts=1)


def test_deduplication_keys_are_freed_when_their_window_is_over(now: datetime) -> None:
    with workflow_clock(now - timedelta(minutes=10)):
        over = post(deduplication_id="a")
    with workflow_clock(now - timedelta(minutes=9)):
        fresh = post(deduplication_id="b")
    assert prune(now, RETENTION) == Pruned()
    over.refresh_from_db()
    fresh.refresh_from_db()
    assert over.deduplication_key is None
    assert fresh.deduplication_key


def test_deliveries_of_queues_that_are_gone_go_on(now: datetime) -> None:
    post(queue="mail")
    kept = post(queue="other")
    Queue.objects.filter(name="mail").delete()
    prune_batch(now, RETENTION)
    assert list(Delivery.objects.exclude(queue="").values_list("pk", flat=True)) == [kept.pk]


def test_a_full_batch_says_that_there_is_more(now: datetime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruner, "BATCH", 2)
    for _ in range(3):
        ended(now, 31)
    assert prune_batch(now, RETENTION, batch=2).is_full
    assert not prune_batch(now, RETENTION, batch=2).is_full


def test_silent_channels_go_with_their_events() -> None:
    store = DatabaseStore()
    for name, kept in (("short", timedelta(minutes=1)), ("long", timedelta(hours=1))):
        store.append([NewEvent(name, "e", "1")], History(expire_after=kept))
    prune(timezone.now() + timedelta(minutes=2), timedelta(days=30))
    assert list(ChannelEvent.objects.values_list("channel", flat=True)) == ["long"]
    assert list(Channel.objects.values_list("name", flat=True)) == ["long"]


def test_a_worker_looks_for_orphans_once_an_hour(
    now: datetime, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    worker = Pruner()

    def pruned(at: datetime) -> tuple[int, bool]:
        """How many events went, and whether the table of events was read at all."""
        ChannelEvent.objects.create(
            channel="nobody's", position=1, event="e", data="1", created_at=at - RETENTION - timedelta(days=1)
        )
        with django_assert_max_num_queries(100) as captured:
            events = worker.prune_batch(at, RETENTION).events
        read = any(ChannelEvent._meta.db_table in query["sql"] for query in captured)
        ChannelEvent.objects.all().delete()
        return events, read

    assert pruned(now) == (1, True)
    assert pruned(now + timedelta(minutes=59)) == (0, False)
    assert pruned(now + timedelta(minutes=60)) == (1, True)
