"""What replay costs: ratios only, since machines differ."""

from __future__ import annotations

import time
from typing import Any

import pytest

from django_workflow.authoring.context_base import RunDetails
from django_workflow.authoring.decorator import Workflow
from django_workflow.authoring.invocation import invoke
from django_workflow.protocol.steps import JournalMessage, Step, encode_step
from django_workflow.replay.journal import Journal
from django_workflow.replay.outcome import Finished
from tests.replay.driver import Engine


def messages(count: int) -> list[JournalMessage]:
    found = [JournalMessage("msg_0", "{}")]
    for number in range(1, count + 1):
        step = Step(step_id=number, step_name="s", step_type="Run", out='{"n":1}', concurrent=1)
        found.append(JournalMessage(f"msg_{number}", encode_step(step).decode(), step=step))
    return found


def work() -> dict[str, int]:
    raise AssertionError("known steps are not run")


def sync(ctx: Any) -> int:
    return sum(ctx.run("s", work)["n"] for _ in range(ctx.request_payload["steps"]))


async def awaited(ctx: Any) -> int:
    total = 0
    for _ in range(ctx.request_payload["steps"]):
        total += (await ctx.run("s", work))["n"]
    return total


def seconds(function: Any, count: int) -> float:
    """CPU time of one of `count` known steps: the least of several replays."""
    workflow, journal, port = Workflow(function, name="wf"), messages(count), Engine(function)
    payload = b'{"steps":%d}' % count
    best = float("inf")
    for _ in range(7):
        started = time.thread_time()
        outcome = invoke(workflow, RunDetails(run_id="wfr_1", payload=payload), Journal.from_messages(journal), port)
        best = min(best, time.thread_time() - started)
        assert outcome == Finished(str(count).encode())
    return best / count


@pytest.mark.parametrize("function", [sync, awaited])
def test_the_cost_of_a_known_step_does_not_grow_with_history(function: Any) -> None:
    few, many = seconds(function, 500), seconds(function, 4000)
    assert many < few * 3
