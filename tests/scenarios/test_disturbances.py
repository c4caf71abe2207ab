"""A hosted engine that is away, that loses answers, refuses, calls twice, or leaves bodies out: no run is lost by it,
no atomic step done twice."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction

from django_workflow import WorkflowContext, workflow
from django_workflow.client.client import get_client
from django_workflow.models import Outbox, Run, Step
from django_workflow.testing import CallAnswer, mock_calls
from tests.effects.models import Effect
from tests.hosted_stub import Answer, HttpRequest, NoAnswer
from tests.hosted_stub.delivery import Keys
from tests.scenarios.conftest import Engine
from tests.scenarios.hosted_edges import Stub

pytestmark = pytest.mark.edges("stub", reason="only the stub can be told to fail at a given moment")

AWAY = NoAnswer("the engine is away")
LOST = NoAnswer("the engine's answer was lost", taken=True)
UNAVAILABLE = Answer(503, {}, b'{"error":"try later"}')

ran: list[str] = []


@pytest.fixture(autouse=True)
def _fresh() -> None:
    ran.clear()


@pytest.fixture
def stub(engine: Engine) -> Stub:
    assert isinstance(engine, Stub)
    return engine


def work(name: str) -> str:
    ran.append(name)
    return name


@workflow(name="steady")
def steady(ctx: WorkflowContext[None]) -> list[str]:
    return [ctx.run("one", work, "one"), ctx.run("two", work, "two")]


def effect(run_id: str, step: str) -> str:
    ran.append(step)
    Effect.objects.create(run_id=run_id, step=step, atomic=True)
    return step


@workflow(name="steady-atomic")
def steady_atomic(ctx: WorkflowContext[None]) -> list[str]:
    names = ("one", "two")
    return [ctx.run(name, effect, ctx.workflow_run_id, name, atomic=True) for name in names]


# Triggers


@pytest.mark.parametrize("trouble", [AWAY, UNAVAILABLE], ids=["away", "unavailable"])
def test_a_trigger_waits_in_the_outbox_until_the_engine_is_back(stub: Stub, trouble: Any) -> None:
    stub.service.trouble.append(trouble)
    handle = steady.trigger()
    assert stub.service.runs == []
    assert handle.run.status == Run.Status.QUEUED
    assert "engine" in handle.run.why
    stub.clock.advance(10)
    assert stub.finish(handle).result == '["one","two"]'
    assert not Outbox.objects.unsent().exists()


def test_a_trigger_whose_answer_was_lost_starts_one_run(stub: Stub) -> None:
    stub.service.trouble.append(LOST)
    handle = steady.trigger()
    stub.run()
    assert handle.run.status == Run.Status.SUCCESS
    stub.clock.advance(60)  # it is sent again, when the run is over and its id is free
    stub.run()
    assert not Outbox.objects.unsent().exists()
    assert len(stub.service.runs) == 1
    assert ran == ["one", "two"]


def test_a_trigger_is_taken_back_with_its_transaction(stub: Stub) -> None:
    def buy() -> None:
        with transaction.atomic():
            steady.trigger()
            raise ConnectionError("after the trigger")

    with pytest.raises(ConnectionError):
        buy()
    stub.run()
    assert stub.service.exchanges == []
    assert not Run.objects.exists()


def test_a_refused_trigger_fails_its_run_and_says_why(stub: Stub) -> None:
    stub.service.most_retries = 5
    with pytest.raises(Exception, match="max retries exceeded"):
        steady.using(retries=6).trigger()
    run = Run.objects.get()
    assert run.status == Run.Status.FAILED
    assert "max retries exceeded" in run.error


# Submissions


@pytest.mark.parametrize("trouble", [AWAY, UNAVAILABLE], ids=["away", "unavailable"])
def test_a_step_is_run_again_when_its_result_did_not_arrive(stub: Stub, trouble: Any) -> None:
    handle = steady.trigger()
    stub.service.trouble.append(trouble)
    assert stub.finish(handle).result == '["one","two"]'
    assert ran == ["one", "one", "two"]


@pytest.mark.parametrize("trouble", [AWAY, UNAVAILABLE], ids=["away", "unavailable"])
def test_an_atomic_step_is_not_run_again_when_its_result_did_not_arrive(stub: Stub, trouble: Any) -> None:
    handle = steady_atomic.trigger()
    stub.service.trouble.append(trouble)
    run = stub.finish(handle)
    assert run.result == '["one","two"]'
    assert ran == ["one", "two"]
    assert Effect.objects.count() == 2
    assert run.steps.get(name="one").status == Step.Status.SUCCESS


def test_a_result_whose_answer_was_lost_counts_once(stub: Stub) -> None:
    handle = steady.trigger()
    stub.service.trouble.append(LOST)
    run = stub.finish(handle)
    assert run.result == '["one","two"]'
    assert run.steps.count() == 2
    assert repeated(stub, handle) in ([], [1])


def test_an_atomic_result_whose_answer_was_lost_counts_once(stub: Stub) -> None:
    handle = steady_atomic.trigger()
    stub.service.trouble.append(LOST)
    assert stub.finish(handle).result == '["one","two"]'
    assert ran == ["one", "two"]
    assert repeated(stub, handle) in ([], [1])


def repeated(stub: Stub, handle: Any) -> list[int]:
    """The steps that the engine got twice, which is allowed where an answer was lost."""
    run = stub.service.run(handle.id)
    assert run is not None
    found = list(run.repeated)
    run.repeated.clear()
    return found


def test_a_result_over_the_engines_limit_fails_the_run_at_once(stub: Stub) -> None:
    handle = steady.trigger()
    stub.service.trouble.append(Answer(412, {}, b'{"error":"quota maxMessageSize exceeded"}'))
    run = stub.fail(handle)
    assert "maxMessageSize" in run.error
    assert ran == ["one"]


def test_the_end_of_a_run_is_told_again_when_it_did_not_arrive(stub: Stub) -> None:
    handle = steady.trigger()
    ended = lambda request: request.method == "DELETE"  # noqa: E731
    fail_once(stub, ended, UNAVAILABLE)
    assert stub.finish(handle).result == '["one","two"]'
    assert ran == ["one", "two"]


def fail_once(stub: Stub, matches: Any, answer: Answer) -> None:
    """Answer the first call that matches with this, and do nothing."""
    handle = stub.service.handle

    def broken(method: str, url: str, headers: Any, body: bytes) -> Answer:
        if matches(HttpRequest(method, url)):
            stub.service.handle = handle  # type: ignore[method-assign]
            return answer
        return handle(method, url, headers, body)

    stub.service.handle = broken  # type: ignore[method-assign]


# Deliveries


def test_a_delivery_whose_answer_was_lost_runs_no_step_twice_that_arrived(stub: Stub) -> None:
    """The engine calls again, the list ends where it ended before: the step runs again, and its result is dropped."""
    handle = steady_atomic.trigger()
    network, lost = stub.service.network, [True]

    def forgetful(request: HttpRequest, timeout: float) -> Answer:
        answer = network(request, timeout)
        if lost and lost.pop():
            raise NoAnswer("the answer was lost")
        return answer

    stub.service.network = forgetful
    assert stub.finish(handle).result == '["one","two"]'
    assert ran == ["one", "two"]
    assert repeated(stub, handle) in ([], [1])


@workflow(name="calling")
def calling(ctx: WorkflowContext[None]) -> int:
    return ctx.call("call", url="https://example.com/").status


def test_a_calls_answer_that_the_site_could_not_take_comes_again(stub: Stub) -> None:
    handle = calling.trigger()
    network, busy = stub.service.network, [True]

    def busy_once(request: HttpRequest, timeout: float) -> Answer:
        if request.header("Upstash-Workflow-Callback") and busy:
            busy.clear()
            return Answer(503)
        return network(request, timeout)

    stub.service.network = busy_once
    with mock_calls(CallAnswer(204)) as recorder:
        assert stub.finish(handle).result == "204"
    assert len(recorder.calls) == 1


def test_a_run_that_is_canceled_elsewhere_while_a_step_runs_takes_no_result(stub: Stub) -> None:
    @workflow(name="canceled-meanwhile")
    def flow(ctx: WorkflowContext[None]) -> None:
        ctx.run("one", lambda: get_client().cancel([ctx.workflow_run_id]))
        ctx.run("two", work, "two")

    handle = flow.trigger()
    stub.run(skip_delays=True)
    assert handle.run.status == Run.Status.CANCELED
    assert ran == []
    assert stub.service.letters == {}


def test_deliveries_without_a_body_are_fetched(stub: Stub) -> None:
    stub.service.lazy_above = 0
    handle = steady.trigger()
    assert stub.finish(handle).result == '["one","two"]'
    assert all(request.body == b"" for request in stub.service.deliveries)


def test_the_next_signing_key_is_accepted_and_another_is_not(stub: Stub) -> None:
    after, later = "sig_" + 32 * "a", "sig_" + 32 * "b"
    stub.service.keys = Keys(stub.service.keys.next, after)
    assert stub.finish(steady.trigger()).result == '["one","two"]'
    stub.service.keys = Keys(after, later)
    handle = steady.using(retries=0).trigger()
    stub.run()
    assert ran == ["one", "two"]
    (letter,) = stub.service.letters.values()
    assert (letter.message.run.id, letter.answer.status) == (handle.id, 401)  # type: ignore[union-attr]


def test_a_schedule_at_the_engine_starts_runs_here(stub: Stub) -> None:
    headers = [("Authorization", f"Bearer {stub.service.token}"), ("Upstash-Cron", "0 * * * *")]
    url = f"{stub.service.url}/v2/schedules/https://testserver/workflows/serve/steady/"
    assert stub.service.handle("POST", url, headers, b"").status == 200
    stub.clock.advance(timedelta(hours=1))
    stub.run()
    run = Run.objects.get(workflow="steady")
    assert (run.status, run.result, run.trigger_kind) == ("success", '["one","two"]', Run.TriggerKind.SCHEDULE)


def test_a_run_that_was_started_elsewhere_has_rows_here(stub: Stub) -> None:
    headers = [("Authorization", f"Bearer {stub.service.token}"), ("Content-Type", "application/json")]
    url = f"{stub.service.url}/v2/trigger/https://testserver/workflows/serve/steady/"
    assert stub.service.handle("POST", url, headers, b"null").status == 200
    stub.run()
    run = Run.objects.get(workflow="steady")
    assert (run.status, run.steps.count()) == ("success", 2)
