"""Several steps in one call: each is committed before the next begins, and nothing else about a run changes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from django_workflow import AsyncWorkflowContext, WorkflowContext, step, workflow
from django_workflow.engine.worker import Worker
from django_workflow.models import Attempt, Delivery, JournalEntry, Run, Step
from django_workflow.testing import run_workflows
from tests.effects.models import Effect
from tests.effects.workflows import STEPS, plain_effects
from tests.engine.test_kill import finished_steps
from tests.engine.workers import WorkerProcess, eventually

pytestmark = pytest.mark.django_db(transaction=True)

calls: list[str] = []


@pytest.fixture
def running() -> Iterator[Worker]:
    calls.clear()
    worker = Worker(concurrency=4)
    worker.start()
    yield worker
    assert worker.drain()


def finished(handle: Any) -> Run:
    eventually(lambda: handle.run.is_finished)
    run: Run = handle.run
    return run


@workflow(name="goes-on", steps_per_call=4)
def goes_on(ctx: WorkflowContext[int]) -> int:
    calls.append("call")
    return sum(ctx.run(f"step {number}", lambda number=number: number) for number in range(ctx.request_payload))


@workflow(name="goes-on-async", steps_per_call=4)
async def goes_on_async(ctx: AsyncWorkflowContext[int]) -> int:
    calls.append("call")
    total = 0
    for number in range(ctx.request_payload):
        total += await ctx.run(f"step {number}", lambda number=number: number)
    both = await asyncio.gather(ctx.run("left", lambda: 1), ctx.run("right", lambda: 2))
    return total + sum(both)


def test_a_call_runs_as_many_steps_as_it_may(running: Worker) -> None:
    run = finished(goes_on.trigger(10))
    assert (run.status, run.result) == (Run.Status.SUCCESS, "45")
    assert len(calls) == 3  # 4 + 4 + 2 and the end
    assert list(run.steps.order_by("step_id").values_list("step_id", "status", "attempts")) == [
        (number, "success", 1) for number in range(1, 11)
    ]
    positions = JournalEntry.objects.filter(run=run).order_by("position").values_list("position", "step_id")
    assert list(positions) == [(number, number) for number in range(1, 11)]
    assert not Delivery.objects.exists()


def test_an_async_workflow_goes_on_too_and_its_groups_run_by_themselves(running: Worker) -> None:
    run = finished(goes_on_async.trigger(6))
    assert (run.status, run.result) == (Run.Status.SUCCESS, "18")
    assert run.steps.count() == 8


def test_a_step_is_committed_before_the_next_begins(running: Worker) -> None:
    @workflow(name="looks-back", steps_per_call=10)
    def looks_back(ctx: WorkflowContext[None]) -> list[int]:
        def count() -> int:
            return Step.objects.filter(run__run_id=ctx.workflow_run_id, status=Step.Status.SUCCESS).count()

        return [ctx.run(f"step {number}", count) for number in range(5)]

    assert finished(looks_back.trigger()).result == "[0,1,2,3,4]"


def test_a_step_that_fails_is_tried_again_alone_and_then_one_step_runs_per_call(running: Worker) -> None:
    failures = iter([True, False])

    @workflow(name="fails-inside", steps_per_call=10, retries=1, retry_delay="1")
    def fails_inside(ctx: WorkflowContext[None]) -> None:
        ctx.run("first", calls.append, "first")

        def second() -> None:
            calls.append("second")
            if next(failures):
                raise ValueError("not yet")

        ctx.run("second", second)
        ctx.run("third", calls.append, "third")

    run = finished(fails_inside.trigger())
    assert run.status == Run.Status.SUCCESS
    assert calls == ["first", "second", "second", "third"]
    assert Attempt.objects.get(run=run).step_name == "second"


def test_a_canceled_run_goes_on_no_further(running: Worker) -> None:
    reached, go_on = Event(), Event()

    @workflow(name="canceled-inside", steps_per_call=10)
    def canceled_inside(ctx: WorkflowContext[None]) -> None:
        ctx.run("first", dict)
        ctx.run("second", lambda: (reached.set(), go_on.wait(60))[1])
        ctx.run("third", calls.append, "third")

    handle = canceled_inside.trigger()
    assert reached.wait(60)
    handle.cancel()
    go_on.set()
    assert finished(handle).status == Run.Status.CANCELED
    eventually(lambda: running._in_flight == 0)
    assert calls == []
    assert not Delivery.objects.exists()


def test_waits_sleeps_and_atomic_steps_end_their_call(running: Worker) -> None:
    @workflow(name="ends-its-call", steps_per_call=10)
    def ends_its_call(ctx: WorkflowContext[None]) -> int:
        calls.append("call")
        ctx.run("one", dict)
        ctx.sleep("nap", 0.01)
        ctx.run("two", dict, atomic=True)
        ctx.parallel(step.run("left", dict), step.run("right", dict))
        return ctx.run("last", lambda: 7)

    run = finished(ends_its_call.trigger())
    assert (run.status, run.result) == (Run.Status.SUCCESS, "7")
    assert [row.status for row in run.steps.all()] == ["success"] * 6


def test_the_setting_holds_for_workflows_that_say_nothing(running: Worker, settings: Any) -> None:
    settings.DJANGO_WORKFLOW = {**settings.DJANGO_WORKFLOW, "steps_per_call": 20}

    @workflow(name="by-setting")
    def by_setting(ctx: WorkflowContext[None]) -> None:
        calls.append("call")
        for number in range(10):
            ctx.run(f"step {number}", dict)

    finished(by_setting.trigger())
    assert len(calls) == 1


def test_a_second_ends_a_call(running: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_workflow.serve.submit.LONGEST_CALL", -1.0)
    finished(goes_on.trigger(3))
    assert len(calls) == 4


def test_test_helpers_run_one_step_per_call() -> None:
    calls.clear()
    handle = goes_on.trigger(3)
    run_workflows()
    assert handle.run.result == "3"
    assert len(calls) == 4


def test_many_runs_share_the_commits_of_their_steps(running: Worker) -> None:
    handles = [goes_on.trigger(8) for _ in range(20)]
    for handle in handles:
        assert finished(handle).result == "28"
    assert Step.objects.filter(status=Step.Status.SUCCESS).count() == 160


@pytest.mark.slow
def test_a_worker_killed_between_two_steps_of_a_call_loses_and_repeats_none_that_is_committed(
    tmp_path: Path,
) -> None:
    handle = plain_effects.trigger(0.02)
    kills = (1, 4, 7)
    for target in kills:
        with WorkerProcess(log=tmp_path / "worker.log", settings="tests.engine.several_steps_settings") as worker:
            eventually(lambda target=target: finished_steps(handle.id) >= target)  # type: ignore[misc]
            worker.kill()
    with WorkerProcess(log=tmp_path / "worker.log", settings="tests.engine.several_steps_settings"):
        eventually(lambda: handle.run.is_finished)
    assert handle.run.result == "[" + ",".join(f'"step {number}"' for number in range(STEPS)) + "]"
    effects = Counter(Effect.objects.filter(run_id=handle.id).values_list("step", flat=True))
    assert len(effects) == STEPS
    # Only the step that was under way when its worker died may have run again.
    assert effects.total() <= STEPS + len(kills)
