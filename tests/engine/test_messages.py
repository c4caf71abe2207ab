"""Messages outside workflows, from their publication to their end; destinations are pretended."""

from __future__ import annotations

import base64
import itertools
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from threading import Barrier, Thread
from typing import Any

import msgspec
import pytest
from django.db import connection, connections
from django.utils import timezone

from django_workflow import WorkflowContext, workflow
from django_workflow.client.urls import workflow_url
from django_workflow.engine import cycle, messages, signing_keys
from django_workflow.engine.dispatch import Dispatcher
from django_workflow.engine.facts import Answer
from django_workflow.engine.leases import MAX_RESCUES, claim, count_start
from django_workflow.engine.messages import cancel
from django_workflow.engine.network import HttpAnswer
from django_workflow.engine.publishing import accept_all
from django_workflow.engine.shared import shared_cache
from django_workflow.engine.writing import write
from django_workflow.errors import EngineError, MessageInvalid, QuotaExceeded
from django_workflow.models import Attempt, DeadLetter, Delivery, MessageLog, Run
from django_workflow.protocol.identifiers import message_key_of, uuid7
from django_workflow.protocol.publish import Message
from django_workflow.protocol.signature import verify
from django_workflow.testing import CallAnswer, WorkflowClock, mock_calls, run_workflows
from django_workflow.testing.calls import Call, RefusingNetwork, current_network
from tests.engine.deliveries import Hand
from tests.engine.posting import ALIAS, DOWN, URL, answers, post, publish, states_of
from tests.engine.threads import at_once

pytestmark = pytest.mark.django_db
CALLBACK = "https://hooks.example/told"
FAILED = "https://hooks.example/failed"
State = MessageLog.State


@pytest.fixture
def clock(workflow_clock: WorkflowClock) -> WorkflowClock:
    return workflow_clock


def told(call: Call) -> dict[str, Any]:
    """A callback's body with its base64 undone."""
    body = call.json
    for name in ("body", "sourceBody"):
        if name in body:
            body[name] = base64.b64decode(body[name]).decode()
    return dict(body)


class TestDelivery:
    def test_a_message_is_delivered_once_and_its_answer_kept(self, clock: WorkflowClock) -> None:
        log = post(body="hello", method="put")
        with mock_calls(CallAnswer(201, "thanks", {"X-Seen": "yes"})) as network:
            assert run_workflows() == 1
        (call,) = network.calls
        assert (call.method, call.url, call.body) == ("PUT", URL, b"hello")
        log.refresh_from_db()
        assert (log.state, log.status, log.response_body) == (State.DELIVERED, 201, "thanks")
        assert msgspec.json.decode(log.response_headers) == {"X-Seen": ["yes"]}
        assert not Delivery.objects.exists()
        assert states_of(log) == ["CREATED", "ACTIVE", "DELIVERED"]

    def test_a_body_arrives_byte_for_byte(self, clock: WorkflowClock) -> None:
        bodies = [b"\x00\xff\x80 no text", "ä\u2028😀".encode(), b"", b'{"b": 1,  "a":2}\n', b"a\x00b"]
        for body in bodies:
            post(body=body)
        with mock_calls(CallAnswer()) as network:
            run_workflows()
        assert sorted(call.body for call in network.calls) == sorted(bodies)

    @pytest.mark.parametrize("status", [199, 300, 302, 308, 400, 404, 489, 500])
    def test_only_2xx_is_success(self, clock: WorkflowClock, status: int) -> None:
        log = post()
        with mock_calls(CallAnswer(status, "", {"Location": "https://elsewhere.example/"})) as network:
            run_workflows()
        log.refresh_from_db()
        assert len(network.calls) == 1  # no redirect is followed
        assert (log.state, log.error) == (State.RETRY, f"HTTP status {status}")

    def test_a_delay_holds_a_message_back_and_not_before_wins_over_it(self, clock: WorkflowClock) -> None:
        at = int(clock.now().timestamp()) + 7200
        delayed, dated = post(delay="1h30m"), post(delay="5s", not_before=str(at))
        with mock_calls(CallAnswer()) as network:
            clock.advance(89 * 60)
            assert run_workflows() == 0
            clock.advance(60)
            assert run_workflows() == 1
            clock.move_to(datetime.fromtimestamp(at - 1, UTC))
            assert run_workflows() == 0
            clock.advance(1)
            assert run_workflows() == 1
        assert len(network.calls) == 2
        assert [log_.due_at - log_.created_at for log_ in (delayed, dated)] == [
            timedelta(hours=1.5),
            timedelta(hours=2),
        ]

    def test_an_instant_that_is_past_means_now(self, clock: WorkflowClock) -> None:
        post(not_before="12.5")
        with mock_calls(CallAnswer()) as network:
            run_workflows()
        assert len(network.calls) == 1

    @pytest.mark.parametrize(
        ("config", "seconds"),
        [({}, 300.0), ({"timeout": "90"}, 90.0), ({"timeout": "1m30s"}, 90.0), ({"timeout": "2h"}, 7200.0)],
    )
    def test_a_message_may_say_how_long_an_answer_may_take(
        self, clock: WorkflowClock, config: dict[str, str], seconds: float
    ) -> None:
        taken = []

        class Slow:
            def send(self, *args: Any, **kwargs: Any) -> HttpAnswer:
                taken.append(args[4])
                return HttpAnswer(0, error="No complete answer within the time.")

        log = post(**config)
        current_network.append(Slow())
        try:
            run_workflows()
        finally:
            current_network.pop()
        log.refresh_from_db()
        assert taken == [seconds]
        assert (log.state, log.error, log.status) == (State.RETRY, "No complete answer within the time.", 0)


class TestHeaders:
    def test_a_delivery_says_whose_it_is_and_what_was_published(self, clock: WorkflowClock) -> None:
        log = post(
            body="{}",
            caller_ip="203.0.113.9",
            label="vip, eu",
            headers={"Content-Type": "application/vnd.shop+json", "Upstash-Forward-X-Trace": "7"},
        )
        with mock_calls(CallAnswer()) as network:
            run_workflows()
        headers = dict(network.calls[0].headers)
        assert headers.pop("Upstash-Signature")
        assert headers == {
            "X-Trace": "7",
            "Content-Type": "application/vnd.shop+json",
            "User-Agent": "Upstash-QStash",
            "Upstash-Message-Id": log.message_id,
            "Upstash-Retried": "0",
            "Upstash-Caller-Ip": "203.0.113.9",
            "Upstash-Label": "vip,eu",
        }

    def test_a_message_of_a_schedule_names_it(self, clock: WorkflowClock) -> None:
        write(ALIAS, lambda unit: messages.publish(unit, Message(destination=URL), schedule_id="nightly"))
        with mock_calls(CallAnswer()) as network:
            run_workflows()
        assert network.calls[0].headers["Upstash-Schedule-Id"] == "nightly"

    def test_there_is_no_content_type_unless_one_was_published(self, clock: WorkflowClock) -> None:
        post(body="{}", headers={"Upstash-Forward-Content-Type": "text/html"})
        with mock_calls(CallAnswer()) as network:
            run_workflows()
        assert "content-type" not in {name.lower() for name in network.calls[0].headers}

    def test_forwarded_transport_headers_and_forged_ones_of_the_engine_are_dropped(self, clock: WorkflowClock) -> None:
        sent = {
            "Host": "evil.example",
            "Content-Length": "1",
            "Connection": "keep-alive, X-Hop",
            "X-Hop": "1",
            "Transfer-Encoding": "chunked",
            "Accept-Encoding": "br",
            "User-Agent": "curl",
            "Upstash-Signature": "stale",
            "Upstash-Message-Id": "msg_other",
            "Upstash-Retried": "9",
            "Upstash-Caller-Ip": "1.1.1.1",
            "X-Kept": "yes",
        }
        log = post(headers={f"Upstash-Forward-{name}": value for name, value in sent.items()})
        with mock_calls(CallAnswer()) as network:
            run_workflows()
        headers = dict(network.calls[0].headers)
        assert headers.pop("Upstash-Signature") != "stale"
        assert headers == {
            "X-Kept": "yes",
            "User-Agent": "Upstash-QStash",
            "Upstash-Message-Id": log.message_id,
            "Upstash-Retried": "0",
        }

    def test_header_forward_passes_on_what_came_but_not_the_engines_token(self, clock: WorkflowClock) -> None:
        incoming = {"Authorization": "Bearer engine", "X-Event": "push", "Host": "engine", "Content-Length": "2"}
        post(body="{}", header_forward="true", headers=incoming)
        with mock_calls(CallAnswer()) as network:
            run_workflows()
        headers = network.calls[0].headers
        assert headers["X-Event"] == "push"
        assert not {"authorization", "host", "content-length"} & {name.lower() for name in headers}

    def test_each_attempt_is_signed_anew_for_the_exact_bytes(self, clock: WorkflowClock) -> None:
        body = '{"ä":1, "b" : 2}'.encode()
        post(body=body, retries="1", retry_delay="0")
        with mock_calls(answers(DOWN, CallAnswer())) as network:
            run_workflows(skip_delays=True)
        pair = signing_keys.signing_pair()
        claims = [
            verify(call.headers["Upstash-Signature"], body, [pair.current], time.time(), URL) for call in network.calls
        ]
        assert len(claims) == 2
        assert claims[0].jti != claims[1].jti
        assert [call.headers["Upstash-Retried"] for call in network.calls] == ["0", "1"]


class TestRetries:
    def test_the_backoff_grows_until_the_last_attempt_and_then_the_message_is_a_dead_letter(
        self, clock: WorkflowClock
    ) -> None:
        log = post(body="x")
        times = []
        with mock_calls(lambda call: (times.append(clock.now()), DOWN)[1]) as network:
            run_workflows(skip_delays=True)
        waits = [(after - before).total_seconds() for before, after in itertools.pairwise(times)]
        assert [round(wait) for wait in waits] == [12, 148, 1808]
        assert [call.headers["Upstash-Retried"] for call in network.calls] == ["0", "1", "2", "3"]
        log.refresh_from_db()
        assert (log.state, log.status, log.attempt, log.error) == (State.FAILED, 503, 3, "later")
        letter = DeadLetter.objects.get(message=log)
        assert (letter.run, letter.status, letter.error, letter.response_body) == (None, 503, "later", "later")
        assert Attempt.objects.filter(message_key=log.pk).count() == 4
        assert states_of(log) == ["CREATED", *["ACTIVE", "ERROR", "RETRY"] * 3, "ACTIVE", "FAILED"]

    def test_a_retry_may_succeed(self, clock: WorkflowClock) -> None:
        log = post()
        with mock_calls(answers(DOWN, CallAnswer(200, "ok"))):
            run_workflows(skip_delays=True)
        log.refresh_from_db()
        assert (log.state, log.status, log.error) == (State.DELIVERED, 200, "")
        assert not DeadLetter.objects.exists()
        assert states_of(log) == ["CREATED", "ACTIVE", "ERROR", "RETRY", "ACTIVE", "DELIVERED"]

    def test_no_retries_means_one_attempt(self, clock: WorkflowClock) -> None:
        log = post(retries="0")
        with mock_calls(DOWN) as network:
            run_workflows(skip_delays=True)
        log.refresh_from_db()
        assert log.state == State.FAILED
        assert len(network.calls) == 1

    def test_an_expression_says_how_long_to_wait(self, clock: WorkflowClock) -> None:
        post(retries="3", retry_delay="5000 * retried")
        times = []
        with mock_calls(lambda call: (times.append(clock.now()), DOWN)[1]):
            run_workflows(skip_delays=True)
        assert [(at - times[0]).total_seconds() for at in times] == [0, 0, 5, 15]

    @pytest.mark.parametrize(
        ("headers", "seconds"),
        [
            ({"Retry-After": "90"}, 90),
            ({"retry-after": "0"}, 0),
            ({"X-RateLimit-Reset": "1m30s"}, 90),
            ({"X-RateLimit-Reset-Requests": "120ms"}, 0.12),
            ({"X-RateLimit-Reset-Tokens": "1.5s"}, 1.5),
            ({"Retry-After": "7", "X-RateLimit-Reset": "9"}, 7),
            ({"Retry-After": "90000"}, 3),  # more than a day is passed over: the message's own expression holds
            ({"Retry-After": "soon", "X-RateLimit-Reset": "9"}, 9),
        ],
    )
    def test_the_destination_may_say_when_to_try_again(
        self, clock: WorkflowClock, headers: dict[str, str], seconds: float
    ) -> None:
        log, hand = post(retry_delay="3000"), Hand(clock)
        (lease,) = hand.claim()
        hand.settle(lease, answer=Answer(429, {name: [value] for name, value in headers.items()}))
        assert (Delivery.objects.get().due_at - clock.now()).total_seconds() == pytest.approx(seconds)
        log.refresh_from_db()
        assert (log.state, log.error) == (State.RETRY, "HTTP status 429")

    def test_an_http_date_says_so_as_well(self, clock: WorkflowClock) -> None:
        post()
        at = clock.now().replace(microsecond=0) + timedelta(seconds=40)
        with mock_calls(CallAnswer(503, "", {"Retry-After": format_datetime(at, usegmt=True)})):
            run_workflows()
        assert Delivery.objects.get().due_at == at

    @pytest.mark.parametrize(
        ("answer", "attempts"),
        [
            (CallAnswer(489, "never", {"Upstash-NonRetryable-Error": "true"}), 1),
            (CallAnswer(489, "never"), 3),
            (CallAnswer(500, "never", {"Upstash-NonRetryable-Error": "true"}), 3),
        ],
    )
    def test_489_with_its_header_ends_the_attempts(
        self, clock: WorkflowClock, answer: CallAnswer, attempts: int
    ) -> None:
        post(retries="2", failure_callback=FAILED)
        with mock_calls(lambda call: CallAnswer() if call.url == FAILED else answer) as network:
            run_workflows(skip_delays=True)
        assert [call.url for call in network.calls] == [URL] * attempts + [FAILED]
        assert DeadLetter.objects.get().error == "never"

    def test_a_message_whose_workers_died_six_times_is_a_dead_letter(self, clock: WorkflowClock) -> None:
        log = post(failure_callback=FAILED)
        for _ in range(MAX_RESCUES + 1):
            worker = uuid7()
            (lease,) = claim(ALIAS, worker, clock.now(), 1).leases
            assert count_start(ALIAS, lease)
            cycle.rescue_dead(ALIAS, clock.now(), [worker])
        letter = DeadLetter.objects.get()
        assert letter.message == log
        assert "worker lost: 6 workers died" in letter.error
        with mock_calls(CallAnswer()) as network:
            run_workflows()
        assert "worker lost" in told(network.calls[0])["body"]
        assert told(network.calls[0])["status"] == 0


class TestCallbacks:
    def test_each_attempt_is_told_with_all_that_is_known(self, clock: WorkflowClock) -> None:
        log = post(
            body='{"order":7}',
            caller_ip="203.0.113.9",
            callback=CALLBACK,
            retries="1",
            retry_delay="1000",
            headers={"Upstash-Forward-X-Trace": "7", "Content-Type": "application/json"},
        )
        given = answers(CallAnswer(500, "broken", {"X-Why": "db"}), CallAnswer(200, {"ok": True}))
        with mock_calls(lambda call: CallAnswer() if call.url == CALLBACK else given(call)) as network:
            run_workflows(skip_delays=True)
        first, second = (told(call) for call in network.calls if call.url == CALLBACK)
        created = int(log.created_at.timestamp() * 1000)
        assert first == {
            "status": 500,
            "header": {"X-Why": ["db"]},
            "body": "broken",
            "retried": 0,
            "maxRetries": 1,
            "sourceMessageId": log.message_id,
            "url": URL,
            "method": "POST",
            "sourceHeader": {"X-Trace": ["7"], "Content-Type": ["application/json"]},
            "sourceBody": '{"order":7}',
            "notBefore": created,
            "createdAt": created,
            "callerIP": "203.0.113.9",
        }
        assert (second["status"], second["body"], second["retried"]) == (200, '{"ok":true}', 1)

    def test_a_callback_is_json_that_is_stable_under_javascript(self, clock: WorkflowClock) -> None:
        post(callback=CALLBACK, headers={"Upstash-Forward-10": "b", "Upstash-Forward-9": "ä/<>&"})
        with mock_calls(CallAnswer(200, "", {"X-Name": "ö"})) as network:
            run_workflows()
        body = network.calls[1].body.decode()
        assert network.calls[1].headers["Content-Type"] == "application/json"
        assert '"sourceHeader":{"9":["ä/<>&"],"10":["b"]}' in body
        assert ": " not in body
        assert not body.endswith("\n")

    def test_a_callback_is_a_message_with_settings_of_its_own(self, clock: WorkflowClock) -> None:
        post(
            retries="5",
            callback=CALLBACK,
            callback_method="PATCH",
            callback_retries="1",
            callback_retry_delay="2000",
            callback_delay="10s",
            callback_timeout="7s",
            callback_forward_authorization="Bearer told",
            callback_label="told",
        )
        with mock_calls(lambda call: DOWN if call.url == CALLBACK else CallAnswer()) as network:
            run_workflows()
            assert len(network.calls) == 1
            clock.advance(10)
            run_workflows()
            assert len(network.calls) == 2
            clock.advance(2)
            run_workflows()
        _, call, again = network.calls
        assert call.method == "PATCH"
        assert call.headers["Authorization"] == "Bearer told"
        assert (call.headers["Upstash-Retried"], again.headers["Upstash-Retried"]) == ("0", "1")
        callback = MessageLog.objects.get(kind=MessageLog.Kind.CALLBACK)
        assert (callback.state, callback.labels, callback.source_key) == (
            State.FAILED,
            ",told,",
            MessageLog.objects.get(kind=MessageLog.Kind.MESSAGE).pk,
        )
        assert DeadLetter.objects.get().message == callback
        assert states_of(callback) == ["CREATED", "ACTIVE", "ERROR", "RETRY", "ACTIVE", "FAILED"]

    def test_a_callback_has_the_retries_of_its_message_unless_it_says_otherwise(self, clock: WorkflowClock) -> None:
        post(retries="7", callback=CALLBACK)
        with mock_calls(CallAnswer()):
            run_workflows()
        assert MessageLog.objects.get(kind=MessageLog.Kind.CALLBACK).max_retries == 7

    def test_a_failure_callback_is_sent_once_with_the_dead_letters_id(self, clock: WorkflowClock) -> None:
        post(body="src", retries="2", retry_delay="1", callback=CALLBACK, failure_callback=FAILED)
        with mock_calls(lambda call: CallAnswer(502, "bad") if call.url == URL else CallAnswer()) as network:
            run_workflows(skip_delays=True)
        assert [call.url for call in network.calls].count(CALLBACK) == 3
        (failure,) = (told(call) for call in network.calls if call.url == FAILED)
        assert failure["dlqId"] == str(DeadLetter.objects.get().pk)
        assert (failure["status"], failure["body"], failure["sourceBody"]) == (502, "bad", "src")
        assert (failure["retried"], failure["maxRetries"]) == (2, 2)

    def test_a_success_sends_no_failure_callback(self, clock: WorkflowClock) -> None:
        post(failure_callback=FAILED)
        with mock_calls(CallAnswer()) as network:
            run_workflows(skip_delays=True)
        assert [call.url for call in network.calls] == [URL]

    def test_callbacks_are_configured_recursively(self, clock: WorkflowClock) -> None:
        post(
            callback=CALLBACK,
            callback_retries="0",
            callback_failure_callback=FAILED,
            callback_failure_callback_forward_x_who="nested",
            callback_failure_callback_callback="https://hooks.example/deep",
            callback_failure_callback_callback_method="PUT",
        )
        with mock_calls(lambda call: DOWN if call.url == CALLBACK else CallAnswer()) as network:
            run_workflows(skip_delays=True)
        assert [call.url for call in network.calls] == [URL, CALLBACK, FAILED, "https://hooks.example/deep"]
        assert network.calls[2].headers["X-Who"] == "nested"
        assert network.calls[3].method == "PUT"
        failure = told(network.calls[2])
        assert failure["url"] == CALLBACK
        assert failure["sourceMessageId"] == MessageLog.objects.get(url=CALLBACK).message_id
        assert told(network.calls[3])["sourceMessageId"] == MessageLog.objects.get(url=FAILED).message_id

    @pytest.mark.parametrize(
        "config",
        [
            {"callback": "https://hooks.example/told", "callback_retries": "99999999"},
            {"callback": "https://hooks.example/told", "callback_failure_callback": "http://[broken"},
            {"failure_callback": "https://workflow.internal/admin/"},
            {"callback": "https://a.example/", "callback_flow_control_key": "k" * 256},
        ],
    )
    def test_what_could_not_be_told_later_is_refused_now(self, config: dict[str, str]) -> None:
        with pytest.raises((MessageInvalid, QuotaExceeded)):
            publish(**config)
        assert not MessageLog.objects.exists()


class TestDeduplication:
    def test_a_second_message_with_its_id_is_dropped_for_ten_minutes(self, clock: WorkflowClock) -> None:
        (first,) = publish(body="a", deduplication_id="order-7")
        (second,) = publish("https://elsewhere.example/", body="b", deduplication_id="order-7")
        assert (second.message_id, second.deduplicated) == (first.message_id, True)
        with mock_calls(CallAnswer()) as network:
            run_workflows()
        clock.advance("9m59s")  # also after it was delivered
        assert publish(deduplication_id="order-7")[0].deduplicated
        clock.advance("1s")
        (third,) = publish(deduplication_id="order-7")
        assert not third.deduplicated
        assert third.message_id != first.message_id
        assert publish(deduplication_id="order-7")[0].message_id == third.message_id
        assert [call.body for call in network.calls] == [b"a"]

    def test_content_is_destination_body_type_and_forwarded_headers(self, clock: WorkflowClock) -> None:
        same: dict[str, Any] = {
            "body": "x",
            "content_based_deduplication": "True",
            "headers": {"Upstash-Forward-A": "1", "Content-Type": "text/plain"},
        }
        (first,) = publish(**same)
        assert publish(**same)[0].deduplicated
        assert publish(**same, retries="1")[0].deduplicated
        for other in (
            {"body": "y"},
            {"headers": {"Upstash-Forward-A": "2", "Content-Type": "text/plain"}},
            {"headers": {"Upstash-Forward-A": "1", "Content-Type": "text/html"}},
            {"destination": URL + "?"},
        ):
            assert not publish(**{**same, **other})[0].deduplicated
        assert not publish(body="x", headers=same["headers"])[0].deduplicated
        assert first.message_id == publish(**same)[0].message_id

    def test_duplicates_inside_one_batch_are_found(self, clock: WorkflowClock) -> None:
        batch = [Message(destination=URL, deduplication_id="a", body=b"1"), Message(destination=URL)]
        found = write(ALIAS, lambda unit: accept_all(unit, [*batch, batch[0]]))
        assert [answer.deduplicated for answer in found] == [False, False, True]
        assert MessageLog.objects.count() == Delivery.objects.count() == 2

    @pytest.mark.postgresql
    @pytest.mark.mariadb
    @pytest.mark.django_db(transaction=True)
    def test_of_publishers_at_the_same_time_one_wins(self) -> None:
        barrier, found = Barrier(6), []

        def work(number: int) -> None:
            for turn in range(10):
                barrier.wait(20)
                found.append((turn, *publish(body=str(number), deduplication_id=f"turn {turn}")))

        at_once(*(partial(work, number) for number in range(6)))
        assert MessageLog.objects.count() == Delivery.objects.count() == 10
        for turn in range(10):
            published = [answer for at, answer in found if at == turn]
            assert len({answer.message_id for answer in published}) == 1
            assert sum(not answer.deduplicated for answer in published) == 1


class TestRefusals:
    @pytest.mark.parametrize(
        "destination",
        [
            "https://",
            "https:///path",
            "https://[::1",
            "https://host:99999/",
            "https://host/a b",
            "https://host/\x00",
            "https://host/\ud800",
        ],
    )
    def test_what_is_no_url_is_refused(self, destination: str) -> None:
        with pytest.raises(MessageInvalid, match="is no destination"):
            publish(destination)

    def test_an_unknown_group_is_404(self) -> None:
        with pytest.raises(EngineError, match="no URL group 'newsletter'") as raised:
            publish("newsletter")
        assert raised.value.status == 404

    @pytest.mark.parametrize(
        ("config", "error"),
        [
            ({"retries": "10001"}, QuotaExceeded),
            ({"delay": "367d"}, QuotaExceeded),
            ({"not_before": "99999999999999"}, QuotaExceeded),
            ({"method": "A" * 9}, MessageInvalid),
            ({"retry_delay": "import os"}, MessageInvalid),
            ({"flow_control_key": "k" * 256}, MessageInvalid),
        ],
    )
    def test_what_asks_for_too_much_or_makes_no_sense_is_refused(
        self, config: dict[str, str], error: type[Exception]
    ) -> None:
        with pytest.raises(error):
            publish(**config)

    def test_a_queues_name_is_checked(self) -> None:
        with pytest.raises(MessageInvalid, match="cannot be a queue's name"):
            publish(queue="a/b")


@workflow(name="by-message")
def by_message(ctx: WorkflowContext[dict[str, int]]) -> int:
    return ctx.run("double", lambda: ctx.request_payload["n"] * 2)


class TestOwnWorkflows:
    def test_a_message_to_a_workflow_starts_a_run_once_even_if_it_is_delivered_twice(
        self, clock: WorkflowClock
    ) -> None:
        log = post(workflow_url("by-message"), body='{"n":21}', label="vip")
        hand = Hand(clock)
        (lease,) = hand.claim()
        dispatcher = Dispatcher(ALIAS, shared_cache(ALIAS), clock.now, RefusingNetwork())  # type: ignore[arg-type]
        for _ in range(2):
            dispatched = dispatcher.dispatch(lease, lambda fact: None)
            assert dispatched.settlement.answer.status == 200, dispatched.settlement.answer.body
        hand.write(dispatched.settlement)
        run_workflows()
        run = Run.objects.get()
        assert (run.status, run.result, run.labels) == (Run.Status.SUCCESS, "42", ",vip,")
        log.refresh_from_db()
        assert log.state == State.DELIVERED

    @pytest.mark.parametrize("path", ["/admin/", "/workflows/api/", "/workflows/", "/"])
    def test_no_other_view_can_be_reached_from_inside(self, clock: WorkflowClock, path: str) -> None:
        with pytest.raises(MessageInvalid, match="is no workflow"):
            publish(f"https://workflow.internal{path}")

    def test_nor_by_a_message_that_was_taken_in_before(self, clock: WorkflowClock) -> None:
        post(retries="0")
        MessageLog.objects.update(url="https://workflow.internal/admin/")
        Delivery.objects.update(destination="https://workflow.internal/admin/")
        run_workflows()
        assert "is no workflow" in DeadLetter.objects.get().error


class TestCancel:
    def test_a_waiting_message_is_not_delivered(self, clock: WorkflowClock) -> None:
        log = post(delay="1h")
        assert cancel(ALIAS, [log.pk]) == 1
        assert cancel(ALIAS, [log.pk]) == 0
        with mock_calls(CallAnswer()) as network:
            run_workflows(skip_delays=True)
        assert network.calls == []
        assert states_of(log) == ["CREATED", "CANCEL_REQUESTED", "CANCELED"]

    def test_one_between_two_attempts_is_not_tried_again(self, clock: WorkflowClock) -> None:
        log = post(failure_callback=FAILED)
        with mock_calls(DOWN) as network:
            run_workflows()
            clock.advance(1)
            assert cancel(ALIAS, [log.pk]) == 1
            run_workflows(skip_delays=True)
        assert len(network.calls) == 1
        assert states_of(log) == ["CREATED", "ACTIVE", "ERROR", "RETRY", "CANCEL_REQUESTED", "CANCELED"]
        assert not DeadLetter.objects.exists()

    @pytest.mark.parametrize("retries", ["0", "3"])
    def test_one_under_way_ends_with_its_failure_untold(self, clock: WorkflowClock, retries: str) -> None:
        log = post(retries=retries, callback=CALLBACK, failure_callback=FAILED)
        hand = Hand(clock)
        (lease,) = hand.claim()
        assert cancel(ALIAS, [log.pk]) == 1
        assert cancel(ALIAS, [log.pk]) == 0
        assert states_of(log) == ["CREATED", "ACTIVE", "CANCEL_REQUESTED"]
        clock.advance(1)
        hand.settle(lease, answer=Answer(500, body=b"down"))
        assert not Delivery.objects.exists()
        assert not DeadLetter.objects.exists()
        log.refresh_from_db()
        assert (log.state, log.status, log.error) == (State.CANCELED, 500, "down")
        assert states_of(log) == ["CREATED", "ACTIVE", "CANCEL_REQUESTED", "CANCELED"]

    def test_one_under_way_that_arrives_is_delivered(self, clock: WorkflowClock) -> None:
        log = post()
        hand = Hand(clock)
        (lease,) = hand.claim()
        cancel(ALIAS, [log.pk])
        hand.settle(lease, answer=Answer(204))
        assert states_of(log) == ["CREATED", "ACTIVE", "CANCEL_REQUESTED", "DELIVERED"]

    def test_one_whose_worker_dies_under_way_is_not_delivered_again(self, clock: WorkflowClock) -> None:
        log, worker = post(), uuid7()
        claim(ALIAS, worker, clock.now(), 1)
        cancel(ALIAS, [log.pk])
        cycle.rescue_dead(ALIAS, clock.now(), [worker])
        other = post()
        assert [lease.message_key for lease in claim(ALIAS, uuid7(), clock.now(), 5).leases] == [other.pk]
        log.refresh_from_db()
        assert log.state == State.CANCELED
        assert Delivery.objects.get().message_key == other.pk

    @pytest.mark.django_db(transaction=True)
    def test_workers_and_who_cancels_never_both_win(self) -> None:
        """Half of the messages are settled by one thread while another one cancels all: each ends once."""
        if connection.vendor == "sqlite":
            connection.close()
        keys = [message_key_of(publish(retries="1", retry_delay="0")[0].message_id) for _ in range(40)]
        errors: list[BaseException] = []

        def work() -> None:
            try:
                hand = Hand(WorkflowClock(timezone.now() + timedelta(hours=1)))
                while leases := hand.claim(4):
                    for number, lease in enumerate(leases):
                        hand.settle(lease, answer=Answer(200 if number % 2 else 500))
            except BaseException as error:
                errors.append(error)
            finally:
                connections.close_all()

        thread = Thread(target=work)
        thread.start()
        canceled = cancel(ALIAS, [key for key in keys if key])
        thread.join()
        assert not errors
        work()
        assert not errors
        rows = list(MessageLog.objects.all())
        assert all(row.is_finished for row in rows)
        assert not Delivery.objects.exists()
        assert sum(row.cancel_requested_at is not None for row in rows) == canceled
        assert not any(row.state == State.CANCELED and row.cancel_requested_at is None for row in rows)
        assert not any(row.state == State.FAILED and row.cancel_requested_at is not None for row in rows)
