"""The engine's door for this process: what a caller's transaction holds, and what refused requests get."""

from __future__ import annotations

import pytest
from django.contrib.auth import get_user_model
from django.core.exceptions import SynchronousOnlyOperation
from django.db import transaction

from django_workflow.engine import cycle
from django_workflow.engine.facts import Answer
from django_workflow.engine.journal_cache import JournalCache
from django_workflow.engine.transport import EngineTransport
from django_workflow.errors import EngineError, RunEnded
from django_workflow.models import Delivery, JournalEntry, Run, Step, Waiter
from django_workflow.protocol.invoke import InvokeBody, encode_invoke
from django_workflow.protocol.publish import FEATURES, CallbackConfig, Message, WorkflowFields
from django_workflow.protocol.requests import (
    Batch,
    CancelRuns,
    FetchRun,
    FinishRun,
    GetWaiters,
    Notify,
    Publish,
    Wait,
)
from django_workflow.protocol.steps import CallType, encode_step
from django_workflow.testing import WorkflowClock
from tests.engine.deliveries import ALIAS, URL, Hand, finish, message, result, start, step

ELSEWHERE = "https://shop.example/workflows/by-hand/"


def invocation(run: Run, child: str) -> Batch:
    """What an endpoint submits for a first step that invokes."""
    body = InvokeBody(workflow_run_id=run.run_id, workflow_url=URL, step=step(1, None, step_type="Invoke"))
    fields = WorkflowFields(run_id=child, url=URL, init=True, invoke=True, features=FEATURES)
    return Batch(messages=(Message(destination=URL, body=encode_invoke(body), workflow=fields),))


def call(run: Run) -> Batch:
    """What an endpoint submits for a first step that calls."""
    fields = WorkflowFields(run_id=run.run_id, url=URL, call_type=CallType.TO_CALLBACK.value, features=FEATURES)
    headers = {"Upstash-Forward-Upstash-Workflow-StepId": "1", "Upstash-Forward-Upstash-Workflow-StepName": "step 1"}
    callback = CallbackConfig(url=URL, headers=headers)
    return Batch(messages=(Message(destination="https://bank.example/", callback=callback, workflow=fields),))


@pytest.fixture
def hand(workflow_clock: WorkflowClock) -> Hand:
    return Hand(workflow_clock)


@pytest.fixture
def engine() -> EngineTransport:
    return EngineTransport()


@pytest.mark.django_db(transaction=True)
def test_a_trigger_in_a_transaction_that_rolls_back_leaves_nothing(engine: EngineTransport) -> None:
    with transaction.atomic():
        get_user_model().objects.create(username="rolled back")
        engine.send(Batch(messages=(message("wfr_gone", b"{}", init=True),)))
        assert Run.objects.filter(run_id="wfr_gone").exists()
        transaction.set_rollback(True)
    assert not Run.objects.exists()
    assert not Delivery.objects.exists()
    assert not get_user_model().objects.exists()


@pytest.mark.django_db
async def test_sync_calls_in_async_code_tell_their_twins(engine: EngineTransport) -> None:
    with pytest.raises(SynchronousOnlyOperation, match=r"await workflow\.atrigger\(\)"):
        engine.send(Batch(messages=(message("wfr_1", b"{}", init=True),)))


@pytest.mark.django_db
class TestTrigger:
    def test_a_run_id_in_use_is_deduplicated(self, engine: EngineTransport) -> None:
        first = engine.send(Publish(message=message("wfr_twice", b"1", init=True)))
        second = engine.send(Publish(message=message("wfr_twice", b"2", init=True)))
        assert not first.deduplicated
        assert second.deduplicated
        assert second.message_id == first.message_id
        assert Run.objects.get().payload == "1"

    def test_run_ids_are_compared_byte_by_byte(self, engine: EngineTransport) -> None:
        start("wfr_abc")
        assert not engine.send(Publish(message=message("wfr_ABC", init=True))).deduplicated

    def test_a_batch_is_taken_together_or_not_at_all(self, engine: EngineTransport) -> None:
        bad = Message(destination="no-such-group")
        with pytest.raises(EngineError):
            engine.send(Batch(messages=(message("wfr_a", init=True), bad)))
        assert not Run.objects.exists()

    def test_a_payload_that_is_no_text_comes_back_as_it_was(self, engine: EngineTransport) -> None:
        for number, payload in enumerate((b"\xff\x00", b"a\0b", "é☕".encode())):
            engine.send(Publish(message=message(f"wfr_{number}", payload, init=True)))
            run = Run.objects.get(run_id=f"wfr_{number}")
            info = JournalCache(ALIAS).info(run.pk)
            from django_workflow.engine.records import raw

            assert raw(info.payload, info.payload_is_base64) == payload


@pytest.mark.django_db
class TestEndedRuns:
    def test_nothing_can_be_added_to_a_run_that_is_over(self, engine: EngineTransport, hand: Hand) -> None:
        run = start()
        (lease,) = hand.claim()
        (lease,) = hand.settle(lease, result(run, step(1))).followups
        hand.settle(lease, finish(run))
        with pytest.raises(RunEnded):
            engine.send(result(run, step(2)))
        with pytest.raises(RunEnded):
            engine.send(Notify(event_id="e", run_id=run.run_id))
        with pytest.raises(RunEnded):
            engine.send(Wait(event_id="e", message=message(run.run_id), step=step(2, None), timeout=5))
        with pytest.raises(RunEnded):
            engine.send(FetchRun(run_id=run.run_id))

    def test_a_run_may_be_finished_again(self, engine: EngineTransport) -> None:
        run = start()
        engine.send(FinishRun(run_id=run.run_id, result=b"1"))
        engine.send(FinishRun(run_id=run.run_id, result=b"2"))
        run.refresh_from_db()
        assert run.result == "1"

    def test_an_unknown_run_takes_nothing(self, engine: EngineTransport) -> None:
        with pytest.raises(RunEnded):
            engine.send(Publish(message=message("wfr_unknown", encode_step(step(1)))))
        assert engine.send(CancelRuns(run_ids=("wfr_unknown",))) == 0

    def test_canceling_counts_the_runs_that_were_alive(self, engine: EngineTransport) -> None:
        runs = [start() for _ in range(3)]
        assert engine.send(CancelRuns(run_ids=(runs[0].run_id,))) == 1
        assert engine.send(CancelRuns(run_ids=tuple(run.run_id for run in runs))) == 2
        assert engine.send(CancelRuns(run_ids=tuple(run.run_id for run in runs))) == 0

    def test_runs_are_canceled_by_url_and_label(self, engine: EngineTransport) -> None:
        start("wfr_vip", labels=("vip", "eu"))
        start("wfr_other", labels=("vips",))
        assert engine.send(CancelRuns(label="vip")) == 1
        assert engine.send(CancelRuns(workflow_url="https://workflow.internal/", count=5)) == 1


@pytest.mark.django_db
class TestSubmissionsFromOutside:
    """What endpoints submit over the network, beside the acknowledgement of their delivery."""

    def test_a_result_schedules_the_next_delivery(self, engine: EngineTransport) -> None:
        run = start()
        engine.send(result(run, step(1)))
        assert JournalEntry.objects.get(run=run).position == 1
        assert sorted(Delivery.objects.values_list("position", flat=True)) == [0, 1]

    def test_the_second_result_of_a_step_is_dropped(self, engine: EngineTransport) -> None:
        run = start()
        engine.send(result(run, step(1, '"first"')))
        engine.send(result(run, step(1, '"second"')))
        assert '"first"' in JournalEntry.objects.get(run=run).body.replace('\\"', '"')

    def test_plans_that_are_submitted_again_open_no_second_group(self, engine: EngineTransport) -> None:
        run = start()
        plans = [step(0, None, target_step=number, concurrent=2, step_name=f"b{number}") for number in (1, 2)]
        engine.send(result(run, *plans))
        engine.send(result(run, *plans))
        assert JournalEntry.objects.filter(run=run).count() == 2
        assert Delivery.objects.filter(run=run, position__gt=0).count() == 2

    @pytest.mark.parametrize("own_id", [False, True], ids=["new ids", "an id of its own"])
    def test_an_invocation_that_is_submitted_again_starts_no_second_run(
        self, engine: EngineTransport, own_id: bool
    ) -> None:
        run = start()
        for number in range(2):
            engine.send(invocation(run, "wfr_child" if own_id else f"wfr_child{number}"))
        child = Run.objects.get(parent=run)
        assert Step.objects.get(run=run).status == Step.Status.WAITING
        engine.send(FinishRun(run_id=child.run_id, result=b"1"))
        engine.send(invocation(run, "wfr_late"))
        assert list(Run.objects.filter(parent=run)) == [child]
        assert JournalEntry.objects.get(run=run).step_id == 1
        assert Step.objects.get(run=run).status == Step.Status.SUCCESS

    def test_a_call_that_is_submitted_again_is_made_once(self, engine: EngineTransport, hand: Hand) -> None:
        run = start()
        first = Delivery.objects.get()
        engine.send(call(run))
        engine.send(call(run))
        (made,) = (lease for lease in hand.claim() if lease.key != first.pk)
        hand.settle(made, answer=Answer(status=200, body=b"{}"))
        engine.send(call(run))  # while its answer is brought
        assert not Delivery.objects.filter(kind=Delivery.Kind.CALL).exists()
        engine.send(result(run, step(1, step_type="Call")))
        engine.send(call(run))
        assert not Delivery.objects.filter(kind=Delivery.Kind.CALL).exists()
        assert Step.objects.get(run=run).status == Step.Status.SUCCESS

    def test_an_invocation_that_an_answer_brings_after_its_own_submission_starts_no_second_run(
        self, engine: EngineTransport, hand: Hand
    ) -> None:
        run = start(url=ELSEWHERE)
        (lease,) = hand.claim()
        engine.send(invocation(run, "wfr_child"))
        hand.settle(lease, invocation(run, "wfr_again"))
        assert Run.objects.get(parent=run).run_id == "wfr_child"

    def test_an_atomic_step_whose_result_is_there_already_is_refused(self, engine: EngineTransport) -> None:
        run = start()
        engine.send(result(run, step(1)))
        with pytest.raises(EngineError, match="has a result already"), engine.atomic():
            engine.send(result(run, step(1)))

    def test_a_journal_that_was_read_in_a_transaction_is_not_kept_for_others(self, engine: EngineTransport) -> None:
        run = start()
        with transaction.atomic():
            engine.send(result(run, step(1, '"rolled back"')))
            engine.send(FetchRun(run_id=run.run_id))
            transaction.set_rollback(True)
        engine.send(result(run, step(1, '"kept"')))
        assert "kept" in engine.send(FetchRun(run_id=run.run_id))[1].body

    def test_a_fetched_run_ends_with_the_asked_message(self, engine: EngineTransport) -> None:
        run = start()
        ids = [engine.send(result(run, step(number)))[0].message_id for number in (1, 2, 3)]
        fetched = engine.send(FetchRun(run_id=run.run_id, message_id=ids[1]))
        assert [item.message_id for item in fetched[1:]] == ids[:2]
        assert fetched[0].body == '{"n":1}'
        assert engine.send(FetchRun(run_id=run.run_id, message_id="msg_unknown")) == ()


@pytest.mark.django_db
class TestWaits:
    def wait(self, engine: EngineTransport, run: Run, event_id: str = "go", timeout: float = 60) -> None:
        waiting = step(1, None, step_type="Wait")
        engine.send(Wait(event_id=event_id, message=message(run.run_id), step=waiting, timeout=timeout))

    def test_a_wait_is_listed_until_its_event_came(self, engine: EngineTransport, hand: Hand) -> None:
        run = start()
        self.wait(engine, run)
        (listed,) = engine.send(GetWaiters(event_id="go"))
        assert listed.deadline == int(hand.clock.now().timestamp()) + 60
        (told,) = engine.send(Notify(event_id="go", body=b'{"x":1}'))
        assert told.workflow_run_id == run.run_id
        assert engine.send(GetWaiters(event_id="go")) == ()
        assert Step.objects.get(run=run).status == "success"

    def test_early_events_are_used_in_their_order_one_a_wait(self, engine: EngineTransport) -> None:
        run = start()
        for number in (b"1", b"2"):
            engine.send(Notify(event_id="go", run_id=run.run_id, body=number))
        self.wait(engine, run)
        states = list(Waiter.objects.order_by("created_at", "pk").values_list("state", flat=True))
        assert states == ["consumed", "early"]

    def test_a_notify_that_is_sent_again_reaches_nobody_else(self, engine: EngineTransport) -> None:
        first, second = start(), start()
        self.wait(engine, first)
        assert len(engine.send(Notify(event_id="go", deduplication_id="once"))) == 1
        self.wait(engine, second)
        (again,) = engine.send(Notify(event_id="go", deduplication_id="once"))
        assert again.deduplicated
        assert again.workflow_run_id == first.run_id
        assert Waiter.objects.get(run=second).state == Waiter.State.WAITING

    def test_a_wait_that_is_submitted_again_waits_once(self, engine: EngineTransport) -> None:
        run = start()
        self.wait(engine, run)
        self.wait(engine, run)
        assert Waiter.objects.count() == 1
        engine.send(Notify(event_id="go"))
        self.wait(engine, run)
        assert not Waiter.objects.waiting().exists()

    def test_a_wait_left_over_by_a_run_that_ended_is_closed(self, engine: EngineTransport, hand: Hand) -> None:
        run = start()
        self.wait(engine, run)
        Run.objects.update(status=Run.Status.FAILED)
        hand.clock.advance(61)
        cycle.end_overdue_waits(ALIAS, hand.clock.now())
        assert Waiter.objects.get().state == Waiter.State.CANCELED

    def test_event_ids_are_compared_byte_by_byte(self, engine: EngineTransport) -> None:
        self.wait(engine, start(), "Go")
        assert engine.send(Notify(event_id="go")) == ()
