"""Clocks that jump: due times move with them, and nothing is done twice, lost, or taken for dead."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from django_workflow import WorkflowContext, workflow
from django_workflow.engine import cycle, scheduler
from django_workflow.engine.leases import Observer, beat, enlist
from django_workflow.engine.writing import write
from django_workflow.models import ChannelEvent, MessageLog, Run, Schedule
from django_workflow.protocol.publish import Message
from django_workflow.testing import WorkflowClock, run_workflows, send_event
from tests.faults.invariants import assert_sound, broken_rules

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)


@workflow(name="by-the-clock", retries=2, retry_delay=30)
def by_the_clock(ctx: WorkflowContext[None]) -> list[Any]:
    tries: list[int] = attempts.setdefault(ctx.workflow_run_id, [])

    def fail_once() -> int:
        tries.append(1)
        if len(tries) == 1:
            raise ConnectionError("once")
        return len(tries)

    ctx.sleep("nap", "1m")
    tried = ctx.run("try", fail_once)
    return [tried, ctx.wait_for_event("wait", "never", timeout="1m").timeout]


attempts: dict[str, list[int]] = {}


@pytest.mark.parametrize("jump", [-HOUR, HOUR, timedelta(days=-3650), timedelta(days=3650)], ids=str)
def test_a_jump_makes_runs_later_or_earlier_and_nothing_else(workflow_clock: WorkflowClock, jump: timedelta) -> None:
    handle = by_the_clock.trigger()
    run_workflows()
    for _ in range(4):
        workflow_clock._now += jump
        run_workflows()
        assert broken_rules() == []
    run_workflows(skip_delays=True)
    assert (handle.run.status, handle.run.result) == (Run.Status.SUCCESS, "[2,true]")
    assert_sound()
    positions = list(ChannelEvent.objects.filter(channel=handle.id).order_by("pk").values_list("position", flat=True))
    assert positions == sorted(set(positions))  # watchers ask for what is newer than what they have


@workflow(name="two-answers")
def two_answers(ctx: WorkflowContext[None]) -> list[Any]:
    ctx.sleep("nap", "1h")
    return [ctx.wait_for_event(f"wait {number}", "answer", timeout="1h").event_data for number in range(2)]


def test_events_that_came_early_keep_their_order_when_the_clock_is_set_back(workflow_clock: WorkflowClock) -> None:
    handle = two_answers.trigger()
    run_workflows()
    send_event("answer", 1, run=handle)
    workflow_clock._now -= HOUR
    send_event("answer", 2, run=handle)
    run_workflows(skip_delays=True)
    assert handle.run.result == "[1,2]"
    assert_sound()


def test_a_schedule_fires_once_an_occurrence_when_the_clock_is_set_back(workflow_clock: WorkflowClock) -> None:
    message = Message(destination="https://shop.example/hourly")
    write("default", lambda unit: scheduler.create(unit, message, "0 * * * *", schedule_id="hourly"))
    due = Schedule.objects.get().next_at
    assert due is not None
    for jump in (due - workflow_clock.now(), -HOUR / 2, HOUR / 2):
        workflow_clock._now += jump
        cycle.fire_schedules("default", workflow_clock.now())
        assert MessageLog.objects.count() == 1
    assert Schedule.objects.get().next_at == due + HOUR


def test_a_jump_of_the_system_clock_makes_no_worker_dead(workflow_clock: WorkflowClock) -> None:
    """Heartbeats are counted, and the observer's own monotonic clock says how long one stood still."""
    worker = enlist("default", workflow_clock.now(), 1)
    worker.host = "elsewhere"
    worker.save()
    observer = Observer(15)
    for second in range(0, 60, 5):
        workflow_clock._now += HOUR if second % 2 else -HOUR
        assert beat("default", worker.pk, workflow_clock.now())
        assert observer.dead("default", None, float(second)) == []
