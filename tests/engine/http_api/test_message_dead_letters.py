"""`/v2/dlq`: what clients send and read of messages that were given up."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest

from django_workflow.engine.cursors import encode_cursor
from django_workflow.models import DeadLetter, Delivery, MessageLog
from django_workflow.testing import CallAnswer, WorkflowClock, mock_calls, run_workflows, workflow_clock
from tests.admin.builders import make_dead_letter
from tests.engine.http_api.conftest import Api
from tests.engine.posting import URL, post, states_of

START = datetime(2026, 1, 1, tzinfo=UTC)
START_MS = 1_767_225_600_000
BAD = CallAnswer(502, "bad gateway", {"X-Why": "deploy"})

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def clock() -> Iterator[WorkflowClock]:
    with workflow_clock(START) as clock:
        yield clock


def fail(*args: Any, answer: CallAnswer = BAD, **config: Any) -> str:
    """A message that was given up after one attempt: the id of its dead letter."""
    log = post(*args, **{"retries": "0", **config})
    with mock_calls(answer):
        run_workflows()
    return str(DeadLetter.objects.get(message=log).pk)


def listed(api: Api, query: str = "") -> list[str]:
    answer = api.get(f"/v2/dlq?{query}")
    assert answer.status == 200, answer.error
    return [message["dlqId"] for message in answer.json["messages"]]


class TestRead:
    def test_an_entry_is_the_message_and_its_last_answer(self, api: Api) -> None:
        dlq_id = fail(body="hello", queue="mail", label="vip", forward_x_trace="7")
        log = MessageLog.objects.get()
        entry = {
            "dlqId": dlq_id,
            "messageId": log.message_id,
            "url": URL,
            "method": "POST",
            "header": {"X-Trace": ["7"]},
            "body": "hello",
            "maxRetries": 0,
            "notBefore": START_MS,
            "createdAt": START_MS,
            "queueName": "mail",
            "label": "vip",
            "labels": ["vip"],
            "responseStatus": 502,
            "responseHeader": {"X-Why": ["deploy"]},
            "responseBody": "bad gateway",
            "error": "bad gateway",
        }
        assert api.get(f"/v2/dlq/{dlq_id}").json == entry
        assert api.get("/v2/dlq").json == {"messages": [entry]}

    def test_without_an_answer_the_status_is_0(self, api: Api) -> None:
        dlq_id = fail()
        MessageLog.objects.update(status=0, response_body="")
        DeadLetter.objects.update(status=0, error="No connection.")
        entry = api.get(f"/v2/dlq/{dlq_id}").json
        assert (entry["responseStatus"], entry["error"]) == (0, "No connection.")
        assert "responseBody" not in entry

    def test_an_answer_that_is_no_text_is_shown_in_base64(self, api: Api) -> None:
        entry = api.get(f"/v2/dlq/{fail(answer=CallAnswer(500, bytes([255])))}").json
        assert base64.b64decode(entry["responseBodyBase64"]) == b"\xff"

    def test_what_is_hidden_stays_hidden(self, api: Api) -> None:
        entry = api.get(f"/v2/dlq/{fail(body='secret', redact_fields='body')}").json
        assert entry["body"] == "REDACTED:" + hashlib.sha256(b"secret").hexdigest()
        assert entry["responseBody"] == "REDACTED:" + hashlib.sha256(b"bad gateway").hexdigest()
        assert entry["error"] == "HTTP status 502"

    def test_failed_runs_are_listed_elsewhere(self, api: Api) -> None:
        dlq_id, run_letter = fail(), make_dead_letter()
        assert listed(api) == [dlq_id]
        assert [entry["dlqId"] for entry in api.get("/v2/dlq?source=workflow").json["messages"]] == [str(run_letter.pk)]
        assert api.get(f"/v2/dlq/{run_letter.pk}").status == 404
        assert api.get("/v2/dlq?source=elsewhere").status == 400

    @pytest.mark.parametrize("dlq_id", ["none", "00000000-0000-0000-0000-000000000000", "1725323658779-0"])
    def test_unknown_ids_are_404(self, api: Api, dlq_id: str) -> None:
        assert api.get(f"/v2/dlq/{dlq_id}").status == 404
        assert api.delete(f"/v2/dlq/{dlq_id}").status == 404
        assert api.post(f"/v2/dlq/retry/{dlq_id}").status == 404

    def test_filters_choose_entries(self, api: Api, clock: WorkflowClock) -> None:
        one = fail("https://a.example/", queue="mail", label="vip,eu", caller_ip="203.0.113.9")
        clock.advance(1)
        two = fail(answer=CallAnswer(404, ""), flow_control_key="k", flow_control_value="rate=9")
        message_id = DeadLetter.objects.get(pk=two).message.message_id  # type: ignore[union-attr]
        for query, dlq_id in (
            ("url=https://a.example/", one),
            ("host=a.example", one),
            ("queueName=mail", one),
            ("label=eu", one),
            ("callerIp=203.0.113.9", one),
            ("flowControlKey=k", two),
            (f"messageId={message_id}", two),
            ("responseStatus=404", two),
            (f"fromDate={START_MS + 1}", two),
            (f"toDate={START_MS + 1}", one),
            (f"dlqIds={one}", one),
            ("responseStatus=502,503", one),
        ):
            assert listed(api, query) == [dlq_id], query
        assert listed(api) == [two, one]
        assert listed(api, "scheduleId=s") == listed(api, "topicName=t") == []
        for query in ("responseStatus=x", "state=FAILED"):
            assert api.get(f"/v2/dlq?{query}").status == 400

    def test_pages_follow_one_another(self, api: Api, clock: WorkflowClock, monkeypatch: pytest.MonkeyPatch) -> None:
        ids = []
        for number in range(5):
            ids.append(fail(body="x" * 10 * number))
            clock.advance(1)
        monkeypatch.setattr("django_workflow.engine.http_api.message_dead_letters.LARGEST_PAGE", 60)
        read, cursor, pages = [], "", 0
        while True:
            answer = api.get(f"/v2/dlq?count=3&{cursor and 'cursor=' + cursor}").json
            read += [entry["dlqId"] for entry in answer["messages"]]
            pages += 1
            if "cursor" not in answer:
                break
            cursor = answer["cursor"]
        assert read == ids[::-1]
        assert pages == 4  # bodies of 51, of 41, of 31 and 21, of 11 characters
        assert api.get("/v2/dlq?cursor=bad!").status == 400


class TestDelete:
    def test_forgets_an_entry_and_leaves_the_log(self, api: Api) -> None:
        dlq_id = fail()
        assert api.delete(f"/v2/dlq/{dlq_id}").status == 200
        assert api.delete(f"/v2/dlq/{dlq_id}").status == 404
        assert states_of(MessageLog.objects.get())[-1] == "FAILED"

    @pytest.mark.parametrize("form", ["query", "body"])
    def test_takes_ids_and_skips_unknown_ones(self, api: Api, form: str) -> None:
        ids, kept = [fail(), fail()], fail()
        unknown = ["none", *ids]
        answer = (
            api.delete("/v2/dlq", {"dlqIds": unknown})
            if form == "body"
            else api.delete("/v2/dlq?" + "&".join(f"dlqIds={dlq_id}" for dlq_id in unknown))
        )
        assert answer.json == {"deleted": 2}
        assert listed(api) == [kept]
        assert api.delete("/v2/dlq", {"dlqIds": []}).status == 400

    def test_takes_what_fits_or_all_and_says_when_there_is_more(
        self, api: Api, clock: WorkflowClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run_letter = make_dead_letter()
        for _ in range(7):
            fail()
            clock.advance(1)
        kept = fail(label="vip")
        first = api.delete(f"/v2/dlq?count=3&toDate={START_MS + 6999}").json
        assert first["deleted"] == 3
        second = api.delete(f"/v2/dlq?count=9&toDate={START_MS + 6999}&cursor={first['cursor']}").json
        assert second == {"deleted": 4}
        assert listed(api) == [kept]
        monkeypatch.setattr("django_workflow.engine.http_api.message_dead_letters.MOST_COUNT", 2)
        for _ in range(4):
            fail()
        assert api.delete("/v2/dlq?label=vip").json == {"deleted": 1}
        assert api.delete("/v2/dlq").json == {"deleted": 4}
        assert list(DeadLetter.objects.all()) == [run_letter]


@pytest.mark.parametrize("at", ["9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+12:00"])
@pytest.mark.parametrize("path", ["/v2/dlq", "/v2/workflows/dlq", "/v2/workflows/logs"])
def test_a_cursor_of_no_calendar_is_refused(api: Api, path: str, at: str) -> None:
    assert api.get(f"{path}?cursor={encode_cursor((at, uuid4()))}").status == 400


class TestRetry:
    def test_publishes_the_original_as_a_new_message_that_is_due_now(self, api: Api, clock: WorkflowClock) -> None:
        config = {"deduplication_id": "d", "redact_fields": "body", "timeout": "1500s", "method": "PUT"}
        log = post(
            body="secret", delay="1h", retries="0", queue="mail", forward_x_key="k", caller_ip="9.9.9.9", **config
        )
        clock.advance("1h")
        with mock_calls(BAD):
            run_workflows()
        dlq_id = str(DeadLetter.objects.get().pk)
        answer = api.post(f"/v2/dlq/retry/{dlq_id}")
        assert answer.status == 201
        again = MessageLog.objects.exclude(pk=log.pk).get()
        assert answer.json == {"messageId": again.message_id}
        assert listed(api) == []
        assert api.post(f"/v2/dlq/retry/{dlq_id}").status == 404
        with mock_calls(CallAnswer()) as network:
            run_workflows()
        (call,) = network.calls
        assert (call.method, call.body) == ("PUT", b"secret")
        assert (call.headers["X-Key"], call.headers["Upstash-Caller-Ip"]) == ("k", "9.9.9.9")
        assert call.headers["Upstash-Message-Id"] == again.message_id
        again.refresh_from_db()
        assert (again.queue, again.max_retries, again.kind) == ("mail", 0, MessageLog.Kind.MESSAGE)
        assert states_of(again)[-1] == "DELIVERED"
        assert states_of(log)[-1] == "FAILED"

    def test_takes_headers_of_a_publish_as_overrides(self, api: Api) -> None:
        dlq_id = fail(
            retry_delay="1000", label="old", forward_x_key="k", callback="https://told.example/", callback_retries="1"
        )
        headers = {
            "upstash-retries": "5",
            "Upstash-Label": "new",
            "Upstash-Delay": "10s",
            "Upstash-Forward-X-More": "m",
            "Upstash-Callback": "https://other.example/",
            "Upstash-Telemetry-Sdk": "js",
            "Content-Type": "application/json",
        }
        answer = api.post(f"/v2/dlq/retry/{dlq_id}", headers=headers)
        message = api.get(f"/v2/messages/{answer.json['messageId']}").json
        assert message["maxRetries"] == 5
        assert message["retryDelayExpression"] == "1000"
        assert message["labels"] == ["new"]
        assert message["notBefore"] == START_MS + 10_000
        assert message["header"] == {"X-Key": ["k"], "X-More": ["m"]}
        assert message["callback"] == "https://other.example/"

    def test_with_bad_overrides_changes_nothing(self, api: Api) -> None:
        dlq_id = fail()
        assert api.post(f"/v2/dlq/retry/{dlq_id}", headers={"Upstash-Retries": "many"}).status == 400
        assert api.post(f"/v2/dlq/retry/{dlq_id}", headers={"Upstash-Retries": "99999"}).status == 412
        assert listed(api) == [dlq_id]

    @pytest.mark.parametrize("form", ["query", "body"])
    def test_of_many_answers_in_their_order(self, api: Api, form: str) -> None:
        ids = [fail(body=body) for body in "abc"][::-1]
        query = "?" + "&".join(f"dlqIds={dlq_id}" for dlq_id in ids) if form == "query" else ""
        answer = api.post(f"/v2/dlq/retry{query}", {"dlqIds": ids} if form == "body" else b"")
        assert answer.status == 201
        messages = [api.get(f"/v2/messages/{item['messageId']}").json["body"] for item in answer.json["responses"]]
        assert messages == ["c", "b", "a"]
        assert listed(api) == []

    def test_of_some_that_are_missing_retries_none(self, api: Api) -> None:
        dlq_id = fail()
        answer = api.post("/v2/dlq/retry", {"dlqIds": [dlq_id, "none"]})
        assert (answer.status, "none" in answer.error) == (404, True)
        assert listed(api) == [dlq_id]
        assert not Delivery.objects.exists()

    def test_of_what_fits_takes_so_many_and_says_when_there_is_more(self, api: Api, clock: WorkflowClock) -> None:
        for _ in range(3):
            fail(label="vip")
            clock.advance(1)
        other = fail()
        first = api.post("/v2/dlq/retry?label=vip&count=2").json
        assert len(first["responses"]) == 2
        second = api.post(f"/v2/dlq/retry?label=vip&count=2&cursor={first['cursor']}").json
        assert len(second["responses"]) == 1
        assert "cursor" not in second
        assert api.post("/v2/dlq/retry?label=vip").json == {"responses": []}
        assert listed(api) == [other]

    def test_of_what_fits_takes_no_more_than_a_page_holds(self, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
        """All of them are in memory, and in one transaction."""
        for _ in range(3):
            fail(body="x" * 50)
        monkeypatch.setattr("django_workflow.engine.http_api.message_dead_letters.LARGEST_PAGE", 130)
        first = api.post("/v2/dlq/retry").json
        assert len(first["responses"]) == 2
        second = api.post(f"/v2/dlq/retry?cursor={first['cursor']}").json
        assert len(second["responses"]) == 1
        assert listed(api) == []

    def test_of_more_than_a_hundred_that_are_named_is_refused(self, api: Api) -> None:
        dlq_id = fail()
        answer = api.post("/v2/dlq/retry", {"dlqIds": [dlq_id, *(str(uuid4()) for _ in range(100))]})
        assert (answer.status, "at most 100" in answer.error) == (400, True)
        assert listed(api) == [dlq_id]

    def test_of_a_callback_makes_a_callback(self, api: Api) -> None:
        post(callback="https://told.example/", callback_retries="0")
        with mock_calls(lambda call: BAD if "told" in call.url else CallAnswer()):
            run_workflows()
        api.post("/v2/dlq/retry", {"dlqIds": listed(api)})
        with mock_calls(CallAnswer()) as network:
            run_workflows()
        assert [call.url for call in network.calls] == ["https://told.example/"]
        assert MessageLog.objects.filter(kind=MessageLog.Kind.CALLBACK).count() == 2
