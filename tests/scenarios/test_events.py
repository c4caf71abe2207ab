"""Waiting for events: in time, too late, early, broadcast, canceled."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from django_workflow import WorkflowContext, workflow
from django_workflow.models import ChannelEvent, Run, Step, Waiter
from django_workflow.testing import send_event
from tests.scenarios.conftest import Engine


@dataclass
class Approval:
    by: str
    approved: bool


@workflow(name="approval")
def approval(ctx: WorkflowContext[str]) -> Any:
    answer = ctx.wait_for_event("approval", f"approve-{ctx.request_payload}", timeout="2d", type=Approval)
    if answer.timeout:
        return "too late"
    assert isinstance(answer.event_data, Approval)
    return answer.event_data


@workflow(name="async-approval")
async def async_approval(ctx: WorkflowContext[str]) -> Any:
    answer = await ctx.wait_for_event("approval", f"approve-{ctx.request_payload}", timeout="2d", type=Approval)
    return "too late" if answer.timeout else answer.event_data


both = pytest.mark.parametrize("flow", [approval, async_approval], ids=["sync", "async"])


@both
def test_a_run_goes_on_when_its_event_comes(engine: Engine, flow) -> None:
    handle = flow.trigger("1")
    engine.run()
    run = handle.run
    assert run.status == Run.Status.WAITING
    assert "approve-1" in run.why
    assert engine.left() == 0
    told = send_event("approve-1", {"by": "ada", "approved": True})
    assert [item.workflow_run_id for item in told] == [handle.id]
    assert engine.finish(handle).result == '{"by":"ada","approved":true}'
    assert run.steps.get(name="approval").status == Step.Status.SUCCESS


@both
def test_a_wait_times_out(engine: Engine, flow) -> None:
    handle = flow.trigger("2")
    engine.run()
    engine.clock.advance("2d")
    assert engine.finish(handle, skip_delays=False).result == '"too late"'
    assert Waiter.objects.get().state == Waiter.State.TIMED_OUT
    assert send_event("approve-2", {}) == ()


def test_an_event_that_is_sent_to_the_run_early_is_kept_for_its_wait(engine: Engine) -> None:
    handle = approval.trigger("3")
    send_event("approve-3", {"by": "eve", "approved": False}, run=handle)
    assert engine.finish(handle).result == '{"by":"eve","approved":false}'
    assert Waiter.objects.get().state == engine.kept_event


def test_an_event_that_is_broadcast_early_reaches_nobody(engine: Engine) -> None:
    handle = approval.trigger("4")
    assert send_event("approve-4", {"by": "eve", "approved": False}) == ()
    engine.run()
    assert handle.run.status == Run.Status.WAITING


def test_an_event_reaches_all_runs_that_wait_for_it(engine: Engine) -> None:
    handles = [approval.trigger("all") for _ in range(3)]
    engine.run()
    assert len(send_event("approve-all", {"by": "ada", "approved": True})) == 3
    for handle in handles:
        engine.finish(handle)


def test_a_second_answer_reaches_nobody(engine: Engine) -> None:
    handle = approval.trigger("5")
    engine.run()
    assert len(send_event("approve-5", {"by": "ada", "approved": True})) == 1
    assert send_event("approve-5", {"by": "bob", "approved": False}) == ()
    assert engine.finish(handle).result == '{"by":"ada","approved":true}'


def test_a_waiting_run_can_be_canceled(engine: Engine) -> None:
    handle = approval.trigger("6")
    engine.run()
    assert handle.cancel()
    assert not handle.cancel()
    run = handle.run
    assert run.status == Run.Status.CANCELED
    assert run.steps.get().status == Step.Status.CANCELED
    assert Waiter.objects.get().state == Waiter.State.CANCELED
    assert send_event("approve-6", {}) == ()
    assert engine.run() == 0


@workflow(name="notifier")
def notifier(ctx: WorkflowContext[str]) -> int:
    told = ctx.notify("tell", f"approve-{ctx.request_payload}", {"by": "flow", "approved": True})
    return len(told.notified)


def test_one_run_notifies_another(engine: Engine) -> None:
    waiting = approval.trigger("7")
    engine.run()
    assert engine.finish(notifier.trigger("7")).result == "1"
    assert engine.finish(waiting).result == '{"by":"flow","approved":true}'


def test_people_are_told_what_a_wait_asks_them(engine: Engine) -> None:
    @workflow(name="asking")
    def asking(ctx: WorkflowContext[None]) -> None:
        ctx.wait_for_event("approval", "ask", message="May order 7 go out? ☕")

    handle = asking.trigger()
    engine.run()
    assert Waiter.objects.get().prompt == "May order 7 go out? ☕"
    told = ChannelEvent.objects.filter(channel=handle.id, data__contains='"waitingForInput"').get()
    assert '"message":"May order 7 go out? ☕"' in told.data


def test_the_deadline_of_a_wait_is_shown(engine: Engine) -> None:
    handle = approval.trigger("8")
    engine.run()
    assert handle.run.steps.get().due_at == engine.clock.now() + timedelta(days=2)
