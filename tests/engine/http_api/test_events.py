"""`/v2/events` and `/v2/logs`: what clients send and read."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest

from django_workflow.engine.cursors import encode_cursor
from django_workflow.engine.messages import cancel
from django_workflow.testing import CallAnswer, WorkflowClock, mock_calls, run_workflows, workflow_clock
from tests.engine.http_api.conftest import Api
from tests.engine.posting import ALIAS, DOWN, URL, answers, post

START = datetime(2026, 1, 1, tzinfo=UTC)
START_MS = 1_767_225_600_000

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def clock() -> Iterator[WorkflowClock]:
    with workflow_clock(START) as clock:
        yield clock


def events(api: Api, query: str = "") -> list[dict[str, Any]]:
    answer = api.get(f"/v2/events?{query}")
    assert answer.status == 200, answer.error
    return list(answer.json["events"])


def states(api: Api, query: str = "") -> list[str]:
    return [event["state"] for event in events(api, query)]


@pytest.mark.parametrize("name", ["events", "logs"])
def test_both_names_answer_with_both_keys_and_no_cursor_at_the_end(api: Api, name: str) -> None:
    log = post(body="hello")
    answer = api.get(f"/v2/{name}").json
    assert set(answer) == {"events", "logs"}
    assert answer["events"] == answer["logs"]
    assert answer["events"] == [
        {
            "time": START_MS,
            "messageId": log.message_id,
            "state": "CREATED",
            "url": URL,
            "method": "POST",
            "maxRetries": 3,
            "nextDeliveryTime": START_MS,
            "body": base64.b64encode(b"hello").decode(),
        }
    ]


def test_the_life_of_a_message_is_told_the_newest_first(api: Api, clock: WorkflowClock) -> None:
    log = post(
        body="hello",
        label="vip,eu",
        timeout="2s",
        retry_delay="5000",
        callback="https://told.example/",
        callback_forward_x_key="1",
        flow_control_key="k",
        flow_control_value="rate=10",
        forward_x_trace="7",
    )
    given = answers(CallAnswer(503, "later", {"X-Why": "busy"}), CallAnswer(200, {"ok": True}))
    with mock_calls(lambda call: CallAnswer() if call.url != URL else given(call)):
        run_workflows()
        clock.advance(5)
        run_workflows()
    found = events(api, f"messageId={log.message_id}")
    assert [(event["state"], event["time"] - START_MS) for event in found] == [
        ("DELIVERED", 5000),
        ("ACTIVE", 5000),
        ("RETRY", 0),
        ("ERROR", 0),
        ("ACTIVE", 0),
        ("CREATED", 0),
    ]
    delivered, active, retry, error, _, created = found
    same = {
        "messageId": log.message_id,
        "url": URL,
        "method": "POST",
        "maxRetries": 3,
        "header": {"X-Trace": ["7"]},
        "body": base64.b64encode(b"hello").decode(),
        "callback": "https://told.example/",
        "callbackHeaders": {"X-Key": ["1"]},
        "timeout": 2000,
        "retryDelayExpr": "5000",
        "retryDelayExpression": "5000",
        "label": "vip",
        "labels": ["vip", "eu"],
        "flowControlKey": "k",
        "rate": 10,
        "period": 1,
    }
    assert active == {**same, "state": "ACTIVE", "time": START_MS + 5000}
    assert created == {**same, "state": "CREATED", "time": START_MS, "nextDeliveryTime": START_MS}
    assert retry == {**same, "state": "RETRY", "time": START_MS, "nextDeliveryTime": START_MS + 5000}
    why = {"X-Why": ["busy"]}
    assert error == {
        **same,
        "state": "ERROR",
        "time": START_MS,
        "error": "later",
        "responseStatus": 503,
        "responseBody": base64.b64encode(b"later").decode(),
        "responseHeader": why,
        "responseHeaders": why,
    }
    json = {"Content-Type": ["application/json"]}
    assert delivered == {
        **same,
        "state": "DELIVERED",
        "time": START_MS + 5000,
        "responseStatus": 200,
        "responseBody": base64.b64encode(b'{"ok":true}').decode(),
        "responseHeader": json,
        "responseHeaders": json,
    }


def test_cancellation_is_spelled_as_clients_map_it(api: Api) -> None:
    log = post(delay="1h")
    cancel(ALIAS, [log.pk])
    assert states(api) == ["CANCELED", "CANCEL_REQUESTED", "CREATED"]
    assert states(api, "state=CANCELED") == states(api, "state=CANCELLED") == ["CANCELED"]


def test_states_are_chosen_one_by_one_or_as_in_progress(api: Api) -> None:
    post(retries="1", retry_delay="0")
    with mock_calls(DOWN):
        run_workflows()
    assert states(api) == ["FAILED", "ACTIVE", "RETRY", "ERROR", "ACTIVE", "CREATED"]
    assert states(api, "state=IN_PROGRESS") == ["ACTIVE", "RETRY", "ERROR", "ACTIVE"]
    assert states(api, "state=ERROR&state=FAILED") == states(api, "state=error,FAILED") == ["FAILED", "ERROR"]
    assert api.get("/v2/events?state=DONE").status == 400


def test_the_order_may_be_turned(api: Api) -> None:
    post()
    with mock_calls(CallAnswer()):
        run_workflows()
    assert states(api, "order=earliestFirst") == ["CREATED", "ACTIVE", "DELIVERED"]
    assert states(api, "order=latestFirst") == ["DELIVERED", "ACTIVE", "CREATED"]
    assert api.get("/v2/events?order=random").status == 400


def test_filters_choose_messages_and_their_attempts(api: Api, clock: WorkflowClock) -> None:
    one = post("https://a.example/x", queue="mail", label="vip", caller_ip="203.0.113.9")
    two = post("https://b.example/y", flow_control_key="k", flow_control_value="rate=9")
    with mock_calls(DOWN):
        run_workflows()
    for query, log in (
        ("url=https%3A%2F%2Fa.example%2Fx", one),
        ("host=a.example", one),
        ("path=%2Fy", two),
        ("queueName=mail", one),
        ("label=vip", one),
        ("callerIp=203.0.113.9", one),
        ("flowControlKey=k", two),
        (f"messageIds={two.message_id}", two),
        (f"messageId={one.message_id}", one),
    ):
        found = events(api, query)
        assert {event["messageId"] for event in found} == {log.message_id}, query
        assert [event["state"] for event in found] == ["RETRY", "ERROR", "ACTIVE", "CREATED"], query
    assert events(api, "topicName=news") == events(api, "scheduleId=s") == []
    assert len(events(api, f"messageIds={one.message_id},{two.message_id}")) == 8
    assert events(api, "messageId=msg_unknown") == []
    clock.advance("0.5s")
    cancel(ALIAS, [one.pk, two.pk])
    assert len(events(api, f"fromDate={START_MS + 500}")) == 4
    assert len(events(api, f"toDate={START_MS + 499}")) == 8
    assert len(events(api, f"fromDate={START_MS}&toDate={START_MS + 500}")) == 12


def test_pages_follow_one_another_while_new_entries_come(api: Api, clock: WorkflowClock) -> None:
    logs = []
    for _ in range(5):
        logs.append(post())
        clock.advance(1)
    with mock_calls(CallAnswer()):
        run_workflows()
    everything = [(event["messageId"], event["state"]) for event in events(api)]
    assert len(everything) == 15
    read, cursor = [], ""
    while True:
        answer = api.get(f"/v2/events?count=4&{cursor and 'cursor=' + cursor}").json
        read += [(event["messageId"], event["state"]) for event in answer["events"]]
        clock.advance(1)
        post(delay="1h")
        if "cursor" not in answer:
            break
        cursor = answer["cursor"]
    assert read == everything


def test_counts_have_a_limit(api: Api) -> None:
    for _ in range(105):
        post(delay="1h")
    assert len(events(api)) == 100
    assert len(events(api, "count=1000000")) == 105
    assert api.get("/v2/events?count=0").status == 400
    assert api.get("/v2/events?cursor=bad!").status == 400
    assert api.get("/v2/events?colour=red").status == 400


def test_what_is_hidden_is_hidden_in_every_entry(api: Api) -> None:
    post(
        body="secret",
        redact_fields="body,header",
        retries="0",
        forward_x_key="k",
        failure_callback="https://failed.example/",
    )
    with mock_calls(lambda call: CallAnswer(500, "secret again", {"X-Id": "7"}) if call.url == URL else CallAnswer()):
        run_workflows()
    found = events(api)
    assert len(found) == 6
    text = api.get("/v2/events").body.decode()
    for secret in ("secret", "secret again"):
        assert base64.b64encode(secret.encode()).decode() not in text
    assert "secret" not in text
    failed = next(event for event in found if event["state"] == "FAILED")
    digest = "REDACTED:" + hashlib.sha256(b"secret again").hexdigest()
    assert base64.b64decode(failed["responseBody"]).decode() == digest
    assert failed["error"] == "HTTP status 500"
    assert failed["responseHeader"] == {"X-Id": ["REDACTED:" + hashlib.sha256(b"7").hexdigest()]}
    assert failed["header"] == {"X-Key": ["REDACTED:" + hashlib.sha256(b"k").hexdigest()]}
    told = [event for event in found if event["url"] == "https://failed.example/"]
    assert all(base64.b64decode(event["body"]).startswith(b"REDACTED:") for event in told)


@pytest.mark.parametrize("at", [10**18, -(10**18)])
def test_a_cursor_of_no_calendar_is_refused(api: Api, at: int) -> None:
    assert api.get(f"/v2/events?cursor={encode_cursor((at, uuid4(), 0))}").status == 400
