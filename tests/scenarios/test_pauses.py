"""Runs that are paused, go on, and are tried again before their time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from django_workflow import WorkflowContext, step, workflow
from django_workflow.client.client import get_client
from django_workflow.control.actions import ACTIONS, ActionRefused
from django_workflow.errors import EngineError
from django_workflow.models import ChannelEvent, Run, Step
from tests.scenarios.conftest import Engine

EMBEDDED = pytest.mark.edges("in_process", "on_the_wire", reason="the hosted engine has no such calls")
HOSTED = pytest.mark.edges("apart", "stub", reason="refused there alone")

ran: list[str] = []
meanwhile: dict[str, Callable[[], Any]] = {}
"""What happens from outside while a step of that name runs."""
failures: dict[str, int] = {}
"""How often a step of that name has still to fail."""


@pytest.fixture(autouse=True)
def _fresh() -> None:
    ran.clear()
    meanwhile.clear()
    failures.clear()


def work(name: str) -> str:
    ran.append(name)
    if name in meanwhile:
        meanwhile.pop(name)()
    if failures.get(name):
        failures[name] -= 1
        raise ConnectionError(f"{name} is away")
    return name


@workflow(name="pausable", retries=3)
def pausable(ctx: WorkflowContext[None]) -> list[Any]:
    first = ctx.run("first", work, "first")
    answer = ctx.wait_for_event("ask", "pausable-ask", timeout="1h")
    ctx.sleep("rest", "1d")
    return [first, answer.timeout or answer.event_data, ctx.run("last", work, "last")]


@workflow(name="pausable-branches", retries=3)
def branches(ctx: WorkflowContext[None]) -> list[Any]:
    return list(ctx.parallel(*(step.run(name, work, name) for name in ("a", "b")), step.sleep("rest", "1h")))


@workflow(name="pausable-child")
def child(ctx: WorkflowContext[None]) -> str:
    return ctx.run("childs", work, "childs")


@workflow(name="pausable-parent")
def parent(ctx: WorkflowContext[None]) -> Any:
    return ctx.invoke("child", workflow=child).body


def status_of(handle: Any) -> str:
    return str(handle.run.status)


def pause(handle: Any) -> None:
    ACTIONS["pause"].perform(handle.run, by=None)


def unpause(handle: Any) -> None:
    ACTIONS["unpause"].perform(handle.run, by=None)


@EMBEDDED
def test_a_paused_run_does_not_start(engine: Engine) -> None:
    handle = pausable.trigger()
    pause(handle)
    assert engine.run(skip_delays=True) == 0
    assert (status_of(handle), ran) == ("paused", [])
    unpause(handle)
    assert status_of(handle) == "queued"
    assert engine.finish(handle).result == '["first",true,"last"]'


@EMBEDDED
def test_a_step_that_runs_may_end_and_its_result_is_kept(engine: Engine) -> None:
    handle = pausable.trigger()
    meanwhile["first"] = lambda: pause(handle)
    engine.run()
    assert (status_of(handle), ran) == ("paused", ["first"])
    assert handle.run.steps.get(step_id=1).status == Step.Status.SUCCESS
    assert engine.run(skip_delays=True) == 0
    unpause(handle)
    engine.finish(handle)
    assert ran == ["first", "last"]


@EMBEDDED
def test_a_step_that_fails_meanwhile_is_tried_again_when_the_run_goes_on(engine: Engine) -> None:
    handle = pausable.trigger()
    meanwhile["first"] = lambda: pause(handle)
    failures["first"] = 1
    engine.run()
    assert (status_of(handle), ran) == ("paused", ["first"])
    assert engine.run(skip_delays=True) == 0
    unpause(handle)
    assert (status_of(handle), handle.run.due_at is not None) == ("retrying", True)
    engine.finish(handle)
    assert ran == ["first", "first", "last"]
    assert handle.run.steps.get(step_id=1).attempts == 2


@EMBEDDED
def test_an_event_is_taken_meanwhile(engine: Engine) -> None:
    handle = pausable.trigger()
    engine.run()
    pause(handle)
    (told,) = get_client().notify("pausable-ask", "yes", run_id=handle.id)
    assert told.waiter is not None
    assert engine.run(skip_delays=True) == 0
    assert status_of(handle) == "paused"
    unpause(handle)
    assert engine.finish(handle).result == '["first","yes","last"]'


@EMBEDDED
def test_a_wait_times_out_meanwhile(engine: Engine) -> None:
    handle = pausable.trigger()
    engine.run()
    pause(handle)
    engine.clock.advance("2h")
    assert engine.run() == 0
    assert (status_of(handle), handle.run.steps.get(name="ask").status) == ("paused", "success")
    unpause(handle)
    assert engine.finish(handle).result == '["first",true,"last"]'


@EMBEDDED
def test_a_sleep_that_ends_meanwhile_is_over_when_the_run_goes_on(engine: Engine) -> None:
    handle = pausable.trigger()
    engine.run()
    get_client().notify("pausable-ask", 1, run_id=handle.id)
    engine.run()
    assert status_of(handle) == "sleeping"
    pause(handle)
    engine.clock.advance("2d")
    assert engine.run() == 0
    unpause(handle)
    before = engine.clock.now()
    engine.run()
    assert (status_of(handle), engine.clock.now()) == ("success", before)


@EMBEDDED
def test_a_sleep_goes_on_that_is_longer_than_the_pause(engine: Engine) -> None:
    handle = pausable.trigger()
    engine.run()
    get_client().notify("pausable-ask", 1, run_id=handle.id)
    engine.run()
    due = handle.run.due_at
    pause(handle)
    unpause(handle)
    run = handle.run
    assert (run.status, run.due_at, run.why) == ("sleeping", due, f"Sleeping until {due:%Y-%m-%d %H:%M:%S} UTC.")
    engine.run()
    assert status_of(handle) == "sleeping"
    engine.finish(handle)


@EMBEDDED
def test_parallel_branches_stop_and_go_on(engine: Engine) -> None:
    handle = branches.trigger()
    meanwhile["a"] = lambda: pause(handle)
    engine.run()
    done = list(ran)
    assert status_of(handle) == "paused"
    assert engine.run(skip_delays=True) == 0
    assert ran == done
    unpause(handle)
    assert engine.finish(handle).result == '["a","b",null]'
    assert sorted(ran) == ["a", "b"]


@EMBEDDED
def test_an_invoked_run_that_ends_meanwhile_is_heard_of(engine: Engine) -> None:
    handle = parent.trigger()
    meanwhile["childs"] = lambda: pause(handle)
    engine.run()
    assert (status_of(handle), handle.run.children.get().status) == ("paused", "success")
    unpause(handle)
    assert engine.finish(handle).result == '"childs"'


@EMBEDDED
def test_a_paused_run_can_be_canceled(engine: Engine) -> None:
    handle = pausable.trigger()
    pause(handle)
    assert handle.cancel()
    assert (status_of(handle), engine.left()) == ("canceled", 0)
    with pytest.raises(EngineError):
        get_client().unpause(handle.id)


@EMBEDDED
def test_pausing_is_told_and_refused_twice(engine: Engine) -> None:
    handle = pausable.trigger()
    pause(handle)
    assert get_client().pause(handle.id) is False
    with pytest.raises(ActionRefused, match="paused already"):
        pause(handle)
    unpause(handle)
    assert get_client().unpause(handle.id) is False
    with pytest.raises(ActionRefused, match="not paused"):
        unpause(handle)
    events = ChannelEvent.objects.filter(channel=handle.id).order_by("position")
    kinds = [kind for event in events for kind in ("runPause", "runUnpause") if kind in event.data]
    assert kinds == ["runPause", "runUnpause"]


@EMBEDDED
def test_a_retry_is_made_now_and_counts_on(engine: Engine) -> None:
    handle = pausable.trigger()
    failures["first"] = 2
    engine.run()
    assert status_of(handle) == "retrying"
    before = engine.clock.now()
    ACTIONS["retry_now"].perform(handle.run, by=None)
    engine.run()
    assert engine.clock.now() == before
    assert (ran, handle.run.steps.get(step_id=1).attempts) == (["first", "first"], 2)
    ACTIONS["retry_now"].perform(handle.run, by=None)
    engine.run()
    assert status_of(handle) == "waiting"
    with pytest.raises(ActionRefused, match="does not wait for a retry"):
        ACTIONS["retry_now"].perform(handle.run, by=None)


@EMBEDDED
def test_retries_have_an_end_however_they_are_hurried(engine: Engine) -> None:
    handle = pausable.trigger()
    failures["first"] = 9
    engine.run()
    for _ in range(3):
        assert get_client().retry_now(handle.id) == 1
        engine.run()
    assert (status_of(handle), len(ran)) == ("failed", 4)


@HOSTED
def test_a_hosted_run_cannot_be_held_up(engine: Engine) -> None:
    handle = pausable.trigger()
    for name in ("pause", "retry_now"):
        assert "hosted engine" in ACTIONS[name].why_not(handle.run)
        assert not ACTIONS[name].possible(Run.objects.all())
        with pytest.raises(ActionRefused, match="hosted engine"):
            ACTIONS[name].perform(handle.run, by=None)
    with pytest.raises(EngineError) as caught:
        get_client().pause(handle.id)
    assert caught.value.status == 501
    engine.finish(handle)
