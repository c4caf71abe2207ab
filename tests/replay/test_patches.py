"""Changes under live runs: `ctx.patched` and `ctx.deprecate_patch`."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from django_workflow import step
from django_workflow.authoring.decorator import Workflow
from django_workflow.errors import NestedStep, StepError, StepMismatch
from django_workflow.replay.outcome import Finished, StepSubmission
from tests.replay.driver import Engine


def names(engine: Engine) -> list[str]:
    """The steps that have a result, in the order of their messages."""
    return [message.step.step_name for message in engine.messages[1:] if message.step.step_id]


def redeploy(engine: Engine, function: Any) -> None:
    """The run goes on with other code."""
    engine.workflow = Workflow(function, name="under_test")


def old(ctx: Any) -> Any:
    return [ctx.run("a", str, "a"), ctx.run("b", str, "b"), ctx.run("c", str, "c")]


def changed(ctx: Any) -> Any:
    seen = [ctx.run("a", str, "a")]
    seen.append(ctx.run("new b", str, "new") if ctx.patched("b") else ctx.run("b", str, "b"))
    seen.append(ctx.run("c", str, "c"))
    return seen


def settled(ctx: Any) -> Any:
    a = ctx.run("a", str, "a")
    ctx.deprecate_patch("b")
    return [a, ctx.run("new b", str, "new"), ctx.run("c", str, "c")]


async def old_async(ctx: Any) -> Any:
    return [await ctx.run("a", str, "a"), await ctx.run("b", str, "b"), await ctx.run("c", str, "c")]


async def changed_async(ctx: Any) -> Any:
    seen = [await ctx.run("a", str, "a")]
    seen.append(await (ctx.run("new b", str, "new") if await ctx.patched("b") else ctx.run("b", str, "b")))
    seen.append(await ctx.run("c", str, "c"))
    return seen


async def settled_async(ctx: Any) -> Any:
    a = await ctx.run("a", str, "a")
    await ctx.deprecate_patch("b")
    return [a, await ctx.run("new b", str, "new"), await ctx.run("c", str, "c")]


both = pytest.mark.parametrize(
    ("before", "after", "later"),
    [(old, changed, settled), (old_async, changed_async, settled_async)],
    ids=["sync", "async"],
)


@both
def test_a_new_run_takes_the_new_code_and_records_so(before: Any, after: Any, later: Any) -> None:
    engine = Engine(after)
    assert engine.run() == ["a", "new", "c"]
    assert names(engine) == ["a", "patched: b", "new b", "c"]


@both
@pytest.mark.parametrize(
    ("deliveries", "result"),
    [
        (0, ["a", "new", "c"]),  # triggered, not begun
        (1, ["a", "new", "c"]),  # stands right before the change
        (2, ["a", "b", "c"]),  # has passed it
        (3, ["a", "b", "c"]),
    ],
)
def test_a_run_keeps_to_the_code_that_it_met_there(
    before: Any, after: Any, later: Any, deliveries: int, result: list[str]
) -> None:
    engine = Engine(before)
    for _ in range(deliveries):
        engine.step()
    redeploy(engine, after)
    assert engine.run() == result


@both
def test_old_code_refuses_a_run_that_has_taken_the_new_one(before: Any, after: Any, later: Any) -> None:
    # In a rolling deploy the next attempt may meet a new process; going on here would break the run.
    engine = Engine(after)
    engine.step()
    engine.step()
    redeploy(engine, before)
    with pytest.raises(StepMismatch, match="recorded step 2 as 'patched: b'"):
        engine.run()


@both
@pytest.mark.parametrize("deliveries", [0, 1, 2, 3])
def test_the_old_branch_can_go_while_runs_with_the_marker_live(
    before: Any, after: Any, later: Any, deliveries: int
) -> None:
    engine = Engine(after)
    for _ in range(deliveries):
        engine.step()
    redeploy(engine, later)
    assert engine.run() == ["a", "new", "c"]
    assert ("patched: b" in names(engine)) == (deliveries > 1)


@both
@pytest.mark.parametrize("steps_per_call", [1, 2, 9])
def test_several_steps_in_one_call_record_the_same(before: Any, after: Any, later: Any, steps_per_call: int) -> None:
    engine = Engine(after, steps_per_call=steps_per_call)
    assert engine.run() == ["a", "new", "c"]
    assert names(engine) == ["a", "patched: b", "new b", "c"]


def test_the_first_answer_holds_in_a_loop() -> None:
    def before(ctx: Any) -> Any:
        return [ctx.run(f"step {n}", str, "old") for n in range(3)]

    def after(ctx: Any) -> Any:
        return [ctx.run(f"step {n}", str, "new" if ctx.patched("loop") else "old") for n in range(3)]

    engine = Engine(before)
    engine.step()  # the first step
    redeploy(engine, after)
    assert engine.run() == ["old", "old", "old"]

    engine = Engine(after)
    assert engine.run() == ["new", "new", "new"]
    assert names(engine) == ["patched: loop", "step 0", "step 1", "step 2"]


def test_a_change_before_a_parallel_group() -> None:
    def before(ctx: Any) -> Any:
        return ctx.parallel(step.run("a", str, "a"), step.run("b", str, "b"))

    def after(ctx: Any) -> Any:
        if ctx.patched("three"):
            return ctx.parallel(step.run("a", str, "a"), step.run("b", str, "b"), step.run("d", str, "d"))
        return before(ctx)

    engine = Engine(before)
    engine.step()  # the group is announced, none of its steps is done
    redeploy(engine, after)
    assert engine.run() == ["a", "b"]
    assert Engine(after).run() == ["a", "b", "d"]


async def one(ctx: Any) -> list[str]:
    return [await ctx.run("a", str, "a"), await ctx.run("a2", str, "a2")]


async def two(ctx: Any) -> list[str]:
    return [await ctx.run("b", str, "b"), await ctx.run("b2", str, "b2")]


async def one_changed(ctx: Any) -> list[str]:
    first = await ctx.run("new a", str, "new") if await ctx.patched("a") else await ctx.run("a", str, "a")
    return [first, await ctx.run("a2", str, "a2")]


async def two_changed(ctx: Any) -> list[str]:
    first = await ctx.run("b", str, "b")
    second = await ctx.run("new b2", str, "new") if await ctx.patched("b2") else await ctx.run("b2", str, "b2")
    return [first, second]


async def tasks_old(ctx: Any) -> Any:
    return await asyncio.gather(one(ctx), two(ctx))


async def tasks_changed(ctx: Any) -> Any:
    return await asyncio.gather(one_changed(ctx), two_changed(ctx))


@pytest.mark.parametrize("steps_per_call", [1, 9])
def test_tasks_that_meet_changes_at_the_same_time(steps_per_call: int) -> None:
    engine = Engine(tasks_changed, steps_per_call=steps_per_call)
    assert engine.run() == [["new", "a2"], ["b", "new"]]
    # The task that met no change waited, so the groups are those of the code without one.
    assert [name for name in names(engine) if name.startswith("patched")] == ["patched: a", "patched: b2"]


@pytest.mark.parametrize("deliveries", range(9))
def test_tasks_of_a_live_run_meet_changes(deliveries: int) -> None:
    engine = Engine(tasks_old)
    for _ in range(deliveries):
        engine.step()
        assert not isinstance(engine.outcomes[-1], Finished)
    plans = sum(isinstance(s, StepSubmission) and s.step.is_plan for s in engine.submissions)
    redeploy(engine, tasks_changed)
    assert engine.run() == [["a" if plans else "new", "a2"], ["b", "b2" if plans > 2 else "new"]]


def test_tasks_that_ask_for_one_change_get_one_answer() -> None:
    async def branch(ctx: Any, n: int) -> str:
        kind = "new" if await ctx.patched("all") else "old"
        return await ctx.run(f"branch {n}", str, f"{kind} {n}")

    async def wf(ctx: Any) -> Any:
        return await asyncio.gather(*(branch(ctx, n) for n in range(3)))

    engine = Engine(wf)
    assert engine.run() == ["new 0", "new 1", "new 2"]
    assert names(engine).count("patched: all") == 1


def test_two_changes_at_one_place() -> None:
    async def branch(ctx: Any, n: int) -> str:
        return await ctx.run(f"branch {n}", str, await ctx.patched(f"change {n}"))

    async def wf(ctx: Any) -> Any:
        return await asyncio.gather(*(branch(ctx, n) for n in range(2)))

    engine = Engine(wf)
    assert engine.run() == ["True", "True"]
    assert names(engine)[:2] == ["patched: change 0", "patched: change 1"]


@pytest.mark.parametrize("bad", ["", None, 3])
def test_a_change_needs_an_id(bad: Any) -> None:
    with pytest.raises(StepError, match="id of a change"):
        Engine(lambda ctx: ctx.patched(bad)).run()


def test_a_step_cannot_be_named_like_a_marker() -> None:
    with pytest.raises(StepError, match="marker of a change"):
        Engine(lambda ctx: ctx.run("patched: b", str, "x")).run()


def test_a_change_cannot_be_asked_for_inside_a_step() -> None:
    def wf(ctx: Any) -> Any:
        ctx.patched("b")
        return ctx.run("outer", lambda: ctx.patched("b"))

    with pytest.raises(NestedStep, match="outer"):
        Engine(wf).run()
