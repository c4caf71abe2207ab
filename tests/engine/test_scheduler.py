"""What schedules make, when, and how often."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import OperationalError

from django_workflow import WorkflowContext, workflow
from django_workflow.client.urls import workflow_url
from django_workflow.engine import cycle, messages, queues, scheduler
from django_workflow.engine.scheduler import AT_ONCE, Declared, Fired
from django_workflow.engine.writing import write
from django_workflow.errors import EngineError, MessageInvalid, QuotaExceeded
from django_workflow.models import Delivery, MessageLog, Queue, Run, Schedule, UrlGroup
from django_workflow.protocol.publish import Message
from django_workflow.testing import CallAnswer, WorkflowClock, mock_calls, run_workflows, workflow_clock
from tests.engine.threads import at_once

ALIAS = "default"
URL = "https://shop.example/nightly"
MIDNIGHT = datetime(2026, 1, 1, tzinfo=UTC)
pytestmark = pytest.mark.django_db


@pytest.fixture
def clock() -> Iterator[WorkflowClock]:
    with workflow_clock(MIDNIGHT) as clock:
        yield clock


def create(cron: str = "0 * * * *", schedule_id: str = "sch", destination: str = URL, **values: Any) -> str:
    message = Message(destination=destination, **values)
    return write(
        ALIAS, lambda unit: scheduler.create(unit, message, cron, schedule_id=schedule_id, caller_ip="192.0.2.1")
    )


def pause(schedule_id: str = "sch") -> None:
    write(ALIAS, lambda unit: scheduler.pause(unit, schedule_id))


def resume(schedule_id: str = "sch") -> None:
    write(ALIAS, lambda unit: scheduler.resume(unit, schedule_id))


def run_now(schedule_id: str = "sch") -> Fired:
    return write(ALIAS, lambda unit: scheduler.run_now(unit, schedule_id))


def fire(clock: WorkflowClock) -> None:
    cycle.fire_schedules(ALIAS, clock.now())


def sent() -> list[MessageLog]:
    return list(MessageLog.objects.order_by("pk"))


def get(schedule_id: str = "sch") -> Schedule:
    return Schedule.objects.get(schedule_id=schedule_id)


def make_group(*urls: str) -> None:
    endpoints = ",".join(f'{{"url":"{url}"}}' for url in urls)
    UrlGroup.objects.create(
        name="group", endpoints=f"[{endpoints}]", headers="{}", created_at=MIDNIGHT, updated_at=MIDNIGHT
    )


class TestWhen:
    def test_a_message_is_published_at_each_occurrence_and_once(self, clock: WorkflowClock) -> None:
        create(body=b'{"a":1}', headers={"X-Shop": "7"})
        fire(clock)
        assert sent() == []
        for _ in range(2):
            clock.advance("1h")
            fire(clock)
            fire(clock)
        first, second = sent()
        assert (first.url, first.body, first.schedule_id, first.caller_ip) == (URL, '{"a":1}', "sch", "192.0.2.1")
        assert '"X-Shop":"7"' in first.config
        assert second.created_at - first.created_at == timedelta(hours=1)
        schedule = get()
        assert (schedule.last_at, schedule.next_at) == (clock.now(), clock.now() + timedelta(hours=1))

    def test_missed_occurrences_fire_once(self, clock: WorkflowClock) -> None:
        create()
        clock.advance("2d10m")
        fire(clock)
        fire(clock)
        assert len(sent()) == 1
        assert get().next_at == MIDNIGHT + timedelta(days=2, hours=1)

    def test_occurrences_of_a_pause_are_skipped(self, clock: WorkflowClock) -> None:
        create()
        pause()
        pause()
        clock.advance("150m")
        fire(clock)
        resume()
        fire(clock)
        assert sent() == []
        assert get().next_at == MIDNIGHT + timedelta(hours=3)
        clock.advance("30m")
        fire(clock)
        assert len(sent()) == 1

    def test_resuming_what_is_not_paused_skips_nothing(self, clock: WorkflowClock) -> None:
        create()
        clock.advance("90m")
        resume()
        fire(clock)
        assert len(sent()) == 1

    def test_a_delay_shifts_the_message_and_not_the_schedule(self, clock: WorkflowClock) -> None:
        create(delay=600)
        clock.advance("1h")
        fire(clock)
        assert Delivery.objects.get().due_at == clock.now() + timedelta(minutes=10)
        assert get().next_at == clock.now() + timedelta(hours=1)

    @pytest.mark.parametrize(
        ("cron", "start", "fires"),
        [
            # Ten o'clock in Tokyo is one o'clock UTC, all the year round.
            ("CRON_TZ=Asia/Tokyo 0 10 * * *", "2026-01-01T00:00", ["01T01:00", "02T01:00"]),
            # Berlin, 28 to 30 March: from 02:00 straight to 03:00, so half past two comes when the gap ends.
            ("CRON_TZ=Europe/Berlin 30 2 * * *", "2026-03-28T00:00", ["28T01:30", "29T01:00", "30T00:30"]),
            # Berlin, 24 to 26 October: half past two comes twice, and fires in the first pass.
            ("CRON_TZ=Europe/Berlin 30 2 * * *", "2026-10-24T00:00", ["24T00:30", "25T00:30", "26T01:30"]),
            # Without a zone the day has 24 hours.
            ("30 2 * * *", "2026-03-28T00:00", ["28T02:30", "29T02:30", "30T02:30"]),
            # A step of hours goes on through the repeated hour.
            ("CRON_TZ=America/New_York 0 */6 * * *", "2026-11-01T00:00", ["01T04:00", "01T11:00", "01T17:00"]),
        ],
    )
    def test_time_zones_and_summer_time(self, cron: str, start: str, fires: list[str]) -> None:
        with workflow_clock(datetime.fromisoformat(start).replace(tzinfo=UTC)) as clock:
            create(cron)
            fired = []
            while len(fired) < len(fires):
                clock.move_to(get().next_at or clock.now())
                fire(clock)
                fired.append(f"{clock.now():%dT%H:%M}")
            assert fired == fires
            assert len(sent()) == len(fires)

    def test_many_due_at_once_take_several_transactions(self, clock: WorkflowClock) -> None:
        for number in range(AT_ONCE + 2):
            create(schedule_id=f"sch-{number}")
        clock.advance("1h")
        fire(clock)
        assert len(sent()) == AT_ONCE
        assert scheduler.next_fire(ALIAS) == clock.now()
        fire(clock)
        assert len(sent()) == AT_ONCE + 2
        assert not scheduler.any_due(ALIAS, clock.now())


@pytest.mark.django_db(transaction=True)
def test_an_occurrence_fires_once_however_many_workers_there_are(clock: WorkflowClock) -> None:
    for number in range(5):
        create(schedule_id=f"sch-{number}")
    clock.advance("1h")

    def work() -> None:
        for _ in range(3):
            fire(clock)

    at_once(*[work] * 4)
    assert sorted(message.schedule_id for message in sent()) == [f"sch-{number}" for number in range(5)]


class TestWhere:
    def test_a_group_gets_a_message_per_endpoint(self, clock: WorkflowClock) -> None:
        make_group("https://a.example/", "https://b.example/")
        create(destination="group")
        clock.advance("1h")
        fire(clock)
        assert [(message.url, message.topic) for message in sent()] == [
            ("https://a.example/", "group"),
            ("https://b.example/", "group"),
        ]

    def test_a_queue_gets_the_message_and_keeps_its_parallelism(self, clock: WorkflowClock) -> None:
        write(ALIAS, lambda unit: queues.upsert(unit, "orders", parallelism=7))
        create(queue="orders")
        clock.advance("1h")
        fire(clock)
        assert Delivery.objects.get().queue == "orders"
        assert Queue.objects.get().parallelism == 7

    def test_a_workflow_at_its_url_starts_a_run(self, clock: WorkflowClock) -> None:
        @workflow(name="by-url")
        def by_url(ctx: WorkflowContext[dict[str, int]]) -> int:
            return ctx.run("double", lambda: ctx.request_payload["n"] * 2)

        create(destination=workflow_url("by-url"), body=b'{"n":4}')
        clock.advance("1h")
        run_workflows()
        run = Run.objects.get()
        assert (run.workflow, run.status, run.result) == ("by-url", Run.Status.SUCCESS, "8")
        (message,) = sent()
        assert message.state == MessageLog.State.DELIVERED

    def test_the_destination_is_told_the_schedule(self, clock: WorkflowClock) -> None:
        create(method="PUT", body=b"x")
        clock.advance("1h")
        with mock_calls(CallAnswer()) as recorder:
            run_workflows()
        (call,) = recorder.calls
        assert (call.method, call.url, call.body) == ("PUT", URL, b"x")
        assert call.headers["Upstash-Schedule-Id"] == "sch"
        assert call.headers["Upstash-Caller-Ip"] == "192.0.2.1"


class TestWhatFails:
    def test_a_destination_that_is_gone_says_so_and_stops_no_other(
        self, clock: WorkflowClock, caplog: pytest.LogCaptureFixture
    ) -> None:
        make_group("https://a.example/")
        create(schedule_id="a-bad", destination="group")
        create(schedule_id="b-good")
        UrlGroup.objects.all().delete()
        clock.advance("1h")
        with caplog.at_level(logging.ERROR):
            fire(clock)
        assert [message.schedule_id for message in sent()] == ["b-good"]
        bad = get("a-bad")
        assert "There is no URL group 'group'" in bad.error
        assert bad.next_at == clock.now() + timedelta(hours=1)
        assert "Schedule a-bad could not be fired" in caplog.text
        make_group("https://a.example/")
        clock.advance("1h")
        fire(clock)
        assert get("a-bad").error == ""
        assert len(sent()) == 3

    def test_what_one_has_made_before_it_failed_is_undone(
        self, clock: WorkflowClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        create(schedule_id="a")
        create(schedule_id="b", destination="https://fails.example/")
        create(schedule_id="c")
        publish = messages.publish

        def fail_late(unit: Any, message: Message, **sender: Any) -> Any:
            answer = publish(unit, message, **sender)
            if "fails" in message.destination:
                raise RuntimeError("too late")
            return answer

        monkeypatch.setattr(messages, "publish", fail_late)
        clock.advance("1h")
        fire(clock)
        assert [message.schedule_id for message in sent()] == ["a", "c"]
        assert Delivery.objects.count() == 2
        assert get("b").error == "RuntimeError: too late"

    def test_a_lost_database_is_not_the_schedules_error(
        self, clock: WorkflowClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*args: Any, **values: Any) -> Any:
            raise OperationalError("gone")

        create()
        monkeypatch.setattr(messages, "publish", fail)
        clock.advance("1h")
        with pytest.raises(OperationalError):
            fire(clock)
        monkeypatch.undo()
        assert get().error == ""
        fire(clock)
        assert len(sent()) == 1

    def test_an_expression_that_never_occurs_again_fires_no_more(self, clock: WorkflowClock) -> None:
        create()
        Schedule.objects.update(cron="0 0 30 2 *")
        clock.advance("1h")
        fire(clock)
        assert get().next_at is None
        assert "fires no more" in get().error
        assert scheduler.next_fire(ALIAS) is None


class TestCreate:
    @pytest.mark.parametrize(
        "cron", ["* * * *", "61 * * * *", "CRON_TZ=Mars/Base * * * * *", "0 0 30 2 *", "x", "@soon"]
    )
    def test_a_bad_expression_is_refused(self, clock: WorkflowClock, cron: str) -> None:
        with pytest.raises(MessageInvalid, match="Upstash-Cron"):
            create(cron)
        assert not Schedule.objects.exists()

    @pytest.mark.parametrize("schedule_id", ["a b", "a/b", "ä", "a" * 256, "a\n"])
    def test_a_bad_id_is_refused(self, clock: WorkflowClock, schedule_id: str) -> None:
        with pytest.raises(MessageInvalid, match="cannot be a schedule's id"):
            create(schedule_id=schedule_id)

    def test_what_could_not_be_delivered_is_refused(self, clock: WorkflowClock) -> None:
        with pytest.raises(EngineError, match="no URL group") as refused:
            create(destination="nobody")
        assert refused.value.status == 404
        with pytest.raises(MessageInvalid, match="queue's name"):
            create(queue="a b")
        with pytest.raises(QuotaExceeded):
            create(retries=10**6)

    def test_there_is_an_end_to_how_many(self, clock: WorkflowClock, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("django_workflow.engine.limits.MOST_SCHEDULES", 1)
        create()
        create()  # the same again
        with pytest.raises(QuotaExceeded, match="1 schedules"):
            create(schedule_id="other")

    def test_the_same_id_overwrites_all_but_pause_and_history(self, clock: WorkflowClock) -> None:
        create(body=b"old", queue="orders", delay=10)
        clock.advance("1h")
        fire(clock)
        pause()
        create("30 * * * *", destination="https://new.example/")
        schedule = get()
        message = scheduler.stored_message(schedule)
        assert (message.destination, message.body, message.queue, message.delay) == (
            "https://new.example/",
            b"",
            None,
            None,
        )
        assert (schedule.paused, schedule.last_at, schedule.created_at) == (True, clock.now(), MIDNIGHT)
        assert schedule.next_at == clock.now() + timedelta(minutes=30)


class TestInCode:
    """Schedules of workflows that this process's code declares, and of others."""

    @pytest.fixture(autouse=True)
    def declared(self, monkeypatch: pytest.MonkeyPatch) -> None:
        @workflow(name="report")
        def report(ctx: WorkflowContext[None]) -> str:
            return ctx.run("write", lambda: "done")

        items = [Declared("report", "0 * * * *", "UTC", report.scheduled_message)]
        monkeypatch.setattr(scheduler, "_declarations", lambda: items)

    def test_a_run_names_its_schedule_and_occurrence(self, clock: WorkflowClock) -> None:
        run_workflows(declare_schedules=True)
        clock.advance("1h")
        run_workflows()
        run = Run.objects.get()
        assert (run.run_id, run.status) == ("wfr_report-20260101T010000", Run.Status.SUCCESS)
        assert get("report").last_run_id == run.run_id

    def test_what_only_other_code_declares_is_left_to_its_workers(self, clock: WorkflowClock) -> None:
        Schedule.objects.create(
            schedule_id="newer", workflow="newer", cron="0 * * * *", created_at=MIDNIGHT, next_at=MIDNIGHT
        )
        assert not scheduler.any_due(ALIAS, clock.now())
        assert scheduler.next_fire(ALIAS) is None
        with pytest.raises(EngineError, match="declares no schedule"):
            run_now("newer")

    def test_its_id_is_neither_overwritten_nor_deleted(self, clock: WorkflowClock) -> None:
        for known in (False, True):
            with pytest.raises(EngineError, match="declared in code, by the workflow of that name") as refused:
                create(schedule_id="report")
            assert refused.value.status == 409
            with pytest.raises(EngineError, match="cannot be deleted"):
                write(ALIAS, lambda unit: scheduler.delete(unit, "report"))
            if not known:
                scheduler.reconcile(ALIAS, clock.now())

    def test_a_schedule_of_the_api_that_has_the_id_already_stays(
        self, clock: WorkflowClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        with monkeypatch.context() as before:
            before.setattr(scheduler, "_declarations", tuple)
            create(schedule_id="report")
        scheduler.reconcile(ALIAS, clock.now())
        assert (get("report").in_code, get("report").destination) == (False, URL)
        assert "its id is taken" in caplog.text

    def test_it_can_be_paused_and_stays_so_when_workers_start(self, clock: WorkflowClock) -> None:
        scheduler.reconcile(ALIAS, clock.now())
        pause("report")
        scheduler.reconcile(ALIAS, clock.now())
        clock.advance("1h")
        run_workflows()
        assert not Run.objects.exists()

    def test_it_runs_now_when_it_is_asked_to(self, clock: WorkflowClock) -> None:
        scheduler.reconcile(ALIAS, clock.now())
        next_at = get("report").next_at
        fired = run_now("report")
        run_workflows()
        assert fired.run is not None
        assert Run.objects.get().run_id == fired.run.run_id == get("report").last_run_id
        assert get("report").next_at == next_at
        assert Run.objects.get().status == Run.Status.SUCCESS


def test_a_schedule_fires_now_even_when_it_is_paused(clock: WorkflowClock) -> None:
    create()
    pause()
    fired = run_now()
    assert [message.message_id for message in fired.messages] == [log.message_id for log in sent()]
    assert (get().last_at, get().next_at) == (clock.now(), MIDNIGHT + timedelta(hours=1))
