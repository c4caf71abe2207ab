"""The workflows that are measured. Every step returns its number and 200 bytes, as the peers' steps do."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from django_workflow import WorkflowContext, step, workflow

PAD = "x" * 200
calls_made = 0
"""Calls of `sequence_in_few_calls` in this process."""


def work(number: int) -> dict[str, Any]:
    return {"i": number, "pad": PAD}


async def async_work(number: int) -> dict[str, Any]:
    return {"i": number, "pad": PAD}


@workflow(name="bench-sequence")
def sequence(ctx: WorkflowContext[int]) -> int:
    for number in range(ctx.request_payload):
        ctx.run(f"step {number}", work, number)
    return ctx.request_payload


@workflow(name="bench-sequence-async")
async def async_sequence(ctx: WorkflowContext[int]) -> int:
    for number in range(ctx.request_payload):
        await ctx.run(f"step {number}", async_work, number)
    return ctx.request_payload


@workflow(name="bench-sequence-in-few-calls", steps_per_call=100)
def sequence_in_few_calls(ctx: WorkflowContext[int]) -> int:
    global calls_made
    calls_made += 1
    for number in range(ctx.request_payload):
        ctx.run(f"step {number}", work, number)
    return ctx.request_payload


@workflow(name="bench-fan")
def fan(ctx: WorkflowContext[int]) -> int:
    ctx.parallel(*(step.run(f"step {number}", work, number) for number in range(ctx.request_payload)))
    return ctx.request_payload


@workflow(name="bench-fan-async")
async def async_fan(ctx: WorkflowContext[int]) -> int:
    await asyncio.gather(*(ctx.run(f"step {number}", async_work, number) for number in range(ctx.request_payload)))
    return ctx.request_payload


@workflow(name="bench-timer")
def timer(ctx: WorkflowContext[float]) -> float:
    """Seconds that it woke late, counted from just before the sleep was asked for."""
    asked_at = ctx.run("before", time.time)
    ctx.sleep("sleep", ctx.request_payload)
    return ctx.run("after", time.time) - asked_at - ctx.request_payload


@workflow(name="bench-event")
def event(ctx: WorkflowContext[str]) -> None:
    ctx.wait_for_event("wait", ctx.request_payload, timeout="10m")
    ctx.run("after", work, 1)


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
