"""Code that changes while its runs wait: `ctx.patched`."""

from __future__ import annotations

import pytest

from django_workflow import AsyncWorkflowContext, Client, WorkflowContext, workflow
from django_workflow.models import Run, Step
from tests.scenarios.conftest import Engine

deployed = "old"
"""Which code this site serves."""


@pytest.fixture(autouse=True)
def _old_code() -> None:
    deploy("old")


def deploy(code: str) -> None:
    global deployed
    deployed = code


@workflow(name="changing")
def changing(ctx: WorkflowContext[None]) -> str:
    ctx.wait_for_event("first answer", "changing-first")
    if deployed == "new" and ctx.patched("ask twice"):
        ctx.run("check", str, "checked")
        return ctx.run("file", str, "new")
    ctx.wait_for_event("second answer", "changing-second")
    return ctx.run("file", str, "old")


@workflow(name="changing-async")
async def changing_async(ctx: AsyncWorkflowContext[None]) -> str:
    await ctx.wait_for_event("first answer", "changing-first")
    if deployed == "new" and await ctx.patched("ask twice"):
        await ctx.run("check", str, "checked")
        return await ctx.run("file", str, "new")
    await ctx.wait_for_event("second answer", "changing-second")
    return await ctx.run("file", str, "old")


def answer(engine: Engine, event_id: str, run: Run) -> None:
    Client().notify(event_id, run_id=run.run_id)
    engine.run(skip_delays=False)


def step_names(run: Run) -> list[str]:
    return list(run.steps.order_by("step_id").values_list("name", flat=True))


@pytest.mark.parametrize("flow", [changing, changing_async], ids=["sync", "async"])
def test_runs_before_and_behind_a_change_end_well(engine: Engine, flow) -> None:
    behind, before = flow.trigger(), flow.trigger()
    engine.run()
    answer(engine, "changing-first", behind.run)
    deploy("new")
    answer(engine, "changing-first", before.run)
    answer(engine, "changing-second", behind.run)
    run = engine.finish(before)
    assert run.result == '"new"'
    assert step_names(run) == ["first answer", "patched: ask twice", "check", "file"]
    marker = run.steps.get(name="patched: ask twice")
    assert (marker.status, marker.preview) == (Step.Status.SUCCESS, "true")
    assert engine.finish(behind).result == '"old"'
    assert step_names(behind.run) == ["first answer", "second answer", "file"]
