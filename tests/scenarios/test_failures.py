"""Steps that fail: retries with backoff, Retry-After, no retry, the failure function, dead letters."""

from __future__ import annotations

from datetime import timedelta

import pytest

from django_workflow import NonRetryableError, RetryAfterError, WorkflowContext, workflow
from django_workflow.models import Attempt, DeadLetter, Run, Step
from tests.scenarios.conftest import Engine

failures: dict[str, int] = {}
told: list[str] = []


@pytest.fixture(autouse=True)
def _fresh() -> None:
    failures.clear()
    told.clear()


def flaky(times: int) -> str:
    """Fails `times` times, then works."""
    failures["flaky"] = failures.get("flaky", 0) + 1
    if failures["flaky"] <= times:
        raise ConnectionError(f"no line, attempt {failures['flaky']}")
    return "connected"


@workflow(name="flaky", retry_delay="1000 * (retried + 1)")
def flaky_flow(ctx: WorkflowContext[int]) -> str:
    ctx.run("first", lambda: 1)
    return ctx.run("call home", flaky, ctx.request_payload)


@workflow(name="async-flaky", retry_delay="1000 * (retried + 1)")
async def async_flaky_flow(ctx: WorkflowContext[int]) -> str:
    await ctx.run("first", lambda: 1)
    return await ctx.run("call home", flaky, ctx.request_payload)


@pytest.mark.parametrize("flow", [flaky_flow, async_flaky_flow], ids=["sync", "async"])
def test_a_failing_step_is_tried_again_after_its_delay(engine: Engine, flow) -> None:
    handle = flow.trigger(2)
    engine.run()
    run = handle.run
    assert run.status == Run.Status.RETRYING
    assert "Retry 1 of 3" in run.why
    assert "no line, attempt 1" in run.why
    assert run.due_at == engine.clock.now() + timedelta(seconds=1)
    engine.clock.advance(1)
    engine.run()
    assert handle.run.due_at == engine.clock.now() + timedelta(seconds=2)
    run = engine.finish(handle)
    assert run.result == '"connected"'
    assert [a.error for a in Attempt.objects.filter(run=run).order_by("number")] == [
        "ConnectionError: no line, attempt 1",
        "ConnectionError: no line, attempt 2",
    ]
    if engine.sees_steps_start:
        assert run.steps.get(name="call home").attempts == 3


def alert(ctx: WorkflowContext[int], status: int, response: str, headers: dict[str, list[str]]) -> str:
    told.append(f"{ctx.workflow_run_id}: {status} {response}")
    return "alerted"


@workflow(name="hopeless", retries=2, retry_delay=1, on_failure=alert)
def hopeless(ctx: WorkflowContext[int]) -> None:
    ctx.run("call home", flaky, ctx.request_payload)


def test_a_run_fails_when_its_retries_are_used_up_and_its_failure_function_is_told(engine: Engine) -> None:
    handle = hopeless.trigger(99)
    run = engine.fail(handle)
    assert failures["flaky"] == 3
    assert run.error == "ConnectionError: no line, attempt 3"
    assert run.error_step == "call home"
    assert told == [f"{handle.id}: 500 no line, attempt 3"]
    letter = DeadLetter.objects.get(run=run)
    assert letter.failure_state == DeadLetter.FailureState.SUCCESS
    assert "alerted" in letter.failure_response
    assert letter.status == 500
    if engine.sees_steps_start:
        assert run.steps.get(name="call home").status == Step.Status.FAILED


@workflow(name="no-retry", retries=5)
def no_retry(ctx: WorkflowContext[None]) -> None:
    def give_up() -> None:
        failures["given up"] = failures.get("given up", 0) + 1
        raise NonRetryableError("the card is stolen")

    ctx.run("charge", give_up)


def test_a_non_retryable_error_fails_the_run_at_once(engine: Engine) -> None:
    run = engine.fail(no_retry.trigger())
    assert failures["given up"] == 1
    assert "the card is stolen" in run.error
    assert run.dead_letter.status == 489
    assert run.dead_letter.failure_state == DeadLetter.FailureState.NONE


@workflow(name="retry-after", retries=1)
def retry_after(ctx: WorkflowContext[None]) -> str:
    def busy() -> str:
        failures["busy"] = failures.get("busy", 0) + 1
        if failures["busy"] == 1:
            raise RetryAfterError(timedelta(minutes=2), "too many requests")
        return "served"

    return ctx.run("ask", busy)


def test_retry_after_sets_the_time_of_the_next_attempt(engine: Engine) -> None:
    handle = retry_after.trigger()
    engine.run()
    assert handle.run.due_at == engine.clock.now() + timedelta(minutes=2)
    assert engine.finish(handle).result == '"served"'


@workflow(name="no-steps", retries=0)
def no_steps(ctx: WorkflowContext[None]) -> str:
    return "nothing to do"


def test_a_workflow_without_steps_fails_with_the_protocols_status(engine: Engine) -> None:
    run = engine.fail(no_steps.trigger())
    assert run.dead_letter.status == 400


@workflow(name="bad-failure-function", retries=0, on_failure=lambda ctx, status, response, headers: 1 / 0)
def bad_failure_function(ctx: WorkflowContext[None]) -> None:
    ctx.run("fail", lambda: 1 / 0)


def test_a_failing_failure_function_is_retried_and_then_noted(engine: Engine) -> None:
    run = engine.fail(bad_failure_function.trigger())
    assert run.dead_letter.failure_state == DeadLetter.FailureState.FAILED
    assert "division by zero" in run.dead_letter.failure_response


def test_backoff_without_a_retry_delay_grows(engine: Engine) -> None:
    @workflow(name="default-backoff", retries=2)
    def flow(ctx: WorkflowContext[None]) -> None:
        ctx.run("fail", lambda: 1 / 0)

    handle = flow.trigger()
    engine.run()
    first = (handle.run.due_at - engine.clock.now()).total_seconds()
    assert 12 < first < 13
    engine.clock.move_to(handle.run.due_at)
    engine.run()
    assert 148 < (handle.run.due_at - engine.clock.now()).total_seconds() < 149
