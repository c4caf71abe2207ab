"""Atomic steps: the rows that a step writes and its result are kept together, or not at all."""

from __future__ import annotations

import pytest

from django_workflow import WorkflowContext, workflow
from django_workflow.engine.dispatch import Dispatcher
from django_workflow.engine.network import Network
from django_workflow.engine.shared import shared_cache
from django_workflow.models import Delivery, JournalEntry, Run
from django_workflow.testing import WorkflowClock, assert_step_ran, run_workflows
from tests.effects.models import Effect
from tests.engine.deliveries import Hand
from tests.scenarios.conftest import Engine

tries: list[str] = []


@pytest.fixture(autouse=True)
def _fresh() -> None:
    tries.clear()


def write(run_id: str, step: str) -> str:
    tries.append(step)
    Effect.objects.create(run_id=run_id, step=step, atomic=True)
    return step


@workflow(name="atomic")
def atomic(ctx: WorkflowContext[None]) -> str:
    ctx.run("one", write, ctx.workflow_run_id, "one", atomic=True)
    ctx.run("two", write, ctx.workflow_run_id, "two", atomic=True)
    return ctx.run("three", lambda: "plain")


def test_atomic_steps_write_their_rows_once(engine: Engine) -> None:
    run = engine.finish(atomic.trigger())
    assert run.result == '"plain"'
    assert sorted(Effect.objects.values_list("step", flat=True)) == ["one", "two"]
    assert_step_ran(run, "one", result="one")


def fail_once(run_id: str) -> str:
    write(run_id, "flaky")
    if tries.count("flaky") == 1:
        raise ConnectionError("after the row was written")
    return "done"


@workflow(name="atomic-flaky", retry_delay=1)
def atomic_flaky(ctx: WorkflowContext[None]) -> str:
    return ctx.run("flaky", fail_once, ctx.workflow_run_id, atomic=True)


def test_a_failing_atomic_step_leaves_no_rows(engine: Engine) -> None:
    handle = atomic_flaky.trigger()
    engine.run()
    assert handle.run.status == Run.Status.RETRYING
    assert not Effect.objects.exists()
    engine.finish(handle)
    assert Effect.objects.count() == 1


@pytest.mark.django_db
def test_a_step_whose_lease_was_lost_rolls_its_rows_back(workflow_clock: WorkflowClock) -> None:
    """Another worker took the delivery over while this one was frozen: the result is refused, so the rows go too."""
    hand = Hand(workflow_clock)
    atomic.trigger()
    (lease,) = hand.claim()
    Delivery.objects.update(fence=lease.fence + 1)
    dispatcher = Dispatcher("default", shared_cache("default"), workflow_clock.now, Network())
    dispatched = dispatcher.dispatch(lease, hand.write)
    assert tries == ["one"]
    assert dispatched.after is None
    assert not Effect.objects.exists()
    hand.write(dispatched.settlement)
    assert not JournalEntry.objects.exists()
    assert Delivery.objects.get().attempt == 0


@pytest.mark.django_db
def test_the_setting_makes_every_sync_step_atomic(settings, workflow_clock) -> None:
    settings.DJANGO_WORKFLOW = {**settings.DJANGO_WORKFLOW, "atomic_steps": True}

    @workflow(name="all-atomic", retry_delay=1)
    def flow(ctx: WorkflowContext[None]) -> str:
        return ctx.run("flaky", fail_once, ctx.workflow_run_id)

    flow.trigger()
    run_workflows()
    assert not Effect.objects.exists()
    run_workflows(skip_delays=True)
    assert Effect.objects.count() == 1


@workflow(name="triggers-another", retry_delay=1)
def triggers_another(ctx: WorkflowContext[None]) -> str:
    def work() -> str:
        handle = atomic.trigger()
        tries.append("work")
        if tries.count("work") == 1:
            raise ConnectionError("after the trigger")
        return handle.id

    return ctx.run("start it", work)


def test_a_step_that_is_tried_again_triggers_the_same_run(engine: Engine) -> None:
    run = engine.finish(triggers_another.trigger())
    other = Run.objects.get(workflow="atomic")
    assert run.result == f'"{other.run_id}"'
    assert other.status == Run.Status.SUCCESS
