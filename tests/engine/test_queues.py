"""Queues: the order in which their messages begin, what holds it up, and what becomes of a queue."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from threading import Barrier

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_workflow.engine import cycle, queues
from django_workflow.engine.facts import Answer
from django_workflow.engine.leases import claim
from django_workflow.engine.messages import cancel
from django_workflow.engine.records import Lease
from django_workflow.engine.writing import write
from django_workflow.errors import EngineError, MessageInvalid, QuotaExceeded
from django_workflow.models import Delivery, FlowKey, Queue
from django_workflow.testing import CallAnswer, WorkflowClock, mock_calls, run_workflows
from django_workflow.testing.factories import make_delivery
from tests.engine.deliveries import Hand
from tests.engine.posting import ALIAS, DOWN, URL, answers, post, publish, states_of
from tests.engine.threads import at_once

pytestmark = pytest.mark.django_db
CALLBACK = "https://hooks.example/told"
OK, BAD = Answer(200), Answer(500)


@pytest.fixture
def clock(workflow_clock: WorkflowClock) -> WorkflowClock:
    return workflow_clock


@pytest.fixture
def hand(clock: WorkflowClock) -> Hand:
    return Hand(clock)


def change(what: Callable[..., object], *args: object, **kwargs: object) -> None:
    """One change of a queue, as the HTTP door makes it."""
    write(ALIAS, lambda unit: what(unit, *args, **kwargs))


def make_queue(name: str = "mail", parallelism: int = 1, *, paused: bool = False) -> None:
    change(queues.upsert, name, parallelism=parallelism, paused=paused)


def bodies(leases: list[Lease]) -> str:
    return "".join(sorted(lease.body for lease in leases))


class TestOneAtATime:
    def test_a_message_begins_when_the_one_before_it_is_finished(self, clock: WorkflowClock, hand: Hand) -> None:
        for body in "abc":
            post(body=body, queue="mail")
        for body in "abc":
            (lease,) = hand.claim()
            assert lease.body == body
            assert hand.claim() == []
            hand.settle(lease, answer=OK)
        assert hand.claim() == []

    def test_retries_and_their_waiting_hold_up_the_next(self, clock: WorkflowClock) -> None:
        first, second = (post(body=body, queue="mail", retries="2") for body in "ab")
        with mock_calls(answers(DOWN, DOWN, CallAnswer())) as network:
            run_workflows(skip_delays=True)
        assert [call.body for call in network.calls] == [b"a", b"a", b"a", b"b"]
        first.refresh_from_db()
        second.refresh_from_db()
        assert second.active_at == first.finished_at

    def test_so_does_one_that_is_given_up_until_then(self, clock: WorkflowClock) -> None:
        for body in "ab":
            post(body=body, queue="mail", retries="1")
        with mock_calls(lambda call: DOWN if call.body == b"a" else CallAnswer()) as network:
            run_workflows(skip_delays=True)
        assert [call.body for call in network.calls] == [b"a", b"a", b"b"]

    def test_callbacks_hold_up_the_next_with_their_own_retries_and_callbacks(self, clock: WorkflowClock) -> None:
        deep = "https://hooks.example/deep"
        post(body="a", queue="mail", callback=CALLBACK, callback_retries="1", callback_failure_callback=deep)
        post(body="b", queue="mail")
        with mock_calls(lambda call: DOWN if call.url == CALLBACK else CallAnswer()) as network:
            run_workflows(skip_delays=True)
        assert [call.url for call in network.calls] == [URL, CALLBACK, CALLBACK, deep, URL]
        assert network.calls[-1].body == b"b"

    def test_a_failure_callback_does_so_too(self, clock: WorkflowClock) -> None:
        post(body="a", queue="mail", retries="0", failure_callback=CALLBACK, failure_callback_delay="1h")
        post(body="b", queue="mail")
        with mock_calls(lambda call: DOWN if call.body == b"a" else CallAnswer()) as network:
            run_workflows()
            assert len(network.calls) == 1
            run_workflows(skip_delays=True)
        assert [call.url for call in network.calls] == [URL, CALLBACK, URL]

    def test_a_callback_of_an_attempt_goes_out_while_its_message_waits_for_the_next(
        self, clock: WorkflowClock, hand: Hand
    ) -> None:
        post(body="a", queue="mail", callback=CALLBACK)
        post(body="b", queue="mail")
        (lease,) = hand.claim()
        hand.settle(lease, answer=BAD)
        (callback,) = hand.claim()
        assert callback.destination == CALLBACK
        hand.settle(callback, answer=OK)
        assert hand.claim() == []
        clock.advance(60)
        assert bodies(hand.claim()) == "a"

    def test_a_delayed_message_holds_up_those_behind_it(self, clock: WorkflowClock, hand: Hand) -> None:
        post(body="a", queue="mail", delay="1h")
        post(body="b", queue="mail")
        found = claim(ALIAS, hand.key, clock.now(), 5)
        assert found.leases == []
        assert found.next_due_at == Delivery.objects.get(body="a").due_at
        clock.advance("1h")
        assert bodies(hand.claim()) == "a"

    def test_a_message_that_was_committed_late_does_not_run_beside_a_younger_one(
        self, clock: WorkflowClock, hand: Hand
    ) -> None:
        late = post(body="late", queue="mail")
        young = post(body="young", queue="mail")
        Delivery.objects.filter(pk=late.pk).update(queue="elsewhere")  # not committed yet, for all that others see
        (lease,) = hand.claim()
        assert lease.body == "young"
        Delivery.objects.filter(pk=late.pk).update(queue="mail")
        assert hand.claim() == []
        hand.settle(lease, answer=BAD)  # its retry goes before the older one as well
        clock.advance(60)
        (lease,) = hand.claim()
        assert lease.message_key == young.pk
        hand.settle(lease, answer=OK)
        assert bodies(hand.claim()) == "late"

    def test_a_canceled_message_makes_room_once_it_is_not_under_way(self, clock: WorkflowClock, hand: Hand) -> None:
        first, second, _ = (post(body=body, queue="mail") for body in "abc")
        (lease,) = hand.claim()
        cancel(ALIAS, [first.pk, second.pk])
        assert hand.claim() == []
        hand.settle(lease, answer=BAD)
        assert bodies(hand.claim()) == "c"
        assert states_of(second)[-1] == states_of(first)[-1] == "CANCELED"

    def test_a_dead_workers_message_keeps_its_place(self, clock: WorkflowClock, hand: Hand) -> None:
        for body in "ab":
            post(body=body, queue="mail")
        assert bodies(hand.claim()) == "a"
        cycle.rescue_dead(ALIAS, clock.now(), [hand.key])
        assert bodies(hand.claim()) == "a"

    def test_queues_do_not_hold_up_one_another(self, clock: WorkflowClock, hand: Hand) -> None:
        for body in "ab":
            post(body=body, queue="mail")
            post(body=body.upper(), queue="Mail")
        assert bodies(hand.claim()) == "Aa"

    def test_who_finishes_wakes_those_who_wait(self, clock: WorkflowClock, hand: Hand) -> None:
        post(queue="mail")
        (lease,) = hand.claim()
        assert hand.settle(lease, answer=OK).wake


class TestSeveralAtATime:
    def test_at_most_so_many_are_in_progress_and_they_begin_in_order(self, clock: WorkflowClock, hand: Hand) -> None:
        make_queue(parallelism=3)
        for body in "abcdefg":
            post(body=body, queue="mail")
        first = hand.claim()
        assert bodies(first) == "abc"
        assert hand.claim() == []
        hand.settle(first[1], answer=OK)
        (fourth,) = hand.claim()
        assert fourth.body == "d"
        hand.settle(first[0], answer=BAD)  # waits for its retry, in progress
        assert hand.claim() == []
        hand.settle(first[2], answer=OK)
        hand.settle(fourth, answer=OK)
        assert bodies(hand.claim()) == "ef"

    def test_a_small_hand_takes_them_in_order_too(self, clock: WorkflowClock, hand: Hand) -> None:
        make_queue(parallelism=5)
        post(body="a", queue="mail", delay="5s")
        for body in "bc":
            post(body=body, queue="mail")
        assert hand.claim(1) == []
        clock.advance(5)  # due last, and yet the first
        assert [bodies(hand.claim(1)) for _ in range(3)] == ["a", "b", "c"]

    def test_more_begin_when_the_parallelism_grows_and_none_while_it_is_too_small(
        self, clock: WorkflowClock, hand: Hand
    ) -> None:
        make_queue(parallelism=2)
        for body in "abcde":
            post(body=body, queue="mail")
        first, second = hand.claim()
        make_queue(parallelism=1)
        hand.settle(first, answer=OK)
        assert hand.claim() == []
        hand.settle(second, answer=OK)
        assert bodies(hand.claim()) == "c"
        make_queue(parallelism=3)
        assert bodies(hand.claim()) == "de"

    @pytest.mark.django_db(transaction=True)
    def test_workers_that_claim_at_the_same_time_keep_to_it(self) -> None:
        make_queue(parallelism=2)
        for number in range(30):
            post(body=f"{number:02}", queue="mail")
        begun: list[str] = []
        most = [0]

        def work() -> None:
            own = Hand(WorkflowClock(timezone.now() + timedelta(hours=1)))
            deadline = time.monotonic() + 30
            while Delivery.objects.exists() and time.monotonic() < deadline:
                for lease in own.claim(3):
                    begun.append(lease.body)
                    held = Delivery.objects.filter(worker__isnull=False).count()
                    most[0] = max(most[0], held)
                    own.settle(lease, answer=OK)

        at_once(*[work] * 4)
        assert sorted(begun) == [f"{number:02}" for number in range(30)]
        assert most[0] <= 2
        # Two threads may note what they got in the other order.
        assert all(abs(int(body) - index) <= 3 for index, body in enumerate(begun))


class TestPause:
    def test_a_paused_queue_takes_and_holds_and_goes_on_with_the_oldest(self, clock: WorkflowClock, hand: Hand) -> None:
        make_queue(paused=True)
        for body in "ab":
            post(body=body, queue="mail")
        assert hand.claim() == []
        change(queues.upsert, "mail", paused=False)
        assert bodies(hand.claim()) == "a"

    def test_what_is_under_way_is_finished_but_not_tried_again(self, clock: WorkflowClock, hand: Hand) -> None:
        log = post(queue="mail", retry_delay="0")
        (lease,) = hand.claim()
        change(queues.upsert, "mail", paused=True)
        hand.settle(lease, answer=BAD)
        assert hand.claim() == []
        change(queues.upsert, "mail", paused=False)
        (lease,) = hand.claim()
        hand.settle(lease, answer=OK)
        assert states_of(log)[-1] == "DELIVERED"

    def test_many_paused_and_busy_queues_hide_no_other(self, clock: WorkflowClock, hand: Hand) -> None:
        for number in range(150):
            post(queue=f"paused-{number}")
        Queue.objects.update(paused=True)
        for number in range(100):
            post(queue=f"busy-{number}")
            post(body="waits", queue=f"busy-{number}")
        assert len(hand.claim(200)) == 100
        post(body="free", queue="last")
        assert bodies(hand.claim(4)) == "free"


class TestWithFlowControl:
    def test_both_must_let_a_message_through(self, clock: WorkflowClock, hand: Hand) -> None:
        make_queue(parallelism=2)
        for body in "abc":
            post(body=body, queue="mail", flow_control_key="k", flow_control_value="parallelism=1")
        (first,) = hand.claim()
        assert first.body == "a"
        hand.settle(first, answer=OK)
        (second,) = hand.claim()
        assert second.body == "b"
        FlowKey.objects.update(parallelism=5)
        (third,) = hand.claim()
        assert third.body == "c"
        assert hand.claim() == []

    def test_a_message_held_by_its_key_holds_up_its_queue_and_no_other(self, clock: WorkflowClock, hand: Hand) -> None:
        make_queue(parallelism=3)
        post(body="x", flow_control_key="k", flow_control_value="parallelism=1")
        assert bodies(hand.claim()) == "x"
        post(body="a", queue="mail", flow_control_key="k", flow_control_value="parallelism=1")
        post(body="b", queue="mail")
        post(body="c", queue="other")
        assert bodies(hand.claim()) == "c"

    def test_a_key_that_is_full_hides_no_queue_however_many_wait_for_it(self, clock: WorkflowClock, hand: Hand) -> None:
        for number in range(80):
            post(queue=f"q{number}", flow_control_key="k", flow_control_value="parallelism=1")
        assert len(hand.claim(10)) == 1
        post(body="free", queue="last")
        assert bodies(hand.claim(10)) == "free"

    def test_a_slot_is_free_while_a_message_of_a_queue_waits_for_its_retry(
        self, clock: WorkflowClock, hand: Hand
    ) -> None:
        limits = {"flow_control_key": "k", "flow_control_value": "parallelism=1"}
        post(body="a", queue="mail", **limits)
        post(body="b", **limits)
        leases = hand.claim()
        (lease,) = leases
        hand.settle(lease, answer=BAD)
        (other,) = hand.claim()
        assert {lease.body, other.body} == {"a", "b"}


class TestTheQueueItself:
    def test_it_is_made_by_its_first_message_and_keeps_its_settings(self, clock: WorkflowClock) -> None:
        post(queue="mail")
        assert (Queue.objects.get().parallelism, Queue.objects.get().created_at) == (1, clock.now())
        make_queue(parallelism=7)
        post(queue="mail")  # a message, of a schedule or not, changes nothing of its queue
        assert Queue.objects.get().parallelism == 7

    def test_a_change_leaves_alone_what_it_does_not_name(self, clock: WorkflowClock) -> None:
        make_queue(parallelism=4, paused=True)
        made = Queue.objects.get()
        clock.advance(5)
        change(queues.upsert, "mail", paused=False)
        row = Queue.objects.get()
        assert (row.parallelism, row.paused) == (4, False)
        assert (row.created_at, row.updated_at) == (made.created_at, clock.now())

    def test_lag_counts_messages_that_are_not_finished(self, clock: WorkflowClock, hand: Hand) -> None:
        for _ in range(3):
            post(queue="mail", callback=CALLBACK)
        (lease,) = hand.claim()
        assert queues.lags(ALIAS, ["mail", "none"]) == {"mail": 3}
        hand.settle(lease, answer=OK)
        assert queues.lags(ALIAS, ["mail"]) == {"mail": 3}  # its callback is under way
        (callback,) = hand.claim()
        hand.settle(callback, answer=OK)
        assert queues.lags(ALIAS, ["mail"]) == {"mail": 2}

    def test_deleting_it_drops_what_waits_and_lets_go_on_what_is_under_way(
        self, clock: WorkflowClock, hand: Hand
    ) -> None:
        first, second = (post(body=body, queue="mail", callback=CALLBACK) for body in "ab")
        (lease,) = hand.claim()
        change(queues.delete, "mail")
        assert not Queue.objects.exists()
        assert states_of(second) == ["CREATED", "CANCEL_REQUESTED", "CANCELED"]
        hand.settle(lease, answer=BAD)
        with mock_calls(CallAnswer()) as network:
            run_workflows(skip_delays=True)
        assert sorted(call.url for call in network.calls) == sorted([CALLBACK, URL, CALLBACK])
        assert states_of(first)[-1] == "DELIVERED"
        change(queues.delete, "mail")  # a second time is no error

    def test_a_delivery_whose_queue_went_meanwhile_is_found(self, clock: WorkflowClock, hand: Hand) -> None:
        post(queue="mail")
        make_delivery()
        Queue.objects.all().delete()
        assert len(hand.claim()) == 1
        assert queues.release_orphans(ALIAS, 100) == 1
        assert len(hand.claim()) == 1

    def test_bad_settings_are_refused(self, clock: WorkflowClock, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("", "a b", "a/b", "ä", "n" * 256):
            with pytest.raises(MessageInvalid, match="queue's name"):
                make_queue(name)
        with pytest.raises(MessageInvalid, match="at least 1"):
            make_queue(parallelism=0)
        with pytest.raises(QuotaExceeded):
            make_queue(parallelism=10_001)
        monkeypatch.setattr("django_workflow.engine.limits.MOST_QUEUES", 1)
        make_queue("one")
        make_queue("one", 2)
        with pytest.raises(QuotaExceeded):
            publish(queue="two")
        with pytest.raises(EngineError, match="no queue 'two'"):
            queues.find(ALIAS, "two")


@pytest.mark.django_db(transaction=True)
def test_publishers_and_changes_that_make_a_queue_at_the_same_time_make_one() -> None:
    barrier = Barrier(6)

    def work(number: int) -> None:
        for turn in range(5):
            barrier.wait(20)
            if number % 2:
                make_queue(f"mail-{turn}", parallelism=4)
            else:
                publish(queue=f"mail-{turn}")

    at_once(*(partial(work, number) for number in range(6)))
    assert set(Queue.objects.values_list("name", "parallelism")) == {(f"mail-{turn}", 4) for turn in range(5)}
    assert Delivery.objects.count() == 15


class TestCosts:
    def test_a_claim_without_queues_and_keys_asks_nothing_of_them(self, clock: WorkflowClock, hand: Hand) -> None:
        make_queue()
        make_delivery()
        with CaptureQueriesContext(connection) as found:
            assert len(hand.claim()) == 1
        statements = [query["sql"] for query in found if not query["sql"].startswith(("BEGIN", "SAVE", "RELEASE"))]
        assert len(statements) == 3, statements  # what is due, the rows, the lease
        assert not any(Queue._meta.db_table in sql or FlowKey._meta.db_table in sql for sql in statements)

    def test_a_claim_costs_the_same_with_ten_queues_and_with_a_hundred(self, clock: WorkflowClock, hand: Hand) -> None:
        counts = []
        for number in (10, 90):
            for index in range(number):
                for _ in range(3):
                    post(queue=f"q{number}-{index}")
            with CaptureQueriesContext(connection) as found:
                hand.claim(1000)
            counts.append(len(found))
        assert counts[0] == counts[1]
