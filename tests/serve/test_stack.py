"""What is shown of an exception's way up: the frames of whoever wrote the workflow."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

import pytest

from django_workflow import AsyncWorkflowContext, WorkflowContext
from django_workflow.replay.outcome import Failed
from django_workflow.serve.responses import stack_of
from django_workflow.serve.stack import readable
from tests.replay.driver import Engine


def charge(order_id: int) -> str:
    raise ConnectionError("The payment service does not answer.")


def of_a_step(ctx: WorkflowContext[Any]) -> str:
    return ctx.run("charge", charge, 1)


async def of_an_async_workflow(ctx: AsyncWorkflowContext[Any]) -> str:
    return await ctx.run("charge", charge, 1)


def of_the_package(ctx: WorkflowContext[Any]) -> object:
    return ctx.run("make it", object)


@pytest.mark.parametrize(
    ("workflow", "ours", "raiser"),
    [
        (of_a_step, ["of_a_step", "charge"], "charge"),
        (of_an_async_workflow, ["of_an_async_workflow", "charge"], "charge"),
        (of_the_package, ["of_the_package"], "encode_value"),  # ResultInvalid
    ],
)
def test_frames_of_the_package_are_left_out_but_for_the_one_that_raised(
    workflow: Callable[[Any], Any], ours: list[str], raiser: str
) -> None:
    outcome = Engine(workflow).run_to_end()
    assert isinstance(outcome, Failed)
    error = outcome.error
    before = len(traceback.extract_tb(error.__traceback__))
    frames = traceback.extract_tb(readable(error.__traceback__))
    assert [frame.name for frame in frames if frame.filename == __file__] == ours
    assert [frame for frame in frames[:-1] if "/django_workflow/" in frame.filename] == []
    assert frames[-1].name == raiser
    assert len(frames) < before
    assert "/replay/executor.py" not in stack_of(error)
    assert len(traceback.extract_tb(error.__traceback__)) == before  # the exception itself keeps all


def test_a_traceback_of_the_package_alone_stays_as_it_is() -> None:
    assert readable(None) is None
    namespace = {"__name__": "django_workflow.somewhere"}
    exec("def inner(): raise ValueError\ndef outer(): inner()", namespace)
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - no text
        namespace["outer"]()
    trace = raised.value.__traceback__
    assert trace is not None
    assert [frame.name for frame in traceback.extract_tb(readable(trace.tb_next))] == ["outer", "inner"]
