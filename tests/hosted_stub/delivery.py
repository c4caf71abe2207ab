"""The requests that the service makes: headers, bodies, signatures; and the payloads of callbacks."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jwt

from tests.hosted_stub.model import Message, Run
from tests.hosted_stub.network import Answer, HttpRequest, canonical, header_map
from tests.hosted_stub.rules import compact
from tests.hosted_stub.vocabulary import words

CALLER_IP = "127.0.0.1"

# Forwarded headers that are not delivered: of the transport, and those that the service sets itself.
NOT_DELIVERED = words(
    "host content-length content-type connection transfer-encoding accept-encoding user-agent keep-alive te trailer "
    "upgrade proxy-authorization proxy-authenticate proxy-connection upstash-signature upstash-message-id "
    "upstash-retried upstash-caller-ip upstash-topic-name upstash-schedule-id upstash-region upstash-feature-set"
)


@dataclass(frozen=True)
class Keys:
    """Signing keys: the current one signs, receivers accept the next one too."""

    current: str
    next: str


def compose(message: Message, keys: Keys, now: float, number: int, *, lazy_above: int) -> HttpRequest:
    """The next attempt of a message. `now` is the real time, which signatures are made with."""
    body = delivered_body(message, lazy_above)
    headers = [(canonical(name), value) for name, value in delivered_forwards(message).items()]
    if message.content_type is not None:
        headers.insert(0, ("Content-Type", message.content_type))
    headers += [
        ("User-Agent", "Upstash-QStash"),
        ("Upstash-Message-Id", message.id),
        ("Upstash-Retried", str(message.attempts)),
        ("Upstash-Caller-Ip", CALLER_IP),
    ]
    if message.schedule_id is not None:
        headers.append(("Upstash-Schedule-Id", message.schedule_id))
    if message.run is not None and message.call_type != "toCallback":
        headers += run_headers(message, message.run)
    headers.append(("Upstash-Signature", sign(message.destination, body, keys.current, now, number)))
    return HttpRequest(message.method, message.destination, tuple((n, as_bytes(v)) for n, v in headers), body)


def as_bytes(value: str) -> str:
    """A header's value as it travels: UTF-8, each byte one character of Latin-1."""
    return value.encode().decode("latin-1")


def run_headers(message: Message, run: Run) -> list[tuple[str, str]]:
    headers = [("Upstash-Workflow-RunId", run.id), ("Upstash-Workflow-Url", run.url)]
    if message.call_type != "failureCall":
        headers += [
            ("Upstash-Workflow-CreatedAt", str(milliseconds(run.created))),
            ("Upstash-Workflow-Init", "false"),
            ("Upstash-Workflow-CallType", message.call_type),
        ]
    if message.unknown_sdk:
        headers.append(("Upstash-Workflow-Unknown-Sdk", "true"))
    return headers


def delivered_forwards(message: Message) -> dict[str, str]:
    return {name: value for name, value in message.config.forward.items() if name.lower() not in NOT_DELIVERED}


def delivered_body(message: Message, lazy_above: int) -> bytes:
    """Of a step the run's journal, cut at the message's own place; of anything else what was published."""
    if message.run is None or message.call_type != "step":
        return message.body
    body = compact(raw_steps(message.run, until=message))
    return b"" if len(body) > lazy_above and "LazyFetch" in message.features else body


def raw_steps(run: Run, until: Message | None = None) -> list[dict[str, str]]:
    found = []
    for entry in run.journal:
        body = base64.b64encode(entry.message.body).decode()
        found.append({"messageId": entry.message.id, "body": body, "callType": entry.call_type})
        if entry.message is until:
            break
    return found


def sign(url: str, body: bytes, key: str, now: float, number: int) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(body).digest()).decode()
    claims = {
        "iss": "Upstash",
        "sub": url,
        "exp": int(now) + 300,
        "nbf": 0,
        "iat": int(now),
        "jti": f"jwt_{number}",
        "body": digest,
    }
    return jwt.encode(claims, key, algorithm="HS256")


# Payloads


def callback_payload(message: Message, answer: Answer) -> bytes:
    """What `Upstash-Callback` gets after each attempt."""
    payload = {
        **_answered(message, answer),
        **_source(message, message.body),
    }
    if message.run is not None:
        payload["workflowRunId"] = message.run.id
    return compact(payload)


def failure_payload(message: Message, answer: Answer, letter_id: str) -> bytes:
    """What the failure callback gets; of a run with its initial payload as the source's body."""
    run = message.run
    payload = {
        **_answered(message, answer),
        "dlqId": letter_id,
        **_source(message, message.body if run is None else run.payload),
    }
    if run is not None:
        payload["workflowRunId"] = run.id
        payload["workflowCreatedAt"] = milliseconds(run.created)
        payload["workflowUrl"] = run.url
    return compact(payload)


def _answered(message: Message, answer: Answer) -> dict[str, Any]:
    return {
        "status": answer.status,
        "header": {canonical(name): values for name, values in answer.headers.items()},
        "body": base64.b64encode(answer.body).decode(),
        "retried": message.attempts - 1,
        "maxRetries": message.config.retries,
    }


def _source(message: Message, body: bytes) -> dict[str, Any]:
    return {
        "sourceMessageId": message.id,
        "url": message.destination,
        "method": message.method,
        "sourceHeader": header_map(source_headers(message).items()),
        "sourceBody": base64.b64encode(body).decode(),
        "notBefore": milliseconds(message.first),
        "createdAt": milliseconds(message.created),
        "callerIP": CALLER_IP,
    }


def source_headers(message: Message) -> Mapping[str, str]:
    headers = delivered_forwards(message)
    if message.content_type is not None:
        headers["Content-Type"] = message.content_type
    return headers


def milliseconds(instant: float) -> int:
    return round(instant * 1000)
