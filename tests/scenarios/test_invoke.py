"""A workflow starts another and waits for its end."""

from __future__ import annotations

from typing import Any

import pytest

from django_workflow import WorkflowContext, workflow
from django_workflow.models import Run
from tests.scenarios.conftest import Engine


@workflow(name="child", retries=0)
def child(ctx: WorkflowContext[int]) -> dict[str, int]:
    if ctx.request_payload < 0:
        ctx.run("fail", lambda: 1 / 0)
    if ctx.request_payload == 0:
        ctx.cancel()
    return {"doubled": ctx.run("double", lambda: ctx.request_payload * 2)}


@workflow(name="parent")
def parent(ctx: WorkflowContext[int]) -> list[Any]:
    ctx.run("before", lambda: 0)
    done = ctx.invoke("ask child", workflow=child, body=ctx.request_payload)
    return [done.body, done.is_failed, done.is_canceled]


@workflow(name="async-parent")
async def async_parent(ctx: WorkflowContext[int]) -> list[Any]:
    await ctx.run("before", lambda: 0)
    done = await ctx.invoke("ask child", workflow=child, body=ctx.request_payload)
    return [done.body, done.is_failed, done.is_canceled]


@pytest.mark.parametrize("flow", [parent, async_parent], ids=["sync", "async"])
@pytest.mark.parametrize(
    ("payload", "result"),
    [(4, '[{"doubled":8},false,false]'), (-1, "[null,true,false]"), (0, "[null,false,true]")],
    ids=["success", "failed child", "canceled child"],
)
def test_the_childs_end_is_the_steps_result(engine: Engine, flow, payload: int, result: str) -> None:
    handle = flow.trigger(payload)
    run = engine.finish(handle)
    assert run.result == result
    invoked = Run.objects.get(workflow="child")
    assert invoked.parent == run
    assert invoked.trigger_kind == Run.TriggerKind.PARENT


def test_a_waiting_parent_says_whom_it_waits_for_and_outlives_nothing(engine: Engine) -> None:
    @workflow(name="slow-child")
    def slow(ctx: WorkflowContext[None]) -> None:
        ctx.sleep("long", "1d")

    @workflow(name="impatient-parent")
    def impatient(ctx: WorkflowContext[None]) -> None:
        ctx.invoke("ask", workflow=slow)

    handle = impatient.trigger()
    engine.run()
    assert handle.run.status == Run.Status.WAITING
    assert "slow-child" in handle.run.why
    handle.cancel()
    engine.run(skip_delays=True)
    assert handle.run.status == Run.Status.CANCELED
    assert Run.objects.get(workflow="slow-child").status == Run.Status.SUCCESS
