"""A site that has missed something of its hosted runs: the engine's logs put its rows right."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx
import pytest
from django.core.management import call_command

from django_workflow import NonRetryableError, WorkflowContext, step, workflow
from django_workflow.client.client import get_client
from django_workflow.conf import get_settings
from django_workflow.models import Attempt, DeadLetter, JournalEntry, Run, Step
from django_workflow.testing import CallAnswer, mock_calls, send_event
from tests.hosted_stub import Answer, HttpRequest, NoAnswer
from tests.scenarios.conftest import Engine
from tests.scenarios.hosted_edges import Hosted, Stub

pytestmark = pytest.mark.edges("apart", "stub", reason="the embedded engine's rows are the only ones")


@workflow(name="rich")
def rich(ctx: WorkflowContext[int]) -> list[Any]:
    one = ctx.run("one", lambda: {"n": ctx.request_payload, "text": "naïve ☕"})
    nothing = ctx.run("nothing", lambda: None)
    ctx.sleep("nap", "1h")
    both = ctx.parallel(step.run("left", lambda: 1), step.sleep("right", "2h"))
    answer = ctx.call("call", url="https://example.com/", method="POST", body={"a": 1})
    event = ctx.wait_for_event("wait", "rich-event", timeout="1d")
    late = ctx.wait_for_event("late", "never", timeout="1h")
    child = ctx.invoke("invoke", workflow=poor, body=3)
    return [one, nothing, both[0], answer.status, answer.body, event.event_data, late.timeout, child.body]


@workflow(name="poor")
def poor(ctx: WorkflowContext[int]) -> int:
    return ctx.run("triple", lambda: ctx.request_payload * 3)


@workflow(name="unlucky", retries=1, retry_delay=1, on_failure=lambda ctx, status, response, headers: "told")
def unlucky(ctx: WorkflowContext[None]) -> None:
    ctx.run("fine", lambda: 1)
    ctx.run("bad", lambda: 1 / 0)


@workflow(name="gives-up-here")
def gives_up(ctx: WorkflowContext[None]) -> None:
    ctx.run("look", lambda: 1)
    ctx.cancel()


@workflow(name="fatal")
def fatal(ctx: WorkflowContext[None]) -> None:
    def die() -> None:
        raise NonRetryableError("no use")

    ctx.run("die", die)


def through_rich(engine: Engine) -> Any:
    with mock_calls(CallAnswer(201, {"made": "ü"})):
        handle = rich.trigger(7)
        engine.run()
        engine.clock.advance("1h")
        engine.run()
        engine.clock.advance("2h")
        engine.run()
        assert len(send_event("rich-event", {"by": "ada"})) == 1
        engine.finish(handle)
    return handle


def through(flow: Any) -> Callable[[Engine], Any]:
    def drive(engine: Engine) -> Any:
        handle = flow.trigger()
        engine.run(skip_delays=True)
        return handle

    return drive


def rows(run: Run) -> dict[str, Any]:
    """What people see of a run, without times."""
    fields = ("workflow", "url", "status", "result", "error_step", "payload", "labels")
    steps = run.steps.order_by("step_id").values("step_id", "name", "step_type", "status")
    journal = JournalEntry.objects.filter(run=run, step_id__isnull=False).order_by("step_id")
    return {
        **{name: getattr(run, name) for name in fields},
        "error": run.error.replace("WorkflowNonRetryableError", "NonRetryableError"),  # its name on the wire
        "parent": run.parent.run_id if run.parent else None,
        "steps": list(steps),
        "results": [json.loads(entry.body).get("out") for entry in journal],
        "letters": list(DeadLetter.objects.filter(run=run).values("status", "failure_state", "step_name")),
    }


def forget(run: Run) -> None:
    """Lose a run's rows, as with a restored backup."""
    for model in (JournalEntry, Attempt, Step, DeadLetter):
        model.objects.filter(run=run).delete()
    run.delete()


@pytest.mark.parametrize(
    "drive",
    [through_rich, through(unlucky), through(gives_up), through(fatal)],
    ids=["success", "failed", "canceled", "fatal"],
)
def test_the_rows_of_an_ended_run_come_back(engine: Engine, drive: Callable[[Engine], Any]) -> None:
    handle = drive(engine)
    before = rows(handle.run)
    assert handle.run.is_finished
    forget(handle.run)
    call_command("workflow_sync", since="7d", verbosity=0)
    assert rows(handle.run) == before


def test_a_waiting_run_comes_back_and_goes_on(engine: Engine) -> None:
    @workflow(name="waits-here")
    def flow(ctx: WorkflowContext[None]) -> Any:
        ctx.run("one", lambda: 1)
        return ctx.wait_for_event("wait", "later", timeout="1d").event_data

    handle = flow.trigger()
    engine.run()
    before = rows(handle.run)
    assert before["status"] == Run.Status.WAITING
    forget(handle.run)
    call_command("workflow_sync", since="7d", verbosity=0)
    assert rows(handle.run) == before
    assert len(send_event("later", {"n": 1})) == 1
    assert engine.finish(handle).result == '{"n":1}'


def test_a_sleeping_run_comes_back_and_goes_on(engine: Engine) -> None:
    @workflow(name="sleeps-here")
    def flow(ctx: WorkflowContext[None]) -> str:
        ctx.sleep("nap", "1h")
        return "awake"

    handle = flow.trigger()
    engine.run()
    before, due = rows(handle.run), handle.run.due_at
    assert before["status"] == Run.Status.SLEEPING
    forget(handle.run)
    call_command("workflow_sync", since="7d", verbosity=0)
    assert rows(handle.run) == before
    assert handle.run.due_at == due
    assert engine.finish(handle).result == '"awake"'


def test_a_sync_of_what_is_right_changes_nothing(engine: Engine) -> None:
    handles = [through_rich(engine), through(unlucky)(engine), through(gives_up)(engine)]
    before = [rows(handle.run) for handle in handles]
    updated = list(Run.objects.order_by("pk").values_list("run_id", "finished_at"))
    call_command("workflow_sync", since="7d", verbosity=0)
    assert [rows(handle.run) for handle in handles] == before
    assert list(Run.objects.order_by("pk").values_list("run_id", "finished_at")) == updated


@pytest.mark.parametrize("flow", [unlucky, fatal], ids=["told", "untold"])
def test_a_sync_brings_no_deleted_letter_back(engine: Engine, flow: Any) -> None:
    handle = through(flow)(engine)
    get_client().delete_dead_letters(workflow=flow.name, run_ids=handle.id)
    (letter,) = DeadLetter.objects.all()
    assert get_client().delete_dead_letters(letter.dlq_id).deleted == 0
    call_command("workflow_sync", since="7d", verbosity=0)
    assert not DeadLetter.objects.exists()
    assert handle.run.status == Run.Status.FAILED


def test_a_worker_finds_out_that_a_run_was_canceled_elsewhere(engine: Engine) -> None:
    @workflow(name="canceled-elsewhere")
    def flow(ctx: WorkflowContext[None]) -> None:
        ctx.wait_for_event("wait", "never", timeout="30d")

    handle = flow.trigger()
    engine.run()
    assert isinstance(engine, Hosted)
    at_the_engine("DELETE", f"/v2/workflows/runs/{handle.id}?cancel=true")
    assert handle.run.status == Run.Status.WAITING
    engine.clock.advance(timedelta(hours=7))
    engine.run()
    assert handle.run.status == Run.Status.CANCELED
    assert handle.run.steps.get().status == Step.Status.CANCELED


def at_the_engine(method: str, path: str) -> None:
    """Somebody else, in the engine's console."""
    settings = get_settings()
    with httpx.Client(trust_env=False) as client:
        headers = {"Authorization": f"Bearer {settings.token}"}
        client.request(method, settings.qstash_url + path, headers=headers).raise_for_status()


@pytest.mark.edges("stub", reason="only the stub can be told to fail at a given moment")
def test_a_worker_finds_out_that_a_run_failed_while_the_site_was_down(engine: Engine) -> None:
    assert isinstance(engine, Stub)
    handle = unlucky.trigger()
    network = engine.service.network

    def down(request: HttpRequest, timeout: float) -> Answer:
        raise NoAnswer("connection refused")

    engine.service.network = down
    engine.run_engine(skip_delays=True)
    engine.service.network = network
    assert handle.run.status == Run.Status.QUEUED
    engine.clock.advance(timedelta(hours=7))
    engine.run()
    run = handle.run
    assert (run.status, run.error) == (Run.Status.FAILED, "connection refused")
    assert run.dead_letter.failure_state == DeadLetter.FailureState.FAILED


@pytest.mark.edges("stub", reason="only the stub can be told to fail at a given moment")
def test_the_end_of_a_run_that_nobody_heard_of_is_asked_for(engine: Engine) -> None:
    """The engine knew that the run is over, but its answer was lost, and it does not call again."""
    assert isinstance(engine, Stub)

    @workflow(name="lost-end")
    def flow(ctx: WorkflowContext[None]) -> int:
        return ctx.run("one", lambda: 1)

    handle, service = flow.trigger(), engine.service
    handle_request = service.handle

    def lose_the_end(method: str, url: str, headers: Any, body: bytes) -> Answer:
        answer = handle_request(method, url, headers, body)
        if method == "DELETE":
            raise NoAnswer("the line broke")
        return answer

    service.handle = lose_the_end  # type: ignore[method-assign]
    engine.run_engine(skip_delays=True)
    service.handle = handle_request  # type: ignore[method-assign]
    assert not handle.run.is_finished
    engine.clock.advance(timedelta(hours=7))
    engine.run()
    assert (handle.run.status, handle.run.result) == (Run.Status.SUCCESS, "1")
