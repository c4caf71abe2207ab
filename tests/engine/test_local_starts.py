"""Runs that are started beside a worker are written by its committer; whatever is unusual goes its own way."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Thread
from typing import Any

import pytest
from django.db import OperationalError, connections, transaction

from django_workflow import WorkflowContext, workflow
from django_workflow.engine import local_starts
from django_workflow.engine.committer import Committer, Writer
from django_workflow.engine.leases import claim
from django_workflow.engine.local_starts import Start
from django_workflow.engine.worker import Worker
from django_workflow.errors import EngineError, PayloadInvalid
from django_workflow.models import Delivery, Run
from django_workflow.protocol.publish import Message
from tests.engine.deliveries import Hand
from tests.engine.workers import eventually

pytestmark = pytest.mark.django_db(transaction=True)


@workflow(name="local", retries=0)
def local(ctx: WorkflowContext[int]) -> int:
    return ctx.run("double", lambda: ctx.request_payload * 2)


@workflow(name="local-parent", retries=0)
def parent(ctx: WorkflowContext[int]) -> str:
    return ctx.run("trigger", lambda: local.trigger(ctx.request_payload).id)


class Accepted:
    """A worker whose accepted starts are noted."""

    def __init__(self, worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
        self.worker = worker
        self.starts: list[Start] = []
        accept = worker.accept

        def note(start: Start) -> bool:
            accepted = accept(start)
            if accepted:
                self.starts.append(start)
            return accepted

        monkeypatch.setattr(worker, "accept", note)


@pytest.fixture
def accepted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Accepted]:
    worker = Worker(concurrency=4)
    worker.start()
    yield Accepted(worker, monkeypatch)
    assert worker.drain()


def test_a_start_is_committed_when_the_trigger_returns(accepted: Accepted) -> None:
    handle = local.trigger(21)
    assert len(accepted.starts) == 1
    assert Run.objects.filter(run_id=handle.id).exists()
    eventually(lambda: handle.run.is_finished)
    assert handle.run.result == "42"
    assert not Delivery.objects.exists()


def test_a_new_run_is_leased_to_the_worker_without_a_claim(accepted: Accepted, monkeypatch: pytest.MonkeyPatch) -> None:
    claimed: list[Any] = []

    def note(*arguments: Any) -> Any:
        found = claim(*arguments)
        claimed.extend(found.leases)
        return found

    monkeypatch.setattr("django_workflow.engine.worker.claim", note)
    handle = local.trigger(1)
    eventually(lambda: handle.run.is_finished)
    assert claimed == []


def test_many_threads_share_the_commits_of_their_starts(accepted: Accepted) -> None:
    handles: list[Any] = []

    def start() -> None:
        try:
            handles.extend(local.trigger(number) for number in range(5))
        finally:
            connections.close_all()

    threads = [Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({handle.id for handle in handles}) == 40
    eventually(lambda: not Run.objects.active().exists(), timeout=60)
    assert Run.objects.filter(status=Run.Status.SUCCESS).count() == 40


def test_a_run_id_that_is_in_use_starts_no_second_run(accepted: Accepted) -> None:
    first = local.using(workflow_run_id="once").trigger(1)
    again = local.using(workflow_run_id="once").trigger(2)
    assert (first.id, first.deduplicated) == (again.id, False)
    assert again.deduplicated
    eventually(lambda: first.run.is_finished)
    assert first.run.result == "2"


def test_a_trigger_inside_a_transaction_belongs_to_it(accepted: Accepted) -> None:
    with transaction.atomic():
        local.trigger(1)
        transaction.set_rollback(True)
    with transaction.atomic():
        kept = local.trigger(2)
    assert accepted.starts == []
    eventually(lambda: kept.run.is_finished)
    assert Run.objects.count() == 1


def test_a_delayed_run_waits_for_its_time(accepted: Accepted) -> None:
    handle = local.using(delay="1h").trigger(1)
    assert len(accepted.starts) == 1
    assert Delivery.objects.get(run=handle.run).worker_id is None
    assert handle.run.status == Run.Status.SCHEDULED


def test_limits_and_payloads_are_refused_as_ever(accepted: Accepted) -> None:
    with pytest.raises(EngineError):
        local.using(retries=20_000).trigger(1)
    with pytest.raises(PayloadInvalid):
        local.trigger("no number")
    assert not Run.objects.exists()


def test_a_step_may_trigger_also_on_the_committers_own_thread(accepted: Accepted) -> None:
    for _ in range(4):  # the first is made by the pool, later ones where short deliveries are
        handle = parent.trigger(3)
        eventually(lambda handle=handle: handle.run.is_finished)  # type: ignore[misc]
        assert handle.run.status == Run.Status.SUCCESS
    eventually(lambda: not Run.objects.active().exists())
    assert Run.objects.filter(status=Run.Status.SUCCESS).count() == 8


def test_starts_that_the_database_does_not_take_are_handed_back(
    hand: Hand, monkeypatch: pytest.MonkeyPatch, run_message: Message
) -> None:
    def away(*arguments: Any, **options: Any) -> Any:
        raise OperationalError("gone")

    monkeypatch.setattr(Writer, "_write", away)
    committer = Committer(hand.writer, lambda after: None)
    committer.start()
    start = Start((run_message,))
    assert committer.accept(start)
    assert start.settled.wait(30)
    assert start.answers is None
    assert committer.stop(30)


def test_one_start_that_is_refused_takes_no_other_with_it(
    hand: Hand, monkeypatch: pytest.MonkeyPatch, run_message: Message
) -> None:
    def refuse(*arguments: Any) -> None:
        raise ValueError("no")

    monkeypatch.setattr("django_workflow.engine.committer.start_together", refuse)
    start = Start((run_message,))
    assert hand.writer.write((), [start]).after.followups == []
    assert start.settled.is_set()
    assert start.answers is None
    assert not Run.objects.exists()


def test_whoever_waits_for_a_committer_that_is_gone_does_it_himself(
    monkeypatch: pytest.MonkeyPatch, run_message: Message
) -> None:
    class Gone:
        accepts = False

        def accept(self, start: Start) -> bool:
            return True

    gone = Gone()
    monkeypatch.setattr(local_starts, "LOOK_AGAIN", 0.001)
    local_starts.offer("default", gone)
    try:
        assert local_starts.start_runs("default", (run_message,)) is None
        assert local.trigger(1).run.status == Run.Status.QUEUED
    finally:
        local_starts.withdraw("default", gone)


@pytest.fixture
def hand(workflow_clock: Any) -> Hand:
    return Hand(workflow_clock)


@pytest.fixture
def run_message() -> Message:
    from tests.engine.deliveries import message

    return message("wfr_local", b"1", init=True)
