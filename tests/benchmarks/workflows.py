"""The workflows that are measured."""

from __future__ import annotations

import time
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


SECONDS_BETWEEN_TICKS = 0.5


@workflow(name="bench-ticks")
def ticks(ctx: WorkflowContext[int]) -> None:
    """Emits so many events from one step, once it is told to begin."""

    def tick() -> None:
        for number in range(ctx.request_payload):
            ctx.emit("tick", {"n": number, "at": time.monotonic()})
            time.sleep(SECONDS_BETWEEN_TICKS)

    ctx.wait_for_event("wait for sockets", "bench-go", timeout="10m")
    ctx.run("tick", tick)
