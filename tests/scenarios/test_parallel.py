"""Parallel steps: mixed kinds, chains, one failing branch, many branches."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from django_workflow import WorkflowContext, step, workflow
from django_workflow.models import Run, Step
from django_workflow.testing import CallAnswer, mock_calls, send_event
from tests.scenarios.conftest import Engine

calls: list[str] = []


@pytest.fixture(autouse=True)
def _fresh() -> None:
    calls.clear()


def note(name: str) -> str:
    calls.append(name)
    return name


@workflow(name="parallel")
def parallel(ctx: WorkflowContext[int]) -> list[str]:
    ctx.run("before", note, "before")
    names = ctx.parallel(*(step.run(f"branch {n}", note, f"branch {n}") for n in range(ctx.request_payload)))
    ctx.run("after", note, "after")
    return list(names)


@workflow(name="async-parallel")
async def async_parallel(ctx: WorkflowContext[int]) -> list[str]:
    await ctx.run("before", note, "before")
    names = await asyncio.gather(*(ctx.run(f"branch {n}", note, f"branch {n}") for n in range(ctx.request_payload)))
    await ctx.run("after", note, "after")
    return list(names)


both = pytest.mark.parametrize("flow", [parallel, async_parallel], ids=["sync", "async"])


@both
@pytest.mark.parametrize("count", [1, 2, 3, None], ids=["1", "2", "3", "many"])
def test_branches_run_once_each_and_join_in_order(engine: Engine, flow, count: int | None) -> None:
    count = count or engine.many_branches
    run = engine.finish(flow.trigger(count))
    names = [f"branch {n}" for n in range(count)]
    assert run.result == "[" + ",".join(f'"{name}"' for name in names) + "]"
    assert sorted(calls) == sorted(["before", *names, "after"])
    assert run.group_open == 0
    assert engine.plans(run) == (0 if count == 1 else count)


def test_a_group_takes_no_more_calls_than_it_must(engine: Engine) -> None:
    handle = parallel.trigger(3)
    # One call for "before", one that plans the group, those of the group, of which the last runs "after", and the end.
    assert engine.run() == 1 + 1 + engine.calls_of_group(3) + 1
    assert handle.run.status == Run.Status.SUCCESS


@workflow(name="mixed")
def mixed(ctx: WorkflowContext[None]) -> list[Any]:
    one, _, answer, response = ctx.parallel(
        step.run("run", note, "run"),
        step.sleep("sleep", "1h"),
        step.wait_for_event("wait", "mixed-event", timeout="1d"),
        step.call("call", url="https://example.com/", method="POST", body={"a": 1}),
    )
    return [one, answer.event_data, response.status]


def test_a_group_of_mixed_kinds_waits_for_the_slowest(engine: Engine) -> None:
    with mock_calls(CallAnswer(201, {"made": True})) as recorder:
        handle = mixed.trigger()
        engine.run()
        assert [call.json for call in recorder.calls] == [{"a": 1}]
        assert handle.run.status == Run.Status.WAITING
        send_event("mixed-event", {"n": 1})
        engine.run()
        assert handle.run.status == Run.Status.SLEEPING
        run = engine.finish(handle)
    assert run.result == '["run",{"n":1},201]'
    assert set(run.steps.values_list("status", flat=True)) == {Step.Status.SUCCESS}


@workflow(name="chains")
async def chains(ctx: WorkflowContext[None]) -> list[str]:
    async def chain(name: str) -> str:
        first = await ctx.run(f"{name} one", note, f"{name} one")
        await ctx.sleep(f"{name} sleep", 5)
        second = await ctx.run(f"{name} two", note, f"{name} two")
        return f"{first} {second}"

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(chain(name)) for name in ("a", "b")]
    return [task.result() for task in tasks]


def test_chains_proceed_in_groups(engine: Engine) -> None:
    run = engine.finish(chains.trigger())
    assert run.result == '["a one a two","b one b two"]'
    assert sorted(calls) == ["a one", "a two", "b one", "b two"]


def explode() -> None:
    calls.append("explode")
    raise RuntimeError("branch broke")


@workflow(name="failing-branch", retries=1, retry_delay=1)
def failing_branch(ctx: WorkflowContext[None]) -> None:
    ctx.parallel(step.run("good", note, "good"), step.run("bad", explode), step.sleep("long", "1d"))


def test_a_failing_branch_fails_the_run_after_its_retries(engine: Engine) -> None:
    handle = failing_branch.trigger()
    engine.run()
    assert handle.run.status == Run.Status.RETRYING
    run = engine.fail(handle)
    assert calls.count("explode") == 2
    assert calls.count("good") == 1
    assert "branch broke" in run.error
    assert run.error_step == "bad"
    statuses = dict(run.steps.values_list("name", "status"))
    assert statuses == {"good": "success", "bad": "failed", "long": "canceled"}


@workflow(name="flaky-branch", retry_delay=1)
def flaky_branch(ctx: WorkflowContext[None]) -> list[str]:
    def second_try() -> str:
        calls.append("try")
        if calls.count("try") < 2:
            raise ConnectionError("once")
        return "tried"

    return list(ctx.parallel(step.run("good", note, "good"), step.run("flaky", second_try)))


def test_a_branch_is_retried_alone(engine: Engine) -> None:
    run = engine.finish(flaky_branch.trigger())
    assert run.result == '["good","tried"]'
    assert calls.count("good") == 1
