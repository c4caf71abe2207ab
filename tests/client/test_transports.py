"""HttpTransport against a pretended server, and WireTransport: nothing is lost on the wire."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from django_workflow.client.client import Client
from django_workflow.client.options import TriggerOptions
from django_workflow.client.session import current_region
from django_workflow.client.transports import HttpTransport, RegionalTransport, WireTransport
from django_workflow.errors import EngineError, EngineUnavailable, Misconfigured, QuotaExceeded, RunEnded
from django_workflow.protocol.publish import Message, WorkflowFields
from django_workflow.protocol.requests import (
    Batch,
    CancelRuns,
    FetchRun,
    FinishRun,
    GetWaiters,
    Publish,
    Published,
    Wait,
)
from django_workflow.protocol.steps import JournalMessage, Step
from tests.client.fakes import RecordingTransport

Handler = Callable[[httpx.Request], httpx.Response]


def over_http(handler: Handler, **options: Any) -> HttpTransport:
    return HttpTransport("https://qstash.example/", "secret", transport=httpx.MockTransport(handler), **options)


def answer(status: int = 200, body: object = None) -> tuple[list[httpx.Request], Handler]:
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        request.read()
        seen.append(request)
        return httpx.Response(status, json=body)

    return seen, handler


def message(**fields: Any) -> Message:
    return Message(destination="https://shop.example/a%2Fb?x=1", body=b"{}", **fields)


def test_a_batch_on_the_wire() -> None:
    seen, handler = answer(body=[{"messageId": "msg_1"}])
    sent = over_http(handler).send(Batch(messages=(message(),)))
    assert sent == (Published(message_id="msg_1"),)
    (request,) = seen
    assert (request.method, str(request.url)) == ("POST", "https://qstash.example/v2/batch")
    assert request.headers["Authorization"] == "Bearer secret"
    assert request.headers["Content-Length"] == str(len(request.content))  # chunks are lost on some servers
    (item,) = json.loads(request.content)
    assert (item["destination"], item["body"]) == ("https://shop.example/a%2Fb?x=1", "{}")


def test_a_destination_stands_in_the_path_as_it_is() -> None:
    seen, handler = answer(body={"messageId": "msg_1"})
    over_http(handler).send(Publish(message=message(headers={"X-Name": "größe"})))
    (request,) = seen
    assert request.url.raw_path == b"/v2/publish/https://shop.example/a%2Fb?x=1"
    assert (b"Upstash-Forward-X-Name", "größe".encode()) in request.headers.raw


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, RunEnded), (404, RunEnded), (412, QuotaExceeded), (500, EngineError), (429, EngineError)],
)
def test_a_refusal_is_an_error_with_its_status(status: int, kind: type[EngineError]) -> None:
    _, handler = answer(status, {"error": "said so"})
    with pytest.raises(kind, match="said so") as caught:
        over_http(handler).send(FinishRun(run_id="wfr_1"))
    assert caught.value.status == status


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_token_names_the_settings_that_hold_it(status: int) -> None:
    _, handler = answer(status, {"error": "unauthorized"})
    with pytest.raises(EngineError, match=r"unauthorized") as caught:
        over_http(handler).send(Publish(message=message()))
    assert caught.value.status == status
    text = str(caught.value)
    assert all(part in text for part in ("https://qstash.example", str(status), "QSTASH_TOKEN", "token", "QSTASH_URL"))
    assert "secret" not in text


def test_a_refusal_names_the_call_but_not_its_query() -> None:
    _, handler = answer(429, {"error": "slow down"})
    with pytest.raises(EngineError, match=r"429.*slow down.*DELETE /v2/workflows/runs of https://qstash\.example"):
        over_http(handler).send(CancelRuns(label="vip"))


@pytest.mark.parametrize("kind", [httpx.ConnectError, httpx.ReadTimeout, httpx.RemoteProtocolError])
def test_no_answer_is_engine_unavailable(kind: type[httpx.TransportError]) -> None:
    calls = 0

    def handler(request: httpx.Request) -> httpx.Response:
        nonlocal calls
        calls += 1
        raise kind("gone")

    with pytest.raises(EngineUnavailable, match=r"https://qstash\.example.*/v2/workflows/runs/wfr_1") as caught:
        over_http(handler).send(FinishRun(run_id="wfr_1"))
    assert caught.value.status == 0
    assert calls == 1  # whether it arrived is unknown, so it is not sent again


def test_what_only_asks_is_asked_again_when_a_kept_connection_was_closed() -> None:
    calls = 0

    def handler(request: httpx.Request) -> httpx.Response:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise httpx.RemoteProtocolError("Server disconnected without sending a response.")
        return httpx.Response(200, json=[])

    assert over_http(handler).send(GetWaiters(event_id="e")) == ()
    assert calls == 2


@pytest.mark.parametrize(
    ("kind", "said"), [(httpx.ConnectError, "did not arrive"), (httpx.ReadError, "may have arrived")]
)
def test_an_error_says_whether_the_request_may_have_arrived(kind: type[httpx.TransportError], said: str) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        raise kind("gone")

    with pytest.raises(EngineUnavailable, match=said):
        over_http(handler).send(FinishRun(run_id="wfr_1"))


def test_the_api_may_stand_below_a_path() -> None:
    seen, handler = answer(body=[])
    transport = HttpTransport("https://shop.example/workflows/qstash/", "t", transport=httpx.MockTransport(handler))
    transport.send(GetWaiters(event_id="e"))
    assert str(seen[0].url) == "https://shop.example/workflows/qstash/v2/waiters/e"


def test_a_forked_child_opens_connections_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    _, handler = answer(body=[])
    transport = over_http(handler)
    transport.send(GetWaiters(event_id="e"))
    of_parent = transport._client
    monkeypatch.setattr("os.getpid", lambda: -1)
    transport.send(GetWaiters(event_id="e"))
    assert transport._client is not of_parent


def test_a_refused_connection_is_engine_unavailable() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    transport = HttpTransport(f"http://127.0.0.1:{port}", "t", connect_retries=0)
    with pytest.raises(EngineUnavailable):
        transport.send(FinishRun(run_id="wfr_1"))
    transport.close()


async def test_asend_leaves_the_loop_free() -> None:
    _, handler = answer(body=[{"messageId": "msg_1"}])
    transport = over_http(handler)
    answers = await asyncio.gather(*(transport.asend(Batch(messages=(message(),))) for _ in range(5)))
    assert answers == [(Published(message_id="msg_1"),)] * 5


def test_the_client_is_made_once_and_again_after_close() -> None:
    _, handler = answer(body={})
    transport = over_http(handler)
    transport.send(FinishRun(run_id="wfr_1"))
    first = transport._client
    transport.send(FinishRun(run_id="wfr_1"))
    assert transport._client is first
    transport.close()
    assert transport._client is None


def test_the_network_has_no_transactions() -> None:
    _, handler = answer()
    with pytest.raises(Misconfigured, match="outbox"):
        over_http(handler).atomic()


def test_the_token_is_not_shown() -> None:
    _, handler = answer()
    assert "secret" not in repr(over_http(handler))


# Regions


def test_what_a_delivery_submits_goes_back_to_its_region() -> None:
    europe, america = RecordingTransport(), RecordingTransport()
    transport = RegionalTransport({"EU_CENTRAL_1": europe, "US_EAST_1": america}, "EU_CENTRAL_1")
    for region, receiver in ((None, europe), ("US_EAST_1", america), ("MARS_1", europe)):
        token = current_region.set(region)
        transport.send(FinishRun(run_id="wfr_1"))
        current_region.reset(token)
        assert receiver.sent.pop() == FinishRun(run_id="wfr_1")
    assert not europe.sent
    assert not america.sent


# WireTransport


def test_what_the_client_sends_arrives_as_it_was() -> None:
    inner = RecordingTransport()
    direct = RecordingTransport()
    options = TriggerOptions.of(
        run_id="a",
        delay=5,
        not_before=1760000000,
        retries=5,
        retry_delay="1000 * retried",
        timeout=30,
        flow_control={"key": "k", "rate": 2, "period": 60, "parallelism": 1},
        label=["x", "y"],
        headers={"X-User": "größe"},
        failure_url="https://ops.example/",
        redact=["body", "header[X]"],
    )
    for transport in (WireTransport(inner), direct):
        client = Client(transport)
        assert client.trigger("https://shop.example/flow", b'{"a":"\xc3\xbc"}', options).id == "wfr_a"
        client.notify("paid", {"a": 1}, run_id="wfr_1")
        client.cancel(["wfr_1", "wfr_2"])
        client.cancel(label="x", count=3)
        client.finish("wfr_1", b"1")
        client.cancel_run("wfr_1")
        fields = WorkflowFields(run_id="wfr_1", url="https://shop.example/flow", features=("LazyFetch",))
        step = Step(step_id=1, step_name="wait", step_type="Wait", concurrent=1)
        waiting = Message(destination="https://shop.example/flow", content_type="application/json", workflow=fields)
        transport.send(Wait(event_id="a b/c", message=waiting, step=step, timeout=60))
    assert inner.sent == direct.sent


def test_a_fetched_run_comes_back_as_it_was() -> None:
    inner = RecordingTransport()
    inner.journal = (JournalMessage("msg_1", "{}"), JournalMessage("msg_2", "ü", "toCallback"))
    fetched = WireTransport(inner).send(FetchRun(run_id="wfr_1", message_id="msg_2"))
    assert [(m.message_id, m.body, m.call_type) for m in fetched] == [
        ("msg_1", "{}", "step"),
        ("msg_2", "ü", "toCallback"),
    ]


@pytest.mark.parametrize(
    "error", [RunEnded("over"), QuotaExceeded("too much"), EngineError("broken", status=500), EngineUnavailable("gone")]
)
async def test_errors_travel_too(error: EngineError) -> None:
    inner = RecordingTransport()
    inner.refuse_with = error
    transport = WireTransport(inner)
    with pytest.raises(type(error), match=str(error)) as caught:
        transport.send(FinishRun(run_id="wfr_1"))
    assert caught.value.status == error.status
    with pytest.raises(type(error)):
        await transport.asend(FinishRun(run_id="wfr_1"))


def test_its_transactions_are_the_inner_transports() -> None:
    inner = RecordingTransport()
    with WireTransport(inner).atomic():
        pass
    assert inner.transactions == 1
