"""Logs of runs: groups of steps, the call that comes next, errors, what each kind of step tells; events."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest

from django_workflow import WorkflowContext, step, workflow
from django_workflow.client.client import Client
from django_workflow.engine import run_logs
from django_workflow.engine.facts import Answer
from django_workflow.engine.transport import EngineTransport
from django_workflow.models import JournalEntry, Run
from django_workflow.protocol.identifiers import message_id_of
from django_workflow.protocol.publish import CallbackConfig, Message, WorkflowFields
from django_workflow.protocol.requests import Batch, CancelRun, FetchRunEvents
from django_workflow.protocol.resources import RunEvent, RunLog, StepGroup, StepLog
from django_workflow.protocol.steps import Step as WireStep
from django_workflow.testing import CallAnswer, WorkflowClock, mock_calls, run_workflows, send_event, workflow_clock
from tests.engine import deliveries as by_hand
from tests.engine.deliveries import Hand

pytestmark = pytest.mark.django_db

FOREIGN = "https://js.example.com/api/flow"
broken: set[str] = set()


@pytest.fixture(autouse=True)
def clock() -> Iterator[WorkflowClock]:
    broken.clear()
    with workflow_clock() as clock:
        yield clock


def log_of(run: Any, **values: Any) -> RunLog:
    (log,) = Client().logs(run_ids=getattr(run, "run_id", None) or run.id, **values).runs
    return log


def shape(log: RunLog) -> list[tuple[str, list[tuple[str | None, str]]]]:
    """Groups as their type and their steps' names and states."""
    return [(group.type, [(step.step_name, step.state) for step in group.steps]) for group in log.steps]


def only(group: StepGroup) -> StepLog:
    (log,) = group.steps
    return log


def fail_while_broken(name: str) -> str:
    if name in broken:
        raise ConnectionError(f"{name} is broken")
    return name


# The document


@workflow(name="is-logged", retries=1, retry_delay=5)
def is_logged(ctx: WorkflowContext[Any]) -> dict[str, str]:
    return {"done": ctx.run("work", fail_while_broken, "work")}


def test_a_finished_run_shows_its_payload_its_steps_and_its_result(clock: WorkflowClock) -> None:
    created = int(clock.now().timestamp() * 1000)
    handle = is_logged.using(label=["vip", "eu"], headers={"x-tenant": "7"}).trigger({"n": 1})
    run_workflows()
    log = log_of(handle)
    run = handle.run
    assert (log.workflow_run_id, log.workflow_url, log.workflow_state) == (run.run_id, run.url, "RUN_SUCCESS")
    assert (log.workflow_run_created_at, log.workflow_run_completed_at) == (created, created)
    assert log.workflow_run_response == '{"done":"work"}'
    assert (log.label, log.labels) == ("vip", ("vip", "eu"))
    assert (log.dlq_id, log.failure_function, log.invoker, log.flow_control_key) == (None, None, None, None)
    assert shape(log) == [("sequential", [("init", "STEP_SUCCESS")]), ("sequential", [("work", "STEP_SUCCESS")])]
    init, work = (only(group) for group in log.steps)
    assert init.step_id is None
    assert (init.step_type, init.call_type, init.concurrent, init.out) == ("Initial", "step", 1, '{"n":1}')
    assert init.message_id == message_id_of(run.pk)
    assert (init.retries, init.retry_delay, init.created_at) == (1, "5000", created)
    assert init.headers is not None
    assert init.headers["X-Tenant"] == ["7"]
    assert init.headers["Content-Type"] == ["application/json"]
    assert init.headers["Upstash-Workflow-Sdk-Version"] == ["1"]
    assert (work.step_id, work.step_type, work.out) == (1, "Run", '"work"')
    assert work.message_id == JournalEntry.objects.get(run=run).message_id


def test_a_pending_call_is_next(clock: WorkflowClock) -> None:
    handle = is_logged.using(delay="1m").trigger()
    (_, pending) = log_of(handle).steps
    assert pending.type == "next"
    assert only(pending) == StepLog(
        message_id=message_id_of(handle.run.pk),
        state="STEP_PROGRESS",
        retries=1,
        retry_delay="5000",
        next_delivery_time=int(clock.now().timestamp() * 1000) + 60_000,
    )


def test_a_call_that_is_tried_again_tells_its_errors(clock: WorkflowClock) -> None:
    broken.add("work")
    handle = is_logged.trigger()
    run_workflows()
    log = log_of(handle)
    assert shape(log) == [("sequential", [("init", "STEP_SUCCESS")]), ("next", [("work", "STEP_RETRY")])]
    pending = only(log.steps[1])
    now = int(clock.now().timestamp() * 1000)
    assert pending.next_delivery_time == now + 5000
    (error,) = pending.errors
    assert (error.error, error.status, error.time) == ("ConnectionError: work is broken", 500, now)
    assert '"message":"work is broken"' in error.body
    assert error.headers["Content-Type"] == ["application/json"]


def test_the_call_that_failed_a_run_stays_next(clock: WorkflowClock) -> None:
    broken.add("work")
    handle = is_logged.trigger()
    run_workflows(skip_delays=True)
    log = log_of(handle)
    assert log.workflow_state == "RUN_FAILED"
    assert log.dlq_id == str(handle.run.dead_letter.pk)
    assert shape(log) == [("sequential", [("init", "STEP_SUCCESS")]), ("next", [("work", "STEP_FAILED")])]
    failed = only(log.steps[1])
    assert [error.status for error in failed.errors] == [500, 500]
    assert failed.next_delivery_time is None
    Client().delete_dead_letters(log.dlq_id)  # the errors are the run's, not the dead letter's
    assert only(log_of(handle).steps[1]).errors == failed.errors


def test_the_call_that_a_cancellation_stopped_stays_next(clock: WorkflowClock) -> None:
    broken.add("work")
    handle = is_logged.trigger()
    run_workflows()
    handle.cancel()
    log = log_of(handle)
    assert log.workflow_state == "RUN_CANCELED"
    assert shape(log)[1] == ("next", [("work", "STEP_CANCELED")])
    assert len(only(log.steps[1]).errors) == 1


# Parallel groups


@workflow(name="logged-group", retries=0)
def group(ctx: WorkflowContext[None]) -> list[Any]:
    ctx.run("before", fail_while_broken, "before")
    return list(
        ctx.parallel(
            step.run("good", fail_while_broken, "good"),
            step.run("bad", fail_while_broken, "bad"),
            step.sleep("long", "1h"),
        )
    )


def test_a_parallel_group_shows_all_its_branches(clock: WorkflowClock) -> None:
    handle = group.trigger()
    run_workflows()
    log = log_of(handle)
    assert shape(log) == [
        ("sequential", [("init", "STEP_SUCCESS")]),
        ("sequential", [("before", "STEP_SUCCESS")]),
        ("parallel", [("good", "STEP_SUCCESS"), ("bad", "STEP_SUCCESS"), ("long", "STEP_PROGRESS")]),
    ]
    good, _, long = log.steps[2].steps
    assert (good.step_id, good.concurrent, good.out) == (2, 3, '"good"')
    assert (long.out, long.sleep_for) == (None, 3600)
    assert long.next_delivery_time == int(clock.now().timestamp() * 1000) + 3_600_000
    run_workflows(skip_delays=True)
    assert shape(log_of(handle))[2:] == [
        ("parallel", [("good", "STEP_SUCCESS"), ("bad", "STEP_SUCCESS"), ("long", "STEP_SUCCESS")])
    ]


def test_a_failed_branch_has_its_errors_and_there_is_no_next(clock: WorkflowClock) -> None:
    broken.add("bad")
    handle = group.trigger()
    run_workflows()
    log = log_of(handle)
    assert shape(log)[2:] == [
        ("parallel", [("good", "STEP_SUCCESS"), ("bad", "STEP_FAILED"), ("long", "STEP_CANCELED")])
    ]
    good, bad, _ = log.steps[2].steps
    assert good.errors == ()
    assert "bad is broken" in bad.errors[0].error


@workflow(name="logged-groups")
def two_groups(ctx: WorkflowContext[None]) -> None:
    for number in range(2):
        ctx.parallel(*(step.run(f"{number}.{branch}", lambda: 1) for branch in range(2)))
    ctx.run("end", lambda: 1)


def test_groups_that_follow_each_other_are_told_apart() -> None:
    handle = two_groups.trigger()
    run_workflows()
    done = "STEP_SUCCESS"
    assert shape(log_of(handle))[1:] == [
        ("parallel", [("0.0", done), ("0.1", done)]),
        ("parallel", [("1.0", done), ("1.1", done)]),
        ("sequential", [("end", done)]),
    ]


# Kinds of steps


@workflow(name="logged-kinds", retries=0)
def kinds(ctx: WorkflowContext[None]) -> None:
    ctx.sleep("nap", 20)
    ctx.call("charge", url="https://pay.example.com/x", method="PUT", body={"a": 1}, headers={"X-Key": "k"}, retries=2)
    ctx.wait_for_event("approval", "approve-1", timeout="20s")
    ctx.invoke("ask", workflow=is_logged, body={"n": 2}, headers={"x-child": "1"})


def test_each_kind_of_step_tells_its_own(clock: WorkflowClock) -> None:
    handle = kinds.trigger()
    with mock_calls(CallAnswer(201, {"paid": True}, {"X-Trace": "t"})):
        run_workflows()
        nap, pending = log_of(handle).steps[1:]
        assert (only(nap).state, only(nap).sleep_for) == ("STEP_PROGRESS", 20)
        assert only(pending).next_delivery_time == only(nap).next_delivery_time
        clock.advance(20)
        run_workflows()
    log = log_of(handle)
    assert shape(log)[1:] == [
        ("sequential", [("nap", "STEP_SUCCESS")]),
        ("sequential", [("charge", "STEP_SUCCESS")]),
        ("sequential", [("approval", "STEP_PROGRESS")]),
    ]
    call, waiting = only(log.steps[2]), only(log.steps[3])
    assert (call.call_url, call.call_method, call.call_body) == ("https://pay.example.com/x", "PUT", '{"a":1}')
    assert call.call_headers is not None
    assert call.call_headers["X-Key"] == ["k"]
    assert (call.call_response_status, call.call_response_body) == (201, '{"paid":true}')
    assert call.call_response_headers is not None
    assert call.call_response_headers["X-Trace"] == ["t"]
    assert (call.retries, call.call_type) == (2, "step")
    deadline = int(clock.now().timestamp()) + 20
    assert (waiting.wait_event_id, waiting.wait_timeout_duration) == ("approve-1", "20s")
    assert (waiting.wait_timeout_deadline, waiting.wait_timeout, waiting.out) == (deadline, None, None)
    send_event("approve-1", "yes")
    waiting = only(log_of(handle).steps[3])
    assert (waiting.state, waiting.wait_timeout) == ("STEP_SUCCESS", False)
    assert waiting.out == base64.b64encode(b'"yes"').decode()
    broken.add("work")
    run_workflows()
    asking = only(log_of(handle).steps[4])
    child = Run.objects.get(workflow="is-logged")
    assert (asking.state, asking.invoked_workflow_run_id) == ("STEP_PROGRESS", child.run_id)
    assert (asking.invoked_workflow_url, asking.invoked_workflow_run_body) == (child.url, '{"n":2}')
    assert asking.invoked_workflow_created_at == int(clock.now().timestamp() * 1000)
    assert asking.invoked_workflow_run_headers is not None
    assert asking.invoked_workflow_run_headers["X-Child"] == ["1"]
    invoker = log_of(child).invoker
    assert invoker is not None
    assert (invoker.workflow_run_id, invoker.workflow_url) == (handle.id, handle.run.url)
    assert invoker.workflow_run_created_at == log.workflow_run_created_at


def test_a_wait_whose_time_was_up_says_so(clock: WorkflowClock) -> None:
    @workflow(name="logged-timeout")
    def waits(ctx: WorkflowContext[None]) -> None:
        ctx.wait_for_event("approval", "never", timeout=5)

    handle = waits.trigger()
    run_workflows(skip_delays=True)
    waited = only(log_of(handle).steps[1])
    assert (waited.state, waited.wait_timeout, waited.out) == ("STEP_SUCCESS", True, None)


def test_an_event_that_came_early_tells_the_length_of_its_wait_too(clock: WorkflowClock) -> None:
    @workflow(name="logged-early")
    def waits(ctx: WorkflowContext[None]) -> None:
        ctx.run("first", lambda: 1)
        ctx.wait_for_event("approval", "early-one", timeout=30)

    handle = waits.trigger()
    send_event("early-one", "x", run=handle)
    clock.advance(10)
    run_workflows()
    assert only(log_of(handle).steps[2]).wait_timeout_duration == "30s"


def test_a_call_under_way_shows_which_way_it_goes(clock: WorkflowClock) -> None:
    @workflow(name="logged-call")
    def calls(ctx: WorkflowContext[None]) -> None:
        ctx.call("charge", url="https://pay.example.com/", retries=1, retry_delay=60)

    handle = calls.trigger()
    with mock_calls(CallAnswer(503, "later")):
        run_workflows()
    log = log_of(handle)
    assert shape(log)[1:] == [("sequential", [("charge", "STEP_RETRY")])]
    call = only(log.steps[1])
    assert (call.call_type, call.retries, call.retry_delay) == ("toCallback", 1, "60000")
    assert (call.call_url, call.call_response_status) == ("https://pay.example.com/", None)
    assert [(error.status, error.error, error.body) for error in call.errors] == [(503, "later", "later")]
    assert call.next_delivery_time == int(clock.now().timestamp() * 1000) + 60_000


# The failure function


def alert(ctx: WorkflowContext[Any], status: int, response: str, headers: dict[str, list[str]]) -> str:
    return fail_while_broken("alert")


@workflow(name="logged-failing", retries=0, on_failure=alert)
def failing(ctx: WorkflowContext[None]) -> None:
    ctx.run("work", fail_while_broken, "work")


def test_the_failure_function_tells_what_it_returned(clock: WorkflowClock) -> None:
    broken.add("work")
    handle = failing.trigger()
    run_workflows(skip_delays=True)
    failure = log_of(handle).failure_function
    assert failure is not None
    assert (failure.state, failure.url, failure.dlq_id) == (
        "CALLBACK_SUCCESS",
        handle.run.url,
        str(handle.run.dead_letter.pk),
    )
    assert (failure.response_status, failure.response_body) == (200, "alert")
    assert failure.response_headers is not None
    assert failure.fail_status == 500
    assert "work is broken" in failure.fail_response
    assert failure.fail_headers["Content-Type"] == ["application/json"]
    assert failure.message_id.startswith("msg_")
    assert failure.errors == ()


def test_a_failure_function_in_progress_and_one_that_failed(clock: WorkflowClock) -> None:
    broken.update(("work", "alert"))
    handle = failing.using(retries=1, retry_delay=5).trigger()
    run_workflows()
    clock.advance(5)
    run_workflows()
    failure = log_of(handle).failure_function
    assert failure is not None
    assert (failure.state, failure.response_status, failure.max_retries) == ("CALLBACK_INPROGRESS", None, 1)
    assert failure.next_delivery_time == int(clock.now().timestamp() * 1000) + 5000
    assert len(failure.errors) == 1
    run_workflows(skip_delays=True)
    failure = log_of(handle).failure_function
    assert failure is not None
    assert (failure.state, failure.response_status, failure.next_delivery_time) == ("CALLBACK_FAIL", 500, None)
    assert [error.error for error in failure.errors] == ["ConnectionError: alert is broken"] * 2


def test_a_run_without_a_failure_function_tells_of_none() -> None:
    broken.add("work")
    handle = is_logged.trigger()
    run_workflows(skip_delays=True)
    assert log_of(handle).failure_function is None


# Runs of other SDKs


def publish(run: Run, *steps: WireStep, **values: Any) -> None:
    EngineTransport().send(by_hand.result(run, *steps, url=FOREIGN, **values))


def test_runs_of_other_sdks_have_logs_too(clock: WorkflowClock) -> None:
    hand = Hand(clock)
    run = by_hand.start(url=FOREIGN, headers={"upstash-workflow-sdk-version": "1", "authorization": "Bearer t"})
    (lease,) = hand.claim()
    publish(run, by_hand.step(1, "plain text, no JSON"))
    hand.settle(lease)
    (lease,) = hand.claim()
    plans = (WireStep(step_id=0, step_name=f"b{n}", step_type="Run", concurrent=2, target_step=n) for n in (2, 3))
    publish(run, *plans)
    hand.settle(lease)
    publish(run, by_hand.step(3, "1", step_name="b3", concurrent=2))
    log = log_of(run)
    assert shape(log) == [
        ("sequential", [("init", "STEP_SUCCESS")]),
        ("sequential", [("step 1", "STEP_SUCCESS")]),
        ("parallel", [("b2", "STEP_PROGRESS"), ("b3", "STEP_SUCCESS")]),
    ]
    assert only(log.steps[1]).out == "plain text, no JSON"
    open_branch = log.steps[2].steps[0]
    plan = JournalEntry.objects.get(run=run, position=2)
    assert (open_branch.out, open_branch.message_id) == (None, plan.message_id)
    assert open_branch.headers is not None
    # Credentials are never shown, and the name is spelled as other resources spell it.
    assert open_branch.headers["Authorization"][0].startswith("REDACTED:")


def test_the_calls_of_javascript_name_their_step_in_small_letters(clock: WorkflowClock) -> None:
    run = by_hand.start(url=FOREIGN)
    callback = CallbackConfig(
        url=FOREIGN,
        headers={
            "Upstash-forward-upstash-workflow-stepid": "1",
            "Upstash-forward-upstash-workflow-stepname": "callit",
            "Upstash-forward-upstash-workflow-steptype": "Call",
            "Upstash-forward-upstash-workflow-concurrent": "1",
        },
    )
    fields = WorkflowFields(run_id=run.run_id, url=FOREIGN, call_type="toCallback")
    message = Message(destination="https://x.example/", method="GET", callback=callback, workflow=fields)
    EngineTransport().send(Batch(messages=(message,)))
    call = only(log_of(run).steps[1])
    assert (call.step_id, call.step_name, call.call_url) == (1, "callit", "https://x.example/")


def test_a_run_that_failed_without_an_answer_says_why(clock: WorkflowClock) -> None:
    hand = Hand(clock)
    run = by_hand.start(url=FOREIGN, retries=0)
    (lease,) = hand.claim()
    hand.settle(lease, answer=Answer(status=400, body=b"400 Bad Request"))
    log = log_of(run)
    assert len(log.steps) == 2
    failed = only(log.steps[1])
    assert (failed.state, failed.message_id, failed.retries) == ("STEP_FAILED", message_id_of(run.pk), 0)
    assert [(error.error, error.body, error.status) for error in failed.errors] == [
        ("400 Bad Request", "400 Bad Request", 400)
    ]


def test_a_run_whose_workers_were_lost_says_so(clock: WorkflowClock) -> None:
    from tests.admin.builders import make_dead_letter

    run = by_hand.start(url=FOREIGN)
    EngineTransport().send(CancelRun(run_id=run.run_id))
    Run.objects.update(status=Run.Status.FAILED)
    make_dead_letter(run, message_key=run.pk, error="worker lost: 6 workers died", status=0, response_body="")
    assert only(log_of(run).steps[1]).errors[0].error == "worker lost: 6 workers died"


# What is hidden, and what is cut


def test_a_redacted_run_shows_digests_and_keeps_its_names(clock: WorkflowClock) -> None:
    @workflow(name="logged-secret", retries=0)
    def secret(ctx: WorkflowContext[Any]) -> str:
        ctx.run("work", lambda: "inner secret")
        with_key = {"X-Key": "key"}
        ctx.call("charge", url="https://pay.example.com/", method="POST", body="card number", headers=with_key)
        return "outer secret"

    handle = secret.using(redact=("body", "header[X-Tenant]"), headers={"x-tenant": "7", "x-open": "1"}).trigger("hush")
    with mock_calls(CallAnswer(200, "paid", {"Set-Cookie": "session=1"})):
        run_workflows()
    log = log_of(handle)
    init, work, call = (only(group) for group in log.steps)
    for text in (init.out, work.out, call.out, call.call_body, call.call_response_body, log.workflow_run_response):
        assert text is not None
        assert text.startswith("REDACTED:")
        assert len(text) == len("REDACTED:") + 64
    assert init.headers is not None
    assert init.headers["X-Tenant"][0].startswith("REDACTED:")
    assert init.headers["X-Open"] == ["1"]
    assert call.call_response_headers is not None
    assert call.call_response_headers["Set-Cookie"][0].startswith("REDACTED:")
    assert call.call_url == "https://pay.example.com/"


def test_bodies_are_cut_or_left_out(clock: WorkflowClock) -> None:
    handle = is_logged.trigger("0123456789é")
    run_workflows()
    cut = log_of(handle, trim_body=12)
    assert only(cut.steps[0]).out == '"0123456789'  # half of a character is none
    assert only(cut.steps[1]).out == '"work"'
    assert only(log_of(handle, trim_body=0).steps[0]).out == ""
    none = log_of(handle, trim_body=-1)
    assert (only(none.steps[0]).out, only(none.steps[1]).out, none.workflow_run_response) == (None, None, None)


def test_a_payload_that_is_no_text_is_shown_as_base64() -> None:
    fields = WorkflowFields(run_id="wfr_bytes", url=FOREIGN, init=True)
    EngineTransport().send(Batch(messages=(Message(destination=FOREIGN, body=b"\xff\x00", workflow=fields),)))
    assert only(log_of(Run.objects.get()).steps[0]).out == base64.b64encode(b"\xff\x00").decode()


# Pages


def test_a_page_takes_the_same_queries_however_much_happened(django_assert_num_queries: Any) -> None:
    def busy(count: int) -> None:
        for _ in range(count):
            kinds.trigger()
            group.trigger()
        with mock_calls(CallAnswer(200, {})):
            run_workflows(skip_delays=True)

    busy(1)
    broken.add("bad")
    with django_assert_num_queries(9):
        few = Client().logs(count=10)
    busy(4)
    with django_assert_num_queries(9):
        many = Client().logs(count=10)
    assert (len(few.runs), len(many.runs)) == (3, 10)
    with django_assert_num_queries(10):
        few_events = EngineTransport().send(FetchRunEvents(count=5))
    with django_assert_num_queries(10):
        many_events = EngineTransport().send(FetchRunEvents(count=200))
    assert (len(few_events.events), len(many_events.events) > 80) == (5, True)


def test_a_page_of_large_runs_has_fewer_of_them(monkeypatch: pytest.MonkeyPatch, clock: WorkflowClock) -> None:
    monkeypatch.setattr(run_logs, "LARGEST_PAGE", 2500)
    for _ in range(5):
        is_logged.trigger("x" * 1000)
        clock.advance(1)
    run_workflows()
    seen: list[RunLog] = []
    cursor = None
    for _ in range(3):
        page = Client().logs(cursor=cursor)
        seen += page.runs
        cursor = page.cursor
    assert cursor is None
    assert len({run.workflow_run_id for run in seen}) == 5
    created = [run.workflow_run_created_at for run in seen]
    assert created == sorted(created, reverse=True)
    monkeypatch.setattr(run_logs, "LARGEST_PAGE", 10)
    assert len(Client().logs().runs) == 1


# Events


def events(**values: Any) -> tuple[RunEvent, ...]:
    return EngineTransport().send(FetchRunEvents(**values)).events


def test_events_tell_what_happened_the_newest_first(clock: WorkflowClock) -> None:
    broken.add("work")
    handle = is_logged.using(label="vip").trigger({"n": 1})
    clock.advance(1)
    run_workflows()
    broken.clear()
    clock.advance(5)
    run_workflows()
    found = events()
    assert [(event.state, event.step_info.step_name if event.step_info else None) for event in found] == [
        ("RUN_SUCCESS", None),
        ("STEP_SUCCESS", "work"),
        ("STEP_PROGRESS", "work"),
        ("STEP_RETRY", "work"),
        ("RUN_STARTED", None),
    ]
    ended, done, _, retry, started = found
    assert {event.workflow_run_id for event in found} == {handle.id}
    assert {event.labels for event in found} == {("vip",)}
    assert ended.workflow_run_response == '{"done":"work"}'
    assert done.step_info is not None
    assert (done.step_info.out, done.step_info.step_id) == ('"work"', 1)
    assert (retry.error, retry.response_status) == ("ConnectionError: work is broken", 500)
    assert retry.next_delivery_time == retry.time + 5000
    assert started.time == started.workflow_created_at
    assert started.headers is not None


def test_events_of_a_failed_run_tell_its_dead_letter(clock: WorkflowClock) -> None:
    broken.add("work")
    handle = failing.trigger()
    run_workflows(skip_delays=True)
    (failed,) = events(states=("RUN_FAILED",))
    assert (failed.dlq_id, failed.error) == (str(handle.run.dead_letter.pk), "ConnectionError: work is broken")
    (attempt,) = events(states=("STEP_FAILED",))
    assert attempt.step_info is not None
    assert (attempt.step_info.step_name, attempt.next_delivery_time) == ("work", None)


def test_an_invoked_runs_start_tells_who_invoked_it() -> None:
    @workflow(name="logged-parent")
    def invoking(ctx: WorkflowContext[None]) -> None:
        ctx.invoke("ask", workflow=is_logged)

    handle = invoking.trigger()
    run_workflows()
    started = {event.workflow_run_id: event for event in events(states=("RUN_STARTED",))}
    child = Run.objects.get(workflow="is-logged")
    assert started[child.run_id].invoker_workflow_run_id == handle.id
    assert started[child.run_id].invoker_workflow_url == handle.run.url


def test_pages_of_events_meet_without_gap_or_overlap(clock: WorkflowClock) -> None:
    for _ in range(3):
        group.trigger()
    run_workflows(skip_delays=True)
    whole = events()
    assert len(whole) > 20
    paged: list[RunEvent] = []
    cursor = None
    while True:
        page = EngineTransport().send(FetchRunEvents(count=4, cursor=cursor))
        paged += page.events
        cursor = page.cursor
        if cursor is None:
            break
    assert tuple(paged) == whole
    times = [event.time for event in whole]
    assert times == sorted(times, reverse=True)
