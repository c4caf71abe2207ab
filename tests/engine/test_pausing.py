"""A real worker, its run paused in the middle of a step; and the chores that it does besides."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Event

import pytest

from django_workflow import WorkflowContext, workflow
from django_workflow.client.client import get_client
from django_workflow.control import bulk
from django_workflow.control.actions import ACTIONS
from django_workflow.engine import worker as worker_module
from django_workflow.engine.worker import Worker
from django_workflow.models import Delivery, Run
from django_workflow.models.delivery import HELD
from django_workflow.testing.factories import make_run
from tests.engine.workers import eventually

pytestmark = pytest.mark.django_db(transaction=True)

begun, go_on = Event(), Event()
ran: list[str] = []


def wait(name: str) -> str:
    begun.set()
    assert go_on.wait(30)
    ran.append(name)
    return name


@workflow(name="paused-by-hand")
def paused_by_hand(ctx: WorkflowContext[None]) -> list[str]:
    return [ctx.run(name, wait, name) for name in ("one", "two", "three")]


@workflow(name="bystander")
def bystander(ctx: WorkflowContext[int]) -> int:
    return ctx.run("double", lambda: ctx.request_payload * 2)


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    monkeypatch.setattr(worker_module, "CHORE_SECONDS", 0.02)
    begun.clear()
    go_on.clear()
    ran.clear()
    worker = Worker(concurrency=2)
    worker.start()
    yield worker
    go_on.set()
    assert worker.drain()


def test_a_worker_keeps_the_result_of_a_step_that_was_under_way_and_starts_no_other(running: Worker) -> None:
    handle = paused_by_hand.trigger()
    assert begun.wait(30)
    get_client().pause(handle.id)
    go_on.set()
    eventually(lambda: handle.run.steps.filter(name="one", status="success").exists())
    # Another run comes and goes meanwhile: the worker has looked for work, and passed this one by.
    other = bystander.trigger(2)
    eventually(lambda: other.run.is_finished)
    assert (handle.run.status, ran) == ("paused", ["one"])
    (delivery,) = Delivery.objects.filter(run=handle.run)
    assert (delivery.due_at, delivery.worker_id) == (HELD, None)
    get_client().unpause(handle.id)
    eventually(lambda: handle.run.is_finished)
    assert (handle.run.status, ran) == ("success", ["one", "two", "three"])


def test_a_worker_does_bulk_operations(running: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "AT_ONCE", 0)
    monkeypatch.setattr(bulk, "BATCH", 2)
    for _ in range(5):
        make_run(status="waiting")
    operation = bulk.start(ACTIONS["cancel"], Run.objects.all(), by=None)
    eventually(lambda: bulk.follow(operation).is_over)
    assert (operation.state, operation.done) == ("done", 5)
    assert Run.objects.filter(status="canceled").count() == 5
