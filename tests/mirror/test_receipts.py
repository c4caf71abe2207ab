"""Atomic steps of a hosted site: rows and result are committed together, once, whatever becomes of their message."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from django.db import connection, connections, transaction

from django_workflow import WorkflowContext, workflow
from django_workflow.client.session import current_region
from django_workflow.errors import EngineError
from django_workflow.mirror import outbox, receipts
from django_workflow.models import Outbox, Run, Step
from django_workflow.protocol.steps import Step as WireStep
from tests.effects.models import Effect
from tests.mirror.conftest import Hosted

ran: list[str] = []


@pytest.fixture(autouse=True)
def _fresh() -> None:
    ran.clear()


def effect(run_id: str) -> str:
    ran.append(run_id)
    Effect.objects.create(run_id=run_id, step="work", atomic=True)
    return "done"


@workflow(name="with-receipt")
def with_receipt(ctx: WorkflowContext[None]) -> str:
    return ctx.run("work", effect, ctx.workflow_run_id, atomic=True)


def receipt() -> Outbox:
    return Outbox.objects.get(kind=Outbox.Kind.RECEIPT)


def test_rows_and_result_are_committed_before_the_result_is_sent(hosted: Hosted) -> None:
    seen: list[Any] = []

    def look(request: Any) -> None:
        if b'"stepName\\":\\"work' in request.content:
            row = receipt()
            seen.append((connection.in_atomic_block, Effect.objects.count(), row.is_sent, row.step_id))

    hosted.network.during = look
    handle = with_receipt.trigger()
    hosted.run()
    assert seen == [(False, 1, False, 1)]
    assert receipt().is_sent
    assert (handle.run.status, handle.run.result) == (Run.Status.SUCCESS, '"done"')


def test_a_step_that_fails_leaves_neither_rows_nor_a_receipt(hosted: Hosted) -> None:
    @workflow(name="fails-once-atomic")
    def fails_once(ctx: WorkflowContext[None]) -> None:
        def work() -> None:
            effect(ctx.workflow_run_id)
            if len(ran) == 1:
                raise ValueError("the first time")

        ctx.run("work", work, atomic=True)

    handle = fails_once.trigger()
    hosted.run()
    assert not Effect.objects.exists()
    assert not Outbox.objects.filter(kind=Outbox.Kind.RECEIPT).exists()
    assert handle.run.status == Run.Status.RETRYING
    hosted.run(skip_delays=True)
    assert handle.run.status == Run.Status.SUCCESS
    assert Effect.objects.count() == 1


def test_a_delivery_that_comes_again_sends_the_receipt_and_runs_nothing(hosted: Hosted) -> None:
    handle = with_receipt.trigger()
    hosted.away()  # when the result is sent
    hosted.run()
    assert (len(ran), receipt().is_sent) == (1, False)
    assert handle.run.steps.get().status == Step.Status.SUCCESS  # it is: its rows are committed
    hosted.clock.advance("1h")
    hosted.service.run_due()  # before any worker
    assert (len(ran), receipt().is_sent) == (1, True)
    assert handle.run.status == Run.Status.SUCCESS
    assert Effect.objects.count() == 1


def test_a_delivery_that_comes_again_leaves_alone_what_a_worker_has_sent(hosted: Hosted) -> None:
    handle = with_receipt.trigger()
    hosted.away()
    hosted.run()
    hosted.run(skip_delays=True)  # the worker is first
    assert (len(ran), receipt().is_sent) == (1, True)
    assert handle.run.status == Run.Status.SUCCESS
    hosted.service.check_no_faults()  # nothing came twice


def test_a_worker_sends_the_receipt_of_a_process_that_died(hosted: Hosted) -> None:
    handle = with_receipt.trigger()
    hosted.away()
    hosted.run()
    hosted.clock.advance(outbox.FIRST_BACKOFF)
    assert outbox.send_due(hosted.transport.inner) == 1
    hosted.run(skip_delays=True)
    assert handle.run.status == Run.Status.SUCCESS
    assert len(ran) == 1


def test_the_receipt_of_a_run_that_is_over_is_given_up(hosted: Hosted) -> None:
    handle = with_receipt.trigger()
    hosted.away()
    hosted.run()
    assert handle.cancel()
    hosted.clock.advance(outbox.FIRST_BACKOFF)
    outbox.send_due(hosted.transport.inner)
    row = receipt()
    assert (row.is_sent, row.due_at) == (False, None)
    assert row.given_up_at is not None
    assert handle.run.status == Run.Status.CANCELED


def test_triggers_of_an_atomic_step_are_committed_with_it(hosted: Hosted) -> None:
    @workflow(name="child-of-atomic")
    def child(ctx: WorkflowContext[None]) -> None:
        ctx.run("work", lambda: None)

    @workflow(name="triggers-atomically")
    def parent(ctx: WorkflowContext[None]) -> None:
        def work() -> str:
            handle = child.trigger()
            ran.append(handle.id)
            if len(ran) == 1:
                raise ValueError("the first time")
            return handle.id

        ctx.run("work", work, atomic=True)

    handle = parent.trigger()
    hosted.run()
    assert Run.objects.filter(workflow="child-of-atomic").count() == 0
    hosted.run(skip_delays=True)
    assert handle.run.status == Run.Status.SUCCESS
    assert ran[0] == ran[1]  # the same step makes the same run
    assert Run.objects.get(workflow="child-of-atomic").status == Run.Status.SUCCESS


def test_of_two_attempts_at_once_one_runs_the_step(hosted: Hosted) -> None:
    started, go_on = threading.Event(), threading.Event()
    results: dict[str, Any] = {}
    step = WireStep(step_id=1, step_name="work", step_type="Run", concurrent=1)

    def attempt(name: str) -> None:
        try:
            with hosted.transport.atomic():
                kept = hosted.transport.kept("wfr_1", step)
                if kept is None:
                    ran.append(name)
                    started.set()
                    assert go_on.wait(4)
                    receipts.open_receipt.get().row.message = MESSAGE  # type: ignore[union-attr]
                    receipts.open_receipt.get().row.save()  # type: ignore[union-attr]
                results[name] = kept
        finally:
            connections.close_all()

    first = threading.Thread(target=attempt, args=["first"])
    first.start()
    assert started.wait(4)
    second = threading.Thread(target=attempt, args=["second"])
    second.start()
    second.join(0.3)
    assert second.is_alive()  # it waits for what the first one does
    go_on.set()
    first.join(8)
    second.join(8)
    assert ran == ["first"]
    assert results["first"] is None
    assert results["second"].out == '"made by the first"'


MESSAGE = (
    '{"destination":"https://testserver/","body":'
    '"eyJzdGVwSWQiOjEsInN0ZXBOYW1lIjoid29yayIsInN0ZXBUeXBlIjoiUnVuIiwib3V0IjoiXCJtYWRlIGJ5IHRoZSBmaXJzdFwiIiwi'
    'Y29uY3VycmVudCI6MX0="}'
)


def test_a_receipt_goes_back_to_the_region_of_its_delivery(hosted: Hosted) -> None:
    regions: list[str | None] = []
    hosted.network.during = lambda request: regions.append(current_region.get())
    with_receipt.trigger()
    token = current_region.set("US_EAST_1")
    try:
        with hosted.transport.atomic():
            hosted.transport.kept("wfr_1", WireStep(step_id=1, step_name="a", step_type="Run", concurrent=1))
            row = receipts.open_receipt.get()
            assert row is not None
            assert row.row is not None
            assert row.row.region == "US_EAST_1"
    finally:
        current_region.reset(token)
    assert regions == [None]


def test_nothing_but_its_result_is_submitted_inside_an_atomic_step(hosted: Hosted) -> None:
    with pytest.raises(EngineError, match="room for its own result alone"), hosted.transport.atomic():
        receipts.fill_in(receipts.OpenReceipt(), ())


def test_the_transaction_of_others_holds_triggers_too(hosted: Hosted) -> None:
    with hosted.transport.atomic():
        handle = with_receipt.trigger()
        assert hosted.service.exchanges == []
        assert transaction.get_connection().in_atomic_block
    assert len(hosted.service.runs) == 1
    assert handle.run.status == Run.Status.QUEUED
