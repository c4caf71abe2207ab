"""Runs that start by the clock, and runs whose calls are limited by a key."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from django_workflow import WorkflowContext, workflow
from django_workflow.models import Run, Schedule
from django_workflow.testing import run_workflows, workflow_clock
from tests.scenarios.conftest import Engine


@workflow(name="nightly", schedule="0 3 * * *", timezone="Europe/Berlin")
def nightly(ctx: WorkflowContext[None]) -> str:
    return ctx.run("work", lambda: "done")


@pytest.mark.django_db
def test_a_schedule_follows_its_time_zone_through_summer_time_and_fires_once() -> None:
    with workflow_clock(datetime(2026, 3, 27, 12, tzinfo=UTC)) as clock:
        run_workflows(declare_schedules=True)
        assert Schedule.objects.get(schedule_id="nightly").next_at == datetime(2026, 3, 28, 2, tzinfo=UTC)
        clock.move_to(datetime(2026, 3, 28, 2, tzinfo=UTC))
        run_workflows()
        run_workflows()
        first = Run.objects.get(workflow="nightly")
        assert (first.status, first.trigger_kind) == (Run.Status.SUCCESS, Run.TriggerKind.SCHEDULE)
        assert Schedule.objects.get(schedule_id="nightly").next_at == datetime(2026, 3, 29, 1, tzinfo=UTC)
        clock.advance("10d")
        run_workflows()
        assert Run.objects.filter(workflow="nightly").count() == 2


def test_a_rate_lets_a_keys_calls_through_window_by_window(engine: Engine) -> None:
    limited = nightly.using(flow_control={"key": "nightly", "rate": 2, "period": "1m"})
    handles = [limited.trigger() for _ in range(2)]
    engine.run()
    assert engine.rate("nightly") == 2
    assert [handle.run.status for handle in handles] != [Run.Status.SUCCESS] * 2
    made = 2
    while any(not handle.run.is_finished for handle in handles):
        engine.clock.advance("1m")
        step = engine.run()
        assert step <= 2
        made += step
    assert made == 2 * 2  # one call that runs the step, and one that ends the run


def test_a_key_with_parallelism_one_makes_one_call_at_a_time_and_ends(engine: Engine) -> None:
    limited = nightly.using(flow_control={"key": "one", "parallelism": 1})
    handles = [limited.trigger() for _ in range(3)]
    engine.run()
    assert [handle.run.status for handle in handles] == [Run.Status.SUCCESS] * 3


def test_a_sleeping_run_holds_no_slot(engine: Engine) -> None:
    @workflow(name="limited-sleeper")
    def sleeper(ctx: WorkflowContext[None]) -> None:
        ctx.sleep("long", timedelta(days=1))

    limited = sleeper.using(flow_control={"key": "one", "parallelism": 1})
    handles = [limited.trigger() for _ in range(2)]
    engine.run()
    assert [handle.run.status for handle in handles] == [Run.Status.SLEEPING] * 2
