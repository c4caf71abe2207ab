"""Workflows that worker processes of the tests find by themselves."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

from django_workflow import NonRetryableError, WorkflowContext, step, workflow
from tests.effects.models import Effect

STEPS = 10


def write_effect(run_id: str, step: str, seconds: float, is_atomic: bool) -> str:
    """Work for a while, with a row written in the middle of it."""
    time.sleep(seconds / 2)
    Effect.objects.create(run_id=run_id, step=step, atomic=is_atomic)
    time.sleep(seconds / 2)
    return step


@workflow(name="ten-effects")
def ten_effects(ctx: WorkflowContext[float]) -> list[str]:
    """Ten steps of `payload` seconds each; every other one is atomic."""
    done = []
    for number in range(STEPS):
        name, is_atomic = f"step {number}", number % 2 == 0
        arguments = (ctx.workflow_run_id, name, ctx.request_payload, is_atomic)
        done.append(ctx.run(name, write_effect, *arguments, atomic=is_atomic))
    return done


@workflow(name="plain-effects")
def plain_effects(ctx: WorkflowContext[float]) -> list[str]:
    """Ten steps of `payload` seconds each, none of them atomic."""
    names = [f"step {number}" for number in range(STEPS)]
    return [ctx.run(name, write_effect, ctx.workflow_run_id, name, ctx.request_payload, False) for name in names]


@workflow(name="every-kind", retries=30, retry_delay=0.01)
def every_kind(ctx: WorkflowContext[float]) -> list[Any]:
    """A step of each kind that needs nobody else; steps whose name says so are atomic. `payload` as above."""
    run_id, seconds = ctx.workflow_run_id, ctx.request_payload
    first = ctx.run("atomic first", write_effect, run_id, "atomic first", seconds, True, atomic=True)
    second = ctx.run("plain second", write_effect, run_id, "plain second", seconds, False)
    branches = ctx.parallel(
        step.run("atomic left", write_effect, run_id, "atomic left", seconds, True, atomic=True),
        step.run("plain right", write_effect, run_id, "plain right", seconds, False),
        step.sleep("short", 0.02),
    )
    ctx.sleep("nap", 0.02)
    timed_out = ctx.wait_for_event("wait", f"never-{run_id}", timeout=0.02).timeout
    child = ctx.invoke("child", workflow=one_effect, body=seconds)
    last = ctx.run("atomic last", write_effect, run_id, "atomic last", seconds, True, atomic=True)
    return [first, second, *branches, timed_out, child.body, last]


EVERY_RESULT = '["atomic first","plain second","atomic left","plain right",null,true,"atomic only","atomic last"]'


@workflow(name="one-effect", retries=30, retry_delay=0.01)
def one_effect(ctx: WorkflowContext[float]) -> str:
    run_id = ctx.workflow_run_id
    return ctx.run("atomic only", write_effect, run_id, "atomic only", ctx.request_payload, True, atomic=True)


@workflow(name="stuck")
def stuck(ctx: WorkflowContext[str]) -> int:
    """A step that returns once the file `payload` exists: how often it was run."""
    return ctx.run("stay", stay, ctx.workflow_run_id, ctx.request_payload)


def stay(run_id: str, release: str) -> int:
    Effect.objects.create(run_id=run_id, step="stay", atomic=False)
    while not Path(release).exists():
        time.sleep(0.01)
    return Effect.objects.filter(run_id=run_id, step="stay").count()


HOPELESS = 20
"""Of so many runs of `stormy`, one cannot succeed."""


@workflow(name="stormy", retries=200, retry_delay=0.01)
def stormy(ctx: WorkflowContext[int]) -> list[int]:
    """Two steps, of which one attempt in twenty fails, and an end that is not always good. `payload` is its number."""
    run_id, number = ctx.workflow_run_id, ctx.request_payload
    one = ctx.run("atomic one", gamble, run_id, "atomic one", number, atomic=True)
    two = ctx.run("plain two", gamble, run_id, "plain two", number)
    if number % HOPELESS == HOPELESS - 1:
        ctx.run("give up", give_up, number)
    return [one, two]


def gamble(run_id: str, name: str, number: int) -> int:
    Effect.objects.create(run_id=run_id, step=name, atomic=name.startswith("atomic"))
    if dice.random() < 0.05:
        raise ConnectionError("bad luck")
    return number


def give_up(number: int) -> None:
    raise NonRetryableError(f"{number} is hopeless")


dice = random.Random(5)
