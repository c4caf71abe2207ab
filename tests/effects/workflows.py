"""Workflows that worker processes of the tests find by themselves."""

from __future__ import annotations

import time

from django_workflow import WorkflowContext, workflow
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
