"""The rows of hosted runs: the same as those of the embedded engine, whatever order deliveries come in."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from django.db import OperationalError
from django.test import override_settings

from django_workflow import AsyncWorkflowContext, WorkflowContext, step, workflow
from django_workflow.apps import make_transport
from django_workflow.client.client import get_client
from django_workflow.client.transports import use_transport
from django_workflow.mirror import recorder
from django_workflow.models import Attempt, ChannelEvent, DeadLetter, JournalEntry, Run, Step, Waiter
from django_workflow.presentation import values
from django_workflow.signals import run_finished, run_started, step_completed, step_failed
from django_workflow.testing import run_workflows, workflow_clock
from tests.hosted_stub import HttpRequest
from tests.mirror.conftest import Hosted

# The same as the embedded engine's


@workflow(name="mirror-plain")
def plain(ctx: WorkflowContext[int]) -> int:
    first = ctx.run("one", lambda: ctx.request_payload + 1)
    ctx.sleep("rest", "1h")
    return ctx.run("two", lambda: first * 2)


@workflow(name="mirror-async")
async def asynchronous(ctx: AsyncWorkflowContext[int]) -> int:
    async def work() -> int:
        return ctx.request_payload + 1

    first = await ctx.run("one", work)
    await ctx.sleep("rest", "1h")
    return await ctx.run("two", lambda: first * 2)


@workflow(name="mirror-parallel")
def parallel(ctx: WorkflowContext[int]) -> list[Any]:
    ctx.run("before", lambda: 1)
    return list(ctx.parallel(step.run("left", lambda: 1), step.run("right", lambda: 2), step.sleep("nap", "1m")))


@workflow(name="mirror-waits")
def waits(ctx: WorkflowContext[int]) -> Any:
    return ctx.wait_for_event("approval", "approve-it", timeout="1h").timeout


@workflow(name="mirror-child")
def child(ctx: WorkflowContext[int]) -> int:
    return ctx.run("double", lambda: ctx.request_payload * 2)


@workflow(name="mirror-parent")
def parent(ctx: WorkflowContext[int]) -> Any:
    return ctx.invoke("ask", child, 21).body


@workflow(name="mirror-fails", retries=1)
def fails(ctx: WorkflowContext[int]) -> None:
    def boom() -> None:
        raise ValueError("it does not work")

    ctx.run("boom", boom)


@workflow(name="mirror-tells")
def tells(ctx: WorkflowContext[int]) -> None:
    def work() -> None:
        ctx.emit("half", {"way": 1})
        ctx.progress(1, 2)

    ctx.run("work", work)


@workflow(name="mirror-cancels")
def cancels(ctx: WorkflowContext[int]) -> None:
    ctx.run("one", lambda: 1)
    ctx.cancel()


def outline() -> dict[str, Any]:
    """What can be seen of all runs, without ids and times."""
    runs = {
        run.workflow: {
            "run": (run.status, run.result, run.error, run.error_step, run.why, run.payload, run.trigger_kind),
            "labels": run.label_list,
            "progress": (run.progress_done, run.progress_total),
            "times": (run.started_at is not None, run.finished_at is not None, run.due_at is not None),
            "parent": run.parent.workflow if run.parent else None,
            "steps": [
                (
                    row.step_id,
                    row.name,
                    row.step_type,
                    row.status,
                    row.concurrent,
                    row.attempts,
                    read(row.preview),
                    row.error,
                )
                for row in run.steps.order_by("step_id")
            ],
            "results": dict(sorted(values.step_results(run, run.steps.all()).items())),
            "attempts": [(row.step_name, row.number, row.status, row.error) for row in run.attempts.all()],
            "waiters": [(row.event_id, row.state, row.step_id, row.prompt) for row in run.waiters.all()],
            "events": events_of(run),
        }
        for run in Run.objects.all()
    }
    assert runs
    return runs


# Known only to the one who makes the call again, or to nobody but the engine.
_VARYING = {"timestamp", "workflowRunId", "durationMs", "nextRetryAt"}


def read(text: str) -> Any:
    """JSON, whose keys may stand in any order; what is none stays as it is."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def events_of(run: Run) -> Counter[tuple[str, str]]:
    found = []
    for event in ChannelEvent.objects.filter(channel=run.run_id).order_by("position"):
        data = json.loads(event.data)
        if isinstance(data, dict):
            data = {name: value for name, value in data.items() if name not in _VARYING}
        found.append((event.event, json.dumps(data, sort_keys=True)))
    # In any order: branches are, and the embedded engine tells of a short step when it is over.
    return Counter(found)


def embedded_outline(flow: Any) -> dict[str, Any]:
    use_transport(make_transport)
    with override_settings(DJANGO_WORKFLOW={}), workflow_clock():
        flow.using(label="vip").trigger(5)
        run_workflows(skip_delays=True)
        found = outline()
        Run.objects.all().delete()
        ChannelEvent.objects.all().delete()
    return found


@pytest.mark.parametrize(
    "flow",
    [plain, asynchronous, parallel, waits, parent, fails, tells, cancels],
    ids=lambda flow: flow.name.removeprefix("mirror-"),
)
def test_a_hosted_run_looks_like_an_embedded_one(hosted: Hosted, flow: Any) -> None:
    expected = embedded_outline(flow)
    use_transport(lambda: hosted.transport)
    flow.using(label="vip").trigger(5)
    hosted.run(skip_delays=True)
    found = outline()
    assert found.keys() == expected.keys()
    for name, run in found.items():
        for what, value in run.items():
            assert value == expected[name][what], f"{what} of {name}"


# While it goes on


def test_each_state_of_a_run_is_shown(hosted: Hosted) -> None:
    states: list[tuple[str, str]] = []

    def note(name: str) -> None:
        run = Run.objects.get()
        states.append((name, run.status, *run.steps.order_by("step_id").values_list("status", flat=True)))  # type: ignore[arg-type]

    @workflow(name="mirror-states")
    def flow(ctx: WorkflowContext[None]) -> None:
        def work() -> None:
            note("in a step")
            if len([name for name, *_ in states if name == "in a step"]) == 1:
                raise ValueError("once")

        ctx.run("work", work)
        ctx.sleep("rest", "1h")
        ctx.wait_for_event("answer", "answer-it", timeout="1h")

    handle = flow.trigger()
    note("triggered")
    hosted.run()
    note("failed once")
    hosted.clock.advance("1m")
    hosted.run()
    note("asleep")
    hosted.clock.advance("1h")
    hosted.run()
    note("waits")
    get_client().notify("answer-it", run_id=handle.id)
    note("answered")
    hosted.run()
    note("over")
    assert states == [
        ("triggered", "queued"),
        ("in a step", "running", "running"),
        ("failed once", "retrying", "retrying"),
        ("in a step", "running", "running"),
        ("asleep", "sleeping", "success", "sleeping"),
        ("waits", "waiting", "success", "success", "waiting"),
        ("answered", "waiting", "success", "success", "waiting"),
        ("over", "success", "success", "success", "success"),
    ]


def test_an_async_step_is_shown_while_it_runs(hosted: Hosted) -> None:
    seen: list[tuple[str, str]] = []
    hosted.network.during = lambda request: seen.extend(Step.objects.values_list("name", "status"))
    asynchronous.trigger(1)
    hosted.run()
    assert ("one", "running") in seen


def test_what_a_retry_waits_for_is_told(hosted: Hosted) -> None:
    handle = fails.trigger(1)
    hosted.run()
    run = handle.run
    assert run.status == Run.Status.RETRYING
    assert run.why.startswith("Retry 1 of 1 at ")
    assert "it does not work" in run.why
    assert run.due_at is not None
    due = hosted.service.next_due_at()
    assert due is not None
    assert abs(run.due_at.timestamp() - due) < 1  # as the engine does it


def test_a_failed_run_has_its_dead_letter_and_what_its_failure_function_said(hosted: Hosted) -> None:
    @workflow(name="mirror-on-failure", retries=0, on_failure=lambda ctx, status, text, headers: f"saw {text}")
    def flow(ctx: WorkflowContext[None]) -> None:
        ctx.run("boom", lambda: 1 / 0)

    handle = flow.trigger()
    hosted.run()
    run = handle.run
    assert (run.status, run.error_step) == (Run.Status.FAILED, "boom")
    assert run.error == "ZeroDivisionError: division by zero"
    letter = DeadLetter.objects.get(run=run)
    (of_engine,) = hosted.service.letters.values()
    assert letter.dlq_id == of_engine.id
    assert (letter.status, letter.failure_state) == (500, DeadLetter.FailureState.SUCCESS)
    assert letter.failure_response == "saw division by zero"


def test_a_resumed_run_belongs_to_the_chain_and_keeps_its_idempotency_keys(hosted: Hosted) -> None:
    keys: list[str] = []

    @workflow(name="mirror-resumed", retries=0)
    def flow(ctx: WorkflowContext[None]) -> None:
        def work() -> None:
            keys.append(ctx.idempotency_key)
            if len(keys) == 1:
                raise ValueError("the first time")

        ctx.run("one", lambda: 1)
        ctx.run("work", work)

    failed = flow.trigger()
    hosted.run()
    letter = DeadLetter.objects.get()
    started = get_client().resume(letter.dlq_id)
    hosted.run()
    run = Run.objects.exclude(run_id=failed.id).get()
    assert run.run_id in str(started)
    assert (run.status, run.trigger_kind) == (Run.Status.SUCCESS, Run.TriggerKind.RESUME)
    assert run.resumed_from == failed.run
    assert run.first_run == failed.run
    assert keys[0] == keys[1]
    assert not DeadLetter.objects.exists()


def test_who_listens_hears_of_a_hosted_run(hosted: Hosted) -> None:
    heard: list[str] = []

    def hear(name: str) -> Callable[..., None]:
        return lambda sender, run, **kwargs: heard.append(f"{name} {run.status}")

    receivers = {
        signal: hear(name)
        for signal, name in (
            (run_started, "started"),
            (step_completed, "completed"),
            (step_failed, "failed"),
            (run_finished, "finished"),
        )
    }
    for signal, receiver in receivers.items():
        signal.connect(receiver)
    try:
        child.trigger(1)
        fails.using(retries=0).trigger(1)
        hosted.run()
    finally:
        for signal, receiver in receivers.items():
            signal.disconnect(receiver)
    assert Counter(heard) == {
        "started running": 2,
        "completed running": 1,
        "failed failed": 1,
        "finished success": 1,
        "finished failed": 1,
    }


def test_a_second_answer_finds_that_nobody_waits(hosted: Hosted) -> None:
    handle = waits.trigger(1)
    hosted.run()
    assert Waiter.objects.get().state == Waiter.State.WAITING
    assert len(get_client().notify("approve-it", {"by": "me"}, run_id=handle.id)) == 1
    assert Waiter.objects.get().state == Waiter.State.RESOLVED  # before the engine has called again
    hosted.run()
    assert handle.run.status == Run.Status.SUCCESS


# Deliveries that come twice, late, and in another order


def repeat(hosted: Hosted, choose: Callable[[HttpRequest], bool] = lambda request: True) -> None:
    """Have the engine make its deliveries again, in the reverse order."""
    for request in reversed([request for request in hosted.service.deliveries if choose(request)]):
        hosted.service.network(request, 10)


@pytest.mark.parametrize("flow", [plain, parallel, fails, parent], ids=lambda flow: flow.name)
def test_deliveries_that_come_again_change_nothing(hosted: Hosted, flow: Any) -> None:
    flow.trigger(5)
    hosted.run(skip_delays=True)
    before = outline(), Attempt.objects.count(), JournalEntry.objects.count(), ChannelEvent.objects.count()
    hosted.service.lazy_above = 10**9
    repeat(hosted)
    hosted.service.faults.clear()  # they were sent twice
    for run in hosted.service.runs:
        run.repeated.clear()
    assert (outline(), Attempt.objects.count(), JournalEntry.objects.count(), ChannelEvent.objects.count()) == before


def test_an_old_delivery_does_not_put_a_run_back(hosted: Hosted) -> None:
    handle = plain.trigger(5)
    hosted.run()
    assert handle.run.status == Run.Status.SLEEPING
    due = handle.run.due_at
    repeat(hosted)
    for run in hosted.service.runs:
        run.repeated.clear()
    run = handle.run
    assert (run.status, run.due_at, run.steps.count()) == (Run.Status.SLEEPING, due, 2)
    assert list(run.steps.order_by("step_id").values_list("status", flat=True)) == ["success", "sleeping"]


# A mirror that is broken


def test_a_broken_mirror_breaks_no_delivery(
    hosted: Hosted, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    handle = plain.trigger(5)

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise OperationalError("the table is on fire")

    with monkeypatch.context() as patched:
        patched.setattr(recorder, "changing", broken)
        hosted.run()
    assert handle.run.status == Run.Status.QUEUED
    assert "workflow_sync" in caplog.text
    hosted.run(skip_delays=True)
    run = handle.run  # what was missed came with the next delivery
    assert (run.status, run.result) == (Run.Status.SUCCESS, "12")
    assert list(run.steps.order_by("step_id").values_list("name", "status")) == [
        ("one", "success"),
        ("rest", "success"),
        ("two", "success"),
    ]


def test_a_run_that_was_taken_for_failed_goes_on_when_it_does(hosted: Hosted) -> None:
    handle = child.trigger(1)
    Run.objects.filter(run_id=handle.id).update(status=Run.Status.FAILED, error="it seemed so")
    hosted.run()
    assert (handle.run.status, handle.run.error) == (Run.Status.SUCCESS, "")


def test_events_of_a_run_that_is_over_are_dropped_and_those_from_outside_kept(hosted: Hosted) -> None:
    handle = child.trigger(1)
    hosted.run()
    before = ChannelEvent.objects.count()
    recorder.emit(handle.id, "late", {})
    assert ChannelEvent.objects.count() == before
    recorder.emit_from_outside(handle.id, "comment", {"text": "well done"})
    assert ChannelEvent.objects.count() == before + 1
