"""Calls: HTTP requests made by the engine, their retries, and the answers that come back."""

from __future__ import annotations

from typing import Any

import pytest

from django_workflow import WorkflowContext, workflow
from django_workflow.models import Run, Step
from django_workflow.testing import CallAnswer, mock_calls
from django_workflow.testing.calls import Call
from tests.scenarios.conftest import Engine

URL = "https://payments.example.com/charge?x=1"


@workflow(name="caller")
def caller(ctx: WorkflowContext[dict[str, Any]]) -> list[Any]:
    answer = ctx.call("charge", url=URL, method="POST", headers={"X-Shop": "1"}, **ctx.request_payload)
    return [answer.status, answer.body]


@workflow(name="async-caller")
async def async_caller(ctx: WorkflowContext[dict[str, Any]]) -> list[Any]:
    answer = await ctx.call("charge", url=URL, method="POST", headers={"X-Shop": "1"}, **ctx.request_payload)
    return [answer.status, answer.body]


both = pytest.mark.parametrize("flow", [caller, async_caller], ids=["sync", "async"])


@both
def test_the_engine_makes_the_request_and_the_run_gets_its_answer(engine: Engine, flow) -> None:
    with mock_calls(CallAnswer(200, {"paid": "naïve ☕"})) as recorder:
        run = engine.finish(flow.trigger({"body": {"order": 1}}))
    assert run.result == '[200,{"paid":"naïve ☕"}]'
    (call,) = recorder.calls
    assert (call.method, call.url, call.json) == ("POST", URL, {"order": 1})
    assert call.headers["X-Shop"] == "1"
    assert call.headers["Content-Type"] == "application/json"
    assert not [name for name in call.headers if name.lower().startswith("upstash-workflow-sdk")]
    assert "Upstash-Signature" in call.headers


def test_a_failing_target_is_retried_and_never_fails_the_run(engine: Engine) -> None:
    answers = [CallAnswer(503, "busy"), CallAnswer(503, "busy"), CallAnswer(200, {"ok": True})]
    with mock_calls(lambda call: answers.pop(0)) as recorder:
        handle = caller.trigger({"retries": 3, "retry_delay": 1})
        engine.run()
        assert len(recorder.calls) == 1
        if engine.tells_attempts_of_calls:
            assert handle.run.status == Run.Status.RETRYING
            assert "Retry 1 of 3" in handle.run.why
            assert handle.run.steps.get(name="charge").status == Step.Status.RETRYING
        run = engine.finish(handle)
    assert run.result == '[200,{"ok":true}]'
    assert run.steps.get(name="charge").attempts == 3
    assert [call.headers["Upstash-Retried"] for call in recorder.calls] == ["0", "1", "2"]


def test_a_call_without_retries_gives_the_status_that_came(engine: Engine) -> None:
    with mock_calls(CallAnswer(404, "no such page", {"Content-Type": "text/plain"})) as recorder:
        run = engine.finish(caller.trigger({}))
    assert run.result == '[404,"no such page"]'
    assert len(recorder.calls) == 1


def test_a_target_that_does_not_answer_gives_status_zero_and_the_reason(engine: Engine) -> None:
    def refuse(call: Call) -> CallAnswer:
        return CallAnswer(0, "connection refused")

    with mock_calls(refuse):
        run = engine.finish(caller.trigger({}))
    assert run.result == '[0,"connection refused"]'


def test_a_call_in_flight_is_shown(engine: Engine) -> None:
    handle = caller.trigger({"retries": 1, "retry_delay": 60})
    with mock_calls(CallAnswer(500, "")):
        engine.run()
        run = handle.run
        assert run.status in (Run.Status.RUNNING, Run.Status.RETRYING)
        assert run.steps.get(name="charge").status in (Step.Status.RUNNING, Step.Status.RETRYING)
        assert handle.cancel()
        engine.run(skip_delays=True)
    assert handle.run.status == Run.Status.CANCELED
