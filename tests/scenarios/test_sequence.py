"""Steps one after the other: typed results, long runs, large results, nothing run twice."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import Decimal

import pytest

from django_workflow import WorkflowContext, workflow
from django_workflow.models import JournalEntry, Run, Step
from django_workflow.testing import assert_step_ran
from tests.scenarios.conftest import Engine

calls: list[str] = []


@pytest.fixture(autouse=True)
def _fresh() -> None:
    calls.clear()


@dataclass
class Order:
    order_id: int
    placed: date


@dataclass
class Receipt:
    number: str
    total: Decimal


def reserve(order_id: int) -> int:
    calls.append("reserve")
    return order_id * 2


def charge(amount: int) -> Receipt:
    calls.append("charge")
    return Receipt(number=f"r-{amount}", total=Decimal("12.50"))


@workflow(name="sequence")
def sequence(ctx: WorkflowContext[Order]) -> Receipt:
    order = ctx.request_payload
    assert isinstance(order, Order)
    doubled = ctx.run("reserve", reserve, order.order_id)
    receipt = ctx.run("charge", charge, doubled)
    assert isinstance(receipt, Receipt)
    assert isinstance(receipt.total, Decimal)
    nothing = ctx.run("nothing", lambda: None)
    assert nothing is None
    return receipt


@workflow(name="async-sequence")
async def async_sequence(ctx: WorkflowContext[Order]) -> Receipt:
    doubled = await ctx.run("reserve", reserve, ctx.request_payload.order_id)

    async def charge_later() -> Receipt:
        return charge(doubled)

    return await ctx.run("charge", charge_later)


@pytest.mark.parametrize("flow", [sequence, async_sequence], ids=["sync", "async"])
def test_each_step_runs_once_and_its_result_comes_back_typed(engine: Engine, flow) -> None:
    handle = flow.trigger({"order_id": 21, "placed": "2026-01-02"})
    run = engine.finish(handle)
    assert calls == ["reserve", "charge"]
    assert run.result == '{"number":"r-42","total":"12.50"}'
    assert_step_ran(run, "reserve", result=42, times=1)
    assert_step_ran(run, "charge", result={"number": "r-42", "total": "12.50"})
    assert run.started_at is not None
    assert run.finished_at is not None


@workflow(name="counting")
def counting(ctx: WorkflowContext[int]) -> int:
    total = 0
    for number in range(ctx.request_payload):
        total += ctx.run(f"step {number}", lambda number=number: number)
    return total


def test_many_steps_in_a_row(engine: Engine) -> None:
    count = engine.many_steps
    handle = counting.trigger(count)
    run = engine.finish(handle)
    assert run.result == str(sum(range(count)))
    assert run.steps.filter(status=Step.Status.SUCCESS).count() == count
    positions = list(JournalEntry.objects.filter(run=run).order_by("position").values_list("position", flat=True))
    assert positions == list(range(1, count + 1))


@workflow(name="large-result")
def large_result(ctx: WorkflowContext[None]) -> int:
    text = ctx.run("make", lambda: "é" * 524_288)
    return ctx.run("measure", lambda: len(text.encode()))


def test_a_result_of_one_megabyte_survives(engine: Engine) -> None:
    run = engine.finish(large_result.trigger())
    assert run.result == "1048576"


@workflow(name="too-large-result", retries=0)
def too_large(ctx: WorkflowContext[None]) -> None:
    ctx.run("make", lambda: "x" * (4 * 1024 * 1024 + 1))


def test_a_result_over_the_limit_fails_the_step_with_size_and_limit(engine: Engine) -> None:
    run = engine.fail(too_large.trigger())
    assert "4194304" in run.error.replace(",", "").replace("_", "")
    assert run.error_step == "make"


def test_runs_of_several_workflows_share_the_engine(engine: Engine) -> None:
    handles = [counting.trigger(number) for number in range(1, 6)]
    engine.run()
    assert [handle.run.result for handle in handles] == ["0", "1", "3", "6", "10"]
    assert Run.objects.filter(status=Run.Status.SUCCESS).count() == 5
