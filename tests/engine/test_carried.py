"""Results that come in the answers of this project's endpoints over the network: what is written where, what is lost
when an answer is, and who is not asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection

from django_workflow import WorkflowContext, get_client, step, workflow
from django_workflow.client import carried
from django_workflow.engine.dispatch import UNSEALED
from django_workflow.models import Attempt, Delivery, JournalEntry, Run
from django_workflow.protocol import headers as h
from django_workflow.protocol.publish import FlowControl
from django_workflow.testing import CallAnswer, WorkflowClock, mock_calls, run_workflows
from django_workflow.testing.calls import Call
from tests.effects.models import Effect
from tests.effects.workflows import EVERY_RESULT, every_kind
from tests.engine.deliveries import start
from tests.faults.invariants import assert_sound
from tests.scenarios.edges import SITE, web_process

pytestmark = pytest.mark.django_db

Answer = Callable[[Call], CallAnswer]


@workflow(name="carried-two", retries=2, retry_delay=0)
def two(ctx: WorkflowContext[None]) -> list[str]:
    return [ctx.run(name, note, ctx.workflow_run_id, name) for name in ("one", "two")]


def note(run_id: str, name: str) -> str:
    Effect.objects.create(run_id=run_id, step=name, atomic=False)
    return name


@pytest.fixture(autouse=True)
def _site(settings: Any, workflow_clock: WorkflowClock, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.DJANGO_WORKFLOW = {"base_url": SITE}
    # However slow the machine is.
    monkeypatch.setattr(carried, "LONGEST_SECONDS", 60.0)


class Web:
    """The web process: its answers, and how many rows of the engine each of its requests wrote."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.answers: list[CallAnswer] = []
        self.written: list[int] = []
        self.calls: list[Call] = []

    def __call__(self, call: Call) -> CallAnswer:
        tables: list[str] = []

        def count(execute: Any, sql: str, *arguments: Any) -> Any:
            if sql.startswith(("INSERT", "UPDATE", "DELETE", "WITH")) and "django_workflow_" in sql:
                tables.append(sql)
            return execute(sql, *arguments)

        with connection.execute_wrapper(count):
            answer = self._answer(call)
        self.calls.append(call)
        self.answers.append(answer)
        self.written.append(len(tables))
        return answer

    @property
    def asked(self) -> list[bool]:
        return [h.CARRY in call.headers for call in self.calls]

    @property
    def carrying(self) -> list[bool]:
        return [h.CARRY in answer.headers for answer in self.answers]


@contextmanager
def web(answer: Answer = web_process) -> Iterator[Web]:
    served = Web(answer)
    with mock_calls(served):
        yield served


def effects() -> list[str]:
    return list(Effect.objects.order_by("pk").values_list("step", flat=True))


def test_results_come_in_answers_and_web_processes_write_nothing() -> None:
    handle = two.trigger()
    with web() as served:
        run_workflows()
    assert handle.run.result == '["one","two"]'
    assert served.carrying == [True, True, True]
    assert served.written == [0, 0, 0]
    assert effects() == ["one", "two"]
    assert_sound()


def test_async_workflows_answer_so_too() -> None:
    @workflow(name="carried-async")
    async def flow(ctx: WorkflowContext[None]) -> list[int]:
        first = await ctx.run("one", lambda: 1)
        return [first, *await asyncio.gather(ctx.run("two", lambda: 2), ctx.run("three", lambda: 3))]

    handle = flow.trigger()
    with web() as served:
        run_workflows()
    assert handle.run.result == "[1,2,3]"
    assert set(served.carrying) == {True}
    assert set(served.written) == {0}


def test_a_run_of_every_kind_of_step_comes_to_its_end() -> None:
    handle = every_kind.trigger(0.0)
    with web() as served:
        run_workflows(skip_delays=True)
    assert handle.run.result == EVERY_RESULT
    assert True in served.carrying
    assert_sound()


def test_a_step_of_an_answer_is_shown_as_one_that_was_run_here(settings: Any) -> None:
    shown = []
    for address in (SITE, None):
        settings.DJANGO_WORKFLOW = {"base_url": address}
        handle = two.trigger()
        with web():
            run_workflows()
        names = ("step_id", "name", "status", "attempts", "preview", "position")
        shown.append((handle.run.status, list(handle.run.steps.values_list(*names))))
    assert shown[0] == shown[1]


def test_an_atomic_step_is_committed_where_it_ran() -> None:
    @workflow(name="carried-atomic")
    def atomic(ctx: WorkflowContext[None]) -> str:
        return ctx.run("one", note, ctx.workflow_run_id, "one", atomic=True)

    handle = atomic.trigger()
    with web() as served:
        run_workflows()
    assert handle.run.result == '"one"'
    assert served.carrying == [False, True]  # its end comes in the answer again
    assert served.written[0] > 0


def test_a_step_that_took_long_is_committed_where_it_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carried, "LONGEST_SECONDS", 0.0)
    handle = two.trigger()
    with web() as served:
        run_workflows()
    assert handle.run.result == '["one","two"]'
    assert served.asked == [True, True, True]
    assert served.carrying == [False, False, False]
    assert all(served.written)


def lost(call: Call) -> CallAnswer:
    web_process(call)
    return CallAnswer(502, b"Bad Gateway")


def altered(call: Call) -> CallAnswer:
    answer = web_process(call)
    return CallAnswer(answer.status, answer.body + b" ", answer.headers)


def swallowed(call: Call) -> CallAnswer:
    answer = web_process(call)
    headers = {name: value for name, value in answer.headers.items() if not name.startswith("Django-")}
    return CallAnswer(answer.status, answer.body, headers)


def of_another_call(call: Call) -> CallAnswer:
    other = Call(call.method, call.url, {**call.headers, h.SIGNATURE: "a.b.c"}, call.body)
    answer = web_process(call)
    assert web_process(other).status == 401
    return CallAnswer(answer.status, answer.body, {**answer.headers, h.SEAL: "0" * 64})


@pytest.mark.parametrize(
    ("breaks", "error"),
    [
        (lost, "502"),
        (altered, UNSEALED),
        (of_another_call, UNSEALED),
        (swallowed, "submitted nothing"),
    ],
    ids=["lost", "altered", "of another call", "swallowed"],
)
def test_what_an_answer_lost_is_brought_by_a_second_call_which_writes_it_down(breaks: Answer, error: str) -> None:
    """Even if no answer ever arrives as it was sent."""
    handle = two.trigger()
    with web(breaks) as served:
        run_workflows(skip_delays=True)
    assert handle.run.result == '["one","two"]'
    assert effects() == ["one", "one", "two", "two"]
    assert served.asked == [True, False] * 3
    assert served.carrying[1::2] == [False] * 3
    errors = list(Attempt.objects.filter(run=handle.run).values_list("error", flat=True))
    assert len(errors) == 3
    assert all(error in each for each in errors), errors
    if error == UNSEALED:
        assert not Attempt.objects.exclude(response_body="").exists()  # a result may hold what is not shown
    assert_sound()


def test_a_run_without_retries_loses_no_result_with_its_answer() -> None:
    handle = two.using(retries=0).trigger()
    with web(lost) as served:
        run_workflows()
    assert handle.run.result == '["one","two"]'
    assert served.asked == [False, False, False]
    assert effects() == ["one", "two"]
    assert_sound()


def test_a_call_whose_worker_died_writes_down_what_it_brings() -> None:
    handle = two.trigger()
    Delivery.objects.update(rescues=1)
    with web() as served:
        run_workflows()
    assert handle.run.status == Run.Status.SUCCESS
    assert served.asked == [False, True, True]


def test_branches_are_carried_too() -> None:
    @workflow(name="carried-branches")
    def branches(ctx: WorkflowContext[None]) -> list[str]:
        run_id = ctx.workflow_run_id
        return ctx.parallel(*(step.run(name, note, run_id, name) for name in ("a", "b", "c")))

    handle = branches.trigger()
    with web() as served:
        run_workflows()
    assert handle.run.result == '["a","b","c"]'
    assert set(served.carrying) == {True}
    assert set(served.written) == {0}
    assert_sound()


def test_what_a_canceled_run_brings_is_dropped() -> None:
    handle = two.trigger()

    def cancel_meanwhile(call: Call) -> CallAnswer:
        answer = web_process(call)
        handle.cancel()
        return answer

    with web(cancel_meanwhile):
        run_workflows()
    assert handle.run.status == Run.Status.CANCELED
    assert not JournalEntry.objects.exists()
    assert_sound()


def test_a_run_that_was_paused_meanwhile_keeps_its_result_and_waits() -> None:
    handle = two.trigger()

    def pause_meanwhile(call: Call) -> CallAnswer:
        answer = web_process(call)
        get_client().pause(handle.id)
        return answer

    with web(pause_meanwhile) as served:
        run_workflows()
    assert served.carrying == [True]
    assert handle.run.status == Run.Status.PAUSED
    assert JournalEntry.objects.filter(run=handle.run).count() == 1
    get_client().unpause(handle.id)
    with web() as served:
        run_workflows()
    assert handle.run.result == '["one","two"]'
    assert effects() == ["one", "two"]
    assert_sound()


def test_a_flow_control_key_is_free_for_others_after_each_call() -> None:
    handles = [two.using(flow_control=FlowControl("narrow", parallelism=1)).trigger() for _ in range(2)]
    leased: list[int] = []

    def look(call: Call) -> CallAnswer:
        leased.append(Delivery.objects.exclude(worker=None).count())
        return web_process(call)

    with web(look) as served:
        run_workflows()
    assert [handle.run.result for handle in handles] == ['["one","two"]'] * 2
    assert set(served.carrying) == {True}
    assert leased == [1] * 6
    assert_sound()


def test_a_sleep_that_is_carried_wakes_in_time(workflow_clock: WorkflowClock) -> None:
    @workflow(name="carried-sleep")
    def sleeping(ctx: WorkflowContext[None]) -> str:
        ctx.sleep("night", "8h")
        return "awake"

    handle = sleeping.trigger()
    with web() as served:
        run_workflows()
        assert (handle.run.status, handle.run.due_at) == (
            Run.Status.SLEEPING,
            workflow_clock.now() + timedelta(hours=8),
        )
        workflow_clock.advance("8h")
        run_workflows()
    assert handle.run.result == '"awake"'
    assert set(served.carrying) == {True}
    assert_sound()


def test_a_second_answer_to_the_same_call_changes_nothing() -> None:
    """A call that a proxy made twice: one was slow and wrote its result down, the other carries it."""
    handle = two.trigger()

    def twice(call: Call) -> CallAnswer:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(carried, "LONGEST_SECONDS", 0.0)
            web_process(call)
        return web_process(call)

    with web(twice):
        run_workflows()
    assert handle.run.result == '["one","two"]'
    assert JournalEntry.objects.filter(run=handle.run).count() == 2
    assert_sound()


def test_a_failed_attempt_carries_nothing() -> None:
    @workflow(name="carried-failure", retries=1, retry_delay=0)
    def failing(ctx: WorkflowContext[None]) -> str:
        ctx.wait_for_event("wait", "e" * 300, timeout=1)
        return "never"

    handle = failing.trigger()
    with web() as served:
        run_workflows(skip_delays=True)
    assert handle.run.status == Run.Status.FAILED
    assert served.carrying == [False] * len(served.answers)


def test_endpoints_elsewhere_are_not_asked() -> None:
    start(url="https://elsewhere.example/flow", retries=1)
    with mock_calls(CallAnswer(500)) as recorder:
        run_workflows()
    assert [h.CARRY in call.headers for call in recorder.calls] == [False]


def test_a_header_that_a_user_sends_along_asks_for_nothing() -> None:
    handle = two.using(headers={"Django-Workflow-Carry": "1"}, retries=0).trigger()
    with web() as served:
        run_workflows()
    assert handle.run.status == Run.Status.SUCCESS
    assert served.asked == [False, False, False]
