"""WorkflowAbort and the workflows that catch it; cancelling."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from django_workflow import step
from django_workflow.authoring.context import WorkflowContext
from django_workflow.errors import AbortSwallowed, WorkflowAbort, WorkflowCancelAbort
from django_workflow.replay.outcome import Cancelled, Discarded, Failed, Finished, Submitted
from tests.replay.driver import Engine

Context = WorkflowContext[Any]


def only(engine: Engine) -> Any:
    """The outcome of the first call."""
    return engine.deliver()


def returns(ctx: Context) -> None:
    try:
        ctx.run("a", lambda: 1)
    except BaseException:
        return


def bare(ctx: Context) -> None:
    try:
        ctx.run("a", lambda: 1)
    except:  # noqa: E722
        return


def in_finally(ctx: Context) -> Any:
    try:
        ctx.run("a", lambda: 1)
    finally:
        return 5  # noqa: B012


async def returns_async(ctx: Any) -> None:
    try:
        await ctx.run("a", lambda: 1)
    except BaseException:
        return


async def gathers_exceptions(ctx: Any) -> None:
    await asyncio.gather(ctx.run("a", lambda: 1), return_exceptions=True)


async def waits(ctx: Any) -> None:
    await asyncio.wait([asyncio.ensure_future(ctx.run("a", lambda: 1))])


@pytest.mark.parametrize("function", [returns, bare, in_finally, returns_async, gathers_exceptions, waits])
def test_a_swallowed_abort_is_an_error_that_names_the_fix(function: Any) -> None:
    engine = Engine(function)
    outcome = only(engine)
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, AbortSwallowed)
    assert "do not catch BaseException" in str(outcome.error)
    assert "'a'" in str(outcome.error)
    assert len(engine.submissions) == 1, "what was submitted stays submitted"


def asks_again(ctx: Context) -> None:
    try:
        ctx.run("a", lambda: 1)
    except BaseException:
        ctx.run("b", lambda: 1)


def finally_asks(ctx: Context) -> None:
    try:
        ctx.run("a", lambda: 1)
    finally:
        ctx.run("b", lambda: 1)


def asks_for_a_group(ctx: Context) -> None:
    try:
        ctx.run("a", lambda: 1)
    finally:
        ctx.parallel(step.run("b", lambda: 1), step.run("c", lambda: 1))


def loops(ctx: Context) -> None:
    for name in ("a", "b"):
        for _ in range(5):
            try:
                ctx.run(name, lambda: 1)
            except BaseException:
                continue
    ctx.run("c", lambda: 1)


async def finally_asks_async(ctx: Any) -> None:
    try:
        await ctx.run("a", lambda: 1)
    finally:
        await ctx.run("b", lambda: 1)


async def asks_after_gathering(ctx: Any) -> None:
    await asyncio.gather(ctx.run("a", lambda: 1), return_exceptions=True)
    await asyncio.gather(ctx.run("b", lambda: 1), ctx.run("c", lambda: 1))


@pytest.mark.parametrize(
    "function", [asks_again, finally_asks, asks_for_a_group, loops, finally_asks_async, asks_after_gathering]
)
def test_a_step_after_an_abort_runs_nothing_and_raises_it_again(function: Any) -> None:
    engine = Engine(function)
    assert only(engine) == Submitted("a")
    assert engine.started == ["a"]
    assert len(engine.submissions) == 1


def test_except_exception_is_safe() -> None:
    def wf(ctx: Context) -> int:
        try:
            return ctx.run("a", lambda: 1)
        except Exception:
            return 2

    assert Engine(wf).run() == 1


def test_finally_and_with_run_at_every_suspension() -> None:
    cleaned = []

    def wf(ctx: Context) -> None:
        try:
            ctx.run("a", lambda: 1)
            ctx.run("b", lambda: 1)
        finally:
            cleaned.append(1)

    Engine(wf).run()
    assert len(cleaned) == 3


def test_an_error_during_an_abort_is_the_outcome_and_says_where_it_comes_from() -> None:
    def wf(ctx: Context) -> None:
        try:
            ctx.run("a", lambda: 1)
        finally:
            raise ValueError("clean-up")

    outcome = only(Engine(wf))
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, ValueError)
    assert "clean-up belongs into a step" in outcome.error.__notes__[0]


def test_an_abort_of_the_workflows_own_making_is_an_error() -> None:
    def wf(ctx: Context) -> None:
        raise WorkflowAbort

    assert isinstance(only(Engine(wf)), Failed)


# Task groups


async def in_task_group(ctx: Any) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(ctx.run("a", lambda: 1))
        group.create_task(ctx.run("b", lambda: 2))


async def in_nested_task_groups(ctx: Any) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(in_task_group(ctx))


@pytest.mark.parametrize("function", [in_task_group, in_nested_task_groups])
def test_a_group_of_aborts_is_an_abort(function: Any) -> None:
    engine = Engine(function)
    assert engine.run_to_end() == Finished(None)
    kinds = [type(outcome) for outcome in engine.outcomes]
    assert kinds == [Submitted, Submitted, Submitted, Discarded, Finished]


async def fails_in_task_group(ctx: Any) -> None:
    def fail() -> None:
        raise LookupError("x")

    async with asyncio.TaskGroup() as group:
        group.create_task(ctx.run("a", fail))


def test_a_group_with_one_error_is_that_error() -> None:
    outcome = only(Engine(fails_in_task_group))
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, LookupError)
    assert outcome.step_name == "a"


# Cancelling


async def cancels_async(ctx: Any) -> None:
    await ctx.run("a", lambda: 1)
    ctx.cancel()


async def cancels_in_step_async(ctx: Any) -> None:
    async def cancel() -> None:
        await asyncio.sleep(0)
        ctx.cancel()

    await ctx.run("a", cancel)


@pytest.mark.parametrize(
    "function",
    [
        lambda ctx: ctx.cancel(),
        lambda ctx: (ctx.run("a", lambda: 1), ctx.cancel()),
        lambda ctx: ctx.run("a", ctx.cancel),
        lambda ctx: ctx.run("a", ctx.cancel, atomic=True),
        lambda ctx: ctx.parallel(step.run("a", ctx.cancel), step.run("b", lambda: 1)),
        cancels_async,
        cancels_in_step_async,
    ],
)
def test_a_workflow_cancels_itself(function: Any) -> None:
    assert Engine(function).run_to_end() == Cancelled()


def test_a_step_whose_function_swallows_the_cancelling_is_cancelled_all_the_same() -> None:
    def wf(ctx: Context) -> None:
        def work() -> int:
            try:
                ctx.cancel()
            except BaseException:
                return 1

        ctx.run("a", work)

    engine = Engine(wf)
    assert engine.run_to_end() == Cancelled()
    assert engine.submissions == []


def test_a_workflow_may_cancel_because_a_step_failed() -> None:
    def wf(ctx: Context) -> None:
        try:
            ctx.run("a", lambda: 1 / 0)
        except ZeroDivisionError:
            ctx.cancel()

    assert Engine(wf).run_to_end() == Cancelled()


def test_a_cancelling_that_is_swallowed_is_an_error() -> None:
    def wf(ctx: Context) -> None:
        with contextlib.suppress(WorkflowCancelAbort):
            ctx.cancel()

    outcome = only(Engine(wf))
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, AbortSwallowed)
    assert "ctx.cancel()" in str(outcome.error)


def test_what_is_submitted_cannot_be_cancelled_in_the_same_call() -> None:
    def wf(ctx: Context) -> None:
        try:
            ctx.run("a", lambda: 1)
        finally:
            ctx.cancel()

    assert only(Engine(wf)) == Submitted("a")
