"""Dead letters of runs: what is kept of a failure, and the failure callback that is made again or stopped."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from django_workflow import NonRetryableError, WorkflowContext, workflow
from django_workflow.client.client import Client
from django_workflow.engine import failed_runs
from django_workflow.engine.unit_of_work import UnitOfWork
from django_workflow.errors import EngineError
from django_workflow.models import DeadLetter, Delivery, JournalEntry, Run
from django_workflow.protocol.identifiers import message_id_of
from django_workflow.protocol.publish import CallbackConfig
from django_workflow.testing import CallAnswer, WorkflowClock, mock_calls, run_workflows, workflow_clock
from django_workflow.testing.factories import make_run
from tests.admin.builders import make_dead_letter
from tests.engine import deliveries as by_hand
from tests.engine.deliveries import Hand

pytestmark = pytest.mark.django_db

told: list[str] = []
broken: set[str] = set()


@pytest.fixture(autouse=True)
def clock() -> Iterator[WorkflowClock]:
    told.clear()
    broken.clear()
    with workflow_clock() as clock:
        yield clock


def alert(ctx: WorkflowContext[Any], status: int, response: str, headers: dict[str, list[str]]) -> str:
    told.append(f"{ctx.workflow_run_id} {status} {response} {ctx.request_payload}")
    if "alert" in broken:
        raise RuntimeError("nobody picks up")
    return "told"


@workflow(name="letters", retries=1, retry_delay=5, on_failure=alert)
def letters(ctx: WorkflowContext[Any]) -> None:
    ctx.run("first", lambda: 1)

    def refuse() -> None:
        raise ConnectionError("no line")

    ctx.run("call home", refuse)


def fail(**options: Any) -> tuple[Run, DeadLetter]:
    handle = letters.using(**options).trigger({"n": 1})
    run_workflows(skip_delays=True)
    run: Run = handle.run
    return run, run.dead_letter


# What is kept


def test_a_failed_run_tells_all_of_its_failure(clock: WorkflowClock) -> None:
    run, letter = fail(label=["vip", "eu"], headers={"x-tenant": "7", "authorization": "Bearer t"})
    client = Client()
    (shown,) = client.dead_letters().messages
    assert client.dead_letter(shown.dlq_id) == shown
    failed = JournalEntry.objects.get(run=run)
    created = int(run.created_at.timestamp() * 1000)
    assert (shown.dlq_id, shown.message_id) == (str(letter.pk), failed.message_id)
    assert (shown.workflow_run_id, shown.workflow_created_at) == (run.run_id, created)
    assert (shown.workflow_url, shown.url, shown.method) == (run.url, run.url, "POST")
    assert (shown.body, shown.body_base64) == ('{"n":1}', "")
    assert shown.header["X-Tenant"] == ["7"]
    assert shown.header["Authorization"][0].startswith("REDACTED:")
    assert (shown.max_retries, shown.created_at) == (1, int(failed.created_at.timestamp() * 1000))
    assert (shown.label, shown.labels) == ("vip", ("vip", "eu"))
    assert shown.response_status == 500
    assert msgspec.json.decode(shown.response_body)["message"] == "no line"
    assert shown.response_header["Content-Type"] == ["application/json"]
    assert shown.failure_callback == run.url
    assert shown.failure_function_state == "CALLBACK_SUCCESS"
    info = shown.failure_callback_info
    assert info is not None
    assert (info.state, info.response_status, info.response_body) == ("CALLBACK_SUCCESS", 200, "told")
    assert info.response_headers is not None
    assert info.response_headers["Content-Type"] == ["application/json"]


def test_a_redacted_run_shows_no_bodies_here_either() -> None:
    fail(redact="body")
    (shown,) = Client().dead_letters().messages
    assert shown.body.startswith("REDACTED:")
    assert shown.response_body.startswith("REDACTED:")
    assert shown.failure_callback_info is not None
    assert (shown.failure_callback_info.response_body or "").startswith("REDACTED:")
    assert told[0].endswith("{'n': 1}")  # who handles the failure gets the originals


def test_a_payload_that_is_no_text_is_shown_as_base64() -> None:
    make_dead_letter(make_run(status="failed", payload="/wA=", payload_is_base64=True))
    (shown,) = Client().dead_letters().messages
    assert (shown.body, shown.body_base64) == ("", "/wA=")


def test_without_an_answer_the_reason_stands_in_its_place() -> None:
    make_dead_letter(make_run(status="failed"), status=0, error="worker lost", response_body="")
    (shown,) = Client().dead_letters().messages
    assert (shown.response_status, shown.response_body) == (0, "worker lost")
    assert (shown.failure_callback_info, shown.failure_function_state) == (None, None)


def test_a_failure_callback_without_a_url_is_none(clock: WorkflowClock) -> None:
    hand = Hand(clock)
    run = by_hand.start(retries=0, failure_callback=CallbackConfig(url=None, headers={"Upstash-Retries": "1"}))
    (lease,) = hand.claim()
    hand.settle(lease, answer=by_hand.Answer(status=500))
    assert run.dead_letter.failure_state == DeadLetter.FailureState.NONE
    assert not Delivery.objects.exists()


# The failure callback again


def test_a_failed_callback_is_made_again(clock: WorkflowClock) -> None:
    broken.add("alert")
    run, letter = fail()
    assert letter.failure_state == DeadLetter.FailureState.FAILED
    assert (letter.failure_status, len(told)) == (500, 2)
    broken.clear()
    clock.advance("1d")
    started = Client().rerun_failure_function(str(letter.pk))
    assert (started.workflow_run_id, started.workflow_created_at) == (
        run.run_id,
        int(run.created_at.timestamp() * 1000),
    )
    letter.refresh_from_db()
    assert letter.failure_state == DeadLetter.FailureState.IN_PROGRESS
    again = Delivery.objects.get()
    assert again.message_key == letter.failure_key
    body = msgspec.json.decode(again.body)
    assert (body["retried"], body["maxRetries"], body["dlqId"]) == (1, 1, str(letter.pk))
    assert body["sourceMessageId"] == message_id_of(letter.message_key)
    run_workflows()
    assert told[2] == told[0]
    letter.refresh_from_db()
    assert (letter.failure_state, letter.failure_status) == (DeadLetter.FailureState.SUCCESS, 200)


def test_what_is_told_again_is_what_was_told_first(clock: WorkflowClock) -> None:
    broken.add("alert")
    with mock_calls(CallAnswer(503)) as recorder:
        _, letter = fail(failure_url="https://alerts.example.com/")
        clock.advance("1d")
        Client().rerun_failure_function(str(letter.pk))
        run_workflows()
    first, *_, last = (msgspec.json.decode(call.body) for call in recorder.calls)
    assert last == first
    assert len(recorder.calls) == 3


@pytest.mark.parametrize("state", [s for s in DeadLetter.FailureState if s != DeadLetter.FailureState.FAILED])
def test_only_a_failed_callback_is_made_again(state: DeadLetter.FailureState) -> None:
    _, letter = fail()
    DeadLetter.objects.update(failure_state=state)
    with pytest.raises(EngineError, match="is not made again") as caught:
        Client().rerun_failure_function(str(letter.pk))
    assert caught.value.status == 400
    assert not Delivery.objects.exists()


def test_a_callback_in_progress_is_stopped(clock: WorkflowClock) -> None:
    broken.add("alert")
    handle = letters.trigger({"n": 1})
    run_workflows()
    clock.advance(5)
    run_workflows()  # the run has failed, and so has the first attempt at its callback
    letter = handle.run.dead_letter
    Client().cancel_failure_function(str(letter.pk))
    assert not Delivery.objects.exists()
    (shown,) = Client().dead_letters().messages
    assert shown.failure_function_state == "CALLBACK_CANCELED"
    run_workflows(skip_delays=True)
    assert len(told) == 1
    with pytest.raises(EngineError, match="nothing to cancel") as caught:
        Client().cancel_failure_function(str(letter.pk))
    assert caught.value.status == 400


def test_stopping_a_callback_takes_the_run_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """As its settlement does, which goes from the delivery to the dead letter: else both would wait for each other."""
    run = make_run(status=Run.Status.FAILED)
    letter = make_dead_letter(run, failure_state=DeadLetter.FailureState.IN_PROGRESS)
    lock, seen = UnitOfWork.lock, []

    def locked(unit: UnitOfWork, keys: Any) -> set[Any]:
        got = lock(unit, keys)
        seen.append((got, DeadLetter.objects.get().failure_state))
        return got

    monkeypatch.setattr(UnitOfWork, "lock", locked)
    Client().cancel_failure_function(str(letter.pk))
    assert seen == [({run.pk}, DeadLetter.FailureState.IN_PROGRESS)]


def test_a_page_ends_early_when_its_bodies_grow_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [make_run(status=Run.Status.FAILED, payload="x" * 1000) for _ in range(5)]
    for run in runs:
        make_dead_letter(run, response_body="")
    monkeypatch.setattr(failed_runs, "LARGEST_PAGE", 2500)
    client, found, cursor = Client(), [], None
    for size in (2, 2, 1):
        page = client.dead_letters(cursor=cursor)
        assert len(page.messages) == size
        found += [message.workflow_run_id for message in page.messages]
        cursor = page.cursor
    assert cursor is None
    assert sorted(found) == sorted(run.run_id for run in runs)
    monkeypatch.setattr(failed_runs, "LARGEST_PAGE", 10)
    assert len(client.dead_letters().messages) == 1


@pytest.mark.parametrize("named", [True, False])
def test_deleting_reads_no_bodies(named: bool) -> None:
    letter = make_dead_letter(make_run(status=Run.Status.FAILED))
    with CaptureQueriesContext(connection) as queries:
        deleted = Client().delete_dead_letters([str(letter.pk)] if named else None, everything=not named)
    assert deleted.deleted == 1
    assert not [query for query in queries.captured_queries if "payload" in query["sql"]]


def test_a_stopped_attempt_under_way_ends_unheard(clock: WorkflowClock) -> None:
    hand = Hand(clock)
    run = by_hand.start(retries=0, failure_callback=CallbackConfig(url="https://alerts.example.com/"))
    (lease,) = hand.claim()
    hand.settle(lease, answer=by_hand.Answer(status=500))
    (callback,) = hand.claim()
    Client().cancel_failure_function(str(run.dead_letter.pk))
    hand.settle(callback, answer=by_hand.OK)
    assert DeadLetter.objects.get().failure_state == DeadLetter.FailureState.CANCELED


def test_a_callback_goes_on_when_its_run_is_resumed() -> None:
    broken.add("alert")
    handle = letters.using(retries=0).trigger({"n": 1})
    run_workflows()
    letter = handle.run.dead_letter
    Client().rerun_failure_function(str(letter.pk))
    broken.clear()
    Client().resume(str(letter.pk))
    before = len(told)
    run_workflows()
    assert len(told) == before + 2  # of the failed run, and of the resumed one, which fails as well


def test_an_unknown_dead_letter_is_404(clock: WorkflowClock) -> None:
    client = Client()
    for call in (client.rerun_failure_function, client.cancel_failure_function, client.dead_letter):
        for dlq_id in ("01a20219-7e98-73e9-9b68-7c655ac1c1f2", "1725323658779-0"):
            with pytest.raises(EngineError) as caught:
                call(dlq_id)
            assert caught.value.status == 404


# Deleting


def test_a_deleted_dead_letter_leaves_its_run(clock: WorkflowClock) -> None:
    run, letter = fail()
    assert Client().delete_dead_letters([str(letter.pk), "unknown"]).deleted == 1
    assert Client().delete_dead_letters(str(letter.pk)).deleted == 0
    assert Run.objects.get() == run
    with pytest.raises(EngineError, match="no dead letter"):
        Client().resume(str(letter.pk))


def test_the_newest_go_first_and_a_cursor_leads_on(clock: WorkflowClock) -> None:
    for _ in range(5):
        make_dead_letter()
        clock.advance(1)
    oldest = list(DeadLetter.objects.order_by("created_at"))[:3]
    first = Client().delete_dead_letters(everything=True, count=2)
    assert first.deleted == 2
    assert set(DeadLetter.objects.all()) == set(oldest)
    rest = Client().delete_dead_letters(everything=True, cursor=first.cursor)
    assert (rest.deleted, rest.cursor) == (3, None)


def test_dead_letters_of_messages_are_none_of_runs() -> None:
    make_dead_letter()
    DeadLetter.objects.update(run=None)
    assert Client().dead_letters().messages == ()
    assert Client().delete_dead_letters(everything=True).deleted == 0
    assert DeadLetter.objects.count() == 1


# What the client refuses itself


def test_nobody_means_everything_by_saying_nothing() -> None:
    client = Client()
    assert client.delete_dead_letters([]).deleted == 0
    assert client.resume([]).workflow_runs == client.restart([]).workflow_runs == ()
    for call in (client.resume, client.restart, client.delete_dead_letters):
        with pytest.raises(ValueError, match="Nothing says which"):
            call()
        with pytest.raises(ValueError, match="not by both"):
            call("id", label="vip")
        with pytest.raises(ValueError, match="is empty"):
            call(["id", ""])


async def test_the_calls_have_twins_that_await() -> None:
    sent: list[Any] = []

    class Transport:
        async def asend(self, request: Any) -> Any:
            sent.append(request)

    client = Client(Transport())  # type: ignore[arg-type]
    await client.alogs(run_ids="wfr_1")
    await client.adead_letters(failure_state="CALLBACK_FAIL", count=3)
    await client.adead_letter("d")
    await client.aresume("d")
    await client.arestart(label="l", count=5)
    await client.adelete_dead_letters(everything=True)
    await client.arerun_failure_function("d")
    await client.acancel_failure_function("d")
    assert [type(request).__name__ for request in sent] == [
        "FetchRunLogs",
        "FetchDeadLetters",
        "FetchDeadLetter",
        "ResumeRuns",
        "RestartRuns",
        "DeleteDeadLetters",
        "RerunFailureCallback",
        "CancelFailureCallback",
    ]
    assert (sent[1].failure_states, sent[1].count) == (("CALLBACK_FAIL",), 3)
    assert (sent[4].labels, sent[4].count) == (("l",), 5)


def test_an_error_that_is_not_tried_again_tells_how_often_it_was(clock: WorkflowClock) -> None:
    @workflow(name="letters-final", retries=5, on_failure=alert)
    def final(ctx: WorkflowContext[None]) -> None:
        raise NonRetryableError("stolen")

    broken.add("alert")
    handle = final.trigger()
    run_workflows(skip_delays=True)
    Client().rerun_failure_function(str(handle.run.dead_letter.pk))
    body = msgspec.json.decode(Delivery.objects.get().body)
    assert (body["retried"], body["maxRetries"], body["status"]) == (0, 5, 489)
