"""The workflows that are measured."""

from __future__ import annotations

from typing import Any

from django_workflow import WorkflowContext, step, workflow

PAD = "x" * 200


def work(number: int) -> dict[str, Any]:
    return {"i": number, "pad": PAD}


@workflow(name="bench-sequence")
def sequence(ctx: WorkflowContext[int]) -> int:
    for number in range(ctx.request_payload):
        ctx.run(f"step {number}", work, number)
    return ctx.request_payload


@workflow(name="bench-fan")
def fan(ctx: WorkflowContext[int]) -> int:
    ctx.parallel(*(step.run(f"step {number}", work, number) for number in range(ctx.request_payload)))
    return ctx.request_payload
