"""Drives the stub through a captured file: sends what the SDK sent, compares what the stub would deliver.

The recorder of the files did not wait for delays, began most runs by hand, and fired events and webhooks by a script.
The replay does the same by the stub's own means: it moves the clock, sends the message that starts the run, notifies.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import jwt

from tests.hosted_stub.model import DeadLetter, Message, State
from tests.hosted_stub.network import Answer, HttpRequest
from tests.hosted_stub.service import HostedStub
from tests.vectors import CURRENT_SIGNING_KEY, ENGINE, Exchange, load

FEATURES = "LazyFetch,InitialBody,WF_DetectTrigger,WF_TriggerOnConfig"

# Documented headers of deliveries that the recorder left out.
NOT_RECORDED = {"user-agent", "upstash-caller-ip", "upstash-workflow-calltype"}


@dataclass
class Replay:
    name: str
    now: float = 1_760_000_000.0
    compared: int = 0
    open: tuple[Message, Exchange] | None = None
    differences: dict[int, list[str]] = field(default_factory=dict)
    """What the stub does otherwise than the recorder, by the number of the exchange."""

    def __post_init__(self) -> None:
        self.exchanges = load(self.name)
        self.stub = HostedStub(_no_network, clock=lambda: self.now, url=ENGINE, most_retries=1_000)
        self.events = dict(self._events())

    def run(self) -> None:
        for exchange in self.exchanges:
            if exchange.kind == "sdk->engine":
                self._send(exchange)
            else:
                self._close()
                if exchange.kind in ("engine->endpoint", "engine->third-party"):
                    self._compare(exchange)
            self._fire_events()
        self._close()

    # SDK -> engine

    def _send(self, exchange: Exchange) -> None:
        self._prepare(exchange)
        if exchange.status in (412, 500):
            self.stub.trouble.append(Answer(exchange.status, {}, exchange.answer))
        answer = self.stub.handle(exchange.method, exchange.url, exchange.headers.items(), exchange.body)
        if answer.status != exchange.status:
            self._differs(exchange, f"{answer.status} {answer.body[:200]!r}, not {exchange.status}")
        ids = [known["messageId"] for known in _list(exchange.answer) if "messageId" in known]
        ours = [known["messageId"] for known in _list(answer.body) if "messageId" in known]
        if exchange.status == 200 and ids != ours and "/v2/notify/" not in exchange.url:
            self._differs(exchange, f"the messages are {ours}, not {ids}")
        self._date_runs()

    def _differs(self, exchange: Exchange, text: str) -> None:
        self.differences.setdefault(exchange.seq, []).append(text)

    def _prepare(self, exchange: Exchange) -> None:
        """What the recorder's engine knew without having been told."""
        parts = urlsplit(exchange.url)
        pieces = parts.path.split("/")
        if pieces[2] == "notify" and len(pieces) == 5:
            self._know(pieces[3], "http://127.0.0.1:18090/wait")
        for item in _list(exchange.body) if pieces[2] == "batch" else []:
            given = {name.lower(): value for name, value in item["headers"].items()}
            if given["upstash-workflow-init"] == "false":
                self._know(given["upstash-workflow-runid"], given["upstash-workflow-url"])
        if exchange.kind == "sdk->engine" and exchange.status in (400, 404):
            for run in self.stub.runs:
                url = f"{ENGINE}/v2/workflows/runs/{run.id}?cancel=true"
                self.stub.handle("DELETE", url, [("Authorization", f"Bearer {self.stub.token}")], b"")
        if pieces[2] == "workflows" and pieces[3] == "dlq":
            named = [value for name, value in parse_qsl(parts.query) if name == "dlqIds"]
            for letter_id in [*named, *pieces[5:6]] if pieces[-1] not in ("resume", "restart") or named else []:
                self._bury(letter_id)

    def _know(self, run_id: str, url: str) -> None:
        """Have a run of which the file does not tell the start; it takes none of the file's message ids."""
        if self.stub.run(run_id) is None:
            number = self.stub.last_number("msg")
            self.start(run_id, url, b"", {}).id = "msg_prepared"
            self.stub.set_number("msg", number)

    def _bury(self, letter_id: str) -> None:
        """A run that failed, and whose failure callback failed."""
        url = "http://127.0.0.1:18090/fail"
        message = self.start(f"wfr_{letter_id}", url, b"", {}, retries="0")
        failed = Answer(500, {"Content-Type": ["text/plain"]}, b"{}")
        self.stub.settle(message, failed)
        (letter,) = (each for each in self.stub.letters.values() if each.message is message)
        assert letter.message.run is not None
        assert letter.message.run.failure_call is not None
        self.stub.settle(letter.message.run.failure_call, failed)
        self.stub.letters[letter_id] = DeadLetter(
            letter_id, message, failed, letter.error, letter.at, letter.failure_state
        )

    def start(
        self, run_id: str, url: str, payload: bytes, headers: dict[str, str], retries: str | None = None
    ) -> Message:
        """Start a run as `Client.trigger` does; its first message."""
        failure = {
            "callback": url,
            "callback-feature-set": FEATURES,
            "callback-forward-upstash-workflow-is-failure": "true",
            "callback-forward-upstash-workflow-failure-callback": "true",
            "callback-workflow-runid": run_id,
            "callback-workflow-init": "false",
            "callback-workflow-url": url,
            "callback-workflow-calltype": "failureCall",
        }
        sent = {
            **_step_headers(run_id, url),
            "upstash-workflow-init": "true",
            **{f"upstash-failure-{name}": value for name, value in failure.items()},
        }
        for name, value in headers.items():
            sent[f"upstash-forward-{name}"] = sent[f"upstash-failure-callback-forward-{name}"] = value
        if retries is not None:
            sent["upstash-retries"] = sent["upstash-failure-callback-retries"] = retries
        body = json.dumps([{"destination": url, "headers": sent, "body": payload.decode()}]).encode()
        pairs = [("Content-Type", "application/json"), ("Authorization", f"Bearer {self.stub.token}")]
        answer = self.stub.handle("POST", f"{ENGINE}/v2/batch", pairs, body)
        assert answer.status == 200, answer.body
        run = self.stub.run(run_id)
        assert run is not None
        return run.journal[0].message

    def _start_by_hand(self, exchange: Exchange) -> None:
        """The message that starts the run, as far as its first delivery shows what stood in it."""
        elements = json.loads(exchange.body) if exchange.body else []
        if not elements:  # it is lazy: what the endpoint fetches next
            gets = (each for each in self.exchanges if "/v2/workflows/runs/" in each.url and each.method == "GET")
            elements = [each for got in gets if got.status == 200 for each in _list(got.answer)]
        payload = base64.b64decode(elements[0]["body"]) if elements else b""
        headers = {
            name: value
            for name, value in exchange.headers.items()
            if name.lower() in ("upstash-label", "h") or not name.lower().startswith(("upstash-", "content-type"))
        }
        limits = [str(told["maxRetries"]) for each in self.exchanges if (told := _failure_of(each)) is not None]
        run_id = exchange.headers["Upstash-Workflow-RunId"]
        if "Upstash-Workflow-Unknown-Sdk" in exchange.headers:
            pairs = [("Authorization", f"Bearer {self.stub.token}"), ("Upstash-Workflow-RunId", run_id)]
            pairs += [("Content-Type", "application/json")]
            assert self.stub.handle("POST", f"{ENGINE}/v2/trigger/{exchange.url}", pairs, payload).status == 200
        else:
            self.start(run_id, exchange.url, payload, headers, *limits[:1])
        self._date_runs()

    def _date_runs(self) -> None:
        """The recorder gave each run a time of its own."""
        for exchange in self.exchanges:
            run = self.stub.run(exchange.headers.get("Upstash-Workflow-RunId", ""))
            if run is not None and (created := exchange.headers.get("Upstash-Workflow-CreatedAt")):
                run.created = int(created) / 1000

    # Events that the recorder's script sent

    def _events(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Results of waits, by the id of their message."""
        notified = {exchange.url.rpartition("/")[2] for exchange in self.exchanges if "/v2/notify/" in exchange.url}
        for exchange in self.exchanges:
            if exchange.kind != "engine->endpoint" or "decoded_steps" not in exchange.raw:
                continue
            for element in json.loads(exchange.body)[1:]:
                step = json.loads(base64.b64decode(element["body"])) if element["callType"] == "step" else {}
                if step.get("waitEventId") and step["stepId"] and step["waitEventId"] not in notified:
                    yield element["messageId"], step

    def _fire_events(self) -> None:
        """Send an event when its result is the next message in the file."""
        while (step := self.events.get(f"msg_{self.stub.last_number('msg') + 1:04d}")) is not None:
            waiting = [waiter for waiter in self.stub.waiters if waiter.event_id == step["waitEventId"]]
            if not waiting:
                return
            data = base64.b64decode(step.get("out", ""))
            if step["waitTimeout"]:
                self.now = max(self.now, waiting[0].deadline)
                self.stub.next_due()
            elif step["stepType"] == "WaitForWebhook":
                called = json.loads(data)
                pairs = [(name, value) for name, values in called["header"].items() for value in values]
                url = f"{called['proto']}://{called['host']}{called['url']}"
                self.stub.handle(called["method"], url, pairs, base64.b64decode(called.get("body", "")))
            else:
                pairs = [("Authorization", f"Bearer {self.stub.token}")]
                self.stub.handle("POST", f"{ENGINE}/v2/notify/{step['waitEventId']}", pairs, data)

    # Engine -> endpoint

    def _compare(self, exchange: Exchange) -> None:
        key = exchange.headers["Upstash-Message-Id"]
        if exchange.kind == "engine->endpoint":
            if self.stub.run(exchange.headers["Upstash-Workflow-RunId"]) is None:
                self._start_by_hand(exchange)
            self._make_call_of(exchange)
            self._add_steps_of(exchange)
        message = next((each for each in self.stub.messages if each.id == key), None)
        if message is None or message.state is not State.PENDING:
            self._differs(exchange, f"there is no message {key} to deliver")
            return
        self.now = max(self.now, message.due)
        self.stub.lazy_above = 10**9 if exchange.body else 0
        request = self.stub.begin(message)
        self.open = (message, exchange)
        self.compared += 1
        for text in differences(exchange, request):
            self._differs(exchange, text)
        if exchange.kind == "engine->third-party":
            self._close()

    def _make_call_of(self, exchange: Exchange) -> None:
        """A call whose target's answer is known only from its callback."""
        if "upstash-workflow-callback" not in exchange.headers:
            return
        told = exchange.raw.get("decoded")
        for source in [message for message in self.stub.messages if message.call_type == "toCallback"]:
            known = any(message.id == exchange.headers["Upstash-Message-Id"] for message in self.stub.messages)
            if source.state is State.PENDING and not known and (not told or told["sourceMessageId"] == source.id):
                self.stub.begin(source)
                self.stub.settle(source, _answer_of(json.loads(exchange.body)) if told else Answer(200))

    def _add_steps_of(self, exchange: Exchange) -> None:
        """Steps that the recorder put into the list by itself, to see what the SDK does about them."""
        run = self.stub.run(exchange.headers["Upstash-Workflow-RunId"])
        assert run is not None
        known = {entry.message.id for entry in run.journal}
        for element in json.loads(exchange.body) if "decoded_steps" in exchange.raw else []:
            if element["messageId"] not in known and element["callType"] == "step":
                item = {"destination": run.url, "headers": _step_headers(run.id, run.url)}
                body = [{**item, "body": base64.b64decode(element["body"]).decode()}]
                pairs = [("Content-Type", "application/json"), ("Authorization", f"Bearer {self.stub.token}")]
                self.stub.handle("POST", f"{ENGINE}/v2/batch", pairs, json.dumps(body).encode())

    def _close(self) -> None:
        """Give the open delivery the recorded answer."""
        if self.open is None:
            return
        message, exchange = self.open
        self.open = None
        headers = {name: [value] for name, value in (exchange.raw["response"].get("headers") or {}).items()}
        if exchange.kind == "engine->third-party":
            told = (_callback_of(each, message) for each in self.exchanges)
            headers = next((found["header"] for found in told if found is not None), headers)
        self.stub.settle(message, Answer(exchange.status, headers, exchange.answer))


def _no_network(request: HttpRequest, timeout: float) -> Answer:
    raise AssertionError("A replay delivers by hand.")


def _step_headers(run_id: str, url: str) -> dict[str, str]:
    return {
        "content-type": "application/json",
        "upstash-method": "POST",
        "upstash-workflow-init": "false",
        "upstash-workflow-runid": run_id,
        "upstash-workflow-url": url,
        "upstash-feature-set": FEATURES,
        "upstash-workflow-sdk-version": "1",
        "upstash-forward-upstash-workflow-sdk-version": "1",
    }


def _list(body: bytes) -> list[Any]:
    found = json.loads(body) if body else []
    return found if isinstance(found, list) else [found]


def _failure_of(exchange: Exchange) -> dict[str, Any] | None:
    return json.loads(exchange.body) if exchange.raw.get("note") == "failure callback" else None


def _callback_of(exchange: Exchange, message: Message) -> dict[str, Any] | None:
    if exchange.kind != "engine->endpoint" or "decoded" not in exchange.raw or not exchange.body:
        return None
    told: dict[str, Any] = json.loads(exchange.body)
    matches = told.get("sourceMessageId") == message.id and told.get("retried", 0) == message.attempts
    return told if matches else None


def _answer_of(told: dict[str, Any]) -> Answer:
    return Answer(told["status"], told["header"], base64.b64decode(told.get("body", "")))


def differences(exchange: Exchange, request: HttpRequest) -> Iterator[str]:
    """What the stub's delivery has otherwise than the recorded one."""
    if (request.method, request.target) != (exchange.method, exchange.url):
        yield f"{request.method} {request.target}, not {exchange.method} {exchange.url}"
    theirs = {name.lower(): value for name, value in exchange.headers.items()}
    ours = {name.lower(): value for name, value in request.headers}
    theirs_signed, ours_signed = theirs.pop("upstash-signature"), ours.pop("upstash-signature")
    for name in sorted(theirs.keys() | (ours.keys() - NOT_RECORDED)):
        if theirs.get(name) != ours.get(name):
            yield f"{name} is {ours.get(name)!r}, not {theirs.get(name)!r}"
    if (ours_read := reduced(readable(request.body), readable(exchange.body))) != readable(exchange.body):
        yield f"the body is {ours_read}, not {readable(exchange.body)}"
    elif is_plain(exchange.body) and request.body != exchange.body:
        yield f"the bytes of the body are {request.body!r}, not {exchange.body!r}"
    if claims(ours_signed, request.body) != claims(theirs_signed, exchange.body):
        yield "the signature's claims differ"


def is_plain(body: bytes) -> bool:
    """Whether a body holds nothing that the recorder writes in another form than an engine: times, called webhooks."""
    elements = json.loads(body) if body[:1] == b"[" else []
    return not body.startswith(b"{") and not any(
        each["callType"] == "fromCallback" or b'"WaitForWebhook"' in base64.b64decode(each["body"])
        for each in elements
        if "callType" in each
    )


def readable(body: bytes) -> Any:
    """A body as values: without times, with the names of headers in one case, and what is encoded in it decoded."""
    try:
        found = json.loads(body)
    except ValueError:
        return body
    if isinstance(found, list) and found and isinstance(found[0], dict) and "callType" in found[0]:
        return [{**each, "body": _decoded(each)} for each in found]
    return _plain(found)


def reduced(ours: Any, theirs: Any) -> Any:
    """Without those fields of callbacks that the recorder left out."""
    if isinstance(ours, list) and isinstance(theirs, list):
        return [reduced(mine, other) for mine, other in zip(ours, theirs, strict=False)] + ours[len(theirs) :]
    if isinstance(ours, dict) and isinstance(theirs, dict):
        if "sourceMessageId" in ours:
            return {name: value for name, value in ours.items() if name in theirs}
        if "callType" in ours:
            return {**ours, "body": reduced(ours["body"], theirs.get("body"))}
    return ours


def _decoded(element: dict[str, str]) -> Any:
    body = base64.b64decode(element["body"] + "==")
    if element["callType"] == "fromCallback":
        return readable(body)
    try:
        step = json.loads(body)
    except ValueError:
        return body
    if isinstance(step, dict) and step.get("stepType") == "WaitForWebhook" and "out" in step:
        step["out"] = json.loads(base64.b64decode(step["out"]))
        step["out"].pop("header")
    return step


def _plain(told: Any) -> Any:
    if not isinstance(told, dict) or "status" not in told:
        return told
    found = {name: value for name, value in told.items() if name not in ("notBefore", "createdAt", "sourceHeader")}
    header = {name.lower(): value for name, value in told["header"].items()}
    return {**found, "header": {name: value for name, value in header.items() if name != "content-length"}}


def claims(token: str, body: bytes) -> dict[str, Any]:
    found = jwt.decode(
        token,
        CURRENT_SIGNING_KEY,
        algorithms=["HS256"],
        options={"verify_exp": False, "verify_nbf": False, "verify_iat": False},
    )
    return {
        "header": jwt.get_unverified_header(token),
        "iss": found["iss"],
        "sub": found["sub"],
        "life": found["exp"] - found["iat"],
        "hash": found["body"].rstrip("=") == _digest(body),
        "names": sorted(found),
    }


def _digest(body: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(body).digest()).decode().rstrip("=")
