"""Three workflows to begin with: one that runs, one that waits for a person, one that fails."""

from __future__ import annotations

from dataclasses import dataclass

from django_workflow import AsyncWorkflowContext, NonRetryableError, WorkflowContext, workflow
from example_project.guide.models import Notice


@dataclass(frozen=True, slots=True)
class Task:
    user_id: str = "user-1"
    action: str = "process"


@dataclass(frozen=True, slots=True)
class Answer:
    approved: bool


def validate(task: Task) -> dict[str, bool]:
    if not task.user_id or not task.action:
        raise NonRetryableError("A task needs a user and an action.")
    return {"valid": True}


def process(task: Task) -> dict[str, str]:
    return {"user_id": task.user_id, "outcome": f"{task.action} done"}


def clean_up(task: Task) -> None:
    """Nothing to do in this example; in yours, perhaps temporary files."""


@workflow
def basic(ctx: WorkflowContext[Task]) -> dict[str, str]:
    """A few steps, with pauses to watch them by."""
    task = ctx.request_payload
    ctx.run("validate-data", validate, task)
    ctx.sleep("wait-a-moment", 1)
    outcome = ctx.run("process-data", process, task)
    ctx.sleep("wait-again", 1)
    ctx.run("clean-up", clean_up, task)
    return outcome


@workflow
async def basic_with_approval(ctx: AsyncWorkflowContext[Task]) -> dict[str, str]:
    """The same with a person in the middle; and written as a coroutine, which workflows may be."""
    task = ctx.request_payload
    await ctx.run("initial-processing", process, task)
    # The run's id in the event's id: the answer reaches this run alone.
    answer = await ctx.wait_for_event("approval", f"approval-{ctx.workflow_run_id}", timeout="10m", type=Answer)
    if answer.timeout or not answer.event_data.approved:
        return {"user_id": task.user_id, "outcome": "nobody said yes"}
    await ctx.sleep("wait-a-moment", 1)
    return await ctx.run("finalize", process, task)


def leave_notice(ctx: WorkflowContext[Task], status: int, response: str, headers: dict[str, list[str]]) -> str:
    """The failure function: called once, when no retry is left."""
    text = f"Sorry, {ctx.request_payload.user_id}: {response}"
    Notice.objects.update_or_create(workflow_run_id=ctx.workflow_run_id, defaults={"text": text})
    return text


def charge_card(task: Task) -> None:
    raise ConnectionError("The card terminal does not answer.")


@workflow(retries=2, retry_delay="1000", on_failure=leave_notice)
def basic_failing(ctx: WorkflowContext[Task]) -> None:
    """Its second step never works: two retries, one second apart, and then the failure function."""
    ctx.run("validate-data", validate, ctx.request_payload)
    ctx.run("charge-card", charge_card, ctx.request_payload)
