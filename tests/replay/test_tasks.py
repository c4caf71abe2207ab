"""Async workflows: when a group closes, what runs where, and what is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import threading
import time
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async

from django_workflow import step
from django_workflow.errors import Misconfigured, NestedStep, StepError
from django_workflow.replay import loop
from django_workflow.replay.loop import close_thread_loop, thread_loop
from django_workflow.replay.outcome import Failed, Finished, Submitted
from tests.replay.driver import Engine, run


def groups(engine: Engine) -> list[list[str]]:
    """The names of the steps that were asked for together, in their order."""
    found: dict[int, list[str]] = {}
    for s in (submission.step for submission in engine.submissions):
        if s.is_plan and found and len(found[max(found)]) < s.concurrent > 1:
            found[max(found)].append(s.step_name)
        elif s.is_plan or s.concurrent == 1:
            found[len(found)] = [s.step_name]
    return list(found.values())


async def value(x: Any) -> Any:
    await asyncio.sleep(0)
    return x


def test_steps_that_tasks_ask_for_at_different_moments_are_one_group() -> None:
    async def later(ctx: Any, name: str, turns: int) -> str:
        for _ in range(turns):
            await asyncio.sleep(0)
        return await ctx.run(name, value, name)

    async def wf(ctx: Any) -> Any:
        return await asyncio.gather(later(ctx, "a", 5), later(ctx, "b", 0), later(ctx, "c", 50))

    engine = Engine(wf)
    assert engine.run() == ["a", "b", "c"]
    # The order is that of asking.
    assert groups(engine) == [["b", "a", "c"]]


def test_chains_make_groups_that_follow_one_another() -> None:
    async def chain(ctx: Any, name: str, length: int) -> None:
        for n in range(length):
            await ctx.run(f"{name}{n}", value, n)

    async def wf(ctx: Any) -> Any:
        await asyncio.gather(chain(ctx, "a", 3), chain(ctx, "b", 1), chain(ctx, "c", 2))

    engine = Engine(wf)
    engine.run()
    assert groups(engine) == [["a0", "b0", "c0"], ["a1", "c1"], ["a2"]]


def test_real_waits_between_steps_do_not_hold_a_group_open() -> None:
    async def slow(ctx: Any) -> str:
        await asyncio.sleep(0.02)
        return await ctx.run("slow", value, "slow")

    async def wf(ctx: Any) -> Any:
        return await asyncio.gather(ctx.run("quick", value, "quick"), slow(ctx))

    engine = Engine(wf)
    assert engine.run() == ["quick", "slow"]
    assert groups(engine) == [["quick"], ["slow"]]


def test_a_step_function_may_wait_for_real() -> None:
    async def fetch() -> str:
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        threading.Timer(0.02, loop.call_soon_threadsafe, [done.set_result, "fetched"]).start()
        await asyncio.sleep(0.01)
        async with asyncio.timeout(5):
            return await done

    async def wf(ctx: Any) -> Any:
        return await asyncio.gather(ctx.run("a", fetch), ctx.run("b", fetch))

    assert run(wf) == ["fetched", "fetched"]


def test_step_functions_may_start_tasks_and_threads_of_their_own() -> None:
    async def work() -> list[Any]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(value(n)) for n in range(3)]
        return [*(task.result() for task in tasks), await asyncio.to_thread(lambda: "thread")]

    async def wf(ctx: Any) -> Any:
        return await ctx.run("a", work)

    assert run(wf) == [0, 1, 2, "thread"]


def test_sync_functions_find_no_running_loop_and_the_workflows_own_thread() -> None:
    def work() -> tuple[bool, int]:
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        assert async_to_sync(value)(3) == 3
        return threading.get_ident() == thread, asyncio.run(value(4))

    thread = threading.get_ident()

    async def wf(ctx: Any) -> Any:
        a = await ctx.run("a", work)
        b = await ctx.parallel(step.run("b", work), step.run("c", work, atomic=True))
        return [a, *b]

    assert run(wf) == [[True, 4]] * 3


def test_the_port_is_called_while_no_loop_runs() -> None:
    seen = []

    class Strict(Engine):
        def submit(self, submissions: Any) -> bool:
            with pytest.raises(RuntimeError):
                asyncio.get_running_loop()
            seen.append(len(submissions))
            return Engine.submit(self, submissions)

    async def wf(ctx: Any) -> Any:
        await ctx.sleep("s", 1)
        await ctx.run("a", value, 1)
        await ctx.parallel(step.run("b", value, 1), step.wait_for_event("c", "evt"))

    Strict(wf, events={"evt": 1}).run()
    assert seen == [1, 1, 2, 1, 1]


def test_a_lambda_that_gives_something_to_await_is_awaited_on_the_workflows_loop() -> None:
    loops = []

    async def fetch() -> int:
        loops.append(asyncio.get_running_loop())
        return 1

    async def wf(ctx: Any) -> Any:
        loops.append(asyncio.get_running_loop())
        return await ctx.run("a", lambda: fetch())

    assert run(wf) == 1
    assert len(set(loops)) == 1


def test_the_callers_context_is_visible_everywhere() -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable")

    async def in_async() -> int:
        return variable.get()

    async def wf(ctx: Any) -> Any:
        assert variable.get() == 1
        variable.set(2)  # the steps see what their task has set
        return [await ctx.run("a", in_async), await ctx.run("b", variable.get), await ctx.run("c", lambda: in_async())]

    variable.set(1)
    assert run(wf) == [2, 2, 2]
    assert variable.get() == 1


def test_tasks_may_be_looked_at_as_they_end() -> None:
    async def wf(ctx: Any) -> Any:
        found = []
        tasks = [asyncio.create_task(ctx.run(name, value, name)) for name in "abc"]
        for finished in asyncio.as_completed(tasks):
            found.append(await finished)
        return sorted(found)

    assert run(wf) == ["a", "b", "c"]


# Nested steps


async def nested_directly(ctx: Any) -> Any:
    async def outer() -> None:
        await ctx.run("inner", value, 1)

    await ctx.run("outer", outer)


async def nested_after_await(ctx: Any) -> Any:
    async def outer() -> None:
        await asyncio.sleep(0.001)
        await ctx.run("inner", value, 1)

    await ctx.run("outer", outer)


async def nested_in_task(ctx: Any) -> Any:
    async def outer() -> None:
        await asyncio.create_task(ctx.run("inner", value, 1))

    await ctx.run("outer", outer)


async def nested_parallel(ctx: Any) -> Any:
    async def outer() -> None:
        await ctx.parallel(step.run("inner", value, 1), step.run("inner", value, 1))

    await ctx.run("outer", outer)


async def nested_in_sync(ctx: Any) -> Any:
    async def inner() -> None:
        await ctx.run("inner", value, 1)

    def outer() -> None:
        async_to_sync(inner)()

    await ctx.run("outer", outer)


async def nested_in_branch(ctx: Any) -> Any:
    async def outer() -> None:
        await asyncio.sleep(0)
        await ctx.sleep("inner", 1)

    await asyncio.gather(ctx.run("outer", outer), ctx.run("other", value, 1))


@pytest.mark.parametrize(
    "function",
    [nested_directly, nested_after_await, nested_in_task, nested_parallel, nested_in_sync, nested_in_branch],
)
def test_a_step_inside_a_step_is_refused_naming_both(function: Any) -> None:
    outcome = Engine(function).run_to_end()
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, NestedStep)
    assert "Tried to run 'inner' inside 'outer'" in str(outcome.error)
    assert outcome.step_name == "outer"


def test_another_task_may_ask_for_a_step_while_one_runs() -> None:
    async def late(ctx: Any) -> Any:
        await asyncio.sleep(0.01)
        return await ctx.run("late", value, "late")

    async def wf(ctx: Any) -> Any:
        return await asyncio.gather(ctx.run("slow", asyncio.sleep, 0.03), late(ctx))

    engine = Engine(wf)
    assert engine.run() == [None, "late"]
    assert groups(engine) == [["slow"], ["late"]]
    assert engine.started == ["slow", "late"]


# Ends


def test_tasks_that_are_left_are_cancelled_and_awaited() -> None:
    events = []

    async def background() -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            events.append("cleaned up")
            raise

    async def wf(ctx: Any) -> Any:
        task = asyncio.create_task(background())
        await asyncio.sleep(0)
        await ctx.run("a", value, 1)
        return task.done()

    assert run(wf) is False
    assert events == ["cleaned up"] * 2


def test_a_task_that_does_not_end_when_cancelled_is_abandoned(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("django_workflow.replay.loop.CANCEL_SECONDS", 0.01)
    kept = []

    async def stubborn() -> None:
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(3600)

    async def wf(ctx: Any) -> Any:
        kept.append(asyncio.create_task(stubborn(), name="stubborn"))
        await asyncio.sleep(0)
        return await ctx.run("a", value, 1)

    assert run(wf) == 1
    assert "abandoned: stubborn" in caplog.text
    assert run(wf) == 1


def test_a_step_that_nobody_awaits_is_an_error() -> None:
    async def wf(ctx: Any) -> None:
        await ctx.run("a", value, 1)
        task = asyncio.create_task(ctx.run("lost", value, 1))
        await asyncio.sleep(0)
        assert not task.done()

    with pytest.raises(StepError, match=r"returned while 'lost' was not finished\. Await every step"):
        run(wf)


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
def test_a_step_without_await_is_an_error() -> None:
    """Else it would be left out, and the run succeed."""

    async def wf(ctx: Any) -> None:
        await ctx.run("a", value, 1)
        ctx.run("lost", value, 1)
        await ctx.run("b", value, 1)

    with pytest.raises(StepError, match=r"without having awaited 'lost': such a step does not happen\. Write `await`"):
        run(wf)


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
def test_an_only_step_without_await_is_named_too() -> None:
    async def wf(ctx: Any) -> None:
        ctx.sleep("lost", "1d")

    with pytest.raises(StepError, match="without having awaited 'lost'"):
        run(wf)


def test_a_step_that_is_running_when_the_function_returns_is_an_error() -> None:
    async def wf(ctx: Any) -> None:
        task = asyncio.create_task(ctx.run("lost", asyncio.sleep, 60))
        await asyncio.sleep(0.02)
        assert not task.done()

    with pytest.raises(StepError, match="was not finished"):
        run(wf)


def test_a_timeout_of_ones_own_around_a_step_fails_it() -> None:
    async def wf(ctx: Any) -> None:
        async with asyncio.timeout(0.01):
            await ctx.run("slow", asyncio.sleep, 60)

    outcome = Engine(wf).run_to_end()
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, TimeoutError)
    assert outcome.step_name == "slow"


def test_a_timeout_of_ones_own_that_is_caught_cannot_be_gone_on_from() -> None:
    async def wf(ctx: Any) -> None:
        try:
            async with asyncio.timeout(0.01):
                await ctx.run("slow", asyncio.sleep, 60)
        except TimeoutError:
            await ctx.run("next", value, 1)

    outcome = Engine(wf).run_to_end()
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, StepError)
    assert "Step 'slow' failed" in str(outcome.error)


def test_a_task_that_is_cancelled_before_its_step_began_takes_no_part() -> None:
    async def wf(ctx: Any) -> Any:
        task = asyncio.create_task(ctx.run("never", value, 1))
        await asyncio.sleep(0)
        task.cancel()
        return await ctx.run("a", value, 1)

    engine = Engine(wf)
    assert engine.run() == 1
    assert engine.started == ["a"]


def test_a_step_whose_task_is_cancelled_by_a_timer_fails_the_call() -> None:
    async def wf(ctx: Any) -> Any:
        task = asyncio.create_task(ctx.run("a", value, 1))
        asyncio.get_running_loop().call_later(0, task.cancel)
        await asyncio.sleep(0)
        await task

    outcome = Engine(wf).run_to_end()
    assert isinstance(outcome, Failed)


def test_stop_iteration_out_of_a_step_is_an_error_like_any_other() -> None:
    async def wf(ctx: Any) -> Any:
        await ctx.run("a", lambda: next(iter([])))

    outcome = Engine(wf).run_to_end()
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, RuntimeError)
    assert outcome.step_name == "a"


def test_an_exception_in_one_task_does_not_leave_others_waiting() -> None:
    async def fail() -> None:
        raise LookupError

    async def wf(ctx: Any) -> Any:
        return await asyncio.gather(ctx.run("a", value, 1), fail())

    outcome = Engine(wf).run_to_end()
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, LookupError)


def test_sys_exit_in_a_task_fails_the_call_and_not_the_worker() -> None:
    async def leave() -> None:
        raise SystemExit(3)

    async def wf(ctx: Any) -> Any:
        await asyncio.gather(leave(), ctx.run("a", value, 1))

    outcome = Engine(wf).run_to_end()
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, SystemExit)
    assert run(fine) == 1


async def fine(ctx: Any) -> Any:
    return await ctx.run("a", value, 1)


def test_a_keyboard_interrupt_goes_through_and_the_loop_stays_usable() -> None:
    async def wf(ctx: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(wf)
    assert run(fine) == 1


def test_aborted_tasks_leave_no_words_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def wf(ctx: Any) -> Any:
        tasks = [asyncio.create_task(ctx.run(name, value, name)) for name in "abc"]
        return [await task for task in tasks]

    assert run(wf) == ["a", "b", "c"]
    gc.collect()
    assert caplog.records == []


# The loop


async def test_a_thread_that_runs_a_loop_cannot_run_another() -> None:
    with pytest.raises(Misconfigured, match="running one already"):
        Engine(fine).deliver()
    assert await sync_to_async(run)(fine) == 1


def test_a_thread_keeps_its_loop_and_closes_it_when_it_ends() -> None:
    loops = []

    def work() -> None:
        for _ in range(3):
            assert run(fine) == 1
            loops.append(thread_loop())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(set(map(id, loops))) == 1
    inner = loops[0]._loop
    loops.clear()
    assert inner.is_closed()


def test_a_closed_loop_is_replaced() -> None:
    run(fine)
    close_thread_loop()
    close_thread_loop()
    assert run(fine) == 1


def test_a_forked_process_makes_a_loop_of_its_own() -> None:
    before = thread_loop()
    loop._forget_after_fork()
    assert thread_loop() is not before
    assert not before.is_closed, "its selector is shared with the parent"
    loop._abandoned.remove(before)
    before._loop.close()


def test_an_idle_loop_does_not_spin() -> None:
    async def wf(ctx: Any) -> Any:
        return await ctx.run("a", asyncio.sleep, 0.2)

    started = time.process_time()
    run(wf)
    assert time.process_time() - started < 0.1


def test_each_outcome_of_an_async_run() -> None:
    engine = Engine(fine)
    engine.run()
    assert engine.outcomes == [Submitted("a"), Finished(b"1")]
