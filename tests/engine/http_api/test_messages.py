"""`/v2/messages`: what clients send and read."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pytest

from django_workflow.engine.facts import Answer as Settled
from django_workflow.models import Delivery, MessageLog
from django_workflow.testing import CallAnswer, WorkflowClock, mock_calls, run_workflows, workflow_clock
from tests.engine.deliveries import Hand
from tests.engine.http_api.conftest import Api
from tests.engine.posting import DOWN, URL, post, states_of

START = datetime(2026, 1, 1, tzinfo=UTC)
START_MS = 1_767_225_600_000

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def clock() -> Iterator[WorkflowClock]:
    with workflow_clock(START) as clock:
        yield clock


def digest(text: str | bytes) -> str:
    return "REDACTED:" + hashlib.sha256(text.encode() if isinstance(text, str) else text).hexdigest()


def shown(api: Api, log: MessageLog) -> Any:
    answer = api.get(f"/v2/messages/{log.message_id}")
    assert answer.status == 200, answer.error
    return answer.json


class TestOneMessage:
    def test_has_what_every_client_needs_and_nothing_that_is_not_so(self, api: Api) -> None:
        log = post()
        assert shown(api, log) == {
            "messageId": log.message_id,
            "url": URL,
            "method": "POST",
            "maxRetries": 3,
            "notBefore": START_MS,
            "createdAt": START_MS,
        }

    def test_has_all_of_its_settings(self, api: Api) -> None:
        log = post(
            "https://hooks.example/in?x=1",
            '{"n":1}',
            queue="mail",
            caller_ip="203.0.113.9",
            method="PUT",
            delay="1m",
            retries="5",
            retry_delay="1000 * retried",
            timeout="90s",
            label="vip, eu",
            flow_control_key="shop",
            flow_control_value="parallelism=2, rate=10, period=1m",
            callback="https://told.example/",
            callback_forward_x_key="1",
            failure_callback="https://failed.example/",
            headers={"Upstash-Forward-X-Trace": "7", "Content-Type": "application/json"},
        )
        assert shown(api, log) == {
            "messageId": log.message_id,
            "url": "https://hooks.example/in?x=1",
            "method": "PUT",
            "header": {"X-Trace": ["7"], "Content-Type": ["application/json"]},
            "body": '{"n":1}',
            "maxRetries": 5,
            "retryDelayExpression": "1000 * retried",
            "notBefore": START_MS + 60_000,
            "createdAt": START_MS,
            "callback": "https://told.example/",
            "callbackHeader": {"X-Key": ["1"]},
            "failureCallback": "https://failed.example/",
            "queueName": "mail",
            "callerIP": "203.0.113.9",
            "label": "vip",
            "labels": ["vip", "eu"],
            "flowControlKey": "shop",
            "parallelism": 2,
            "rate": 10,
            "period": 60,
            "timeout": 90,
        }

    @pytest.mark.parametrize(
        ("value", "limits"),
        [
            ("parallelism=3", {"parallelism": 3, "period": 1}),
            ("rate=4", {"rate": 4, "period": 1}),
            ("rate=4, period=2m", {"rate": 4, "period": 120}),
        ],
    )
    def test_has_a_period_whenever_it_has_a_flow_control_key(
        self, api: Api, value: str, limits: dict[str, int]
    ) -> None:
        message = shown(api, post(flow_control_key="k", flow_control_value=value))
        assert {name: message[name] for name in ("parallelism", "rate", "period") if name in message} == limits

    def test_shows_a_body_that_is_no_text_in_base64(self, api: Api) -> None:
        message = shown(api, post(body=b"\xff\x00"))
        assert "body" not in message
        assert base64.b64decode(message["bodyBase64"]) == b"\xff\x00"
        assert shown(api, post(body=b"a\x00b"))["body"] == "a\0b"

    def test_hides_what_its_publisher_hides_and_delivers_it(self, api: Api) -> None:
        log = post(
            body="secret",
            redact_fields="body, headers[X-Key]",
            forward_x_key="k",
            forward_x_open="o",
            callback="https://told.example/",
            callback_forward_x_key="k2",
        )
        message = shown(api, log)
        assert message["body"] == digest("secret")
        assert message["header"] == {"X-Key": [digest("k")], "X-Open": ["o"]}
        assert message["callbackHeader"] == {"X-Key": [digest("k2")]}
        hidden = shown(api, post(body=b"\xff\x00", redact_fields="body,header", forward_x_key="k"))
        assert hidden["body"] == digest(b"\xff\x00")
        assert hidden["header"] == {"X-Key": [digest("k")]}
        with mock_calls(CallAnswer()) as network:
            run_workflows()
        (first,) = (call for call in network.calls if call.body == b"secret")
        assert first.headers["X-Key"] == "k"
        (told,) = (call for call in network.calls if call.url == "https://told.example/")
        assert base64.b64decode(told.json["sourceBody"]) == b"secret"

    def test_is_404_once_it_is_finished_canceled_or_was_never_there(self, api: Api, clock: WorkflowClock) -> None:
        delivered, canceled = post(), post(delay="1h")
        failed = post(retries="0")
        api.delete(f"/v2/messages/{canceled.message_id}")
        with mock_calls(lambda call: DOWN if call.headers["Upstash-Message-Id"] == failed.message_id else CallAnswer()):
            run_workflows()
        for log in (delivered, canceled, failed):
            assert api.get(f"/v2/messages/{log.message_id}").status == 404
            assert api.delete(f"/v2/messages/{log.message_id}").status == 404
        for unknown in ("msg_" + "0" * 22, "msg_", "some"):
            assert api.get(f"/v2/messages/{unknown}").status == 404
            assert api.delete(f"/v2/messages/{unknown}").status == 404

    def test_that_waits_for_its_retry_is_still_there(self, api: Api) -> None:
        log = post()
        with mock_calls(DOWN):
            run_workflows()
        assert shown(api, log)["notBefore"] == START_MS


class TestCancel:
    def test_answers_how_many_were_canceled(self, api: Api) -> None:
        log = post(delay="1h")
        answer = api.delete(f"/v2/messages/{log.message_id}")
        assert (answer.status, answer.json) == (200, {"cancelled": 1})
        assert states_of(log)[-1] == "CANCELED"

    def test_of_one_under_way_lets_it_end(self, api: Api, clock: WorkflowClock) -> None:
        log, hand = post(), Hand(clock)
        (lease,) = hand.claim()
        assert api.delete(f"/v2/messages/{log.message_id}").json == {"cancelled": 1}
        assert api.delete(f"/v2/messages/{log.message_id}").status == 404
        assert api.get(f"/v2/messages/{log.message_id}").status == 404
        hand.settle(lease, answer=Settled(500))
        assert states_of(log)[-1] == "CANCELED"

    @pytest.mark.parametrize("form", ["query", "commas", "body"])
    def test_takes_ids_in_three_forms_and_then_no_other_filter(self, api: Api, form: str) -> None:
        wanted, other = [post(delay="1h") for _ in range(3)], post(delay="1h")
        ids = [log.message_id for log in wanted] + ["msg_unknown"]
        if form == "query":
            answer = api.delete("/v2/messages?queueName=none&" + "&".join(f"messageIds={text}" for text in ids))
        elif form == "commas":
            answer = api.delete(f"/v2/messages?messageIds={','.join(ids)}")
        else:
            answer = api.delete("/v2/messages", {"messageIds": ids})
        assert answer.json == {"cancelled": 3}
        assert [log.pk for log in MessageLog.objects.unfinished()] == [other.pk]

    @pytest.mark.parametrize("target", ["/v2/messages?messageIds=", "/v2/messages?messageIds=,"])
    def test_with_an_empty_list_of_ids_cancels_nothing(self, api: Api, target: str) -> None:
        post(delay="1h")
        assert api.delete(target).status == 400
        assert api.delete("/v2/messages", {"messageIds": []}).status == 400
        assert Delivery.objects.count() == 1

    @pytest.mark.parametrize(
        ("query", "fits"),
        [
            ("queueName=mail", "b"),
            ("queueName=Mail", ""),
            ("label=vip", "cd"),
            ("label=vip&label=eu", "cde"),
            ("label=eu,us", "de"),
            ("label=vip&queueName=mail", ""),
            (f"url={quote('https://a.example/x,y?z=1', safe='')}", "f"),
            ("url=https%3A%2F%2FA.example%2Fx%2Cy%3Fz%3D1", ""),
            ("host=A.example", "f"),
            ("path=/x,y", "f"),
            ("flowControlKey=k", "g"),
            ("callerIp=203.0.113.9", "h"),
            ("callerIP=203.0.113.9", "h"),
            ("topicName=news", ""),
            ("scheduleId=s", ""),
            (f"fromDate={START_MS + 1000}", "i"),
            (f"toDate={START_MS}", "abcdefgh"),
        ],
    )
    def test_takes_what_fits_all_filters(self, api: Api, clock: WorkflowClock, query: str, fits: str) -> None:
        later = {"delay": "1h"}
        post(body="a", **later)
        post(body="b", queue="mail", **later)
        post(body="c", label="vip", **later)
        post(body="d", label="vip,eu", **later)
        post(body="e", label="eu", **later)
        post("https://a.example/x,y?z=1", body="f", **later)
        post(body="g", flow_control_key="k", flow_control_value="rate=1", **later)
        post(body="h", caller_ip="203.0.113.9", **later)
        clock.advance(1)
        post(body="i", **later)
        answer = api.delete(f"/v2/messages?{query}")
        assert answer.json == {"cancelled": len(fits)}
        canceled = MessageLog.objects.filter(state=MessageLog.State.CANCELED)
        assert "".join(sorted(canceled.values_list("body", flat=True))) == fits

    def test_without_filters_takes_all_or_so_many_of_the_oldest(
        self, api: Api, clock: WorkflowClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("django_workflow.engine.http_api.messages.AT_ONCE", 3)
        logs = []
        for _ in range(12):
            logs.append(post(delay="1h"))
            clock.advance(1)
        assert api.delete("/v2/messages?count=5").json == {"cancelled": 5}
        assert {log.pk for log in logs[:5]}.isdisjoint(MessageLog.objects.unfinished().values_list("pk", flat=True))
        assert api.delete("/v2/messages").json == {"cancelled": 7}
        assert api.delete("/v2/messages").json == {"cancelled": 0}

    @pytest.mark.parametrize("query", ["state=CREATED", "count=0", "count=x", "fromDate=soon", "label=", "url="])
    def test_refuses_what_it_does_not_understand(self, api: Api, query: str) -> None:
        post(delay="1h")
        assert api.delete(f"/v2/messages?{query}").status == 400
        assert Delivery.objects.count() == 1

    def test_refuses_more_ids_than_one_statement_holds(self, api: Api) -> None:
        post(delay="1h")
        body = {"messageIds": [f"msg_{number}" for number in range(1001)]}
        assert "at most 1000" in api.delete("/v2/messages", body).error
        assert Delivery.objects.count() == 1
