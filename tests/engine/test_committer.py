"""Facts become one transaction: what it costs, what a lost lease may not do, what a refusal leads to."""

from __future__ import annotations

from dataclasses import replace
from threading import Event, Thread
from typing import Any

import pytest
from django.db import DataError, OperationalError, connection, connections, transaction
from django.test.utils import CaptureQueriesContext

from django_workflow.engine import committer as committer_module
from django_workflow.engine.after import After
from django_workflow.engine.committer import Committer
from django_workflow.engine.facts import Answer, Emitted, StepStarted
from django_workflow.engine.local_requests import Asked
from django_workflow.engine.records import Lease
from django_workflow.engine.short_deliveries import Room
from django_workflow.models import Attempt, ChannelEvent, Delivery, JournalEntry, Run, Step, Waiter
from django_workflow.protocol.requests import Batch, CancelRun, Wait
from django_workflow.testing import WorkflowClock
from tests.engine.deliveries import Hand, finish, message, result, start, step
from tests.engine.workers import eventually

BOUNDARIES = ("BEGIN", "COMMIT", "SAVEPOINT", "RELEASE", "ROLLBACK", "SET ")


@pytest.fixture
def hand(workflow_clock: WorkflowClock) -> Hand:
    return Hand(workflow_clock)


def statements(captured: CaptureQueriesContext) -> list[str]:
    """What counts as a statement: not the edges of transactions."""
    return [query["sql"] for query in captured.captured_queries if not query["sql"].startswith(BOUNDARIES)]


@pytest.mark.django_db
class TestSequence:
    def test_a_result_is_journalled_shown_and_told_and_its_run_goes_on_leased(self, hand: Hand) -> None:
        run = start()
        (lease,) = hand.claim()
        after = hand.settle(lease, result(run, step(1, '{"a":1}')))
        entry = JournalEntry.objects.get(run=run)
        assert (entry.position, entry.step_id) == (1, 1)
        row = Step.objects.get(run=run)
        assert (row.status, row.preview, row.position) == ("success", '{"a":1}', 1)
        (following,) = after.followups
        delivery = Delivery.objects.get(run=run)
        assert (delivery.pk, delivery.fence, delivery.position) == (lease.key, lease.fence + 1, 1)
        assert delivery.worker_id == hand.key
        assert (following.fence, following.position, following.message_key) == (lease.fence + 1, 1, entry.pk)
        kinds = [event.data.split('"')[3] for event in ChannelEvent.objects.filter(channel=run.run_id)]
        assert kinds == ["runStart", "stepStart", "stepFinish"]

    def test_a_step_of_a_lone_run_takes_few_statements_and_no_more_later(self, hand: Hand) -> None:
        run = start()
        (lease,) = hand.claim()
        counts = []
        for number in range(1, 31):
            with CaptureQueriesContext(connection) as captured:
                (lease,) = hand.settle(lease, result(run, step(number))).followups
            counts.append(len(statements(captured)))
        assert max(counts[1:]) <= 8, statements(captured)
        assert counts[-1] == counts[1]

    def test_sixteen_runs_share_a_transaction_and_its_statements(self, hand: Hand) -> None:
        runs = [start() for _ in range(16)]
        leases = {lease.run_key: lease for lease in hand.claim(20)}
        hand.write(*(hand.settlement(leases[run.pk], result(run, step(1))) for run in runs))
        leases = {row.run_id: row for row in Delivery.objects.all()}
        assert {row.position for row in leases.values()} == {1}
        assert Step.objects.filter(status="success").count() == 16

    def test_the_end_of_a_run_leaves_no_delivery(self, hand: Hand) -> None:
        run = start()
        (lease,) = hand.claim()
        (lease,) = hand.settle(lease, result(run, step(1))).followups
        hand.settle(lease, finish(run, b'"done"'))
        run.refresh_from_db()
        assert (run.status, run.result) == (Run.Status.SUCCESS, '"done"')
        assert not Delivery.objects.exists()

    def test_a_run_whose_last_branch_is_done_is_shown_running(self, hand: Hand) -> None:
        run = start()
        (lease,) = hand.claim()
        plans = [
            step(0, None, step_name=f"nap {n}", step_type="SleepFor", concurrent=2, target_step=n, sleep_for=n)
            for n in (1, 2)
        ]
        hand.settle(lease, Batch(messages=tuple(result(run, plan, delay=plan.sleep_for).messages[0] for plan in plans)))
        run.refresh_from_db()
        assert run.status == Run.Status.SLEEPING
        for number in (1, 2):
            hand.clock.advance(1)
            (lease,) = hand.claim()
            hand.goes_on = False
            hand.settle(lease, result(run, step(number, None, step_type="SleepFor", concurrent=2)))
            run.refresh_from_db()
            assert run.status == (Run.Status.SLEEPING if number == 1 else Run.Status.RUNNING)

    def test_a_delivery_that_may_not_go_on_is_free_for_others(self, hand: Hand) -> None:
        run = start()
        (lease,) = hand.claim()
        hand.goes_on = False
        after = hand.settle(lease, result(run, step(1)))
        assert after.followups == []
        assert after.wake
        assert Delivery.objects.get().worker_id is None


@pytest.mark.django_db
class TestFences:
    def test_a_lost_lease_settles_nothing(self, hand: Hand) -> None:
        run = start()
        (lease,) = hand.claim()
        Delivery.objects.update(worker_id=None, fence=lease.fence + 1)
        for request in (result(run, step(1)), finish(run)):
            assert hand.settle(lease, request).followups == []
        assert hand.settle(lease, answer=Answer(status=500)).followups == []
        assert not JournalEntry.objects.exists()
        assert not Attempt.objects.exists()
        assert Delivery.objects.get().attempt == 0

    def test_facts_that_are_written_twice_count_once(self, hand: Hand) -> None:
        run = start()
        (lease,) = hand.claim()
        settlement = hand.settlement(lease, result(run, step(1)))
        hand.write(settlement)
        hand.write(settlement)
        assert JournalEntry.objects.filter(run=run).count() == 1
        assert Delivery.objects.get().fence == lease.fence + 1

    def test_a_canceled_run_takes_no_result(self, hand: Hand) -> None:
        run = start()
        (lease,) = hand.claim()
        from django_workflow.engine.transport import EngineTransport

        EngineTransport().send(CancelRun(run_id=run.run_id))
        hand.settle(lease, result(run, step(1)))
        run.refresh_from_db()
        assert run.status == Run.Status.CANCELED
        assert not JournalEntry.objects.exists()
        assert not Delivery.objects.exists()

    def test_a_start_that_is_told_late_is_ignored(self, hand: Hand) -> None:
        run = start()
        (lease,) = hand.claim()
        lease.running = step(1)
        hand.settle(lease, result(run, step(1)))
        hand.write(StepStarted(lease, hand.clock.now()))
        assert Step.objects.get(run=run).status == "success"

    def test_a_start_that_is_told_in_time_shows_the_step_running(self, hand: Hand) -> None:
        run = start()
        (lease,) = hand.claim()
        lease.running = step(1)
        hand.write(StepStarted(lease, hand.clock.now()))
        assert Step.objects.get(run=run).status == "running"
        hand.settle(lease, result(run, step(1)))
        assert Step.objects.get(run=run).status == "success"
        told = [event.data for event in ChannelEvent.objects.filter(channel=run.run_id)]
        assert sum('"stepStart"' in data for data in told) == 1


@pytest.mark.django_db
class TestEvents:
    def test_positions_grow_although_the_clock_stands_still(self, hand: Hand) -> None:
        run = start()
        (lease,) = hand.claim()
        hand.write(Emitted(lease, "log", '{"n":1}'), Emitted(lease, "log", '{"n":2}'))
        hand.write(Emitted(lease, "log", '{"n":3}'))
        events = ChannelEvent.objects.filter(channel=run.run_id).order_by("pk")
        positions = list(events.values_list("position", flat=True))
        assert positions == sorted(set(positions))
        assert [event.data for event in events.filter(event="log")] == ['{"n":1}', '{"n":2}', '{"n":3}']

    def test_a_lost_lease_tells_nothing(self, hand: Hand) -> None:
        start()
        (lease,) = hand.claim()
        Delivery.objects.update(fence=lease.fence + 1)
        hand.write(Emitted(lease, "log", '{"n":1}'))
        assert not ChannelEvent.objects.exists()

    def test_progress_is_kept_on_the_run(self, hand: Hand) -> None:
        run = start()
        (lease,) = hand.claim()
        hand.write(Emitted(lease, "", "", done=3, total=10))
        run.refresh_from_db()
        assert (run.progress_done, run.progress_total) == (3, 10)


@pytest.mark.django_db(transaction=True)
class TestTrouble:
    def test_a_refused_batch_is_written_run_by_run_and_the_bad_run_fails_its_attempt(
        self, hand: Hand, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        good, bad = start(), start()
        leases = {lease.run_key: lease for lease in hand.claim()}
        fold = committer_module.fold

        def refuse(unit: Any, fact: Any) -> None:
            if fact.lease.run_key == bad.pk and getattr(fact, "requests", ()):
                raise DataError("too long for this column")
            fold(unit, fact)

        monkeypatch.setattr(committer_module, "fold", refuse)
        hand.write(*(hand.settlement(leases[run.pk], result(run, step(1))) for run in (good, bad)))
        assert JournalEntry.objects.get().run == good
        attempt = Attempt.objects.get()
        assert attempt.run == bad
        assert "too long for this column" in attempt.error
        bad.refresh_from_db()
        assert bad.status == Run.Status.RETRYING

    @pytest.mark.parametrize("error", [OverflowError("too far"), TypeError("no"), RecursionError()])
    def test_any_error_of_one_run_leaves_the_others_written(
        self, hand: Hand, monkeypatch: pytest.MonkeyPatch, error: Exception
    ) -> None:
        good, bad = start(), start()
        leases = {lease.run_key: lease for lease in hand.claim()}
        fold = committer_module.fold

        def refuse(unit: Any, fact: Any) -> None:
            if fact.lease.run_key == bad.pk:
                raise error
            fold(unit, fact)

        monkeypatch.setattr(committer_module, "fold", refuse)
        hand.write(*(hand.settlement(leases[run.pk], result(run, step(1))) for run in (good, bad)))
        assert JournalEntry.objects.get().run == good

    def test_a_second_result_for_a_step_is_dropped_and_the_first_stays(self, hand: Hand) -> None:
        run = start()
        (lease,) = hand.claim()
        JournalEntry.objects.create(
            run=run, position=1, step_id=1, call_type="step", body='{"first":1}', created_at=hand.clock.now()
        )
        hand.settle(lease, result(run, step(1)))
        assert JournalEntry.objects.get(run=run, step_id=1).body == '{"first":1}'

    def test_the_committer_waits_for_its_database_and_drops_nothing(
        self, hand: Hand, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = start()
        (lease,) = hand.claim()
        committed, failures = Event(), iter([OperationalError("gone"), OperationalError("locked")])
        write = hand.writer._write

        def sometimes(*facts: Any, careful: bool) -> Any:
            for failure in failures:
                raise failure
            return write(*facts, careful=careful)

        monkeypatch.setattr(
            type(hand.writer), "_write", lambda self, *facts, careful: sometimes(*facts, careful=careful)
        )
        monkeypatch.setattr(committer_module, "FIRST_PAUSE", 0.001)
        afters: list[After] = []
        committer = Committer(hand.writer, lambda after: (afters.append(after), committed.set()))
        committer.start()
        committer.put(hand.settlement(lease, result(run, step(1))))
        assert committed.wait(10)
        assert committer.stop(10)
        assert JournalEntry.objects.filter(run=run).count() == 1
        assert len(afters) == 1

    def test_who_emits_faster_than_the_database_writes_waits_for_it(
        self, hand: Hand, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = start()
        (lease,) = hand.claim()
        is_back, put = Event(), []
        write = hand.writer._write

        def away(*facts: Any, careful: bool) -> Any:
            if not is_back.is_set():
                raise OperationalError("gone")
            return write(*facts, careful=careful)

        monkeypatch.setattr(type(hand.writer), "_write", lambda self, *facts, careful: away(*facts, careful=careful))
        monkeypatch.setattr(committer_module, "FIRST_PAUSE", 0.001)
        monkeypatch.setattr(committer_module, "MOST_QUEUED", 4)
        committer = Committer(hand.writer, lambda after: None)
        committer.start()

        def emit(count: int) -> None:
            for number in range(count):
                committer.put(Emitted(lease, "log", f'{{"n":{number}}}'))
                put.append(number)

        thread = Thread(target=emit, args=(20,))
        thread.start()
        eventually(lambda: len(committer._facts) == 4)
        thread.join(0.05)
        assert len(put) < 20
        with transaction.atomic():
            emit(2)  # who has a transaction open never waits: the committer may wait for that one
        is_back.set()
        thread.join(10)
        assert not thread.is_alive()
        assert committer.stop(10)
        assert ChannelEvent.objects.filter(channel=run.run_id, event="log").count() == 22

    def test_who_asks_while_the_database_is_away_does_it_alone(
        self, hand: Hand, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It may be a thread that an atomic step waits for, whose transaction keeps the committer out."""
        run = start()
        (lease,) = hand.claim()
        refused, may_write = Event(), Event()
        write = type(hand.writer).write

        def away(self: Any, facts: Any, asked: Any = ()) -> Any:
            if not may_write.is_set():
                refused.set()
                raise OperationalError("database is locked")
            return write(self, facts, asked)

        monkeypatch.setattr(type(hand.writer), "write", away)
        monkeypatch.setattr(type(hand.writer), "write_by_run", away)
        monkeypatch.setattr(committer_module, "LONGEST_PAUSE", 0.01)
        committer = Committer(hand.writer, lambda after: None)
        committer.start()
        committer.put(hand.settlement(lease, result(run, step(1))))
        assert refused.wait(10)
        asked = Asked(Batch(messages=()))
        with committer._condition:
            committer._asked.append(asked)  # behind the batch that is refused
        eventually(lambda: asked.is_settled)
        assert asked.answer is None
        may_write.set()
        assert committer.stop(10)

    def test_an_error_that_stays_with_one_run_holds_up_no_other(
        self, hand: Hand, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        good, bad = start(), start()
        leases = {lease.run_key: lease for lease in hand.claim()}
        fold, mended = committer_module.fold, Event()

        def refuse(unit: Any, fact: Any) -> None:
            if fact.lease.run_key == bad.pk and not mended.is_set():
                raise OperationalError("packet too large")
            fold(unit, fact)

        monkeypatch.setattr(committer_module, "fold", refuse)
        monkeypatch.setattr(committer_module, "FIRST_PAUSE", 0.001)
        committer = Committer(hand.writer, lambda after: None)
        committer.start()
        for run in (bad, good):
            committer.put(hand.settlement(leases[run.pk], result(run, step(1))))
        eventually(lambda: JournalEntry.objects.filter(run=good).exists())
        assert not JournalEntry.objects.filter(run=bad).exists()
        mended.set()
        assert committer.stop(10)
        assert JournalEntry.objects.filter(run=bad).exists()

    @pytest.mark.postgresql
    def test_a_run_that_others_hold_locked_waits_without_holding_up_the_rest(self, hand: Hand) -> None:
        free, held = start(), start()
        leases = {lease.run_key: lease for lease in hand.claim()}
        locked, release = Event(), Event()

        def hold() -> None:
            try:
                with transaction.atomic():
                    list(Run.objects.locked([held.pk]))
                    locked.set()
                    release.wait(10)
            finally:
                connections.close_all()

        thread = Thread(target=hold)
        thread.start()
        assert locked.wait(10)
        facts = [hand.settlement(leases[run.pk], result(run, step(1))) for run in (held, free)]
        written = hand.writer.write(facts)
        release.set()
        thread.join()
        assert written.busy == [facts[0]]
        assert JournalEntry.objects.get().run == free
        hand.write(*written.busy)
        assert JournalEntry.objects.filter(run=held).exists()


@pytest.mark.django_db
class TestWaits:
    def test_many_that_begin_together_take_the_statements_of_one(self, hand: Hand) -> None:
        counts = []
        for runs in (1, 8):
            for number in range(runs):
                start(f"waits-{runs}-{number}")
            leases = hand.claim()
            hand.writer.cache.load(lease.run_key for lease in leases if lease.run_key)  # as a worker's claims do
            facts = [hand.settlement(lease, self.wait(lease)) for lease in leases]
            with CaptureQueriesContext(connection) as captured:
                hand.write(*facts)
            counts.append(len(statements(captured)))
            assert len(leases) == runs
        assert Waiter.objects.waiting().count() == 9
        assert counts[1] <= counts[0] or connection.vendor not in ("sqlite", "postgresql")
        assert counts[0] <= 9

    @staticmethod
    def wait(lease: Lease) -> Wait:
        assert lease.run_key is not None
        run_id = Run.objects.get(pk=lease.run_key).run_id
        waiting = step(1, None, step_type="Wait", wait_event_id="go")
        return Wait(event_id="go", message=message(run_id), step=waiting, timeout=60)


@pytest.mark.django_db
class TestRoom:
    def test_branches_are_leased_at_once_as_far_as_the_worker_has_room(self, hand: Hand) -> None:
        run = start()
        (lease,) = hand.claim()
        hand.writer = replace(hand.writer, room=lambda: Room(others=2))
        plans = [
            step(0, None, concurrent=3, target_step=number, step_name=f"branch {number}") for number in range(1, 4)
        ]
        after = hand.settle(lease, result(run, *plans))
        assert [following.step_id for following in after.followups] == [1, 2]
        assert after.wake
        rows = Delivery.objects.filter(run=run).order_by("step_id")
        assert [row.worker_id for row in rows] == [hand.key, hand.key, None]
        # What was leased can be settled: the third is claimed as ever.
        for following in after.followups:
            branch = step(following.step_id or 0, "1", concurrent=3, step_name=following.step_name)
            hand.settle(following, result(run, branch))
        (third,) = hand.claim()
        assert third.step_id == 3
        (join,) = hand.settle(third, result(run, step(3, "1", concurrent=3, step_name="branch 3"))).followups
        assert join.solo

    def test_short_ones_do_not_take_the_place_of_others(self, hand: Hand) -> None:
        run = start()
        (lease,) = hand.claim()
        room = Room(short=2, others=1, is_short=lambda lease: lease.step_name != "branch 1")
        hand.writer = replace(hand.writer, room=lambda: room)
        plans = [
            step(0, None, concurrent=4, target_step=number, step_name=f"branch {number}") for number in range(1, 5)
        ]
        after = hand.settle(lease, result(run, *plans))
        assert [following.step_id for following in after.followups] == [1, 2, 3]

    def test_a_runs_only_delivery_goes_on_without_room(self, hand: Hand) -> None:
        run = start()
        (lease,) = hand.claim()
        assert len(hand.settle(lease, result(run, step(1))).followups) == 1
