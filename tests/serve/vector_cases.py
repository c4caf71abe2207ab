"""The captured traffic, cut into cases: one request to an endpoint, its answer, and what was sent to the engine.

Both sides are brought into one form, in which letter case, key order, blanks and nulls do not count.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from django_workflow.protocol.headers import TRANSPORT, Headers
from tests.vectors import ENGINE, Exchange, load

IGNORED_ANSWER_HEADERS = {"content-type", "content-length", "upstash-workflow-sdk"}
IGNORED_HEADERS = {"authorization", "content-length"}


@dataclass
class Sent:
    """One request to the engine, or one message of a batch. A body that is no JSON is `{"text": …}`."""

    call: str
    target: str
    headers: dict[str, str]
    body: Any

    @property
    def is_step(self) -> bool:
        return isinstance(self.body, dict) and "stepId" in self.body

    @property
    def is_call(self) -> bool:
        return self.headers.get("upstash-workflow-calltype") == "toCallback"

    @property
    def starts_run(self) -> bool:
        return self.headers.get("upstash-workflow-init") == "true"


@dataclass
class Case:
    """`status`, `headers`, `body` and `sent` are the SDK's; `answers` is what the recorder answered to `sent`."""

    sdk: str
    exchange: Exchange
    status: int
    headers: dict[str, str]
    body: dict[str, Any]
    sent: list[Sent] = field(default_factory=list)
    answers: list[tuple[int, bytes]] = field(default_factory=list)

    def __str__(self) -> str:
        return str(self.exchange)

    @property
    def given(self) -> Headers:
        """The headers of the request."""
        return Headers(self.exchange.headers)

    @property
    def kind(self) -> str:
        if self.given.get("Upstash-Workflow-Is-Failure"):
            return "failure"
        if self.given.get("Upstash-Workflow-Callback"):
            return "callback"
        return "steps" if self.given.get("Upstash-Workflow-Sdk-Version") else "first"

    @property
    def path(self) -> str:
        return urlsplit(self.exchange.url).path.strip("/")

    @property
    def run_id(self) -> str:
        return self.given["Upstash-Workflow-RunId"]


def cases(name: str) -> Iterator[Case]:
    """The cases of a file, in order."""
    case: Case | None = None
    for exchange in load(name):
        if exchange.kind in ("engine->endpoint", "client->endpoint"):
            if case is not None:
                yield case
            headers = answer_headers(exchange.raw["response"]["headers"])
            body = answer_body(exchange.answer)
            case = Case(name.partition("/")[0], exchange, exchange.status, headers, body)
        elif exchange.kind == "sdk->engine" and case is not None:
            sent = in_one_form(exchange.method, exchange.url, dict(exchange.headers), exchange.body)
            case.sent += [_without_recorder(one) for one in sent if _belongs(one, case)]
            case.answers.append((exchange.status, exchange.answer))
    if case is not None:
        yield case


def _belongs(sent: Sent, case: Case) -> bool:
    """Not what another endpoint sent meanwhile, to which a call of this one went."""
    url = sent.headers.get("upstash-workflow-url", case.exchange.url)
    return url == case.exchange.url or sent.headers.get("upstash-workflow-invoke") == "true"


def _without_recorder(sent: Sent) -> Sent:
    """One workflow returns the headers that it sees; those of the recorder's own HTTP client mean nothing."""
    if sent.is_step and sent.body["stepName"] == "l":
        sent.body["out"][4] = [pair for pair in sent.body["out"][4] if pair[0] not in TRANSPORT - {"content-type"}]
    return sent


def in_one_form(method: str, url: str, headers: dict[str, str], body: bytes) -> list[Sent]:
    """The messages of a request to the engine; a request that is none of publish and batch by itself."""
    path = url.removeprefix(ENGINE)
    if path == "/v2/batch":
        return [
            Sent("batch", item["destination"], _lower(item["headers"]), _body((item.get("body") or "").encode()))
            for item in json.loads(body)
        ]
    if path.startswith("/v2/publish/"):
        return [Sent("publish", path.removeprefix("/v2/publish/"), _lower(headers), _body(body))]
    return [Sent(f"{method} {path}", "", _lower(headers), _body(body))]


def _lower(headers: dict[str, Any]) -> dict[str, Any]:
    return {name.lower(): text for name, text in headers.items() if name.lower() not in IGNORED_HEADERS}


def _body(body: bytes) -> Any:
    try:
        read = json.loads(body)
    except ValueError:
        return {"text": body.decode()}
    if isinstance(read, dict):
        read = {key: part for key, part in read.items() if part is not None}
        for key in ("headers", "timeoutHeaders"):
            if key in read:
                read[key] = _lower(read[key])
        if "out" in read and "stepId" in read:
            read["out"] = json.loads(read["out"])
    return read


def answer_headers(headers: dict[str, str]) -> dict[str, str]:
    return {name.lower(): text for name, text in headers.items() if name.lower() not in IGNORED_ANSWER_HEADERS}


def answer_body(body: bytes) -> dict[str, Any]:
    """An endpoint's answer; stack traces are everybody's own."""
    try:
        read: dict[str, Any] = json.loads(body)
    except ValueError:
        return {"text": body.decode()}
    read.pop("stack", None)
    return read
