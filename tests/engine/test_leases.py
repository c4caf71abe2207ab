"""Claims, heartbeats, rescue, and flow control."""

from __future__ import annotations

from datetime import timedelta

import pytest

from django_workflow.conf import HEARTBEAT_SECONDS
from django_workflow.engine import cycle
from django_workflow.engine.leases import MAX_RESCUES, Observer, beat, claim, count_start, enlist, release, retire
from django_workflow.engine.processes import this_process
from django_workflow.engine.records import Invoker, RunConfig, encode_config
from django_workflow.models import DeadLetter, Delivery, FlowKey, JournalEntry, Run, Worker
from django_workflow.protocol.identifiers import uuid7
from django_workflow.testing import WorkflowClock
from django_workflow.testing.factories import make_delivery, make_run, make_worker
from tests.engine.deliveries import step
from tests.engine.threads import at_once

ALIAS = "default"


@pytest.fixture
def clock(workflow_clock: WorkflowClock) -> WorkflowClock:
    return workflow_clock


@pytest.mark.django_db
class TestClaim:
    def test_takes_what_is_due_oldest_first_and_says_when_more_comes(self, clock: WorkflowClock) -> None:
        later = make_delivery(due_at=clock.now() + timedelta(minutes=5))
        second = make_delivery(due_at=clock.now() - timedelta(seconds=1))
        first = make_delivery(due_at=clock.now() - timedelta(seconds=9))
        found = claim(ALIAS, uuid7(), clock.now(), 10)
        assert {lease.key for lease in found.leases} == {first.pk, second.pk}
        assert claim(ALIAS, uuid7(), clock.now(), 10).next_due_at == later.due_at

    def test_takes_no_more_than_asked(self, clock: WorkflowClock) -> None:
        oldest = make_delivery(due_at=clock.now() - timedelta(seconds=9))
        make_delivery(due_at=clock.now())
        found = claim(ALIAS, uuid7(), clock.now(), 1)
        assert [lease.key for lease in found.leases] == [oldest.pk]

    def test_moves_the_fence_and_names_the_worker(self, clock: WorkflowClock) -> None:
        row, worker_key = make_delivery(), uuid7()
        (lease,) = claim(ALIAS, worker_key, clock.now(), 1).leases
        row.refresh_from_db()
        assert (row.worker_id, row.fence) == (worker_key, 1)
        assert (lease.worker_key, lease.fence) == (worker_key, 1)

    def test_leaves_leased_rows_alone(self, clock: WorkflowClock) -> None:
        make_delivery(worker_id=uuid7())
        assert claim(ALIAS, uuid7(), clock.now(), 10).leases == []

    def test_an_idle_claim_writes_nothing(self, clock: WorkflowClock, django_assert_max_num_queries) -> None:
        make_delivery(due_at=clock.now() + timedelta(days=1))
        with django_assert_max_num_queries(2) as queries:
            claim(ALIAS, uuid7(), clock.now(), 10)
        assert all(query["sql"].startswith("SELECT") for query in queries.captured_queries)

    def test_released_leases_are_free_again_under_another_fence(self, clock: WorkflowClock) -> None:
        make_delivery()
        worker_key = uuid7()
        leases = claim(ALIAS, worker_key, clock.now(), 1).leases
        assert release(ALIAS, worker_key, leases) == 1
        (again,) = claim(ALIAS, uuid7(), clock.now(), 1).leases
        assert again.fence == leases[0].fence + 2


@pytest.mark.django_db(transaction=True)
def test_two_workers_never_claim_the_same_delivery(clock: WorkflowClock) -> None:
    for _ in range(40):
        make_delivery(due_at=clock.now())
    claimed: list[object] = []

    def work() -> None:
        key = uuid7()
        while leases := claim(ALIAS, key, clock.now(), 3).leases:
            claimed.extend(lease.key for lease in leases)

    at_once(*[work] * 4)
    # A claim that found every due row locked by others may end early, so not all need be taken; none is taken twice.
    assert len(claimed) == len(set(claimed))
    assert len(claimed) + Delivery.objects.unleased().count() == 40


@pytest.mark.django_db
class TestFlowControl:
    def test_parallelism_counts_what_is_in_flight(self, clock: WorkflowClock) -> None:
        FlowKey.objects.create(key="user-7", parallelism=2)
        for _ in range(5):
            make_delivery(flow_key="user-7")
        free = make_delivery()
        worker_key = uuid7()
        first = claim(ALIAS, worker_key, clock.now(), 10)
        assert len(first.leases) == 3
        assert free.pk in {lease.key for lease in first.leases}
        assert claim(ALIAS, worker_key, clock.now(), 10).leases == []
        Delivery.objects.filter(pk=next(lease.key for lease in first.leases if lease.flow_key)).delete()
        assert len(claim(ALIAS, worker_key, clock.now(), 10).leases) == 1

    def test_a_rate_opens_again_with_its_next_window(self, clock: WorkflowClock) -> None:
        FlowKey.objects.create(key="api", rate=2, period_seconds=60)
        for _ in range(5):
            make_delivery(flow_key="api")
        found = claim(ALIAS, uuid7(), clock.now(), 10)
        assert len(found.leases) == 2
        assert found.next_due_at == clock.now() + timedelta(seconds=60)
        clock.advance(59)
        assert claim(ALIAS, uuid7(), clock.now(), 10).leases == []
        clock.advance(1)
        assert len(claim(ALIAS, uuid7(), clock.now(), 10).leases) == 2

    def test_limited_deliveries_do_not_starve_behind_others(self, clock: WorkflowClock) -> None:
        FlowKey.objects.create(key="user-7", parallelism=1)
        for _ in range(10):
            make_delivery()
        limited = make_delivery(flow_key="user-7", due_at=clock.now() - timedelta(minutes=1))
        assert limited.pk in {lease.key for lease in claim(ALIAS, uuid7(), clock.now(), 4).leases}

    def test_a_paused_key_lets_nothing_through(self, clock: WorkflowClock) -> None:
        FlowKey.objects.create(key="stop", paused=True)
        make_delivery(flow_key="stop")
        assert claim(ALIAS, uuid7(), clock.now(), 10).leases == []


@pytest.mark.django_db
class TestRescue:
    def test_frees_the_deliveries_of_a_worker_whose_process_is_gone(self, clock: WorkflowClock) -> None:
        process = this_process()
        worker = make_worker(host=process.host, pid=process.pid, pid_started=process.started + "0")
        row = make_delivery(worker=worker, fence=3)
        dead = Observer(15).dead(ALIAS, None, 0.0)
        assert dead == [worker.pk]
        after = cycle.rescue_dead(ALIAS, clock.now(), dead)
        assert after is not None
        assert after.wake
        row.refresh_from_db()
        assert (row.worker_id, row.fence, row.rescues) == (None, 4, 1)
        assert not Worker.objects.exists()

    def test_believes_in_a_worker_whose_heartbeat_moves(self) -> None:
        worker, observer = make_worker(heartbeat=1), Observer(15)
        for instant in (0.0, 5.0, 10.0, 14.9):
            assert observer.dead(ALIAS, None, instant) == []
        Worker.objects.filter(pk=worker.pk).update(heartbeat=2)
        for instant in (20.0, 25.0, 30.0, 34.9):
            assert observer.dead(ALIAS, None, instant) == []
        assert observer.dead(ALIAS, None, 35.0) == [worker.pk]

    def test_gives_everyone_time_after_an_outage_in_which_nobody_could_beat(self) -> None:
        make_worker(heartbeat=1)
        observer = Observer(15)
        observer.dead(ALIAS, None, 0.0)
        assert observer.dead(ALIAS, None, 60.0) == []

    def test_notices_a_death_however_short_the_timeout_is(self) -> None:
        worker, observer = make_worker(heartbeat=1), Observer(2 * HEARTBEAT_SECONDS)
        looks = [number * (HEARTBEAT_SECONDS + 0.1) for number in range(3)]
        assert [observer.dead(ALIAS, None, instant) for instant in looks] == [[], [], [worker.pk]]

    def test_a_worker_does_not_watch_itself(self) -> None:
        worker, observer = make_worker(), Observer(1)
        assert observer.dead(ALIAS, worker.pk, 0.0) == []
        assert observer.dead(ALIAS, worker.pk, 9.0) == []

    def test_a_delivery_that_keeps_losing_its_worker_fails_its_run(self, clock: WorkflowClock) -> None:
        worker = make_worker()
        row = make_delivery(worker=worker, rescues=MAX_RESCUES + 1)
        cycle.rescue_dead(ALIAS, clock.now(), [worker.pk])
        assert not Delivery.objects.filter(pk=row.pk).exists()
        letter = DeadLetter.objects.get(run=row.run)
        assert "worker lost" in letter.error
        assert Run.objects.get().status == Run.Status.FAILED

    def test_what_only_waited_for_its_turn_is_not_blamed(self, clock: WorkflowClock) -> None:
        """A step ends its worker each time it starts; what was leased with it has never started."""
        deadly, neighbour = make_delivery(), make_delivery()
        deaths = 0
        while Delivery.objects.filter(pk=deadly.pk).exists():
            worker = make_worker()
            leases = {lease.key: lease for lease in claim(ALIAS, worker.pk, clock.now(), 10).leases}
            if leases[deadly.pk].rescues:
                assert count_start(ALIAS, leases[deadly.pk])
            cycle.rescue_dead(ALIAS, clock.now(), [worker.pk])
            deaths += 1
        assert deaths == MAX_RESCUES + 1
        assert "worker lost: 6 workers died" in DeadLetter.objects.get(run=deadly.run).error
        neighbour.refresh_from_db()
        assert (neighbour.worker_id, neighbour.rescues) == (None, 1)

    def test_a_start_under_a_lost_lease_is_not_counted(self, clock: WorkflowClock) -> None:
        row = make_delivery(rescues=1)
        (lease,) = claim(ALIAS, uuid7(), clock.now(), 1).leases
        Delivery.objects.update(fence=lease.fence + 1)
        assert not count_start(ALIAS, lease)
        row.refresh_from_db()
        assert row.rescues == 1


@pytest.mark.django_db
def test_a_worker_that_was_taken_for_dead_learns_it_from_its_heartbeat(clock: WorkflowClock) -> None:
    worker = enlist(ALIAS, clock.now(), 4)
    assert beat(ALIAS, worker.pk, clock.now())
    Worker.objects.all().delete()
    assert not beat(ALIAS, worker.pk, clock.now())


@pytest.mark.django_db
def test_a_retired_worker_leaves_nothing_leased(clock: WorkflowClock) -> None:
    worker = enlist(ALIAS, clock.now(), 4)
    make_delivery(worker=worker)
    retire(ALIAS, worker.pk)
    assert not Worker.objects.exists()
    assert Delivery.objects.unleased().count() == 1


@pytest.mark.django_db
class TestHopelessDeliveries:
    """A rescue that cannot be written would leave everything leased that the dead worker held."""

    def rescue(self, clock: WorkflowClock, *rows: Delivery) -> None:
        worker = make_worker()
        Delivery.objects.filter(pk__in=[row.pk for row in rows]).update(worker=worker, rescues=MAX_RESCUES + 1)
        other = make_delivery(worker=worker)
        cycle.rescue_dead(ALIAS, clock.now(), [worker.pk])
        other.refresh_from_db()
        assert other.worker_id is None

    def test_two_branches_of_one_run_fail_it_once(self, clock: WorkflowClock) -> None:
        run = make_run()
        self.rescue(clock, make_delivery(run, solo=False), make_delivery(run, solo=False))
        assert DeadLetter.objects.filter(run=run).count() == 1

    def test_a_failure_callback_is_noted_as_failed(self, clock: WorkflowClock) -> None:
        run = make_run(status=Run.Status.FAILED)
        letter = DeadLetter.objects.create(
            run=run, message_key=run.pk, destination=run.url, created_at=clock.now(), failure_state="in_progress"
        )
        self.rescue(clock, make_delivery(run, kind=Delivery.Kind.FAILURE))
        letter.refresh_from_db()
        assert letter.failure_state == DeadLetter.FailureState.FAILED

    def test_the_run_that_invoked_a_lost_one_is_told(self, clock: WorkflowClock) -> None:
        parent = make_run()
        invoker = Invoker(run_id=parent.run_id, url=parent.url, step=step(1, None, step_type="Invoke"))
        child = make_run(parent=parent, config=encode_config(RunConfig(invoker=invoker)))
        self.rescue(clock, make_delivery(child))
        assert '\\"isFailed\\":true' in JournalEntry.objects.get(run=parent).body
        assert Delivery.objects.filter(run=parent).exists()
