"""What else a workflow may ask of its context: cancel, notify a run, emit, progress, labels, ids."""

from __future__ import annotations

from typing import Any

import pytest

from django_workflow import WorkflowContext, workflow
from django_workflow.models import ChannelEvent, Run
from tests.scenarios.conftest import Engine

ran: list[str] = []


@pytest.fixture(autouse=True)
def _fresh() -> None:
    ran.clear()


@workflow(name="gives-up")
def gives_up(ctx: WorkflowContext[None]) -> None:
    ctx.run("look", ran.append, "look")
    ctx.cancel()
    ctx.run("never", ran.append, "never")


@workflow(name="async-gives-up")
async def async_gives_up(ctx: WorkflowContext[None]) -> None:
    await ctx.run("look", ran.append, "look")
    await ctx.cancel()
    await ctx.run("never", ran.append, "never")


@pytest.mark.parametrize("flow", [gives_up, async_gives_up], ids=["sync", "async"])
def test_a_workflow_cancels_itself(engine: Engine, flow: Any) -> None:
    handle = flow.trigger()
    engine.run()
    assert handle.run.status == Run.Status.CANCELED
    assert ran == ["look"]
    assert not hasattr(handle.run, "dead_letter")


@workflow(name="late-waiter")
def late_waiter(ctx: WorkflowContext[None]) -> Any:
    ctx.sleep("first", "1h")
    return ctx.wait_for_event("news", "news").event_data


@workflow(name="teller")
def teller(ctx: WorkflowContext[str]) -> int:
    return len(ctx.notify("tell", "news", {"n": 1}, workflow_run_id=ctx.request_payload).notified)


@workflow(name="async-teller")
async def async_teller(ctx: WorkflowContext[str]) -> int:
    told = await ctx.notify("tell", "news", {"n": 1}, workflow_run_id=ctx.request_payload)
    return len(told.notified)


@pytest.mark.parametrize("flow", [teller, async_teller], ids=["sync", "async"])
def test_an_event_for_a_run_that_does_not_wait_yet_is_kept(engine: Engine, flow: Any) -> None:
    waiting = late_waiter.trigger()
    telling = flow.trigger(waiting.id)
    engine.run()
    assert telling.run.result == "1"
    assert engine.finish(waiting).result == '{"n":1}'


@workflow(name="talks")
def talks(ctx: WorkflowContext[None]) -> None:
    def work() -> None:
        ctx.emit("log", {"line": "working"})
        ctx.progress(1, 4)

    ctx.run("work", work)


def test_events_and_progress_of_a_step_are_told(engine: Engine) -> None:
    run = engine.finish(talks.trigger())
    assert (run.progress_done, run.progress_total) == (1, 4)
    told = ChannelEvent.objects.filter(channel=run.run_id).order_by("position")
    assert told.get(event="log").data == '{"line":"working"}'
    kinds = [event.data.split('"type":"')[1].split('"')[0] for event in told.filter(event="workflow.update")]
    assert kinds[0] == "runStart"
    assert kinds[-1] == "runFinish"
    assert "progress" in kinds


def test_a_context_knows_its_run(engine: Engine) -> None:
    seen: dict[str, Any] = {}

    @workflow(name="knows")
    def knows(ctx: WorkflowContext[None]) -> None:
        seen.update(id=ctx.workflow_run_id, label=ctx.label, labels=ctx.labels, header=ctx.headers.get("X-Tenant"))
        ctx.run("key", lambda: seen.update(key=ctx.idempotency_key))

    handle = knows.using(label=["vip", "eu"], headers={"X-Tenant": "seven"}, workflow_run_id="known").trigger()
    engine.finish(handle)
    assert seen.pop("key")
    assert seen == {"id": "wfr_known", "label": "vip", "labels": ("vip", "eu"), "header": "seven"}
    assert handle.run.label_list == ["vip", "eu"]
