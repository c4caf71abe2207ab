"""Runs that failed for good: resumed where they failed, started again, told once more, deleted."""

from __future__ import annotations

from typing import Any

import pytest

from django_workflow import NonRetryableError, WorkflowContext, step, workflow
from django_workflow.client.client import get_client
from django_workflow.errors import EngineError
from django_workflow.models import DeadLetter, Run
from django_workflow.protocol.requests import RunOverrides
from tests.scenarios.conftest import Engine

broken = True
ran: list[str] = []


@pytest.fixture(autouse=True)
def _fresh() -> None:
    global broken
    broken = True
    ran.clear()


def work(name: str) -> str:
    ran.append(name)
    return name


def fragile(name: str) -> str:
    ran.append(name)
    if broken:
        raise NonRetryableError("it is broken")
    return name


def tell(ctx: WorkflowContext[int], status: int, response: str, headers: dict[str, list[str]]) -> str:
    ran.append("told")
    if broken:
        raise ConnectionError("nobody listens")
    return "told"


@workflow(name="fragile", retries=0)
def fragile_flow(ctx: WorkflowContext[int]) -> list[Any]:
    first = ctx.run("first", work, "first")
    return [first, ctx.run("fragile", fragile, "fragile"), ctx.request_payload]


@workflow(name="fragile-branch", retries=0)
def fragile_branch(ctx: WorkflowContext[None]) -> list[Any]:
    ctx.run("first", work, "first")
    return list(ctx.parallel(*(step.run(name, work, name) for name in "ab"), step.run("c", fragile, "c")))


@workflow(name="fragile-and-told", retries=0, on_failure=tell)
def told_flow(ctx: WorkflowContext[int]) -> None:
    ctx.run("fragile", fragile, "fragile")


def failed(engine: Engine, handle: Any) -> str:
    """Let the run fail; the id of its dead letter."""
    engine.fail(handle)
    (letter,) = get_client().dead_letters(run_ids=handle.id).messages
    return letter.dlq_id


def mend() -> None:
    global broken
    broken = False
    ran.clear()


def test_a_resumed_run_goes_on_where_the_failed_one_ended(engine: Engine) -> None:
    handle = fragile_flow.trigger(7)
    letter = failed(engine, handle)
    mend()
    (started,) = get_client().resume(letter).workflow_runs
    assert started.workflow_run_id != handle.id
    engine.run(skip_delays=True)
    run = Run.objects.get(run_id=started.workflow_run_id)
    assert (run.status, run.result) == (Run.Status.SUCCESS, '["first","fragile",7]')
    assert run.trigger_kind == Run.TriggerKind.RESUME
    assert run.resumed_from == handle.run
    assert ran == ["fragile"]
    assert handle.run.status == Run.Status.FAILED
    assert not DeadLetter.objects.exists()


def test_a_resumed_group_keeps_the_branches_that_were_done(engine: Engine) -> None:
    handle = fragile_branch.trigger()
    letter = failed(engine, handle)
    mend()
    (started,) = get_client().resume(letter).workflow_runs
    engine.run(skip_delays=True)
    run = Run.objects.get(run_id=started.workflow_run_id)
    assert (run.status, run.result) == (Run.Status.SUCCESS, '["a","b","c"]')
    assert "first" not in ran
    assert ran.count("c") == 1


def test_a_restarted_run_begins_anew(engine: Engine) -> None:
    handle = fragile_flow.trigger(7)
    letter = failed(engine, handle)
    mend()
    overrides = RunOverrides(labels=("again",))
    (started,) = get_client().restart(letter, overrides=overrides).workflow_runs
    engine.run(skip_delays=True)
    run = Run.objects.get(run_id=started.workflow_run_id)
    assert (run.status, run.result) == (Run.Status.SUCCESS, '["first","fragile",7]')
    assert run.trigger_kind == Run.TriggerKind.RESTART
    assert ran == ["first", "fragile"]
    assert not DeadLetter.objects.exists()


def test_a_failure_function_that_failed_is_called_again(engine: Engine) -> None:
    handle = told_flow.trigger(7)
    letter = failed(engine, handle)
    assert handle.run.dead_letter.failure_state == DeadLetter.FailureState.FAILED
    mend()
    get_client().rerun_failure_function(letter)
    engine.run(skip_delays=True)
    assert ran == ["told"]
    assert handle.run.dead_letter.failure_state == DeadLetter.FailureState.SUCCESS
    with pytest.raises(EngineError):
        get_client().rerun_failure_function(letter)


def test_a_deleted_letter_cannot_be_resumed(engine: Engine) -> None:
    letter = failed(engine, fragile_flow.trigger(7))
    assert get_client().delete_dead_letters(letter).deleted == 1
    assert not DeadLetter.objects.exists()
    with pytest.raises(EngineError):
        get_client().resume(letter)
    assert Run.objects.count() == 1
