"""Runs that start by the clock, and runs whose calls are limited by a key."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from django_workflow import WorkflowContext, workflow
from django_workflow.models import Run, Schedule
from tests.scenarios.conftest import Engine


@workflow(name="each-night", schedule="0 3 * * *", timezone="Europe/Berlin")
def nightly(ctx: WorkflowContext[None]) -> str:
    return ctx.run("work", lambda: "done")


def test_a_schedule_follows_its_time_zone_through_summer_time_and_fires_once(engine: Engine) -> None:
    engine.clock.move_to(datetime(2091, 3, 23, 12, tzinfo=UTC))
    engine.run(declare_schedules=True)
    assert Schedule.objects.get(workflow="each-night").next_at == datetime(2091, 3, 24, 2, tzinfo=UTC)
    engine.clock.move_to(datetime(2091, 3, 24, 2, tzinfo=UTC))
    engine.run()
    engine.run()
    first = Run.objects.get(workflow="each-night")
    assert (first.status, first.trigger_kind) == (Run.Status.SUCCESS, Run.TriggerKind.SCHEDULE)
    engine.run(declare_schedules=True)  # a worker that starts, say
    assert Schedule.objects.get(workflow="each-night").next_at == datetime(2091, 3, 25, 1, tzinfo=UTC)
    engine.clock.advance("10d")
    engine.run()
    assert Run.objects.filter(workflow="each-night").count() == 2


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
