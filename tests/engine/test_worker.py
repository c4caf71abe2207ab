"""The worker's threads go on, whatever happens to one delivery, one schedule or one commit."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from uuid import UUID

import pytest
from django.db import OperationalError, connection
from django.utils import timezone

from django_workflow import WorkflowContext, workflow
from django_workflow.engine import worker as worker_module
from django_workflow.engine.leases import SUSPECT_RESCUES
from django_workflow.engine.supervisor import Supervisor
from django_workflow.engine.worker import Worker
from django_workflow.models import Delivery, Run, Schedule
from django_workflow.models import Worker as WorkerRow
from django_workflow.testing.factories import make_run
from tests.engine.workers import eventually

pytestmark = pytest.mark.django_db(transaction=True)


@workflow(name="short")
def short(ctx: WorkflowContext[int]) -> int:
    return ctx.run("double", lambda: ctx.request_payload * 2)


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    monkeypatch.setattr(worker_module, "HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr(worker_module, "PRUNE_INTERVAL", 0.05)
    worker = Worker(concurrency=2)
    worker.start()
    yield worker
    assert worker.drain()


def finishes(payload: int = 4) -> None:
    handle = short.trigger(payload)
    eventually(lambda: handle.run.is_finished)
    assert handle.run.result == str(payload * 2)


def test_a_worker_runs_what_is_triggered(running: Worker) -> None:
    finishes()
    assert running.healthy


def test_a_step_is_shown_running_while_it_runs(running: Worker) -> None:
    from threading import Event

    go_on = Event()

    @workflow(name="long-step")
    def long_step(ctx: WorkflowContext[None]) -> None:
        ctx.run("long", go_on.wait, 30)

    handle = long_step.trigger()
    eventually(lambda: handle.run.steps.filter(name="long", status="running").exists())
    go_on.set()
    eventually(lambda: handle.run.is_finished)


def test_deliveries_that_lost_workers_again_and_again_are_made_one_at_a_time(running: Worker) -> None:
    """Of two that run at once, the one that ends its worker takes the other along."""
    from threading import Event, Lock

    go_on, lock, at_once, most = Event(), Lock(), 0, 0

    def work() -> None:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        assert go_on.wait(30)
        with lock:
            at_once -= 1

    @workflow(name="suspect")
    def suspect(ctx: WorkflowContext[None]) -> None:
        ctx.run("work", work)

    handles = [suspect.using(delay="1h").trigger() for _ in range(3)]
    past = timezone.now() - timedelta(seconds=1)
    Delivery.objects.update(rescues=SUSPECT_RESCUES, due_at=past)
    eventually(lambda: at_once == 1)
    eventually(lambda: Delivery.objects.filter(worker_id=running.key).count() == 3)
    finishes()  # others do not wait
    assert sorted(Delivery.objects.values_list("rescues", flat=True)) == [2, 2, 3]
    go_on.set()
    eventually(lambda: all(handle.run.is_finished for handle in handles))
    assert most == 1


def test_a_timeout_that_no_calendar_holds_fails_its_run_alone(running: Worker) -> None:
    @workflow(name="for-ever", retries=0)
    def for_ever(ctx: WorkflowContext[None]) -> None:
        ctx.wait_for_event("wait", "never", timeout=10**12)

    handle = for_ever.trigger()
    eventually(lambda: handle.run.is_finished)
    assert handle.run.status == Run.Status.FAILED
    finishes()
    assert running.healthy


def test_a_schedule_that_never_fires_stops_no_other(running: Worker) -> None:
    now = timezone.now()
    Schedule.objects.create(schedule_id="bad", workflow="short", cron="0 0 30 2 *", created_at=now, next_at=now)
    finishes()
    assert running.healthy


def test_a_worker_that_was_taken_for_dead_is_listed_again(running: Worker) -> None:
    WorkerRow.objects.all().delete()
    eventually(lambda: WorkerRow.objects.filter(pk=running.key).exists())
    finishes()


def test_a_lease_that_its_worker_does_not_know_of_is_given_back(running: Worker) -> None:
    """As after a commit whose answer was lost: the row is leased, and nobody makes the delivery."""
    handle = short.using(delay="1h").trigger(4)
    past = timezone.now() - timedelta(seconds=1)
    Delivery.objects.filter(run=handle.run).update(worker_id=running.key, due_at=past)
    eventually(lambda: handle.run.is_finished)


def test_a_worker_prunes_what_retention_no_longer_keeps(running: Worker) -> None:
    old = timezone.now() - timedelta(days=31)
    make_run(status=Run.Status.SUCCESS, created_at=old, finished_at=old)
    kept = make_run(status=Run.Status.SUCCESS, finished_at=timezone.now())
    eventually(lambda: list(Run.objects.all()) == [kept])


def test_a_start_that_fails_lists_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OperationalError("the connection was cut")

    monkeypatch.setattr(worker_module.scheduler, "reconcile", refuse)
    with pytest.raises(OperationalError):
        Worker().start()
    assert not WorkerRow.objects.exists()


@pytest.mark.sqlite
@pytest.mark.postgresql  # PyMySQL raises when what is closed is closed again
def test_a_worker_leaves_in_order_although_its_idle_connection_was_cut() -> None:
    worker = Worker(concurrency=1)
    worker.start()
    finishes()
    connection.connection.close()  # as when the server was started anew
    assert worker.drain()
    assert not WorkerRow.objects.exists()


def test_a_worker_leaves_the_list_although_its_connection_is_cut_while_it_drains(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker = Worker(concurrency=1)
    worker.start()
    retire, answers = worker_module.retire, iter([True, False])

    def cut_once(alias: str, key: UUID) -> None:
        if next(answers):
            raise OperationalError("terminating connection due to administrator command")
        retire(alias, key)

    monkeypatch.setattr(worker_module, "retire", cut_once)
    assert worker.drain()
    assert not WorkerRow.objects.exists()


def test_a_forked_child_starts_a_worker_of_its_own() -> None:
    supervisor = Supervisor(concurrency=1)
    supervisor.start()
    eventually(lambda: supervisor.worker is not None)
    parents = supervisor.worker
    assert supervisor.stop()
    supervisor._pid = -1  # as a child finds it
    supervisor.start()
    eventually(lambda: supervisor.worker not in (None, parents))
    assert supervisor.stop()
