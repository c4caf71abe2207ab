from __future__ import annotations

import asyncio
from typing import Any

import pytest

from django_workflow import AsyncWorkflowContext, Middleware, Workflow, WorkflowContext, step
from django_workflow.authoring.context_base import RunDetails
from django_workflow.authoring.invocation import dry_run
from django_workflow.authoring.options import WorkflowOptions
from django_workflow.errors import RunEnded, StepError
from django_workflow.replay.outcome import Failed
from tests.replay.driver import Engine


class Record(Middleware):
    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []

    def run_started(self, ctx: Any) -> None:
        self.seen.append(("run_started",))

    def before_execution(self, ctx: Any, step_name: str) -> None:
        self.seen.append(("before", step_name))

    def after_execution(self, ctx: Any, step_name: str, result: Any) -> None:
        self.seen.append(("after", step_name, result))

    def run_completed(self, ctx: Any, result: Any) -> None:
        self.seen.append(("run_completed", result))

    def on_error(self, ctx: Any, error: BaseException) -> None:
        self.seen.append(("on_error", type(error).__name__))


class AsyncRecord(Record):
    """The same hooks as coroutines."""

    async def run_started(self, ctx: Any) -> None:
        await asyncio.sleep(0)
        Record.run_started(self, ctx)

    async def before_execution(self, ctx: Any, step_name: str) -> None:
        await asyncio.sleep(0.001)
        Record.before_execution(self, ctx, step_name)

    async def after_execution(self, ctx: Any, step_name: str, result: Any) -> None:
        await asyncio.sleep(0)
        Record.after_execution(self, ctx, step_name, result)

    async def run_completed(self, ctx: Any, result: Any) -> None:
        await asyncio.sleep(0)
        Record.run_completed(self, ctx, result)

    async def on_error(self, ctx: Any, error: BaseException) -> None:
        await asyncio.sleep(0)
        Record.on_error(self, ctx, error)


def watched(function: Any, *middlewares: Middleware) -> Workflow[Any, Any]:
    return Workflow(function, name="wf", options=WorkflowOptions().using(middlewares=middlewares))


def sync(ctx: WorkflowContext[Any]) -> str:
    ctx.run("one", lambda: 1)
    ctx.sleep("nap", 1)
    answer = ctx.wait_for_event("wait", "evt")
    ctx.parallel(step.run("a", lambda: "A"), step.sleep("z", 1), step.run("b", lambda: "B"))
    return str(answer.event_data)


async def awaited(ctx: AsyncWorkflowContext[Any]) -> str:
    await ctx.run("one", lambda: 1)
    await ctx.sleep("nap", 1)
    answer = await ctx.wait_for_event("wait", "evt")
    await asyncio.gather(ctx.run("a", lambda: "A"), ctx.sleep("z", 1), ctx.run("b", lambda: "B"))
    return str(answer.event_data)


@pytest.mark.parametrize(("function", "middleware"), [(sync, Record), (awaited, Record), (awaited, AsyncRecord)])
@pytest.mark.parametrize("discards", [True, False])
@pytest.mark.parametrize("steps_per_call", [1, 3])
def test_the_hooks_of_a_run(function: Any, middleware: Any, discards: bool, steps_per_call: int) -> None:
    record = middleware()
    engine = Engine(watched(function, record), events={"evt": "e"}, discards=discards, steps_per_call=steps_per_call)
    assert dry_run(engine.workflow, RunDetails(run_id="wfr_1"))
    assert engine.run() == "e"
    seen = [tuple(getattr(part, "event_data", part) for part in event) for event in record.seen]
    assert seen == [
        ("run_started",),
        ("before", "one"),
        ("after", "one", 1),
        ("before", "nap"),
        ("after", "nap", None),
        ("before", "wait"),
        ("after", "wait", "e"),
        ("before", "a"),
        ("after", "a", "A"),
        ("before", "z"),
        ("before", "b"),
        ("after", "b", "B"),
        # what the engine did in a group is told when the group is complete
        ("after", "z", None),
        ("run_completed", "e"),
    ]


@pytest.mark.parametrize(("function", "middleware"), [(sync, Record), (awaited, Record), (awaited, AsyncRecord)])
def test_an_error_is_told_and_the_attempt_that_follows_is_a_new_one(function: Any, middleware: Any) -> None:
    record = middleware()
    engine = Engine(watched(function, record), fail_submissions=[ConnectionError()], retries=1, events={"evt": 1})  # type: ignore[list-item]
    engine.step()
    engine.step()
    assert record.seen == [
        ("run_started",),
        ("before", "one"),
        ("on_error", "ConnectionError"),
        ("run_started",),
        ("before", "one"),
        ("after", "one", 1),
    ]


def test_a_run_that_ended_meanwhile_is_no_error() -> None:
    record = Record()
    Engine(watched(sync, record), fail_submissions=[RunEnded("over")]).run_to_end()
    assert record.seen == [("run_started",), ("before", "one")]


class Broken(Record):
    def before_execution(self, ctx: Any, step_name: str) -> None:
        raise LookupError(step_name)

    def run_completed(self, ctx: Any, result: Any) -> None:
        raise LookupError("completed")


class BrokenAsync(Broken):
    async def before_execution(self, ctx: Any, step_name: str) -> None:
        await asyncio.sleep(0)
        raise LookupError(step_name)


class BrokenThroughout(Broken):
    def on_error(self, ctx: Any, error: BaseException) -> None:
        raise ValueError("on_error fails too")


class BrokenThroughoutAsync(BrokenAsync):
    async def on_error(self, ctx: Any, error: BaseException) -> None:
        raise ValueError("on_error fails too")


def one_step(ctx: WorkflowContext[Any]) -> int:
    return ctx.run("a", lambda: 1)


async def one_step_async(ctx: AsyncWorkflowContext[Any]) -> int:
    return await ctx.run("a", lambda: 1)


@pytest.mark.parametrize(
    ("function", "middleware"),
    [
        (one_step, Broken),
        (one_step_async, Broken),
        (one_step_async, BrokenAsync),
        (one_step, BrokenThroughout),
        (one_step_async, BrokenThroughout),
        (one_step_async, BrokenThroughoutAsync),
    ],
)
def test_a_hook_that_fails_does_not_fail_the_run(
    function: Any, middleware: Any, caplog: pytest.LogCaptureFixture
) -> None:
    broken, other = middleware(), Record()
    assert Engine(watched(function, broken, other)).run() == 1
    names = [record.name for record in caplog.records]
    assert set(names) == {"django_workflow.middleware"}
    assert f"{middleware.__name__}.before_execution failed: a" in caplog.text
    if "Throughout" not in middleware.__name__:
        assert [event for event in broken.seen if event[0] == "on_error"] == [("on_error", "LookupError")] * 2
    assert other.seen == [("run_started",), ("before", "a"), ("after", "a", 1), ("run_completed", 1)]


def test_hooks_have_no_steps() -> None:
    caught: list[BaseException] = []

    class Asks(Middleware):
        def before_execution(self, ctx: Any, step_name: str) -> None:
            ctx.run("mine", lambda: 1)

        def on_error(self, ctx: Any, error: BaseException) -> None:
            caught.append(error)

    class AsksAsync(Asks):
        async def before_execution(self, ctx: Any, step_name: str) -> None:
            await ctx.run("mine", lambda: 1)

    for function, middleware in ((one_step, Asks), (one_step_async, AsksAsync)):
        engine = Engine(watched(function, middleware()))
        assert engine.run() == 1
        assert engine.started == ["a"]
    assert [type(error) for error in caught] == [StepError, StepError]
    assert "Step 'mine' was asked for by a middleware" in str(caught[0])


def test_hooks_get_the_context() -> None:
    seen = []

    class Reads(Middleware):
        def before_execution(self, ctx: Any, step_name: str) -> None:
            seen.append((ctx.workflow_run_id, ctx.request_payload))

    Engine(watched(one_step, Reads()), {"a": 1}).run()
    assert seen == [("wfr_1", {"a": 1})]


def test_the_outcome_is_told_of_a_failed_branch() -> None:
    record = Record()

    def wf(ctx: WorkflowContext[Any]) -> Any:
        return list(ctx.parallel(step.run("a", lambda: 1 / 0), step.run("b", lambda: 1)))

    outcome = Engine(watched(wf, record)).run_to_end()
    assert isinstance(outcome, Failed)
    assert record.seen[-1] == ("on_error", "StepError")
