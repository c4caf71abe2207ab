"""Results as other SDKs and the engine write them. The texts are from captured traffic."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from django_workflow.authoring import reading
from django_workflow.authoring.results import CallResponse, InvokeResult, NotifyResult, WaitResult, Webhook
from django_workflow.errors import StepError
from django_workflow.protocol.steps import Step
from django_workflow.replay.values import decode_json, decoder_for


def recorded(out: str | None, type_: str = "Call", **fields: Any) -> Step:
    return Step(step_id=1, step_name="s", step_type=type_, out=out, concurrent=1, **fields)


def call(body: Any, content_type: str | None = "text/plain; charset=utf-8") -> CallResponse:
    header = {} if content_type is None else {"Content-Type": [content_type]}
    out = msgspec.json.encode({"status": 200, "body": body, "header": header}).decode()
    return reading.read_call(recorded(out))


@pytest.mark.parametrize(
    ("body", "content_type", "read"),
    [
        # JavaScript: one character per byte
        ("hÃ©llo â\x82¬", "text/plain; charset=utf-8", "héllo €"),
        ('{"hello":"wÃ¶rld"}', "application/json", {"hello": "wörld"}),
        # Python: decoded text
        ("héllo €", "text/plain", "héllo €"),
        ("wörld", "text/plain", "wörld"),
        # neither text nor JSON
        ("\x00\xff", "application/octet-stream", "\x00\xff"),
        # nothing said about the type
        ("hÃ©llo", None, "héllo"),
        ("7", "text/plain", 7),
        ("", "text/plain", ""),
        ("no JSON", "application/json", "no JSON"),
    ],
)
def test_the_body_of_a_call(body: str, content_type: str | None, read: Any) -> None:
    assert call(body, content_type).body == read


def test_the_answer_of_a_call() -> None:
    out = (
        '{"status":404,"body":"{\\"hello\\":\\"w\\u00f6rld\\"}",'
        '"header":{"Content-Type":["application/json"],"Set-Cookie":["a=1","b=2"]}}'
    )
    answer = reading.read_call(recorded(out))
    assert (answer.status, answer.ok) == (404, False)
    assert answer.headers == {"content-type": "application/json", "set-cookie": "a=1, b=2"}
    assert answer.text == '{"hello":"wörld"}'
    assert answer.json() == answer.body == {"hello": "wörld"}
    assert answer.json(dict[str, str]) == {"hello": "wörld"}
    assert call("ok").ok


def test_bytes_survive() -> None:
    assert call("\x00\xff", "image/png").content == b"\x00\xff"


def test_waits() -> None:
    told = recorded("eyJkYXRhIjoiZMOkIn0=", "Wait", wait_event_id="evt-1", wait_timeout=False)
    assert reading.read_wait(told, decode_json) == WaitResult({"data": "dä"}, timeout=False)
    assert reading.read_wait(told, decoder_for(dict[str, str])) == WaitResult({"data": "dä"}, timeout=False)
    assert reading.read_wait(recorded(None, "Wait", wait_timeout=True), decode_json) == WaitResult(None, timeout=True)
    assert reading.read_wait(recorded(None, "Wait"), decode_json) == WaitResult(None, timeout=False)
    assert reading.read_wait(recorded("", "Wait"), decode_json) == WaitResult(None, timeout=False)


def test_notifies() -> None:
    out = (
        '{"eventId":"evt-1","eventData":"{\\"k\\":1}","notifyResponse":[{"waiter":{"url":"http://x/","headers":{},'
        '"deadline":1760000060,"timeoutUrl":"http://x/","timeoutHeaders":{}},"messageId":"msg_0004","error":""}]}'
    )
    result = reading.read_notify(recorded(out, "Notify"))
    assert (result.event_id, result.event_data) == ("evt-1", {"k": 1})
    assert [reached.message_id for reached in result.notified] == ["msg_0004"]
    plain = '{"eventId":"evt-2","eventData":"plain","notifyResponse":[]}'
    assert reading.read_notify(recorded(plain, "Notify")) == NotifyResult("evt-2", "plain", ())


@pytest.mark.parametrize(
    ("out", "result"),
    [
        (
            '{"isCanceled":false,"isFailed":false,"body":"{\\"child\\":\\"result\\"}"}',
            InvokeResult({"child": "result"}, is_failed=False, is_canceled=False),
        ),
        ('{"isCanceled":false,"isFailed":false,"body":"text"}', InvokeResult("text", False, False)),
        ('{"isCanceled":false,"isFailed":false}', InvokeResult(None, False, False)),
        ('{"isCanceled":false,"isFailed":true}', InvokeResult(None, is_failed=True, is_canceled=False)),
        ('{"isCanceled":true,"isFailed":false}', InvokeResult(None, is_failed=False, is_canceled=True)),
    ],
)
def test_invokes(out: str, result: InvokeResult[Any]) -> None:
    assert reading.read_invoke(recorded(out, "Invoke"), decode_json) == result


def test_an_invokes_result_that_does_not_fit_its_type() -> None:
    out = '{"isCanceled":false,"isFailed":false,"body":"\\"text\\""}'
    with pytest.raises(StepError, match="does not fit its workflow's type"):
        reading.read_invoke(recorded(out, "Invoke"), decoder_for(int))


def test_webhooks() -> None:
    out = '{"webhookUrl":"http://127.0.0.1:18080/v2/workflows/hooks/u/wfr_hook/evt_1","eventId":"evt_1"}'
    assert reading.read_webhook(recorded(out, "CreateWebhook")) == Webhook(
        "http://127.0.0.1:18080/v2/workflows/hooks/u/wfr_hook/evt_1", "evt_1"
    )


@pytest.mark.parametrize(
    ("read", "type_"),
    [
        (reading.read_call, "Call"),
        (reading.read_notify, "Notify"),
        (lambda s: reading.read_invoke(s, decode_json), "Invoke"),
        (reading.read_webhook, "CreateWebhook"),
    ],
)
def test_a_result_that_is_missing_or_unreadable(read: Any, type_: str) -> None:
    with pytest.raises(
        StepError, match=f"Error while parsing output of {type_} step. Expected a string, but got: unde"
    ):
        read(recorded(None, type_))
    with pytest.raises(StepError, match=f"The recorded result of {type_} step 's' cannot be read"):
        read(recorded("[]", type_))


@pytest.mark.parametrize("out", ["!!!", "bm8gSlNPTg=="])
def test_a_webhooks_call_that_is_unreadable(out: str) -> None:
    with pytest.raises(StepError, match="cannot be read"):
        reading.read_webhook_request(recorded(out, "WaitForWebhook"))
