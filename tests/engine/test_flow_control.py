"""Which deliveries of which keys start, how starts are counted, and what is done to a key by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from django_workflow import WorkflowContext, workflow
from django_workflow.engine import flow_control
from django_workflow.engine.facts import Answer
from django_workflow.engine.flow_control import KEYS_PER_CLAIM, note_limits, start_late
from django_workflow.engine.leases import claim, release
from django_workflow.engine.records import Lease
from django_workflow.engine.unit_of_work import UnitOfWork
from django_workflow.engine.writing import write
from django_workflow.errors import MessageInvalid
from django_workflow.models import Delivery, FlowKey
from django_workflow.protocol.identifiers import uuid7
from django_workflow.protocol.publish import CallbackConfig, FlowControl
from django_workflow.testing import CallAnswer, WorkflowClock, mock_calls, run_workflows
from django_workflow.testing.factories import make_delivery, make_run
from tests.engine.deliveries import Hand, finish, start
from tests.engine.threads import at_once

ALIAS = "default"
pytestmark = pytest.mark.django_db


@pytest.fixture
def clock(workflow_clock: WorkflowClock) -> WorkflowClock:
    return workflow_clock


def make_key(name: str, **limits: Any) -> FlowKey:
    return FlowKey.objects.create(key=name, **limits)


def make_deliveries(number: int, key: str, **values: Any) -> list[Delivery]:
    run = make_run()
    return [make_delivery(run, flow_key=key, **values) for _ in range(number)]


def claimed(clock: WorkflowClock, limit: int = 100) -> list[Lease]:
    return claim(ALIAS, uuid7(), clock.now(), limit).leases


def by_hand(change: Callable[..., None], key: str, **values: Any) -> bool:
    """Make one of the changes of the API; whether workers were woken."""
    woken: list[bool] = []

    def do(unit: UnitOfWork) -> None:
        change(unit, key, **values)
        woken.append(unit.after.wake)

    write(ALIAS, do)
    return woken[0]


class TestKeysThatLetNothingThrough:
    """However many wait, and however long, they hide no other."""

    LATE = timedelta(hours=1)

    def block(self, clock: WorkflowClock, **limits: Any) -> None:
        for number in range(100):
            make_key(f"blocked-{number}", **limits)
            make_deliveries(1, f"blocked-{number}", due_at=clock.now() - self.LATE)
        make_key("free", parallelism=1)
        make_deliveries(2, "free")

    def test_paused_ones(self, clock: WorkflowClock) -> None:
        self.block(clock, paused=True)
        assert [lease.flow_key for lease in claimed(clock)] == ["free"]

    def test_full_ones(self, clock: WorkflowClock) -> None:
        self.block(clock, parallelism=1)
        assert Counter(lease.flow_key for lease in claimed(clock, 500))["free"] == 0  # the oldest keys come first
        assert len(claimed(clock, 500)) == 101 - KEYS_PER_CLAIM
        make_deliveries(100, "blocked-1", due_at=clock.now() - self.LATE)
        assert claimed(clock) == []
        Delivery.objects.filter(flow_key="free", worker__isnull=False).delete()
        assert [lease.flow_key for lease in claimed(clock)] == ["free"]

    def test_ones_whose_rate_is_used_up(self, clock: WorkflowClock) -> None:
        ends_at = clock.now() + timedelta(minutes=1)
        self.block(clock, rate=1, period_seconds=60, window=1, window_count=1, window_ends_at=ends_at)
        assert [lease.flow_key for lease in claimed(clock)] == ["free"]
        found = claim(ALIAS, uuid7(), clock.now(), 100)
        assert (found.leases, found.next_due_at) == ([], ends_at)
        clock.move_to(ends_at)
        assert len(claimed(clock, 500)) == KEYS_PER_CLAIM

    def test_ones_without_a_row_are_made_known_and_taken_next(self, clock: WorkflowClock) -> None:
        make_deliveries(2, "deleted-by-hand")
        assert claimed(clock) == []
        assert len(claimed(clock)) == 2


def test_each_key_gets_one_before_any_gets_a_second(clock: WorkflowClock) -> None:
    make_key("large")
    make_deliveries(50, "large", due_at=clock.now() - timedelta(hours=1))
    for number in range(3):
        make_key(f"small-{number}")
        make_deliveries(2, f"small-{number}")
    keys = [lease.flow_key for lease in claimed(clock, 12)]
    assert Counter(keys) == {"large": 2, "small-0": 2, "small-1": 1, "small-2": 1}


def test_the_oldest_of_a_key_comes_first(clock: WorkflowClock) -> None:
    make_key("one", parallelism=1)
    young, old = (make_deliveries(1, "one", due_at=clock.now() - timedelta(seconds=age))[0] for age in (1, 9))
    (first,) = claimed(clock)
    assert first.key == old.pk
    old.delete()
    assert [lease.key for lease in claimed(clock)] == [young.pk]


@pytest.mark.django_db(transaction=True)
def test_workers_that_claim_at_the_same_time_keep_to_the_limits(clock: WorkflowClock) -> None:
    make_key("slots", parallelism=5)
    make_key("rate", rate=7, period_seconds=60)
    make_deliveries(30, "slots")
    make_deliveries(30, "rate")

    def work() -> None:
        for _ in range(5):
            claim(ALIAS, uuid7(), clock.now(), 8)

    at_once(*[work] * 4)
    assert flow_control.in_flight(ALIAS) == {"slots": 5, "rate": 7}
    assert FlowKey.objects.get(key="rate").window_count == 7


def test_the_end_of_a_limited_delivery_wakes_the_worker(clock: WorkflowClock) -> None:
    """Its slot is free, and what waits for it is due since long ago: no timer tells of it."""
    limits = FlowControl(key="one", parallelism=1)
    runs = {run.pk: run for run in (start(flow_control=limits), start(flow_control=limits))}
    hand = Hand(clock)
    (lease,) = hand.claim()
    assert hand.settle(lease, finish(runs[lease.run_key])).wake
    assert len(hand.claim()) == 1


def test_every_call_of_a_runs_endpoint_counts_and_calls_to_others_do_not(clock: WorkflowClock) -> None:
    @workflow(name="limited-caller", flow_control={"key": "mine", "rate": 100, "period": "1h"})
    def caller(ctx: WorkflowContext[None]) -> str:
        return ctx.call("ask", url="https://shop.example/").text

    with mock_calls(CallAnswer(200, "answer")):
        handle = caller.trigger()
        run_workflows()
    assert handle.run.result == '"answer"'
    # The call that asks, the one that brings the answer, and the one that ends the run.
    assert FlowKey.objects.get().window_count == 3


def test_a_failure_callback_has_a_key_of_its_own(clock: WorkflowClock) -> None:
    limits = {"Upstash-Flow-Control-Key": "failures", "Upstash-Flow-Control-Value": "rate=1, period=1h"}
    runs = [start(retries=0, failure_callback=CallbackConfig("https://shop.example/failed", limits)) for _ in range(2)]
    hand = Hand(clock)
    for lease in hand.claim():
        hand.settle(lease, answer=Answer(status=500))
    assert FlowKey.objects.get().rate == 1
    (lease,) = hand.claim()
    assert (lease.flow_key, lease.run_key in {run.pk for run in runs}) == ("failures", True)


class TestRates:
    def test_windows_open_with_their_first_start(self, clock: WorkflowClock) -> None:
        make_key("api", rate=2, period_seconds=60)
        make_deliveries(9, "api")
        first = clock.now()
        assert len(claimed(clock)) == 2
        clock.advance(90)
        second = clock.now()
        assert len(claimed(clock)) == 2
        key = FlowKey.objects.get()
        assert (key.window, key.window_count, key.window_started_at) == (2, 2, second)
        assert key.window_ends_at == second + timedelta(seconds=60)
        assert second - first > timedelta(seconds=60)

    def test_a_start_that_is_given_back_is_not_counted(self, clock: WorkflowClock) -> None:
        make_key("api", rate=3, period_seconds=60)
        make_deliveries(9, "api")
        worker_key = uuid7()
        leases = claim(ALIAS, worker_key, clock.now(), 100).leases
        release(ALIAS, worker_key, leases[:2])
        assert FlowKey.objects.get().window_count == 1
        assert len(claimed(clock)) == 2

    def test_a_start_that_is_given_back_is_taken_off_no_other_window(self, clock: WorkflowClock) -> None:
        make_key("api", rate=3, period_seconds=60)
        make_deliveries(9, "api")
        worker_key = uuid7()
        leases = claim(ALIAS, worker_key, clock.now(), 100).leases
        clock.advance(60)
        claimed(clock)
        release(ALIAS, worker_key, leases)
        assert claimed(clock) == []

    def test_a_start_that_comes_late_begins_its_window_anew(self, clock: WorkflowClock) -> None:
        """The pool was busy: else ten late starts would meet the ten of the next window."""
        make_key("api", rate=10, period_seconds=60)
        make_deliveries(20, "api")
        leases = claimed(clock)
        assert {lease.start_by for lease in leases} == {clock.now() + timedelta(seconds=3)}
        clock.advance(59)
        assert start_late(ALIAS, leases[0], clock.now())
        clock.advance(1)
        assert claimed(clock) == []
        clock.advance(59)
        assert len(claimed(clock)) == 10

    def test_a_start_that_comes_after_its_window_counts_in_the_one_of_then(self, clock: WorkflowClock) -> None:
        make_key("api", rate=2, period_seconds=60)
        make_deliveries(3, "api")
        late = claimed(clock)
        clock.advance(60)
        assert len(claimed(clock)) == 1
        assert start_late(ALIAS, late[0], clock.now())
        assert not start_late(ALIAS, late[1], clock.now())
        assert FlowKey.objects.get().window_count == 2

    def test_a_late_start_opens_a_window_when_none_is_open(self, clock: WorkflowClock) -> None:
        make_key("api", rate=1, period_seconds=60)
        make_deliveries(2, "api")
        late = claimed(clock)
        clock.advance(61)
        assert start_late(ALIAS, late[0], clock.now())
        assert claimed(clock) == []

    def test_a_late_start_of_a_paused_key_is_given_back(self, clock: WorkflowClock) -> None:
        make_key("api", rate=1)
        make_deliveries(1, "api")
        late = claimed(clock)
        FlowKey.objects.update(paused=True)
        assert not start_late(ALIAS, late[0], clock.now())


class TestLimitsOfMessages:
    def test_those_of_the_newest_message_hold(self, clock: WorkflowClock) -> None:
        note_limits(ALIAS, FlowControl(key="k", parallelism=5, rate=10, period=60))
        note_limits(ALIAS, FlowControl(key="k", rate=3))
        key = FlowKey.objects.get()
        assert (key.parallelism, key.rate, key.period_seconds) == (None, 3, 1)

    def test_the_same_limits_write_nothing(self, django_assert_num_queries: Any) -> None:
        note_limits(ALIAS, FlowControl(key="k", rate=3))
        with django_assert_num_queries(1):
            note_limits(ALIAS, FlowControl(key="k", rate=3))

    def test_another_period_ends_the_window_otherwise(self, clock: WorkflowClock) -> None:
        note_limits(ALIAS, FlowControl(key="k", rate=1, period=3600))
        make_deliveries(2, "k")
        assert len(claimed(clock)) == 1
        note_limits(ALIAS, FlowControl(key="k", rate=1, period=5))
        clock.advance(5)
        assert len(claimed(clock)) == 1

    def test_a_key_that_no_column_holds_is_refused(self) -> None:
        with pytest.raises(MessageInvalid, match="1 to 255 characters"):
            note_limits(ALIAS, FlowControl(key="k" * 256, rate=1))

    def test_pinned_limits_stay_until_they_are_unpinned(self, clock: WorkflowClock) -> None:
        by_hand(flow_control.pin, "k", parallelism=2, rate=None)
        note_limits(ALIAS, FlowControl(key="k", parallelism=9, rate=8, period=7))
        key = FlowKey.objects.get()
        assert (key.parallelism, key.rate, key.period_seconds) == (2, 8, 7)
        by_hand(flow_control.pin, "k", parallelism=None, rate=5, period=60)
        note_limits(ALIAS, FlowControl(key="k", parallelism=9, rate=8, period=7))
        key.refresh_from_db()
        assert (key.parallelism, key.rate, key.period_seconds) == (2, 5, 60)
        by_hand(flow_control.unpin, "k", parallelism=True, rate=False)
        key.refresh_from_db()
        assert (key.parallelism, key.pinned_parallelism, key.pinned_rate) == (2, False, True)
        note_limits(ALIAS, FlowControl(key="k", parallelism=9, rate=8, period=7))
        key.refresh_from_db()
        assert (key.parallelism, key.rate, key.period_seconds) == (9, 5, 60)


class TestByHand:
    def test_a_paused_key_is_known_without_messages(self) -> None:
        by_hand(flow_control.pause, "k")
        assert FlowKey.objects.get(key="k").paused

    def test_a_pause_strands_no_lease(self, clock: WorkflowClock) -> None:
        make_key("k", parallelism=1)
        make_deliveries(2, "k")
        (lease,) = claimed(clock)
        by_hand(flow_control.pause, "k")
        Delivery.objects.filter(pk=lease.key).delete()  # it was delivered meanwhile
        assert claimed(clock) == []
        assert by_hand(flow_control.resume, "k")
        assert len(claimed(clock)) == 1

    def test_what_was_never_used_stays_unknown(self) -> None:
        by_hand(flow_control.resume, "k")
        by_hand(flow_control.unpin, "k", parallelism=True, rate=True)
        by_hand(flow_control.reset, "k")
        by_hand(flow_control.reset_rate, "k")
        assert not FlowKey.objects.exists()

    @pytest.mark.parametrize("change", [flow_control.reset, flow_control.reset_rate])
    def test_a_reset_lets_a_full_rate_through_at_once(self, clock: WorkflowClock, change: Callable[..., None]) -> None:
        make_key("k", rate=2, period_seconds=3600)
        make_deliveries(9, "k")
        assert len(claimed(clock)) == 2
        clock.advance(10)
        assert by_hand(change, "k")
        assert len(claimed(clock)) == 2
        assert claimed(clock) == []
        assert FlowKey.objects.get().window_started_at == clock.now()

    def test_pinning_closes_the_window(self, clock: WorkflowClock) -> None:
        make_key("k", rate=2, period_seconds=3600)
        make_deliveries(9, "k")
        claimed(clock)
        assert by_hand(flow_control.pin, "k", parallelism=None, rate=3)
        assert len(claimed(clock)) == 3
