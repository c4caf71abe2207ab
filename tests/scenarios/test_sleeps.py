"""Sleeps and delays cost nothing and end on time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from django_workflow import WorkflowContext, workflow
from django_workflow.models import Run, Step
from tests.scenarios.conftest import Engine


@workflow(name="sleeper")
def sleeper(ctx: WorkflowContext[None]) -> str:
    ctx.run("before", lambda: 1)
    ctx.sleep("three days", "3d")
    ctx.sleep_until("new year", datetime(2090, 1, 1, tzinfo=UTC))
    return "awake"


@workflow(name="async-sleeper")
async def async_sleeper(ctx: WorkflowContext[None]) -> str:
    await ctx.run("before", lambda: 1)
    await ctx.sleep("three days", timedelta(days=3))
    await ctx.sleep_until("new year", datetime(2090, 1, 1, tzinfo=UTC))
    return "awake"


@pytest.mark.parametrize("flow", [sleeper, async_sleeper], ids=["sync", "async"])
def test_a_sleeping_run_wakes_when_its_time_has_come(engine: Engine, flow) -> None:
    handle = flow.trigger()
    engine.run()
    run = handle.run
    assert run.status == Run.Status.SLEEPING
    assert run.due_at == engine.clock.now() + timedelta(days=3)
    assert run.steps.get(name="three days").status == Step.Status.SLEEPING
    engine.clock.advance("2d23h")
    assert engine.run() == 0
    engine.clock.advance("1h")
    engine.run()
    assert handle.run.steps.get(name="three days").status == Step.Status.SUCCESS
    assert handle.run.due_at == datetime(2090, 1, 1, tzinfo=UTC)
    assert engine.finish(handle).result == '"awake"'
    assert engine.clock.now() == datetime(2090, 1, 1, tzinfo=UTC)


def test_a_delayed_run_is_scheduled_and_can_be_canceled_before_it_starts(engine: Engine) -> None:
    handle = sleeper.using(delay="1h").trigger()
    assert handle.run.status == Run.Status.SCHEDULED
    assert engine.run() == 0
    other = sleeper.using(not_before=engine.clock.now() + timedelta(hours=2)).trigger()
    assert handle.cancel()
    engine.clock.advance("1h")
    assert engine.run() == 0
    assert handle.run.status == Run.Status.CANCELED
    engine.clock.advance("1h")
    assert engine.run() > 0
    assert other.run.status == Run.Status.SLEEPING
