"""What was missed is put right from the engine's logs, by the stub's documents of the hosted service."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from django_workflow import WorkflowContext, step, workflow
from django_workflow.apps import make_observer
from django_workflow.client.client import get_client
from django_workflow.client.observer import use_observers
from django_workflow.mirror import backfill
from django_workflow.mirror.backfill import Checked
from django_workflow.mirror.run_rows import CHECK_AFTER
from django_workflow.models import ChannelEvent, DeadLetter, Outbox, Run, Step, Waiter
from django_workflow.presentation import values
from django_workflow.protocol.requests import CancelRuns
from tests.hosted_stub import HttpRequest, NoAnswer
from tests.mirror.conftest import Hosted
from tests.scenarios.hosted_edges import to_site


@workflow(name="backfilled")
def backfilled(ctx: WorkflowContext[int]) -> int:
    first = ctx.run("one", lambda: ctx.request_payload + 1)
    ctx.sleep("rest", "1h")
    return ctx.run("two", lambda: first * 2)


@workflow(name="backfilled-parallel")
def branches(ctx: WorkflowContext[int]) -> list[Any]:
    return list(
        ctx.parallel(
            step.run("left", lambda: 1),
            step.wait_for_event("right", "right-event", timeout="1h"),
            step.sleep("nap", "1m"),
        )
    )


@workflow(name="backfilled-child")
def child(ctx: WorkflowContext[int]) -> int:
    return ctx.run("double", lambda: ctx.request_payload * 2)


@workflow(name="backfilled-parent")
def parent(ctx: WorkflowContext[int]) -> Any:
    return ctx.invoke("ask", child, 21).body


@workflow(name="backfilled-fails", retries=1)
def fails(ctx: WorkflowContext[int]) -> None:
    ctx.run("boom", lambda: 1 / 0)


def rows_of(run: Run) -> dict[str, Any]:
    steps = list(run.steps.order_by("step_id"))
    return {
        "run": (run.status, run.result, run.error, run.payload, run.trigger_kind),
        "steps": [(row.step_id, row.name, row.step_type, row.status, row.concurrent) for row in steps],
        "results": values.step_results(run, steps),
        "attempts": [(row.number, row.status, row.error) for row in run.attempts.order_by("number")],
        "parent": run.parent.run_id if run.parent else None,
        "waiters": [(row.event_id, row.state) for row in run.waiters.all()],
    }


def forget(run_id: str, *, whole: bool = False) -> None:
    """As if nothing had been heard of a run since it was triggered; or (`whole`) as if there were no row of it."""
    runs = Run.objects.filter(run_id=run_id)
    run = runs.get()
    if whole:
        run.delete()
        return
    for rows in (run.steps, run.journal, run.attempts, run.waiters):
        rows.all().delete()
    DeadLetter.objects.filter(run=run).delete()
    runs.update(status="queued", result=None, error="", error_step="", started_at=None, finished_at=None)
    runs.update(check_at=run.created_at)


@pytest.mark.parametrize("flow", [backfilled, branches, parent, fails], ids=lambda flow: flow.name)
@pytest.mark.parametrize("whole", [False, True], ids=["behind", "missing"])
@pytest.mark.parametrize("over", [False, True], ids=["going on", "over"])
def test_a_run_that_was_missed_is_as_it_would_have_been(hosted: Hosted, flow: Any, whole: bool, over: bool) -> None:
    handle = flow.trigger(5)
    hosted.run(skip_delays=over)
    expected = rows_of(handle.run)
    forget(handle.id, whole=whole)
    assert backfill.check_run(hosted.transport, handle.id) == Checked(asked=1, changed=1)
    found = rows_of(handle.run)
    if whole:  # who has started it is not told
        assert found["run"][4] == Run.TriggerKind.API
        found["run"] = (*found["run"][:4], expected["run"][4])
    if over:  # waits that are over stand in the steps alone
        found["waiters"] = expected["waiters"] = []
    assert found == expected
    assert backfill.check_run(hosted.transport, handle.id) == Checked(asked=1, changed=0)


def test_asking_again_tells_nothing_again(hosted: Hosted) -> None:
    handle = fails.trigger(5)
    hosted.run()
    backfill.check_run(hosted.transport, handle.id)
    events = ChannelEvent.objects.count()
    for _ in range(3):
        backfill.check_run(hosted.transport, handle.id)
    assert ChannelEvent.objects.count() == events


def test_the_dead_letter_of_a_failed_run_is_found(hosted: Hosted) -> None:
    handle = fails.trigger(5)
    hosted.run(skip_delays=True)
    forget(handle.id)
    backfill.check_run(hosted.transport, handle.id)
    (letter,) = hosted.service.letters.values()
    row = DeadLetter.objects.get(run=handle.run)
    assert (row.dlq_id, row.status) == (letter.id, 500)
    assert row.error == "ZeroDivisionError: division by zero"


def test_a_sleeping_run_is_shown_asleep(hosted: Hosted) -> None:
    handle = backfilled.trigger(5)
    hosted.run()
    due = handle.run.due_at
    forget(handle.id)
    backfill.check_run(hosted.transport, handle.id)
    run = handle.run
    assert run.status == Run.Status.SLEEPING
    assert abs(run.due_at - due) < timedelta(seconds=1)


# Which runs are asked about


@pytest.fixture
def deaf(hosted: Hosted) -> Iterator[Callable[[], None]]:
    """Call it: from then on deliveries are answered, but no row is written."""
    yield lambda: use_observers(None)
    use_observers(make_observer)


def test_a_run_that_is_silent_for_too_long_is_asked_about(hosted: Hosted, deaf: Any) -> None:
    handle = child.trigger(5)
    deaf()
    hosted.run()
    assert backfill.check_due(hosted.transport) == Checked()
    hosted.clock.advance(CHECK_AFTER)
    assert backfill.check_due(hosted.transport) == Checked(asked=1, changed=1)
    assert handle.run.status == Run.Status.SUCCESS
    hosted.clock.advance("1d")
    assert backfill.check_due(hosted.transport) == Checked()  # it is over


def test_a_run_that_sleeps_is_left_alone_until_it_should_have_woken(hosted: Hosted, deaf: Any) -> None:
    handle = backfilled.trigger(5)
    hosted.run()
    deaf()
    hosted.clock.advance("59m")
    assert backfill.check_due(hosted.transport) == Checked()
    hosted.run(skip_delays=True)
    hosted.clock.advance(CHECK_AFTER)
    assert backfill.check_due(hosted.transport).changed == 1
    assert handle.run.status == Run.Status.SUCCESS


def test_a_run_that_was_canceled_elsewhere_is_found_out(hosted: Hosted) -> None:
    @workflow(name="backfilled-long")
    def long(ctx: WorkflowContext[None]) -> None:
        ctx.sleep("long", "90d")

    handle = long.trigger()
    hosted.run()
    hosted.transport.inner.send(CancelRuns(run_ids=(handle.id,)))
    hosted.clock.advance("7h")
    assert backfill.check_due(hosted.transport).changed == 1
    run = handle.run
    assert run.status == Run.Status.CANCELED
    assert run.steps.get().status == Step.Status.CANCELED


def test_a_run_whose_end_was_only_guessed_is_asked_about(hosted: Hosted) -> None:
    handle = fails.trigger(5)
    hosted.run()
    hosted.service.network = no_failure_callback
    hosted.run(skip_delays=True)
    hosted.clock.advance(CHECK_AFTER)
    backfill.check_due(hosted.transport)
    run = handle.run
    assert (run.status, run.check_at) == (Run.Status.FAILED, None)
    assert DeadLetter.objects.get().failure_state == DeadLetter.FailureState.FAILED


def no_failure_callback(request: HttpRequest, timeout: float) -> Any:
    if request.header("Upstash-Workflow-Failure-Callback"):
        raise NoAnswer("the site is away")
    return to_site(request, timeout)


def test_one_run_that_cannot_be_read_holds_up_no_other(hosted: Hosted, deaf: Any) -> None:
    first, second = child.trigger(1), child.trigger(2)
    deaf()
    hosted.run()
    hosted.clock.advance(CHECK_AFTER)
    hosted.refuse(500)
    assert backfill.check_due(hosted.transport) == Checked(asked=2, changed=1, failed=1)
    assert {first.run.status, second.run.status} == {Run.Status.QUEUED, Run.Status.SUCCESS}
    hosted.clock.advance(CHECK_AFTER)
    assert backfill.check_due(hosted.transport) == Checked(asked=1, changed=1)


# Runs that the engine does not know


def test_a_run_in_the_outbox_is_no_lost_one(hosted: Hosted) -> None:
    hosted.away()
    handle = child.trigger(1)
    hosted.clock.advance("2h")
    assert backfill.check_run(hosted.transport, handle.id) == Checked(asked=1)
    assert handle.run.status == Run.Status.QUEUED


def test_a_run_that_the_engine_has_forgotten_is_given_up_after_a_while(hosted: Hosted) -> None:
    handle = child.trigger(1)
    hosted.service.runs.clear()
    hosted.service.messages.clear()
    backfill.check_run(hosted.transport, handle.id)
    assert handle.run.status == Run.Status.QUEUED  # its logs may lag behind
    hosted.clock.advance("2h")
    assert backfill.check_run(hosted.transport, handle.id) == Checked(asked=1, changed=1)
    assert handle.run.status == Run.Status.FAILED
    assert "does not know this run any more" in handle.run.error
    assert Outbox.objects.get().is_sent


# All runs since


def test_runs_that_nobody_here_has_heard_of_are_found(hosted: Hosted) -> None:
    handles = [child.trigger(number) for number in range(12)]  # more than a page
    hosted.run()
    Run.objects.all().delete()
    start = hosted.clock.now() - timedelta(minutes=1)
    assert backfill.check_since(hosted.transport, start).changed == 12
    assert {run.run_id for run in Run.objects.all()} == {handle.id for handle in handles}
    assert backfill.check_since(hosted.transport, hosted.clock.now() + timedelta(days=1)) == Checked()


def test_runs_of_other_sites_are_left_alone(hosted: Hosted, settings: Any) -> None:
    child.trigger(1)
    hosted.run()
    Run.objects.all().delete()
    settings.DJANGO_WORKFLOW = {**settings.DJANGO_WORKFLOW, "base_url": "https://other.example"}
    assert backfill.check_since(hosted.transport, hosted.clock.now() - timedelta(minutes=1)) == Checked()
    assert not Run.objects.exists()


def test_a_wait_that_was_missed_can_be_answered(hosted: Hosted, deaf: Any) -> None:
    handle = branches.trigger(1)
    deaf()
    hosted.run()
    backfill.check_run(hosted.transport, handle.id)
    assert Waiter.objects.get().event_id == "right-event"
    assert get_client().notify("right-event", run_id=handle.id)
    assert Waiter.objects.get().state == Waiter.State.RESOLVED
