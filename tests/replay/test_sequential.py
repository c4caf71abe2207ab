"""Steps one after the other, in sync workflows; async ones where they must behave alike."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from typing import Any

import pytest

from django_workflow import step
from django_workflow.authoring.context import WorkflowContext
from django_workflow.authoring.context_base import RunDetails
from django_workflow.authoring.decorator import Workflow
from django_workflow.authoring.invocation import dry_run
from django_workflow.authoring.options import WorkflowOptions
from django_workflow.errors import (
    EngineUnavailable,
    NestedStep,
    NonRetryableError,
    QuotaExceeded,
    ResultInvalid,
    RetryAfterError,
    RunEnded,
    StepError,
    StepMismatch,
)
from django_workflow.protocol.steps import JournalMessage, Step, encode_step
from django_workflow.replay.outcome import Failed, Finished, NoStepReached, StepFound, StepSubmission, Submitted
from tests.replay.driver import Engine, run

Context = WorkflowContext[Any]


def three_steps(ctx: Context) -> list[int]:
    a = ctx.run("a", lambda: 1)
    b = ctx.run("b", lambda: a + 1)
    return [a, b, ctx.run("c", lambda: b + 1)]


async def three_steps_async(ctx: Any) -> list[int]:
    a = await ctx.run("a", lambda: 1)
    b = await ctx.run("b", lambda: a + 1)
    return [a, b, await ctx.run("c", lambda: b + 1)]


@pytest.mark.parametrize("function", [three_steps, three_steps_async])
def test_each_step_runs_once_in_a_call_of_its_own(function: Any) -> None:
    engine = Engine(function)
    assert engine.run() == [1, 2, 3]
    assert engine.started == ["a", "b", "c"]
    assert engine.deliveries == 4
    assert engine.outcomes == [Submitted("a"), Submitted("b"), Submitted("c"), Finished(b"[1,2,3]")]


@pytest.mark.parametrize("function", [three_steps, three_steps_async])
@pytest.mark.parametrize(("steps_per_call", "deliveries"), [(2, 2), (3, 2), (4, 1), (100, 1)])
def test_a_call_may_go_on_after_a_step(function: Any, steps_per_call: int, deliveries: int) -> None:
    engine = Engine(function, steps_per_call=steps_per_call)
    assert engine.run() == [1, 2, 3]
    assert engine.started == ["a", "b", "c"]
    assert engine.deliveries == deliveries


def test_a_step_that_goes_on_gives_what_its_replay_gives() -> None:
    seen = []

    def wf(ctx: Context) -> None:
        seen.append(ctx.run("a", lambda: {1: (2, 3)}))
        ctx.run("b", lambda: None)

    Engine(wf, steps_per_call=2).run()
    assert seen == [{"1": [2, 3]}, {"1": [2, 3]}]


def test_results_are_made_anew_so_that_changing_one_changes_nothing_later() -> None:
    def wf(ctx: Context) -> Any:
        a = ctx.run("a", lambda: {"items": []})
        a["items"].append(1)
        ctx.run("b", lambda: None)
        return a

    assert run(wf) == {"items": [1]}


@pytest.mark.parametrize(
    ("result", "body"), [(None, None), ({"a": 1}, b'{"a":1}'), ("text", b'"text"'), (0, b"0"), (False, b"false")]
)
def test_what_the_function_returns_is_the_result(result: Any, body: bytes | None) -> None:
    def wf(ctx: Context):  # type: ignore[no-untyped-def]
        ctx.run("a", lambda: 1)
        return result

    engine = Engine(wf)
    engine.run_to_end()
    assert engine.outcomes[-1] == Finished(body)


def test_none_is_a_result_when_the_function_declares_one() -> None:
    def wf(ctx: Context) -> int | None:
        ctx.run("a", lambda: 1)
        return None

    engine = Engine(wf)
    engine.run_to_end()
    assert engine.outcomes[-1] == Finished(b"null")


def test_a_result_that_cannot_be_stored_fails_the_call() -> None:
    def wf(ctx: Context) -> object:
        ctx.run("a", lambda: 1)
        return object()

    with pytest.raises(ResultInvalid, match="The result of the workflow cannot be stored"):
        run(wf)


def test_a_step_without_a_result_records_null() -> None:
    def wf(ctx: Context) -> None:
        assert ctx.run("a", lambda: None) is None

    engine = Engine(wf)
    engine.run_to_end()
    (submission,) = engine.submissions
    assert isinstance(submission, StepSubmission)
    assert submission.step.out == "null"


def test_a_function_that_returns_before_a_step_reached_none() -> None:
    engine = Engine(lambda ctx: 1)
    assert engine.run_to_end() == NoStepReached()


# Mismatches


def record(*names: str) -> Engine:
    """An engine whose run has finished run steps of these names."""

    def wf(ctx: Context) -> None:
        for name in names:
            ctx.run(name, lambda: 1)

    engine = Engine(wf)
    engine.run()
    return engine


def replay(engine: Engine, function: Any) -> Any:
    engine.workflow = Workflow(function, name="under_test")
    return engine.deliver()


def test_another_name_is_a_mismatch_that_says_what_to_do() -> None:
    def changed(ctx: Context) -> None:
        ctx.run("a", lambda: 1)
        ctx.run("renamed", lambda: 1)

    outcome = replay(record("a", "b"), changed)
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, StepMismatch)
    assert outcome.step_name is None
    assert str(outcome.error) == (
        "Incompatible step name. Expected 'renamed', got 'b' from the request. Run wfr_1 recorded step 2 as 'b' (Run), "
        "but the code now asks for 'renamed' (Run). Steps keep their order while runs are in flight: put the change "
        "behind ctx.patched(), deploy it under a new workflow name, or restart the run from the DLQ."
    )
    assert (outcome.error.run_id, outcome.error.index) == ("wfr_1", 2)


def test_another_type_is_a_mismatch() -> None:
    outcome = replay(record("a"), lambda ctx: ctx.sleep("a", 1))
    assert isinstance(outcome, Failed)
    assert str(outcome.error).startswith("Incompatible step type. Expected 'SleepFor', got 'Run' from the request. ")


def test_a_mismatch_is_the_outcome_even_if_the_workflow_catches_it() -> None:
    def changed(ctx: Context) -> None:
        try:
            ctx.run("renamed", lambda: 1)
        except StepMismatch:
            ctx.run("a", lambda: 1)

    outcome = replay(record("a"), changed)
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, StepMismatch)


def test_a_recorded_result_that_fits_its_annotation_no_more_says_what_to_do() -> None:
    engine = record("a")

    def text() -> str:
        raise AssertionError

    outcome = replay(engine, lambda ctx: ctx.run("a", text))
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, StepError)
    assert "The result of step 'a', as recorded, does not fit its type any more: Expected `str`" in str(outcome.error)


def test_results_of_other_sdks_may_be_missing_or_no_json() -> None:
    engine = record("a", "b")
    for index, out in ((1, None), (2, "no JSON")):
        step_ = Step(step_id=index, step_name="ab"[index - 1], step_type="Run", out=out, concurrent=1)
        engine.messages[index] = JournalMessage("m", encode_step(step_).decode())
    outcome = replay(engine, lambda ctx: [ctx.run("a", len), ctx.run("b", lambda: 1)])
    assert outcome == Finished(b'[null,"no JSON"]')


# Failing steps


class Declined(Exception):
    pass


def decline() -> None:
    raise Declined("no money")


async def decline_async() -> None:
    raise Declined("no money")


async def failing_async(ctx: Any) -> None:
    await ctx.run("charge", decline_async)


@pytest.mark.parametrize(
    "function",
    [
        lambda ctx: ctx.run("charge", decline),
        lambda ctx: ctx.run("charge", decline, atomic=True),
        lambda ctx: ctx.run("charge", decline_async),
        failing_async,
    ],
)
def test_the_error_of_a_step_comes_with_its_name(function: Any) -> None:
    engine = Engine(function)
    outcome = engine.run_to_end()
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, Declined)
    assert outcome.step_name == "charge"
    assert engine.submissions == []


def test_a_failed_step_is_tried_again_by_another_call() -> None:
    tries = []

    def flaky() -> int:
        tries.append(1)
        if len(tries) < 3:
            raise Declined
        return 7

    assert Engine(lambda ctx: ctx.run("a", flaky), retries=2).run() == 7
    assert len(tries) == 3


def test_an_error_between_steps_has_no_step_name() -> None:
    def wf(ctx: Context) -> None:
        ctx.run("a", lambda: 1)
        raise Declined

    outcome = Engine(wf).run_to_end()
    assert isinstance(outcome, Failed)
    assert outcome.step_name is None


def test_a_workflow_may_give_up_because_a_step_failed() -> None:
    def wf(ctx: Context) -> None:
        try:
            ctx.run("charge", decline)
        except Declined as error:
            raise NonRetryableError("declined") from error

    outcome = Engine(wf).run_to_end()
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, NonRetryableError)
    assert outcome.step_name == "charge"


@pytest.mark.parametrize("goes_on", [lambda ctx: None, lambda ctx: ctx.run("fallback", lambda: 1)])
def test_a_workflow_cannot_handle_the_error_of_a_step_and_go_on(goes_on: Any) -> None:
    def wf(ctx: Context) -> None:
        try:
            ctx.run("charge", decline)
        except Declined:
            goes_on(ctx)

    engine = Engine(wf)
    outcome = engine.run_to_end()
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, StepError)
    assert "Step 'charge' failed (Declined: no money), and the workflow caught that" in str(outcome.error)
    assert "catch it in the step's function and return a value" in str(outcome.error)
    assert engine.started == ["charge"]


def test_a_result_that_cannot_be_stored_fails_its_step() -> None:
    outcome = Engine(lambda ctx: ctx.run("a", lambda: {"x": [object()]})).run_to_end()
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, ResultInvalid)
    assert "The result of step 'a' cannot be stored" in str(outcome.error)
    assert "`$.x[0]`" in str(outcome.error)
    assert outcome.step_name == "a"


def test_a_result_above_the_limit_fails_its_step(settings: Any) -> None:
    settings.DJANGO_WORKFLOW = {"max_result_bytes": 100}
    outcome = Engine(lambda ctx: ctx.run("a", lambda: "x" * 100)).run_to_end()
    assert isinstance(outcome, Failed)
    assert "is 102 bytes of JSON, but the limit is 100" in str(outcome.error)


def test_sys_exit_in_a_step_fails_the_call_and_not_the_worker() -> None:
    def leave() -> None:
        raise SystemExit(1)

    outcome = Engine(lambda ctx: ctx.run("a", leave)).run_to_end()
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, SystemExit)


def test_a_keyboard_interrupt_goes_through() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Engine(lambda ctx: ctx.run("a", interrupt)).run()


# What the engine refuses


@pytest.mark.parametrize("error", [RunEnded("over"), QuotaExceeded("too much"), EngineUnavailable("no answer")])
@pytest.mark.parametrize("atomic", [True, False])
def test_a_refused_submission_is_the_engines_failure(error: Any, atomic: bool) -> None:
    def wf(ctx: Context) -> None:
        try:
            ctx.run("a", lambda: 1, atomic=atomic)
        except Exception as caught:  # must not see it
            raise AssertionError from caught

    engine = Engine(wf, fail_submissions=[error])
    assert engine.run_to_end() == Failed(error, by_engine=True)
    assert engine.rollbacks == (1 if atomic else 0)


def test_the_same_error_out_of_a_steps_own_code_is_an_ordinary_failure() -> None:
    error = RunEnded("some other run")

    def notify_elsewhere() -> None:
        raise error

    for atomic in (True, False):
        engine = Engine(lambda ctx, atomic=atomic: ctx.run("a", notify_elsewhere, atomic=atomic))
        assert engine.run_to_end() == Failed(error, "a")


# Atomic steps


def test_an_atomic_step_that_fails_leaves_nothing_behind() -> None:
    engine = Engine(lambda ctx: ctx.run("a", decline, atomic=True))
    engine.run_to_end()
    assert engine.rollbacks == 1
    assert len(engine.messages) == 1


def test_an_atomic_step_whose_result_is_kept_is_submitted_again_and_does_not_run() -> None:
    ran: list[int] = []
    engine = Engine(lambda ctx: ctx.run("a", lambda: ran.append(1), atomic=True) or ctx.run("b", lambda: 2))
    engine.kept_results[1] = Step(step_id=1, step_name="a", step_type="Run", out='"kept"', concurrent=1)
    assert engine.run() == "kept"
    assert not ran


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (DEFERRED := Declined("deferred constraint"), Failed(DEFERRED, "a")),
        (OVER := RunEnded("over when it was committed"), Failed(OVER, by_engine=True)),
    ],
)
def test_a_transaction_that_cannot_commit_fails_the_step(error: Exception, outcome: Failed) -> None:
    class CannotCommit(Engine):
        def transaction(self) -> Any:
            @contextlib.contextmanager
            def transaction() -> Any:
                with Engine.transaction(self):
                    yield
                    raise error

            return transaction()

    engine = CannotCommit(lambda ctx: ctx.run("a", lambda: 1, atomic=True))
    assert engine.run_to_end() == outcome


@pytest.mark.parametrize(
    ("setting", "option", "asked", "is_atomic"),
    [
        (False, None, None, False),
        (True, None, None, True),
        (True, False, None, False),
        (False, True, None, True),
        (True, True, False, False),
        (False, False, True, True),
    ],
)
def test_a_step_is_atomic_as_it_says_else_as_the_workflow_else_as_the_settings(
    settings: Any, setting: bool, option: bool | None, asked: bool | None, is_atomic: bool
) -> None:
    settings.DJANGO_WORKFLOW = {"atomic_steps": setting}
    transactions = []

    class Counting(Engine):
        def transaction(self) -> Any:
            transactions.append(1)
            return Engine.transaction(self)

    workflow = Workflow(
        lambda ctx: ctx.run("a", lambda: 1, atomic=asked),
        name="wf",
        options=WorkflowOptions().using(atomic_steps=option),
    )
    assert Counting(workflow).run() == 1
    assert bool(transactions) is is_atomic


async def one() -> int:
    return 1


def test_an_async_function_cannot_be_atomic() -> None:
    for function in (one, lambda: one()):
        with pytest.raises(StepError, match="atomic"):
            run(lambda ctx, function=function: ctx.run("a", function, atomic=True))


def test_the_setting_for_atomic_steps_leaves_async_functions_alone(settings: Any) -> None:
    settings.DJANGO_WORKFLOW = {"atomic_steps": True}
    assert run(lambda ctx: ctx.run("a", one)) == 1


# Nested steps and threads


def test_a_step_inside_a_step_is_refused_naming_both() -> None:
    def outer(ctx: Context) -> None:
        ctx.run("inner", lambda: 1)

    outcome = Engine(lambda ctx: ctx.run("outer", outer, ctx)).run_to_end()
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, NestedStep)
    assert str(outcome.error).startswith(
        "A step can not be run inside another step. Tried to run 'inner' inside 'outer'."
    )


@pytest.mark.parametrize("kind", ["sleep", "parallel", "thread", "async"])
def test_every_kind_of_step_inside_a_step_is_refused(kind: str) -> None:
    def outer(ctx: Context) -> None:
        if kind == "sleep":
            ctx.sleep("inner", 1)
        elif kind == "parallel":
            ctx.parallel(step.run("inner", lambda: 1), step.run("inner", lambda: 1))
        elif kind == "thread":
            errors: list[BaseException] = []

            def work() -> None:
                try:
                    ctx.run("inner", lambda: 1)
                except BaseException as error:
                    errors.append(error)

            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
            raise errors[0]

    async def outer_async(ctx: Context) -> None:
        ctx.run("inner", lambda: 1)

    outcome = Engine(lambda ctx: ctx.run("outer", outer_async if kind == "async" else outer, ctx)).run_to_end()
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, StepError)
    assert "inner" in str(outcome.error)
    assert len(outcome.error.args[0]) > 60


def test_a_step_of_another_thread_is_refused() -> None:
    errors: list[BaseException] = []

    def wf(ctx: Context) -> None:
        def work() -> None:
            try:
                ctx.run("b", lambda: 1)
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        ctx.run("a", lambda: 1)

    Engine(wf).run()
    assert all(isinstance(error, StepError) and "another thread" in str(error) for error in errors)
    assert len(errors) == 2


def test_a_run_driven_inside_a_step_is_a_run_of_its_own() -> None:
    assert run(lambda ctx: ctx.run("outer", lambda: run(three_steps))) == [1, 2, 3]
    assert run(lambda ctx: ctx.run("outer", lambda: run(three_steps_async))) == [1, 2, 3]


def test_an_async_run_can_be_driven_inside_a_step_of_another() -> None:
    async def wf(ctx: Any) -> Any:
        return await ctx.run("outer", lambda: run(three_steps_async))

    assert run(wf) == [1, 2, 3]


# Functions of all sorts


def test_an_async_function_runs_in_a_sync_workflow_with_the_callers_context() -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable")
    variable.set(7)

    async def read() -> int:
        await asyncio.sleep(0)
        return variable.get()

    assert run(lambda ctx: ctx.run("a", read)) == 7


# The dry run


@pytest.mark.parametrize(
    "function",
    [
        lambda ctx: ctx.run("a", lambda: 1 / 0),
        lambda ctx: ctx.sleep("a", "not looked at"),
        lambda ctx: ctx.cancel(),
        lambda ctx: ctx.parallel(),
        three_steps_async,
    ],
)
def test_the_dry_run_stops_at_the_first_step(function: Any) -> None:
    expected = StepFound() if "parallel" not in function.__code__.co_names else NoStepReached()
    assert dry_run(Workflow(function, name="wf"), RunDetails(run_id="wfr_1")) == expected


def test_the_dry_run_finds_a_step_that_the_workflow_hides() -> None:
    def wf(ctx: Context) -> None:
        with contextlib.suppress(BaseException):
            ctx.run("a", lambda: 1)

    assert dry_run(Workflow(wf, name="wf"), RunDetails(run_id="wfr_1")) == StepFound()


@pytest.mark.parametrize(
    ("error", "found"),
    [(NonRetryableError("no"), True), (RetryAfterError(5), True), (Declined("no"), False), (StepError("x"), False)],
)
def test_the_dry_run_of_a_function_that_raises(error: Exception, found: bool) -> None:
    def wf(ctx: Context) -> None:
        raise error

    outcome = dry_run(Workflow(wf, name="wf"), RunDetails(run_id="wfr_1"))
    assert outcome == (StepFound() if found else Failed(error))


def test_the_dry_run_of_a_function_that_returns() -> None:
    assert dry_run(Workflow(lambda ctx: 1, name="wf"), RunDetails(run_id="wfr_1")) == NoStepReached()


def test_a_decorator_that_hides_an_async_workflow_is_an_error() -> None:
    def decorated(ctx: Context) -> Any:
        return three_steps_async(ctx)

    outcome = Engine(decorated).run_to_end()
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, StepError)
    assert "A decorator around an async function has to be `async def` itself" in str(outcome.error)
    assert isinstance(dry_run(Workflow(decorated, name="wf"), RunDetails(run_id="wfr_1")), Failed)
