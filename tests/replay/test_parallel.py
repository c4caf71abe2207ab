"""Parallel groups: their states, their mismatches, and results that do not depend on the order of completion."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from django_workflow import step
from django_workflow.authoring.context import WorkflowContext
from django_workflow.authoring.decorator import Workflow
from django_workflow.errors import NonRetryableError, RunEnded, StepError, StepMismatch
from django_workflow.protocol.steps import JournalMessage, Step, encode_step
from django_workflow.replay.outcome import Discarded, Failed, Finished, StepSubmission, Submitted
from tests.replay.driver import Engine, run

Context = WorkflowContext[Any]


def two(ctx: Context) -> list[Any]:
    return list(ctx.parallel(step.run("a", lambda: "A"), step.run("b", lambda: "B")))


async def two_gathered(ctx: Any) -> list[Any]:
    return await asyncio.gather(ctx.run("a", lambda: "A"), ctx.run("b", lambda: "B"))


async def two_parallel(ctx: Any) -> list[Any]:
    return list(await ctx.parallel(step.run("a", lambda: "A"), step.run("b", lambda: "B")))


async def two_in_task_group(ctx: Any) -> list[Any]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(ctx.run(name, str.upper, name)) for name in "ab"]
    return [task.result() for task in tasks]


TWOS = [two, two_gathered, two_parallel, two_in_task_group]


@pytest.mark.parametrize("function", TWOS)
def test_the_states_of_a_group(function: Any) -> None:
    engine = Engine(function)
    assert engine.run() == ["A", "B"]
    assert engine.outcomes == [
        Submitted("a, b"),
        Submitted("a"),
        Submitted("b"),
        Discarded(),
        Finished(b'["A","B"]'),
    ]
    steps = [submission.step for submission in engine.submissions]
    assert [encode_step(s).decode() for s in steps] == [
        '{"stepId":0,"stepName":"a","stepType":"Run","concurrent":2,"targetStep":1}',
        '{"stepId":0,"stepName":"b","stepType":"Run","concurrent":2,"targetStep":2}',
        '{"stepId":1,"stepName":"a","stepType":"Run","out":"\\"A\\"","concurrent":2}',
        '{"stepId":2,"stepName":"b","stepType":"Run","out":"\\"B\\"","concurrent":2}',
    ]
    assert engine.started == ["a", "b"]


@pytest.mark.parametrize("function", TWOS)
def test_a_group_without_discards_is_called_once_less(function: Any) -> None:
    engine = Engine(function, discards=False)
    assert engine.run() == ["A", "B"]
    assert engine.deliveries == 4


async def one_gathered(ctx: Any) -> Any:
    return await asyncio.gather(ctx.run("a", lambda: 1))


@pytest.mark.parametrize("function", [lambda ctx: list(ctx.parallel(step.run("a", lambda: 1))), one_gathered])
def test_a_group_of_one_is_a_single_step(function: Any) -> None:
    engine = Engine(function)
    assert engine.run() == [1]
    assert engine.deliveries == 2
    (submission,) = engine.submissions
    assert submission.step.concurrent == 1


async def none_parallel(ctx: Any) -> Any:
    await ctx.run("a", lambda: 1)
    return list(await ctx.parallel())


def test_a_group_of_none_gives_nothing() -> None:
    assert run(lambda ctx: (ctx.run("a", lambda: 1), ctx.parallel())) == [1, []]
    assert run(none_parallel) == []


@pytest.mark.parametrize("wrong", [1, None, lambda: 1])
def test_parallel_takes_steps_only(wrong: Any) -> None:
    with pytest.raises(StepError, match="takes steps, got a"):
        run(lambda ctx: ctx.parallel(step.run("a", lambda: 1), wrong))


# Sleeping, calling and waiting in a group


def mixed(ctx: Context) -> Any:
    ctx.run("pre", lambda: 0)
    run_, call, wait, _, _ = ctx.parallel(
        step.run("a", lambda: "A"),
        step.call("b", "https://x/"),
        step.wait_for_event("w", "evt", timeout="1m"),
        step.sleep_until("u", 1760000000),
        step.sleep("s", "10s"),
    )
    return [run_, call.body, wait.event_data]


def test_what_a_group_announces_and_submits() -> None:
    engine = Engine(mixed, events={"evt": "e"}, answers={"https://x/": '{"k":1}'})
    assert engine.run() == ["A", {"k": 1}, "e"]
    plans = engine.submissions[1:6]
    assert [encode_step(plan.step).decode() for plan in plans] == [
        '{"stepId":0,"stepName":"a","stepType":"Run","concurrent":5,"targetStep":2}',
        '{"stepId":0,"stepName":"b","stepType":"Call","concurrent":5,"targetStep":3}',
        '{"stepId":0,"stepName":"w","stepType":"Wait","concurrent":5,"targetStep":4,"waitEventId":"evt","timeout":"60s"}',
        '{"stepId":0,"stepName":"u","stepType":"SleepUntil","concurrent":5,"targetStep":5,"sleepUntil":1760000000}',
        '{"stepId":0,"stepName":"s","stepType":"SleepFor","concurrent":5,"targetStep":6,"sleepFor":10}',
    ]
    assert [(p.delay, p.not_before) for p in plans if isinstance(p, StepSubmission)] == [
        (None, None),
        (None, None),
        (None, None),
        (None, 1760000000),
        (10.0, None),
    ]
    # the plan has slept, so the result follows at once
    results = {s.step.step_name: s for s in engine.submissions[6:] if isinstance(s, StepSubmission)}
    assert (results["u"].not_before, results["s"].delay) == (None, None)


# Any order of completion


def chains_sync(ctx: Context) -> Any:
    a, b, c = ctx.parallel(*(step.run(f"first {n}", lambda n=n: n) for n in range(3)))
    d, e = ctx.parallel(step.run("left", lambda: a + b), step.wait_for_event("right", "evt"))
    last = ctx.run("last", lambda: c + 10)
    return [a, b, c, d, e.event_data, last]


async def chains_async(ctx: Any) -> Any:
    async def chain(n: int) -> list[int]:
        found = []
        for i in range(n):
            found.append(await ctx.run(f"{n}.{i}", lambda i=i: n * 10 + i))
        return found

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(chain(n)) for n in (1, 3, 2)]
        other = group.create_task(ctx.wait_for_event("w", "evt"))
    tail = await asyncio.gather(chain(1), ctx.sleep("z", 1), chain(2))
    return [*(task.result() for task in tasks), other.result().event_data, *tail]


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (chains_sync, [0, 1, 2, 1, {"k": "v"}, 12]),
        (chains_async, [[10], [30, 31, 32], [20, 21], {"k": "v"}, [10], None, [20, 21]]),
    ],
)
@settings(max_examples=60, deadline=None)
@given(data=st.data(), discards=st.booleans(), steps_per_call=st.sampled_from([1, 1, 3]))
def test_any_order_of_completion_gives_the_same_result(
    function: Any, expected: Any, data: st.DataObject, discards: bool, steps_per_call: int
) -> None:
    def choose(count: int) -> int:
        return data.draw(st.integers(0, count - 1))

    engine = Engine(
        function, events={"evt": {"k": "v"}}, choose=choose, discards=discards, steps_per_call=steps_per_call
    )
    assert engine.run() == expected
    results = [s.step.step_id for s in engine.submissions if not s.step.is_plan]
    assert sorted(results) == sorted(set(results)), "a step was run twice"
    runs = [s for s in engine.submissions if not s.step.is_plan and s.step.step_type == "Run"]
    assert len(engine.started) == len(runs)


# Mismatches


def journal_of(function: Any) -> Engine:
    engine = Engine(function)
    engine.run()
    return engine


def replayed(engine: Engine, function: Any, upto: int | None = None) -> Any:
    engine.workflow = Workflow(function, name="under_test")
    return engine.deliver(upto)


def names_of(*names: str) -> Any:
    def wf(ctx: Context) -> Any:
        return list(ctx.parallel(*(step.run(name, lambda: 1) for name in names)))

    return wf


def mismatch(outcome: Any) -> str:
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, StepMismatch)
    text = str(outcome.error)
    assert "Run wfr_1 recorded step 1 as " in text
    assert "Steps keep their order while runs are in flight" in text
    return text


@pytest.mark.parametrize(
    ("upto", "state"),
    # messages: payload, plans 1 and 2, results 1 and 2
    [(1, "partial"), (2, "partial"), (3, "discard"), (4, "discard")],
)
def test_a_group_of_another_size_is_a_mismatch(upto: int, state: str) -> None:
    text = mismatch(replayed(journal_of(two), names_of("a", "b", "c"), upto))
    assert text.startswith(
        f"Incompatible number of parallel steps when call state was '{state}'. Expected 3, got 2 from the request. "
    )


def test_a_smaller_group_is_a_mismatch() -> None:
    text = mismatch(replayed(journal_of(names_of("a", "b", "c")), two))
    assert "when call state was 'last'. Expected 2, got 3 from the request" in text


def test_a_renamed_branch_is_a_mismatch_when_it_is_run() -> None:
    text = mismatch(replayed(journal_of(two), names_of("renamed", "b"), 1))
    assert text.startswith("Incompatible step name. Expected 'renamed', got 'a' from the request. ")


def test_a_renamed_branch_is_a_mismatch_when_the_group_is_complete() -> None:
    text = mismatch(replayed(journal_of(two), names_of("renamed", "b")))
    assert text.startswith(
        "Incompatible steps detected in parallel execution: "
        "Incompatible step name. Expected 'renamed', got 'a' from the request\n"
        '  > Step Names from the request: ["a","b"]\n'
        '    Step Types from the request: ["Run","Run"]\n'
        '  > Step Names expected: ["renamed","b"]\n'
        '    Step Types expected: ["Run","Run"]\n'
    )


@pytest.mark.parametrize("upto", [1, 2, 3, 4])
def test_a_single_step_where_a_group_was_is_a_mismatch(upto: int) -> None:
    async def single_async(ctx: Any) -> None:
        await ctx.run("a", lambda: 1)

    for function in (lambda ctx: ctx.run("a", lambda: 1), single_async):
        text = mismatch(replayed(journal_of(two), function, upto))
        assert text.startswith("Incompatible number of parallel steps. Expected 1, got 2 from the request. ")


def test_a_group_where_a_single_step_was_is_a_mismatch() -> None:
    text = mismatch(replayed(journal_of(lambda ctx: ctx.run("a", lambda: 1)), two))
    assert "Expected 2, got 1 from the request" in text
    assert "as 1 step starting with 'a'" in text


def test_the_plan_of_another_group_is_a_mismatch() -> None:
    engine = Engine(two)
    plan = Step(step_id=0, step_name="x", step_type="Run", concurrent=2, target_step=7)
    engine.messages.append(JournalMessage("msg_1", encode_step(plan).decode()))
    outcome = engine.deliver()
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, StepMismatch)


# Failures


class Jam(Exception):
    pass


def jam() -> None:
    raise Jam("paper")


def fails_second(ctx: Context) -> Any:
    return list(ctx.parallel(step.run("a", lambda: 1), step.run("b", jam)))


async def fails_second_async(ctx: Any) -> Any:
    return await asyncio.gather(ctx.run("a", lambda: 1), ctx.run("b", jam))


async def fails_second_in_task_group(ctx: Any) -> Any:
    async with asyncio.TaskGroup() as group:
        group.create_task(ctx.run("a", lambda: 1))
        group.create_task(ctx.run("b", jam))


@pytest.mark.parametrize("function", [fails_second, fails_second_async, fails_second_in_task_group])
def test_the_error_of_a_branch_is_told_in_the_protocols_words(function: Any) -> None:
    outcome = Engine(function).run_to_end()
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, StepError)
    assert str(outcome.error) == ("Error submitting steps to QStash in partial parallel step execution: Jam: paper")
    assert isinstance(outcome.error.__cause__, Jam)
    assert outcome.step_name == "b"


def refuse() -> None:
    raise NonRetryableError("never")


@pytest.mark.parametrize(("function", "error"), [(refuse, NonRetryableError), (lambda: object(), Exception)])
def test_our_own_errors_stay_what_they_are(function: Any, error: type) -> None:
    outcome = Engine(lambda ctx: ctx.parallel(step.run("a", function), step.run("b", jam))).run_to_end()
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, error)
    assert not str(outcome.error).startswith("Error submitting")


@pytest.mark.parametrize("function", TWOS)
def test_plans_that_the_engine_refuses(function: Any) -> None:
    error = RunEnded("over")
    assert Engine(function, fail_submissions=[error]).run_to_end() == Failed(error, by_engine=True)


async def bad_plan_async(ctx: Any) -> None:
    await asyncio.gather(ctx.run("a", lambda: 1), ctx.sleep("s", "soon"))


@pytest.mark.parametrize(
    "function", [lambda ctx: ctx.parallel(step.run("a", lambda: 1), step.sleep("s", "soon")), bad_plan_async]
)
def test_arguments_that_make_no_sense_fail_the_call_that_announces_the_group(function: Any) -> None:
    engine = Engine(function)
    outcome = engine.run_to_end()
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, ValueError)
    assert "'soon' is no duration" in str(outcome.error)
    assert engine.submissions == []


def test_a_failed_branch_is_tried_again_and_the_others_are_kept() -> None:
    tries = []

    def flaky() -> int:
        tries.append(1)
        if len(tries) < 3:
            raise Jam
        return 2

    engine = Engine(lambda ctx: ctx.parallel(step.run("a", lambda: 1), step.run("b", flaky)), retries=2)
    assert engine.run() == [1, 2]
    assert engine.started == ["a", "b", "b", "b"]


@pytest.mark.parametrize("branches", [100, 1000])
def test_many_branches(branches: int) -> None:
    def wf(ctx: Context) -> int:
        return sum(ctx.parallel(*(step.run(f"s{n}", lambda n=n: n) for n in range(branches))))

    engine = Engine(wf, discards=False)
    for _ in range(3):
        engine.step()
    # Not driven to its end: that replays each branch's plan. The results are put there instead.
    plans = [message for message in engine.messages[1:] if message.step.is_plan]
    assert len(plans) == branches
    engine.messages = [engine.messages[0], *plans]
    for n in range(branches):
        done = Step(step_id=n + 1, step_name=f"s{n}", step_type="Run", out=str(n), concurrent=branches)
        engine.messages.append(JournalMessage("m", encode_step(done).decode()))
    assert engine.deliver() == Finished(str(sum(range(branches))).encode())
