"""Failed runs started again: what a resumed run keeps, what it asks for, and who hears of its end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from django_workflow import WorkflowContext, step, workflow
from django_workflow.apps import make_transport
from django_workflow.client.client import Client
from django_workflow.client.options import run_overrides
from django_workflow.client.transports import WireTransport, use_transport
from django_workflow.engine import resuming, resumption
from django_workflow.engine.facts import Answer
from django_workflow.engine.pruner import prune
from django_workflow.engine.records import decode_config
from django_workflow.errors import EngineError
from django_workflow.models import DeadLetter, Delivery, JournalEntry, Run, Step, Waiter
from django_workflow.protocol.invoke import InvokeBody, encode_invoke
from django_workflow.protocol.publish import FEATURES, Message, WorkflowFields
from django_workflow.protocol.resources import StartedRuns
from django_workflow.protocol.steps import Step as WireStep
from django_workflow.protocol.steps import decode_step, encode_step
from django_workflow.testing import CallAnswer, WorkflowClock, mock_calls, run_workflows, send_event, workflow_clock
from django_workflow.testing.factories import make_run
from tests.engine import deliveries as by_hand
from tests.engine.deliveries import Hand
from tests.engine.threads import outcomes_at_once
from tests.selection import edges_here

calls: list[str] = []
keys: dict[str, list[str]] = {}
broken: set[str] = set()


@pytest.fixture(autouse=True)
def _fresh() -> None:
    calls.clear()
    keys.clear()
    broken.clear()


class Engine:
    """Runs workflows to their end, in process or with everything over its wire form."""

    def __init__(self, clock: WorkflowClock, trusted: bool) -> None:
        self.clock = clock
        self.trusted = trusted
        self.client = Client()

    def run(self, *, skip_delays: bool = False) -> None:
        run_workflows(trusted=self.trusted, skip_delays=skip_delays)

    def failed(self, handle: Any) -> Run:
        self.run()
        run: Run = handle.run
        assert run.status == Run.Status.FAILED, f"{run.status} {run.why}"
        return run

    def resume(self, run: Run, **values: Any) -> Run:
        """Resume a failed run; the run that goes on in its place."""
        return self.only(self.client.resume(str(run.dead_letter.pk), **values))

    def restart(self, run: Run, **values: Any) -> Run:
        return self.only(self.client.restart(str(run.dead_letter.pk), **values))

    def only(self, started: StartedRuns) -> Run:
        (one,) = started.workflow_runs
        return Run.objects.get(run_id=one.workflow_run_id)

    def finish(self, run: Run, *, skip_delays: bool = True) -> Run:
        self.run(skip_delays=skip_delays)
        run.refresh_from_db()
        assert run.status == Run.Status.SUCCESS, f"{run.status}: {run.error} {run.why}"
        assert run.group_open == 0
        assert not Delivery.objects.exists()
        assert not run.steps.exclude(status=Step.Status.SUCCESS).exists()
        positions = list(JournalEntry.objects.filter(run=run).order_by("position").values_list("position", flat=True))
        assert positions == list(range(1, len(positions) + 1))
        return run


@pytest.fixture(params=edges_here(("in_process", "on_the_wire")))
def engine(request: pytest.FixtureRequest, db: None) -> Iterator[Engine]:
    trusted = request.param == "in_process"
    if not trusted:
        use_transport(lambda: WireTransport(make_transport()))
    try:
        with workflow_clock() as clock:
            yield Engine(clock, trusted)
    finally:
        use_transport(make_transport)


def work(ctx: WorkflowContext[Any], name: str) -> str:
    """A step that notes that it ran, and fails while it is broken."""
    calls.append(name)
    keys.setdefault(name, []).append(ctx.idempotency_key)
    if name in broken:
        raise ConnectionError(f"{name} is broken")
    return name


# Sequential steps


@workflow(name="resume-sequence", retries=0)
def sequence(ctx: WorkflowContext[int]) -> list[str]:
    return [ctx.run(f"step {n}", work, ctx, f"step {n}") for n in range(ctx.request_payload)]


@workflow(name="resume-async-sequence", retries=0)
async def async_sequence(ctx: WorkflowContext[int]) -> list[str]:
    return [await ctx.run(f"step {n}", work, ctx, f"step {n}") for n in range(ctx.request_payload)]


@pytest.mark.parametrize("flow", [sequence, async_sequence], ids=["sync", "async"])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_finished_steps_do_not_run_again(engine: Engine, flow: Any, at: int) -> None:
    broken.add(f"step {at}")
    failed = engine.failed(flow.trigger(3))
    assert calls == [f"step {n}" for n in range(at + 1)]
    broken.clear()
    run = engine.resume(failed)
    assert run.run_id.startswith("wfr_")
    assert run.run_id != failed.run_id
    assert (run.resumed_from, run.first_run, run.trigger_kind) == (failed, failed, Run.TriggerKind.RESUME)
    assert run.status == Run.Status.QUEUED
    assert list(run.steps.order_by("step_id").values_list("name", "status")) == [
        (f"step {n}", Step.Status.SUCCESS) for n in range(at)
    ]
    assert engine.finish(run).result == '["step 0","step 1","step 2"]'
    assert calls == [*(f"step {n}" for n in range(at + 1)), *(f"step {n}" for n in range(at, 3))]
    failed.refresh_from_db()
    assert failed.status == Run.Status.FAILED


def test_the_dead_letter_goes_when_its_run_is_resumed(engine: Engine) -> None:
    broken.add("step 0")
    failed = engine.failed(sequence.trigger(1))
    dlq_id = str(failed.dead_letter.pk)
    engine.resume(failed)
    assert not DeadLetter.objects.exists()
    with pytest.raises(EngineError, match="no dead letter") as caught:
        engine.client.resume(dlq_id)
    assert caught.value.status == 404
    assert Run.objects.count() == 2


def test_idempotency_keys_come_from_the_first_run_of_the_chain(engine: Engine) -> None:
    broken.add("step 1")
    failed = engine.failed(sequence.trigger(3))
    again = engine.resume(failed)
    engine.run()
    again.refresh_from_db()
    assert again.status == Run.Status.FAILED
    broken.clear()
    third = engine.resume(again)
    assert (third.resumed_from, third.first_run) == (again, failed)
    engine.finish(third)
    assert len(keys["step 1"]) == 3
    assert len(set(keys["step 1"])) == 1
    assert len(keys["step 0"]) == 1


def test_a_restarted_run_begins_anew_with_keys_of_its_own(engine: Engine) -> None:
    broken.add("step 1")
    failed = engine.failed(sequence.trigger(2))
    broken.clear()
    run = engine.restart(failed)
    assert (run.resumed_from, run.first_run, run.trigger_kind) == (failed, None, Run.TriggerKind.RESTART)
    assert not run.steps.exists()
    assert not DeadLetter.objects.exists()
    assert engine.finish(run).result == '["step 0","step 1"]'
    assert calls == ["step 0", "step 1", "step 0", "step 1"]
    assert len(set(keys["step 1"])) == 2


@workflow(name="resume-at-once", retries=0)
def fails_at_once(ctx: WorkflowContext[None]) -> str:
    if "at once" in broken:
        raise RuntimeError("before the first step")
    return ctx.run("only", work, ctx, "only")


def test_a_run_that_failed_before_its_first_step_is_resumed_from_its_payload(engine: Engine) -> None:
    broken.add("at once")
    failed = engine.failed(fails_at_once.trigger())
    broken.clear()
    assert engine.finish(engine.resume(failed)).result == '"only"'


# Parallel steps


@workflow(name="resume-parallel", retries=0)
def parallel(ctx: WorkflowContext[int]) -> list[str]:
    ctx.run("before", work, ctx, "before")
    names = [f"branch {n}" for n in range(ctx.request_payload)]
    done = ctx.parallel(*(step.run(name, work, ctx, name) for name in names))
    ctx.run("after", work, ctx, "after")
    return list(done)


@workflow(name="resume-async-parallel", retries=0)
async def async_parallel(ctx: WorkflowContext[int]) -> list[str]:
    await ctx.run("before", work, ctx, "before")
    names = [f"branch {n}" for n in range(ctx.request_payload)]
    done = await asyncio.gather(*(ctx.run(name, work, ctx, name) for name in names))
    await ctx.run("after", work, ctx, "after")
    return list(done)


@pytest.mark.parametrize("flow", [parallel, async_parallel], ids=["sync", "async"])
@pytest.mark.parametrize("bad", [0, 1, 2, 3])
def test_finished_branches_are_kept_and_open_ones_run_again(engine: Engine, flow: Any, bad: int) -> None:
    broken.add(f"branch {bad}")
    failed = engine.failed(flow.trigger(4))
    done = failed.steps.filter(status=Step.Status.SUCCESS, concurrent=4)
    ran = set(done.values_list("name", flat=True))
    assert len(ran) == bad  # one delivery after the other
    broken.clear()
    before = len(calls)
    run = engine.resume(failed)
    assert run.group_open == 4 - len(ran)
    open_names = {f"branch {n}" for n in range(4)} - ran
    assert set(run.steps.filter(status=Step.Status.QUEUED).values_list("name", flat=True)) == open_names
    assert engine.finish(run).result == '["branch 0","branch 1","branch 2","branch 3"]'
    assert sorted(calls[before:]) == sorted([*open_names, "after"])
    assert len(set(keys[f"branch {bad}"])) == 1


def test_a_failure_after_a_group_keeps_all_of_it(engine: Engine) -> None:
    broken.add("after")
    failed = engine.failed(parallel.trigger(3))
    broken.clear()
    run = engine.resume(failed)
    assert run.group_open == 0
    assert run.steps.filter(status=Step.Status.SUCCESS).count() == 4
    engine.finish(run)
    assert sorted(calls) == sorted(["before", "branch 0", "branch 1", "branch 2", "after", "after"])


def test_a_group_may_fail_twice(engine: Engine) -> None:
    broken.update(("branch 1", "branch 2"))
    failed = engine.failed(parallel.trigger(3))
    broken.remove("branch 1")
    again = engine.resume(failed)
    engine.run()
    again.refresh_from_db()
    assert again.status == Run.Status.FAILED
    broken.clear()
    run = engine.finish(engine.resume(again))
    assert run.result == '["branch 0","branch 1","branch 2"]'
    assert calls.count("branch 0") == 1
    assert len(set(keys["branch 2"])) == 1


@workflow(name="resume-chains", retries=0)
async def chains(ctx: WorkflowContext[None]) -> list[str]:
    async def chain(name: str) -> str:
        first = await ctx.run(f"{name} one", work, ctx, f"{name} one")
        second = await ctx.run(f"{name} two", work, ctx, f"{name} two")
        return f"{first} {second}"

    return list(await asyncio.gather(chain("a"), chain("b")))


def test_the_second_of_two_groups_is_gone_on_with(engine: Engine) -> None:
    broken.add("b two")
    failed = engine.failed(chains.trigger())
    broken.clear()
    run = engine.resume(failed)
    assert run.group_open in (1, 2)
    assert engine.finish(run).result == '["a one a two","b one b two"]'
    assert [calls.count(name) for name in ("a one", "b one")] == [1, 1]


# Sleeps


@workflow(name="resume-sleeping-branch", retries=0)
def sleeping_branch(ctx: WorkflowContext[None]) -> list[Any]:
    return list(ctx.parallel(step.sleep("nap", "1h"), step.run("bad", work, ctx, "bad")))


@pytest.mark.parametrize("minutes", [10, 90])
def test_the_sleep_of_a_branch_ends_when_it_would_have_ended(engine: Engine, minutes: int) -> None:
    broken.add("bad")
    began = engine.clock.now()
    failed = engine.failed(sleeping_branch.trigger())
    broken.clear()
    engine.clock.advance(timedelta(minutes=minutes))
    run = engine.resume(failed)
    nap = run.steps.get(name="nap")
    still = minutes < 60
    assert nap.status == (Step.Status.SLEEPING if still else Step.Status.QUEUED)
    engine.run()
    run.refresh_from_db()
    assert run.status == (Run.Status.SLEEPING if still else Run.Status.SUCCESS)
    engine.finish(run)
    assert engine.clock.now() == began + timedelta(minutes=max(60, minutes))


@workflow(name="resume-after-sleep", retries=0)
def after_sleep(ctx: WorkflowContext[None]) -> str:
    ctx.sleep("nap", "1h")
    return ctx.run("then", work, ctx, "then")


def test_a_sleep_that_is_over_is_not_slept_again(engine: Engine) -> None:
    broken.add("then")
    handle = after_sleep.trigger()
    engine.run(skip_delays=True)
    broken.clear()
    run = engine.resume(handle.run)
    engine.run()
    run.refresh_from_db()
    assert run.status == Run.Status.SUCCESS


@workflow(name="resume-after-two-sleeps", retries=0)
def after_two_sleeps(ctx: WorkflowContext[None]) -> str:
    ctx.sleep("first nap", "1h")
    ctx.sleep("second nap", "1h")
    return ctx.run("then", work, ctx, "then")


def test_a_clock_that_was_set_back_wakes_no_sleep_again(engine: Engine) -> None:
    broken.add("then")
    handle = after_two_sleeps.trigger()
    engine.run(skip_delays=True)
    broken.clear()
    engine.clock._now -= timedelta(hours=2)
    run = engine.resume(handle.run)
    assert set(run.steps.values_list("status", flat=True)) == {Step.Status.SUCCESS}
    engine.run()
    run.refresh_from_db()
    assert run.status == Run.Status.SUCCESS


# Waits


@workflow(name="resume-after-wait", retries=0)
def after_wait(ctx: WorkflowContext[None]) -> Any:
    answer = ctx.wait_for_event("approval", "approve", timeout="1d")
    ctx.run("then", work, ctx, "then")
    return answer.event_data


def test_the_answer_of_a_wait_is_kept(engine: Engine) -> None:
    broken.add("then")
    handle = after_wait.trigger()
    engine.run()
    send_event("approve", {"yes": True})
    failed = engine.failed(handle)
    broken.clear()
    assert engine.finish(engine.resume(failed)).result == '{"yes":true}'


@workflow(name="resume-wait-branch", retries=0)
def wait_branch(ctx: WorkflowContext[None]) -> Any:
    answer, _ = ctx.parallel(
        step.wait_for_event("approval", "approve-branch", timeout="1d"), step.run("bad", work, ctx, "bad")
    )
    return answer.event_data


def test_an_open_wait_waits_again(engine: Engine) -> None:
    broken.add("bad")
    failed = engine.failed(wait_branch.trigger())
    assert not Waiter.objects.waiting().exists()
    broken.clear()
    run = engine.resume(failed)
    engine.run()
    run.refresh_from_db()
    assert run.status == Run.Status.WAITING
    assert Waiter.objects.waiting().get().run == run
    send_event("approve-branch", "yes")
    assert engine.finish(run).result == '"yes"'


def test_events_for_the_failed_run_reach_the_one_that_goes_on(engine: Engine) -> None:
    broken.add("bad")
    failed = engine.failed(wait_branch.trigger())
    broken.clear()
    run = engine.resume(failed)
    engine.run()
    (told,) = send_event("approve-branch", "yes", run=failed)
    assert told.workflow_run_id == run.run_id
    assert engine.finish(run).result == '"yes"'


@workflow(name="resume-early-event", retries=0)
def early_event(ctx: WorkflowContext[None]) -> Any:
    ctx.run("first", work, ctx, "first")
    return ctx.wait_for_event("approval", "early", timeout="1d").event_data


def test_an_event_that_came_early_is_kept_for_the_resumed_run(engine: Engine) -> None:
    broken.add("first")
    handle = early_event.trigger()
    send_event("early", "soon", run=handle)
    failed = engine.failed(handle)
    broken.clear()
    assert engine.finish(engine.resume(failed)).result == '"soon"'


# Calls


@workflow(name="resume-call", retries=0)
def calling(ctx: WorkflowContext[None]) -> int:
    status = ctx.call("charge", url="https://pay.example.com/", method="POST", body={"a": 1}).status
    ctx.run("then", work, ctx, "then")
    return status


def test_the_answer_of_a_call_is_kept(engine: Engine) -> None:
    broken.add("then")
    with mock_calls(CallAnswer(201, "paid")) as recorder:
        failed = engine.failed(calling.trigger())
        broken.clear()
        assert engine.finish(engine.resume(failed)).result == "201"
    assert len(recorder.calls) == 1


@pytest.fixture
def refuses_answers(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Endpoints that cannot take the answer of a call while `refused` holds something."""
    from django_workflow.serve import handler

    refused = {"yes"}
    record = handler.record_call

    def refuse(call: Any) -> Any:
        if refused:
            return call.failed(RuntimeError("cannot take the answer"))
        return record(call)

    monkeypatch.setattr(handler, "record_call", refuse)
    return refused


def test_a_call_whose_answer_could_not_be_taken_is_not_made_again(engine: Engine, refuses_answers: set[str]) -> None:
    with mock_calls(CallAnswer(201, "paid")) as recorder:
        failed = engine.failed(calling.trigger())
        refuses_answers.clear()
        run = engine.resume(failed)
        assert run.steps.get().status == Step.Status.RUNNING
        assert Delivery.objects.get().kind == Delivery.Kind.CALLBACK
        assert engine.finish(run).result == "201"
    assert len(recorder.calls) == 1


@workflow(name="resume-call-branch", retries=0)
def calling_branch(ctx: WorkflowContext[None]) -> list[Any]:
    answer, done = ctx.parallel(
        step.call("charge", url="https://pay.example.com/", method="POST"), step.run("other", work, ctx, "other")
    )
    return [answer.status, done]


def test_a_branch_whose_answer_could_not_be_taken_calls_nobody_again(engine: Engine, refuses_answers: set[str]) -> None:
    with mock_calls(CallAnswer(201, "paid")) as recorder:
        failed = engine.failed(calling_branch.trigger())
        refuses_answers.clear()
        assert engine.finish(engine.resume(failed)).result == '[201,"other"]'
    assert len(recorder.calls) == 1
    assert calls.count("other") == 1


def test_a_call_that_was_dropped_under_way_is_made_again(engine: Engine) -> None:
    broken.add("other")
    with mock_calls(CallAnswer(201, "paid")) as recorder:
        failed = engine.failed(calling_branch.trigger())
        made = len(recorder.calls)
        finished = failed.steps.filter(name="charge", status=Step.Status.SUCCESS).exists()
        broken.clear()
        assert engine.finish(engine.resume(failed)).result == '[201,"other"]'
        assert len(recorder.calls) == made + (not finished)


# Invocations


@workflow(name="resume-child", retries=0)
def child(ctx: WorkflowContext[None]) -> str:
    ctx.wait_for_event("go", "child-go", timeout="1d")
    return ctx.run("child work", work, ctx, "child work")


@workflow(name="resume-parent", retries=0)
def parent(ctx: WorkflowContext[None]) -> list[Any]:
    answer, done = ctx.parallel(step.invoke("ask child", workflow=child), step.run("bad", work, ctx, "bad"))
    return [answer.body, answer.is_failed, done]


def failed_parent(engine: Engine) -> tuple[Run, Run]:
    """A parent that failed beside the child that it had invoked, which waits."""
    broken.add("bad")
    run = engine.failed(parent.trigger())
    broken.clear()
    invoked = Run.objects.get(workflow="resume-child")
    assert invoked.status == Run.Status.WAITING
    return run, invoked


def test_a_child_that_goes_on_answers_the_resumed_parent(engine: Engine) -> None:
    failed, invoked = failed_parent(engine)
    run = engine.resume(failed)
    engine.run()
    run.refresh_from_db()
    assert run.status == Run.Status.WAITING
    assert Run.objects.filter(workflow="resume-child").count() == 1
    send_event("child-go")
    assert engine.finish(run).result == '["child work",false,"bad"]'
    invoked.refresh_from_db()
    assert invoked.parent == run


def test_a_child_that_ended_meanwhile_has_answered(engine: Engine) -> None:
    failed, _ = failed_parent(engine)
    send_event("child-go")
    engine.run()
    assert engine.finish(engine.resume(failed)).result == '["child work",false,"bad"]'
    assert calls.count("child work") == 1


def test_a_child_that_failed_unheard_answers_when_it_is_resumed(engine: Engine) -> None:
    failed, invoked = failed_parent(engine)
    broken.add("child work")
    send_event("child-go")
    engine.run()
    invoked.refresh_from_db()
    assert invoked.status == Run.Status.FAILED
    broken.clear()
    resumed_child = engine.resume(invoked)
    assert decode_config(resumed_child.config).invoker is not None
    run = engine.resume(failed)
    assert engine.finish(run).result == '["child work",false,"bad"]'
    resumed_child.refresh_from_db()
    assert resumed_child.status == Run.Status.SUCCESS
    assert resumed_child.parent == run


@workflow(name="resume-asking", retries=0)
def asking(ctx: WorkflowContext[None]) -> Any:
    return ctx.invoke("ask child", workflow=child).is_failed


def test_an_invoker_that_was_told_of_the_failure_is_not_told_again(engine: Engine) -> None:
    broken.add("child work")
    handle = asking.trigger()
    engine.run()
    send_event("child-go")
    engine.run()
    assert handle.run.result == "true"
    entries = JournalEntry.objects.filter(run=handle.run).count()
    broken.clear()
    resumed = engine.resume(Run.objects.get(workflow="resume-child"))
    assert decode_config(resumed.config).invoker is None
    engine.finish(resumed)
    assert JournalEntry.objects.filter(run=handle.run).count() == entries


# What is kept and what is overridden


def test_a_run_keeps_its_configuration(engine: Engine) -> None:
    broken.add("step 0")
    handle = sequence.using(
        headers={"x-tenant": "7"},
        label=["vip", "eu"],
        flow_control={"key": "shop", "parallelism": 2},
        retry_delay=3,
        redact="body",
    ).trigger(1)
    failed = engine.failed(handle)
    for run in (engine.resume(failed),):
        before, after = decode_config(failed.config), decode_config(run.config)
        assert after.headers == before.headers
        assert (after.retries, after.retry_delay, after.redact) == (before.retries, before.retry_delay, ("body",))
        assert run.labels == ",vip,eu,"
        assert (run.flow_key, run.payload, run.url) == ("shop", failed.payload, failed.url)
        assert after.failure_callback is not None
        assert before.failure_callback is not None
        assert after.failure_callback.url == before.failure_callback.url
        assert run.run_id in after.failure_callback.headers.values()
        assert failed.run_id not in after.failure_callback.headers.values()
        assert Delivery.objects.get(run=run).flow_key == "shop"


@pytest.mark.parametrize("action", ["resume", "restart"])
def test_what_is_overridden_holds_for_the_new_run(engine: Engine, action: str) -> None:
    broken.add("step 1")
    failed = engine.failed(sequence.using(label="old", headers={"x-tenant": "7"}).trigger(2))
    overrides = run_overrides(
        retries=2,
        delay="1m",
        retry_delay=5,
        flow_control={"key": "calm", "parallelism": 1},
        label=["new", "newer"],
        failure_url="https://alerts.example.com/",
    )
    run = getattr(engine, action)(failed, overrides=overrides)
    config = decode_config(run.config)
    assert (config.retries, config.retry_delay, run.flow_key) == (2, "5000", "calm")
    assert run.labels == ",new,newer,"
    assert config.headers["Upstash-Label"] == "new,newer"
    assert config.headers["x-tenant"] == "7"
    assert config.failure_callback is not None
    assert config.failure_callback.url == "https://alerts.example.com/"
    assert run.status == Run.Status.SCHEDULED
    delivery = Delivery.objects.get(run=run)
    assert (delivery.max_retries, delivery.due_at) == (2, engine.clock.now() + timedelta(minutes=1))
    engine.run()
    assert len(calls) == 2
    engine.clock.advance(60)
    engine.run()
    run.refresh_from_db()
    assert run.status == Run.Status.RETRYING
    assert "Retry 1 of 2" in run.why


def test_a_failure_url_can_be_given_to_a_run_that_had_none(engine: Engine) -> None:
    failed = make_run(status=Run.Status.FAILED)
    letter = DeadLetter.objects.create(
        run=failed, message_key=failed.pk, destination=failed.url, created_at=engine.clock.now()
    )
    run = engine.only(
        engine.client.restart(str(letter.pk), overrides=run_overrides(failure_url="https://alerts.example.com/"))
    )
    callback = decode_config(run.config).failure_callback
    assert callback is not None
    assert callback.url == "https://alerts.example.com/"
    assert callback.headers["Upstash-Workflow-RunId"] == run.run_id
    assert callback.headers["Upstash-Forward-Upstash-Workflow-Is-Failure"] == "true"


def test_too_many_retries_are_refused(engine: Engine) -> None:
    broken.add("step 0")
    failed = engine.failed(sequence.trigger(1))
    with pytest.raises(EngineError) as caught:
        engine.resume(failed, overrides=run_overrides(retries=1_000_000))
    assert caught.value.status == 412
    assert DeadLetter.objects.count() == 1


# Many at once


def fail_many(engine: Engine, count: int, **options: Any) -> list[Run]:
    broken.add("step 0")
    handles = [sequence.using(**options).trigger(1) for _ in range(count)]
    engine.run()
    broken.clear()
    return [handle.run for handle in handles]


def test_several_are_resumed_in_the_order_of_their_ids(engine: Engine) -> None:
    runs = fail_many(engine, 3)
    started = engine.client.resume([str(run.dead_letter.pk) for run in runs])
    followers = [Run.objects.get(run_id=run.workflow_run_id).resumed_from for run in started.workflow_runs]
    assert followers == runs
    assert started.cursor is None


def test_one_unknown_id_leaves_all_as_they_are(engine: Engine) -> None:
    runs = fail_many(engine, 2)
    with pytest.raises(EngineError, match="no dead letter") as caught:
        engine.client.restart([str(runs[0].dead_letter.pk), "1725323658779-0"])
    assert caught.value.status == 404
    assert DeadLetter.objects.count() == 2
    assert Run.objects.count() == 2


def test_failed_runs_are_chosen_by_filters(engine: Engine) -> None:
    (vip,) = fail_many(engine, 1, label="vip")
    other, _ = fail_many(engine, 2, label="eu")
    assert engine.only(engine.client.resume(label=["vip", "none"])).resumed_from == vip
    assert engine.only(engine.client.resume(run_ids=other.run_id)).resumed_from == other
    assert len(engine.client.restart(workflow="resume-sequence", label="eu").workflow_runs) == 1
    assert engine.client.resume(everything=True).workflow_runs == ()


def test_so_many_are_started_at_once_and_a_cursor_leads_on(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resuming.AT_ONCE == 50  # as documented; fewer tell the same
    monkeypatch.setattr(resuming, "AT_ONCE", 5)
    fail_many(engine, 8)
    first = engine.client.resume(everything=True, count=100)
    assert len(first.workflow_runs) == 5
    assert first.cursor is not None
    rest = engine.client.resume(everything=True, count=2, cursor=first.cursor)
    assert len(rest.workflow_runs) == 2
    last = engine.client.resume(everything=True, cursor=rest.cursor)
    assert len(last.workflow_runs) == 1
    assert last.cursor is None
    assert not DeadLetter.objects.exists()
    with pytest.raises(EngineError, match="at most 5"):
        engine.client.resume([f"{number}" for number in range(6)])


# Runs of other SDKs

FOREIGN = "https://js.example.com/api/flow"


def answered(status: int) -> Answer:
    return Answer(status=status, headers={"Upstash-Workflow-Sdk-Version": ["1"]})


def foreign(hand: Hand, *steps: WireStep, features: tuple[str, ...] = FEATURES) -> tuple[Run, Any]:
    """A run of another SDK that has submitted these steps, and the delivery that came of the last one."""
    run = by_hand.start(url=FOREIGN, retries=0)
    (lease,) = hand.claim()
    for item in steps:
        submit(run, item, features=features)
        hand.settle(lease, answer=answered(200))
        (lease,) = hand.claim()
    return run, lease


def submit(run: Run, *steps: WireStep, features: tuple[str, ...] = FEATURES, **values: Any) -> None:
    fields = WorkflowFields(run_id=run.run_id, url=FOREIGN, features=features, sdk_version="1")
    messages = (Message(destination=FOREIGN, body=encode_step(item), workflow=fields, **values) for item in steps)
    Client().batch(tuple(messages))


def plan(target: int, of: int, **values: Any) -> WireStep:
    return WireStep(step_id=0, step_name=f"b{target}", step_type="Run", concurrent=of, target_step=target, **values)


@pytest.fixture
def hand(db: None) -> Iterator[Hand]:
    with workflow_clock() as clock:
        yield Hand(clock)


def resumed(run: Run) -> Run:
    (one,) = Client().resume(str(run.dead_letter.pk)).workflow_runs
    return Run.objects.get(run_id=one.workflow_run_id)


def test_a_foreign_run_gets_its_own_bytes_back(hand: Hand) -> None:
    run, lease = foreign(hand, by_hand.step(1, "one"), by_hand.step(2, "two"))
    hand.settle(lease, answer=answered(500))
    again = resumed(run)
    bodies = [list(JournalEntry.objects.filter(run=r).values_list("body", flat=True)) for r in (run, again)]
    assert bodies[0] == bodies[1]
    (lease,) = hand.claim()
    assert (lease.run_key, lease.position, lease.solo, lease.destination) == (again.pk, 2, True, FOREIGN)
    assert lease.message_key == JournalEntry.objects.get(run=again, position=2).pk
    submit(again, by_hand.step(3, "three"))
    hand.settle(lease, answer=answered(200))
    assert again.steps.count() == 3


@pytest.mark.parametrize("finished", [0, 1, 2, 3])
def test_the_open_branches_of_a_foreign_group_are_delivered_again(hand: Hand, finished: int) -> None:
    run, lease = foreign(hand)
    submit(run, *(plan(number, 4) for number in (1, 2, 3, 4)))
    hand.settle(lease, answer=answered(200))
    branches = {lease.step_id: lease for lease in hand.claim()}
    for number in range(1, finished + 1):
        submit(run, by_hand.step(number, concurrent=4))
        hand.settle(branches[number], answer=answered(200))
    hand.settle(branches[4], answer=answered(500))
    again = resumed(run)
    assert again.group_open == 4 - finished
    leases = hand.claim()
    assert sorted(lease.step_id for lease in leases) == list(range(finished + 1, 5))
    for lease in leases:
        entry = JournalEntry.objects.get(run=again, position=lease.position)
        assert entry.pk == lease.message_key
        assert decode_step(entry.body).target_step == lease.step_id
    before = JournalEntry.objects.filter(run=again).count()
    for lease in leases:
        submit(again, by_hand.step(lease.step_id, concurrent=4))
        hand.settle(lease, answer=answered(200))
    again.refresh_from_db()
    assert again.group_open == 0
    # As documented for other SDKs: a delivery for each result, of which the last goes on.
    deliveries = list(Delivery.objects.filter(run=again).order_by("position"))
    assert [row.position for row in deliveries] == list(range(before + 1, before + 1 + len(leases)))
    assert [row.solo for row in deliveries] == [False] * (len(leases) - 1) + [True]


def test_steps_that_repeat_their_configuration_keep_it(hand: Hand) -> None:
    """As the Python SDK does: its messages bring their own headers and retries."""
    features = ("LazyFetch", "InitialBody")
    run = by_hand.start(url=FOREIGN, retries=0)
    (lease,) = hand.claim()
    submit(run, by_hand.step(1), features=features, retries=4, headers={"X-Mine": "1"})
    hand.settle(lease, answer=answered(200))
    (lease,) = hand.claim()
    assert lease.max_retries == 4
    for _ in range(5):
        hand.settle(lease, answer=answered(500))
        hand.clock.advance("1d")
        lease = next(iter(hand.claim()), lease)
    run.refresh_from_db()
    assert run.status == Run.Status.FAILED
    resumed(run)
    lease = next(lease for lease in hand.claim() if lease.kind == Delivery.Kind.STEP)
    assert lease.max_retries == 4
    assert lease.config is not None
    assert lease.config.headers == {"X-Mine": "1"}


def test_a_result_that_came_with_a_failing_answer_counts(hand: Hand) -> None:
    """The endpoint published its step and answered 500: the step is done, and the run goes on."""
    run, lease = foreign(hand)
    submit(run, by_hand.step(1))
    hand.settle(lease, answer=answered(500))
    (lease,) = hand.claim()
    assert (lease.run_key, lease.position) == (run.pk, 1)


def test_long_journals_are_copied_in_parts(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resumption, "_CHUNK", 2)
    run, lease = foreign(hand, *(by_hand.step(number, f"out {number}") for number in range(1, 8)))
    hand.settle(lease, answer=answered(500))
    again = resumed(run)
    assert [entry.position for entry in again.journal.order_by("position")] == [1, 2, 3, 4, 5, 6, 7]
    assert [step.position for step in again.steps.order_by("step_id")] == [1, 2, 3, 4, 5, 6, 7]
    (lease,) = hand.claim()
    assert lease.position == 7


# The network


def test_deliveries_of_a_resumed_run_name_the_first_of_its_chain(db: None) -> None:
    """So that idempotency keys are the same where nothing but the delivery is known."""
    with workflow_clock() as clock:
        hand = Hand(clock)
        run, lease = foreign(hand)
        with mock_calls(CallAnswer(500)) as recorder:
            hand.settle(lease, answer=answered(500))
            again = resumed(run)
            run_workflows()
            third = resumed(again)
            run_workflows()
        assert third.first_run == run
        headers = [{name.lower(): value for name, value in call.headers.items()} for call in recorder.calls]
        assert [sent["upstash-workflow-runid"] for sent in headers] == [again.run_id, third.run_id]
        assert [sent["django-workflow-first-run"] for sent in headers] == [run.run_id, run.run_id]


# Retention


def test_the_first_run_of_a_chain_stays_while_one_of_its_runs_does(engine: Engine) -> None:
    """A failed run of the chain may be resumed again: the keys of its steps must be the same then."""
    broken.add("step 1")
    failed = engine.failed(sequence.trigger(2))
    engine.clock.advance("20d")
    again = engine.resume(failed)
    engine.run()
    engine.clock.advance("20d")
    assert not prune(engine.clock.now(), timedelta(days=30))
    broken.clear()
    again.refresh_from_db()
    third = engine.finish(engine.resume(again))
    assert len(set(keys["step 1"])) == 1
    engine.clock.advance("31d")
    assert prune(engine.clock.now(), timedelta(days=30)).runs == 3
    assert not Run.objects.filter(pk=third.pk).exists()


# Several at once


@pytest.mark.django_db(transaction=True)
def test_of_several_who_resume_a_run_one_does() -> None:
    with workflow_clock() as clock:
        hand = Hand(clock)
        run, lease = foreign(hand, by_hand.step(1))
        hand.settle(lease, answer=answered(500))
        dlq_id = str(run.dead_letter.pk)
        outcomes = outcomes_at_once(*(lambda: Client().resume(dlq_id) for _ in range(4)))
    (started,) = (outcome for outcome in outcomes if isinstance(outcome, StartedRuns))
    refused = [outcome for outcome in outcomes if not isinstance(outcome, StartedRuns)]
    assert [getattr(error, "status", error) for error in refused] == [404, 404, 404]
    assert Run.objects.filter(resumed_from=run).get().run_id == started.workflow_runs[0].workflow_run_id
    assert Delivery.objects.count() == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("_", range(5))
def test_a_child_that_ends_while_its_parent_is_resumed_answers_once(_: int) -> None:
    """Either it ended first and its result is taken, or it goes on and answers the resumed run."""
    with workflow_clock() as clock:
        hand = Hand(clock)
        parent_run = by_hand.start(url=FOREIGN, retries=0)
        (lease,) = hand.claim()
        submit(parent_run, plan(1, 2), plan(2, 2))
        hand.settle(lease, answer=answered(200))
        branches = {lease.step_id: lease for lease in hand.claim()}
        body = InvokeBody(
            workflow_run_id=parent_run.run_id,
            workflow_url=FOREIGN,
            step=WireStep(step_id=1, step_name="ask", step_type="Invoke", concurrent=2),
        )
        fields = WorkflowFields(run_id="wfr_child", url=FOREIGN, init=True, invoke=True, features=FEATURES)
        Client().publish(Message(destination=FOREIGN, body=encode_invoke(body), workflow=fields))
        hand.settle(branches[1], answer=answered(200))
        hand.settle(branches[2], answer=answered(500))
        dlq_id = str(parent_run.dead_letter.pk)
        outcomes = outcomes_at_once(lambda: Client().resume(dlq_id), lambda: Client().finish("wfr_child", b'"done"'))
    assert not [outcome for outcome in outcomes if isinstance(outcome, Exception)], outcomes
    again = Run.objects.get(resumed_from=parent_run)
    entry = JournalEntry.objects.get(run=again, step_id=1)
    assert msgspec.json.decode(decode_step(entry.body).out or "")["body"] == '"done"'
    assert again.group_open == 1
    assert again.steps.get(step_id=1).status == Step.Status.SUCCESS
