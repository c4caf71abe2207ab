"""What the client asks of its transport, per method."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import override_settings

from django_workflow.client import transports
from django_workflow.client.client import Client, Trigger, get_client
from django_workflow.client.options import TriggerOptions
from django_workflow.client.transports import current_transport, use_transport
from django_workflow.errors import Misconfigured
from django_workflow.protocol.publish import FEATURES, FlowControl, Message
from django_workflow.protocol.requests import (
    Batch,
    CancelRun,
    CancelRuns,
    FetchRun,
    FinishRun,
    GetWaiters,
    Notify,
    Publish,
    Published,
)
from django_workflow.replay.step_call import CurrentStep, current_step
from tests.client.fakes import RecordingTransport

URL = "https://workflow.internal/workflows/serve/checkout/"


def triggered(transport: RecordingTransport) -> Message:
    (request,) = transport.sent
    assert isinstance(request, Batch)
    (message,) = request.messages
    return message


# trigger


def test_trigger_sends_one_init_message(client: Client, transport: RecordingTransport) -> None:
    handle = client.trigger("checkout", b'{"a":1}')
    message = triggered(transport)
    assert message.destination == URL
    assert message.body == b'{"a":1}'
    assert message.method == "POST"
    assert message.content_type == "application/json"
    assert message.headers == {"Upstash-Workflow-Sdk-Version": "1"}  # forwarded: it marks deliveries as steps
    assert message.workflow is not None
    assert message.workflow.init
    assert message.workflow.url == URL
    assert message.workflow.features == FEATURES
    assert message.workflow.sdk_version == "1"
    assert not message.workflow.invoke
    assert handle.id == message.workflow.run_id
    assert handle.id.startswith("wfr_")
    assert not handle.deduplicated


def test_what_is_not_said_is_left_to_the_engine(client: Client, transport: RecordingTransport) -> None:
    client.trigger("checkout")
    message = triggered(transport)
    unsaid = (message.retries, message.retry_delay, message.delay, message.not_before, message.flow_control)
    assert unsaid == (None,) * 5
    assert message.labels == ()
    assert message.redact == ()


def test_a_failed_run_is_reported_to_its_workflow(client: Client, transport: RecordingTransport) -> None:
    handle = client.trigger("checkout")
    callback = triggered(transport).failure_callback
    assert callback is not None
    assert callback.url == URL
    assert callback.headers == {
        "Upstash-Forward-Upstash-Workflow-Is-Failure": "true",
        "Upstash-Forward-Upstash-Workflow-Failure-Callback": "true",
        "Upstash-Workflow-RunId": handle.id,
        "Upstash-Workflow-Init": "false",
        "Upstash-Workflow-Url": URL,
        "Upstash-Workflow-CallType": "failureCall",
        "Upstash-Feature-Set": "LazyFetch,InitialBody,WF_DetectTrigger,WF_TriggerOnConfig",
    }


def test_options_reach_the_message_and_its_failure_callback(client: Client, transport: RecordingTransport) -> None:
    client.trigger(
        "checkout",
        b"{}",
        TriggerOptions.of(
            run_id="my-run",
            delay="10s",
            not_before=1760000000,
            retries=5,
            retry_delay="1000 * (1 + retried)",
            flow_control={"key": "my-key", "parallelism": 5, "rate": 10, "period": "10m"},
            label=["a", "b"],
            headers={"X-User": "u1"},
            failure_url="https://ops.example/failed",
            redact="body,header[Authorization]",
        ),
    )
    message = triggered(transport)
    assert message.workflow is not None
    assert message.workflow.run_id == "wfr_my-run"
    assert (message.delay, message.not_before, message.retries) == (10.0, 1760000000, 5)
    assert message.retry_delay == "1000 * (1 + retried)"
    assert message.flow_control == FlowControl("my-key", parallelism=5, rate=10, period=600)
    assert message.labels == ("a", "b")
    assert message.redact == ("body", "header[Authorization]")
    assert message.headers == {"X-User": "u1", "Upstash-Label": "a,b", "Upstash-Workflow-Sdk-Version": "1"}
    callback = message.failure_callback
    assert callback is not None
    assert callback.url == "https://ops.example/failed"
    assert callback.headers["Upstash-Retries"] == "5"
    assert callback.headers["Upstash-Retry-Delay"] == "1000 * (1 + retried)"
    assert callback.headers["Upstash-Flow-Control-Key"] == "my-key"
    assert callback.headers["Upstash-Flow-Control-Value"] == "parallelism=5, rate=10, period=600s"
    assert callback.headers["Upstash-Forward-X-User"] == "u1"
    assert callback.headers["Upstash-Forward-Upstash-Label"] == "a,b"
    # A failure callback is no steps delivery.
    assert "Upstash-Forward-Upstash-Workflow-Sdk-Version" not in callback.headers


def test_a_content_type_among_the_headers_is_the_messages_own(client: Client, transport: RecordingTransport) -> None:
    client.trigger("checkout", b"text", TriggerOptions(headers={"content-type": "text/plain"}))
    assert triggered(transport).content_type == "text/plain"


@override_settings(DJANGO_WORKFLOW={"retries": 7, "retry_delay": 5})
def test_the_settings_fill_in_what_a_trigger_does_not_say(client: Client, transport: RecordingTransport) -> None:
    client.trigger("checkout")
    client.trigger("checkout", b"", TriggerOptions(retries=0, retry_delay="1"))
    first, second = transport.messages
    assert (first.retries, first.retry_delay) == (7, "5000")
    assert (second.retries, second.retry_delay) == (0, "1")


def test_a_foreign_endpoint_is_triggered_by_its_url(client: Client, transport: RecordingTransport) -> None:
    client.trigger("https://other.example/flow")
    assert triggered(transport).destination == "https://other.example/flow"


def test_a_known_run_id_gives_a_deduplicated_handle(client: Client, transport: RecordingTransport) -> None:
    transport.answers[Batch] = lambda request: (Published(message_id="msg_0", deduplicated=True),)
    handle = client.trigger("checkout", options=TriggerOptions.of(run_id="once"))
    assert handle.deduplicated
    assert handle.id == "wfr_once"


def test_trigger_many_is_one_request(client: Client, transport: RecordingTransport) -> None:
    handles = client.trigger_many([Trigger("checkout", b"1"), Trigger("refund", b"2", TriggerOptions(retries=1))])
    (request,) = transport.sent
    assert isinstance(request, Batch)
    assert [message.body for message in request.messages] == [b"1", b"2"]
    assert [handle.id for handle in handles] == [m.workflow.run_id for m in request.messages if m.workflow]
    assert client.trigger_many([]) == []
    assert len(transport.sent) == 1


async def test_the_async_twins_send_the_same(client: Client, transport: RecordingTransport) -> None:
    handle = await client.atrigger("checkout", b"1", TriggerOptions.of(run_id="a"))
    handles = await client.atrigger_many([Trigger("checkout", b"2", TriggerOptions.of(run_id="b"))])
    await client.anotify("paid", {"ok": True})
    await client.awaiters("paid")
    assert await client.acancel(["wfr_a", "wfr_b"]) == 2
    twin = RecordingTransport()
    other = Client(twin)
    assert handle.id == other.trigger("checkout", b"1", TriggerOptions.of(run_id="a")).id
    assert handles[0].id == other.trigger_many([Trigger("checkout", b"2", TriggerOptions.of(run_id="b"))])[0].id
    other.notify("paid", {"ok": True})
    other.waiters("paid")
    other.cancel(["wfr_a", "wfr_b"])
    assert transport.sent == twin.sent


def test_a_body_that_is_no_text_goes_by_itself(client: Client, transport: RecordingTransport) -> None:
    client.trigger_many([Trigger("checkout", b"\xff\xfe"), Trigger("refund", "ü".encode())])
    assert [type(request) for request in transport.sent] == [Publish, Publish]  # a batch is JSON


# events


@pytest.mark.parametrize(
    ("data", "body"),
    [
        (None, b""),
        ({"a": 1}, b'{"a":1}'),
        ("text", b'"text"'),
        (0, b"0"),
        (b"raw \xff", b"raw \xff"),
    ],
)
def test_notify_sends_json_and_bytes_as_they_are(
    client: Client, transport: RecordingTransport, data: object, body: bytes
) -> None:
    client.notify("paid", data)
    assert transport.sent == [Notify(event_id="paid", body=body)]


def test_notify_of_one_run(client: Client, transport: RecordingTransport) -> None:
    client.notify("paid", run_id="wfr_1", deduplication_id="d")
    assert transport.sent == [Notify(event_id="paid", run_id="wfr_1", deduplication_id="d")]


def test_an_event_needs_an_id(client: Client) -> None:
    with pytest.raises(ValueError, match="event id is empty"):
        client.notify("")
    with pytest.raises(ValueError, match="event id is empty"):
        client.waiters("")


def test_waiters(client: Client, transport: RecordingTransport) -> None:
    assert client.waiters("paid") == ()
    assert transport.sent == [GetWaiters(event_id="paid")]


# inside a step


def inside_step(client: Client) -> tuple[list[str], list[str | None]]:
    """What a step's function makes: run ids and deduplication ids."""
    token = current_step.set(CurrentStep("send", 1, "wfr_parent"))
    try:
        runs = [client.trigger("checkout").id, client.trigger("checkout").id, client.trigger("refund").id]
        client.notify("paid")
        client.notify("paid", run_id="wfr_1")
    finally:
        current_step.reset(token)
    transport = client.transport
    assert isinstance(transport, RecordingTransport)
    return runs, [request.deduplication_id for request in transport.sent if isinstance(request, Notify)]


def test_a_step_that_runs_again_makes_the_same_runs_and_events() -> None:
    runs, events = first = inside_step(Client(RecordingTransport()))
    assert len(set(runs)) == 3
    assert len(set(events)) == 2
    assert inside_step(Client(RecordingTransport())) == first


# cancel


@pytest.mark.parametrize(
    ("given", "request_sent"),
    [
        ({"run_ids": ["a", "b"]}, CancelRuns(run_ids=("a", "b"))),
        ({"run_ids": "a"}, CancelRuns(run_ids=("a",))),  # not letter by letter
        ({"workflow": "checkout"}, CancelRuns(workflow_url=URL, exact_url=True)),
        ({"url_prefix": "https://shop.example/"}, CancelRuns(workflow_url="https://shop.example/")),
        ({"label": "vip", "count": 5}, CancelRuns(label="vip", count=5)),
        ({"everything": True}, CancelRuns()),
    ],
)
def test_cancel_by(
    client: Client, transport: RecordingTransport, given: dict[str, Any], request_sent: CancelRuns
) -> None:
    client.cancel(**given)
    assert transport.sent == [request_sent]


def test_cancelling_no_ids_asks_nobody(client: Client, transport: RecordingTransport) -> None:
    assert client.cancel([]) == 0
    assert transport.sent == []


@pytest.mark.parametrize("given", [{}, {"run_ids": ["a", ""]}, {"workflow": "checkout", "url_prefix": "https://x/"}])
def test_an_unclear_cancel_is_refused(client: Client, transport: RecordingTransport, given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"[Cc]ancel"):
        client.cancel(**given)
    assert transport.sent == []


# an endpoint's own requests


def test_what_an_endpoint_asks(client: Client, transport: RecordingTransport) -> None:
    client.fetch_run("wfr_1", "msg_2")
    client.finish("wfr_1", b"1")
    client.cancel_run("wfr_1")
    assert client.batch([]) == ()
    assert client.publish(Message(destination="https://x/")).message_id == "msg_4"
    assert transport.sent[:3] == [
        FetchRun(run_id="wfr_1", message_id="msg_2"),
        FinishRun(run_id="wfr_1", result=b"1"),
        CancelRun(run_id="wfr_1"),
    ]


# the transport in use


def test_the_transport_is_made_when_it_is_first_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transports, "_factory", None)
    monkeypatch.setattr(transports, "_transport", None)
    with pytest.raises(Misconfigured, match="INSTALLED_APPS"):
        current_transport()
    made: list[RecordingTransport] = []

    def factory() -> RecordingTransport:
        made.append(RecordingTransport())
        return made[-1]

    use_transport(factory)
    assert made == []
    assert get_client().transport is get_client().transport
    assert len(made) == 1
    use_transport(factory)
    assert get_client().transport is made[-1]
    assert len(made) == 2
