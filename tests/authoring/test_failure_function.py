from __future__ import annotations

import asyncio
from typing import Any

import pytest

from django_workflow import AsyncWorkflowContext, Workflow, WorkflowContext
from django_workflow.authoring.context_base import RunDetails
from django_workflow.authoring.invocation import call_failure_function
from django_workflow.authoring.options import WorkflowOptions
from django_workflow.errors import StepError
from tests.replay.driver import Engine

DETAILS = RunDetails(run_id="wfr_1", payload=b'{"order":7}', labels=("vip",))


def failing(ctx: WorkflowContext[Any]) -> None:
    ctx.run("a", lambda: 1 / 0)


def call(function: Any, port: Any = None) -> str | None:
    workflow = Workflow(failing, name="wf", options=WorkflowOptions().using(on_failure=function))
    return call_failure_function(workflow, DETAILS, 500, "division by zero", {"A": ["b"]}, port)


def alert(ctx: WorkflowContext[Any], status: int, response: str, headers: dict[str, list[str]]) -> str:
    return f"{ctx.workflow_run_id} {ctx.request_payload['order']} {ctx.label} {status} {response} {headers}"


async def alert_async(ctx: AsyncWorkflowContext[Any], status: int, response: str, headers: Any) -> str:
    await asyncio.sleep(0)
    return alert(ctx, status, response, headers)  # type: ignore[arg-type]


@pytest.mark.parametrize("function", [alert, alert_async])
def test_the_failure_function_learns_what_happened(function: Any) -> None:
    assert call(function) == "wfr_1 7 vip 500 division by zero {'A': ['b']}"


@pytest.mark.parametrize("result", [None, 7, {"a": 1}])
def test_only_text_is_handed_on(result: Any) -> None:
    assert call(lambda *args: result) is None


def test_what_it_raises_comes_out() -> None:
    with pytest.raises(ZeroDivisionError):
        call(lambda *args: 1 / 0)


async def runs_step(ctx: AsyncWorkflowContext[Any], *args: Any) -> None:
    await ctx.run("a", lambda: 1)


@pytest.mark.parametrize(
    "function", [lambda ctx, *args: ctx.run("a", lambda: 1), lambda ctx, *args: ctx.cancel(), runs_step]
)
def test_it_has_no_steps(function: Any) -> None:
    with pytest.raises(StepError, match="A failure function has no steps"):
        call(function)


async def emits(ctx: AsyncWorkflowContext[Any], *args: Any) -> None:
    await ctx.emit("sorry", 1)


@pytest.mark.parametrize("function", [lambda ctx, *args: ctx.emit("sorry", 1), emits])
def test_it_may_emit(function: Any) -> None:
    engine = Engine(failing)
    call(function, engine)
    assert engine.emitted == [("sorry", 1)]
    call(function)
