"""What is asked for beside a worker is written by its committer; whatever is unusual goes its own way."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from threading import Event, Thread
from typing import Any

import pytest
from asgiref.sync import ThreadSensitiveContext, async_to_sync, sync_to_async
from django.core.exceptions import SynchronousOnlyOperation
from django.db import OperationalError, connections, transaction

from django_workflow import WorkflowContext, get_client, workflow
from django_workflow.engine import local_requests
from django_workflow.engine.committer import Committer, Writer
from django_workflow.engine.leases import claim
from django_workflow.engine.local_requests import Asked
from django_workflow.engine.worker import Worker
from django_workflow.errors import EngineError, PayloadInvalid
from django_workflow.models import Delivery, Run, Waiter
from django_workflow.protocol.publish import Message
from django_workflow.protocol.requests import Batch, Notify
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
        self.requests: list[Asked] = []
        accept = worker.accept

        def note(asked: Asked) -> bool:
            accepted = accept(asked)
            if accepted:
                self.requests.append(asked)
            return accepted

        monkeypatch.setattr(worker, "accept", note)


@pytest.fixture
def accepted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Accepted]:
    worker = Worker(concurrency=4)
    worker.start()
    yield Accepted(worker, monkeypatch)
    assert worker.drain()


def test_a_sync_trigger_in_async_code_is_refused_beside_a_worker_too(accepted: Accepted) -> None:
    """Else it works under runserver, and fails where the worker is a process of its own."""

    async def view() -> None:
        local.trigger(21)

    with pytest.raises(SynchronousOnlyOperation, match=r"await workflow\.atrigger\(\)"):
        async_to_sync(view)()
    assert not Run.objects.exists()


def test_a_start_is_committed_when_the_trigger_returns(accepted: Accepted) -> None:
    handle = local.trigger(21)
    assert len(accepted.requests) == 1
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
    assert accepted.requests == []
    eventually(lambda: kept.run.is_finished)
    assert Run.objects.count() == 1


def test_a_delayed_run_waits_for_its_time(accepted: Accepted) -> None:
    handle = local.using(delay="1h").trigger(1)
    assert len(accepted.requests) == 1
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
    start = Asked(Batch(messages=(run_message,)))
    assert committer.accept(start)
    assert start.wait(lambda: True) is None
    assert committer.stop(30)


def test_one_start_that_is_refused_takes_no_other_with_it(
    hand: Hand, monkeypatch: pytest.MonkeyPatch, run_message: Message
) -> None:
    def refuse(*arguments: Any) -> None:
        raise ValueError("no")

    monkeypatch.setattr("django_workflow.engine.committer.start_together", refuse)
    start = Asked(Batch(messages=(run_message,)))
    assert hand.writer.write((), [start]).after.followups == []
    assert start.is_settled
    assert start.answer is None
    assert not Run.objects.exists()


def test_whoever_waits_for_a_committer_that_is_gone_does_it_himself(
    monkeypatch: pytest.MonkeyPatch, run_message: Message
) -> None:
    class Gone:
        accepts = False

        def accept(self, asked: Asked) -> bool:
            return True

    gone = Gone()
    monkeypatch.setattr(local_requests, "LOOK_AGAIN", 0.001)
    local_requests.offer("default", gone)
    try:
        found = local_requests.ask("default", Batch(messages=(run_message,)))
        assert found is not None
        asked, is_alive = found
        assert asked.wait(is_alive) is None
        assert local.trigger(1).run.status == Run.Status.QUEUED
    finally:
        local_requests.withdraw("default", gone)


def test_a_loop_that_ends_meanwhile_does_no_harm_to_the_committer(run_message: Message) -> None:
    loop = asyncio.new_event_loop()
    asked = Asked(Batch(messages=(run_message,)))
    asked._told = loop.create_future()
    loop.close()
    local_requests.settle_all([asked])
    assert asked.is_settled


@workflow(name="local-waits", retries=0)
def waits(ctx: WorkflowContext[str]) -> Any:
    return ctx.wait_for_event("wait", ctx.request_payload, timeout="10m").event_data


def waiting(*names: str) -> list[Any]:
    handles = [waits.trigger(name) for name in names]
    eventually(lambda: Waiter.objects.waiting().count() == len(names))
    return handles


class TestEvents:
    def test_an_event_is_told_by_the_committer_and_its_run_goes_on(self, accepted: Accepted) -> None:
        (handle,) = waiting("one")
        (told,) = get_client().notify("one", {"x": 1})
        assert isinstance(accepted.requests[-1].request, Notify)
        assert told.workflow_run_id == handle.id
        assert Waiter.objects.get().state == Waiter.State.RESOLVED
        eventually(lambda: handle.run.is_finished)
        assert handle.run.result == '{"x":1}'

    def test_an_event_reaches_all_who_wait_once_and_nobody_is_no_error(self, accepted: Accepted) -> None:
        handles = waiting("same", "same", "other")
        assert len(get_client().notify("same", 1)) == 2
        assert get_client().notify("same", 2) == ()
        assert get_client().notify("nobody", 3) == ()
        for handle in handles[:2]:
            eventually(lambda handle=handle: handle.run.is_finished)  # type: ignore[misc]
            assert handle.run.result == "1"
        assert handles[2].run.status == Run.Status.WAITING

    def test_events_that_are_told_at_once_share_commits(self, accepted: Accepted) -> None:
        names = [f"event-{number}" for number in range(40)]
        handles = waiting(*names)
        committer = accepted.worker.committer
        assert committer is not None
        before = committer.commits

        async def tell() -> list[Any]:
            return await asyncio.gather(*(get_client().anotify(name, number) for number, name in enumerate(names)))

        answers = async_to_sync(tell)()
        assert [len(answer) for answer in answers] == [1] * 40
        for number, handle in enumerate(handles):
            eventually(lambda handle=handle: handle.run.is_finished)  # type: ignore[misc]
            assert handle.run.result == str(number)
        assert committer.commits - before < 80  # by themselves they would take 40, and 40 for the runs' ends

    def test_what_a_loop_tells_at_once_is_put_to_the_worker_in_one_go(
        self, accepted: Accepted, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        names = [f"event-{number}" for number in range(10)]
        waiting(*names)
        accepted.requests.clear()
        sizes: list[int] = []
        ask = local_requests._Gathered.ask
        monkeypatch.setattr(
            local_requests._Gathered, "ask", lambda group: sizes.append(len(group.requests)) or ask(group)
        )

        async def tell() -> list[Any]:
            tasks = [asyncio.ensure_future(get_client().anotify(name, 1)) for name in names]
            await asyncio.sleep(0)
            tasks[0].cancel()
            return await asyncio.gather(*tasks, return_exceptions=True)

        cancelled, *answers = async_to_sync(tell)()
        assert isinstance(cancelled, asyncio.CancelledError)
        assert [len(answer) for answer in answers] == [1] * 9
        assert sizes == [10]

    def test_events_of_two_threads_go_their_own_ways(self, accepted: Accepted) -> None:
        """One context's thread is in a transaction; the other one's, in the same loop, is not."""
        inside, outside = waiting("inside", "outside")
        accepted.requests.clear()
        begun = asyncio.Event()

        async def tell_inside() -> int:
            async with ThreadSensitiveContext():
                atomic = transaction.atomic()
                await sync_to_async(atomic.__enter__)()
                begun.set()
                await asyncio.sleep(0)  # both ask in one turn of the loop, this one second
                told = await get_client().anotify("inside", 1)
                await sync_to_async(transaction.set_rollback)(True)
                await sync_to_async(atomic.__exit__)(None, None, None)
                await sync_to_async(connections.close_all)()
                return len(told)

        async def tell_outside() -> int:
            async with ThreadSensitiveContext():
                await begun.wait()
                told = await get_client().anotify("outside", 1)
                await sync_to_async(connections.close_all)()
                return len(told)

        async def tell_all() -> tuple[int, int]:
            return await asyncio.gather(tell_inside(), tell_outside())

        assert asyncio.run(tell_all()) == [1, 1]
        assert [asked.request.event_id for asked in accepted.requests] == ["outside"]  # type: ignore[union-attr]
        eventually(lambda: outside.run.is_finished)
        assert inside.run.status == Run.Status.WAITING

    def test_an_event_inside_a_transaction_belongs_to_it(self, accepted: Accepted) -> None:
        (handle,) = waiting("atomic")
        accepted.requests.clear()
        with transaction.atomic():
            assert len(get_client().notify("atomic", 1)) == 1
            transaction.set_rollback(True)
        assert accepted.requests == []
        assert handle.run.status == Run.Status.WAITING

    def test_an_event_in_an_atomic_block_around_async_code_belongs_to_it(self, accepted: Accepted) -> None:
        (handle,) = waiting("around")
        accepted.requests.clear()
        with transaction.atomic():
            assert len(async_to_sync(get_client().anotify)("around", 1)) == 1
            transaction.set_rollback(True)
        assert accepted.requests == []
        assert handle.run.status == Run.Status.WAITING

    def test_an_event_for_a_canceled_run_reaches_nobody(self, accepted: Accepted) -> None:
        (handle,) = waiting("canceled")
        handle.cancel()
        assert get_client().notify("canceled", 1) == ()

    @pytest.mark.postgresql
    def test_an_event_whose_run_others_hold_waits_for_them_by_itself(self, accepted: Accepted) -> None:
        (handle,) = waiting("held")
        locked, release, told = Event(), Event(), []

        def hold() -> None:
            try:
                with transaction.atomic():
                    list(Run.objects.locked([handle.run.pk]))
                    locked.set()
                    release.wait(30)
            finally:
                connections.close_all()

        def tell() -> None:
            try:
                told.extend(get_client().notify("held", 1))
            finally:
                connections.close_all()

        threads = [Thread(target=hold), Thread(target=tell)]
        threads[0].start()
        assert locked.wait(30)
        threads[1].start()
        eventually(lambda: bool(accepted.requests) and accepted.requests[-1].is_settled)
        assert accepted.requests[-1].answer is None
        release.set()
        for thread in threads:
            thread.join()
        assert len(told) == 1
        eventually(lambda: handle.run.is_finished)


@pytest.fixture
def hand(workflow_clock: Any) -> Hand:
    return Hand(workflow_clock)


@pytest.fixture
def run_message() -> Message:
    from tests.engine.deliveries import message

    return message("wfr_local", b"1", init=True)
