"""Our endpoint gets the deliveries that the official SDKs got, and has to do what they did.

For every request to an endpoint in the captured traffic: the same answer, and the same requests to the engine in the
same order, but for what stands in `vector_differences`.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import pytest
from django.test import override_settings

from django_workflow.client import transports
from django_workflow.client.client import Client
from django_workflow.protocol import answers, wire
from django_workflow.protocol.headers import Headers
from django_workflow.protocol.requests import Batch, EngineRequest, FetchRun
from django_workflow.protocol.signature import sign
from django_workflow.protocol.steps import Step
from django_workflow.serve.endpoint import EndpointRequest, EndpointResponse
from django_workflow.serve.handler import handle
from tests.serve.vector_cases import Case, Sent, answer_body, answer_headers, cases, in_one_form
from tests.serve.vector_differences import DIFFERENCES, Difference
from tests.serve.vector_workflows import WORKFLOWS, recorder
from tests.vectors import CURRENT_SIGNING_KEY, ENGINE, NEXT_SIGNING_KEY, names

R = TypeVar("R")
COMPATIBILITY = Path(__file__).parents[2] / "docs" / "reference" / "compatibility.md"

HOSTED = {
    "engine": "qstash",
    "base_url": "http://127.0.0.1:18090",
    "qstash_url": ENGINE,
    "token": "eyJVc2VySUQiOiJkZWZhdWx0VXNlciIsIlBhc3N3b3JkIjoiZGVmYXVsdFBhc3N3b3JkIn0=",
    "current_signing_key": CURRENT_SIGNING_KEY,
    "next_signing_key": NEXT_SIGNING_KEY,
}


class Replay:
    """A transport that writes requests down as they go over the wire, and answers as the recorder did."""

    def __init__(self, answers: list[tuple[int, bytes]]) -> None:
        self.answers = list(answers)
        self.sent: list[Sent] = []

    def send(self, request: EngineRequest[R]) -> R:
        encoded = wire.encode_request(request)
        self.sent += in_one_form(encoded.method, ENGINE + encoded.path, encoded.headers, encoded.body)
        return answers.decode_answer(request, *(self.answers.pop(0) if self.answers else self._answer(request)))

    async def asend(self, request: EngineRequest[R]) -> R:
        return self.send(request)

    def atomic(self) -> AbstractContextManager[None]:
        raise AssertionError("no step here is atomic")

    def kept(self, run_id: str, step: Step) -> Step | None:
        raise AssertionError("no step here is atomic")

    def _answer(self, request: EngineRequest[Any]) -> tuple[int, bytes]:
        """To what the SDK did not ask: taken, or no such run."""
        if isinstance(request, FetchRun):
            return 404, b"{}"
        messages = request.messages if isinstance(request, Batch) else ()
        return 200, json.dumps([{"messageId": "msg_x"} for _ in messages] or {"messageId": "msg_x"}).encode()


@pytest.fixture(autouse=True)
def _hosted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(transports, "_factory", None)
    monkeypatch.setattr(transports, "_transport", None)
    with override_settings(DJANGO_WORKFLOW=HOSTED):
        yield


CASES = [case for name in names() for case in cases(name) if (case.sdk, case.path) in WORKFLOWS]


def drive(case: Case) -> tuple[EndpointResponse, list[Sent]]:
    exchange = case.exchange
    headers = dict(exchange.headers)
    if headers.get("Upstash-Signature", "").count(".") == 2:
        # Those of the recording have expired.
        key = NEXT_SIGNING_KEY if "next" in exchange.raw.get("note", "") else CURRENT_SIGNING_KEY
        headers["Upstash-Signature"] = sign(exchange.url, exchange.body, key, time.time())
    replay = Replay(case.answers)
    transports.use_transport(lambda: replay)
    request = EndpointRequest(exchange.method, exchange.url, Headers(headers), exchange.body)
    return handle(WORKFLOWS[case.sdk, case.path], request, client=Client(replay)), replay.sent


@pytest.mark.parametrize("case", CASES, ids=str)
def test_our_endpoint_does_what_the_official_ones_do(case: Case) -> None:
    expected = copy.deepcopy(case)
    for difference in DIFFERENCES:
        difference.apply(expected)
    response, sent = drive(case)
    body = answer_body(response.body)
    for ours, theirs in random_ids(sent, expected.sent):
        sent, body = with_id(sent, ours, theirs), with_id(body, ours, theirs)
    assert (expected.status, expected.headers) == (response.status, answer_headers(response.headers))
    assert expected.body == body
    assert [vars(one) for one in expected.sent] == [vars(one) for one in sent]


def random_ids(ours: list[Sent], theirs: list[Sent]) -> Iterator[tuple[str, str]]:
    """Ids that each side makes up: of runs that an endpoint starts, and of webhooks."""
    for one, other in zip(ours, theirs, strict=False):
        if one.starts_run and other.starts_run:
            yield one.headers["upstash-workflow-runid"], other.headers["upstash-workflow-runid"]
        if one.is_step and one.body["stepType"] == "CreateWebhook":
            yield one.body["out"]["eventId"], other.body["out"]["eventId"]


def with_id(value: Any, ours: str, theirs: str) -> Any:
    if isinstance(value, str):
        return value.replace(ours, theirs)
    if isinstance(value, list):
        return [with_id(part, ours, theirs) for part in value]
    if isinstance(value, dict):
        return {key: with_id(part, ours, theirs) for key, part in value.items()}
    if isinstance(value, Sent):
        return Sent(value.call, value.target, with_id(value.headers, ours, theirs), with_id(value.body, ours, theirs))
    return value


def test_all_scenarios_of_endpoints_are_driven() -> None:
    """What is left out has no endpoint of ours to go to."""
    driven = {case.exchange.name for case in CASES}
    left_out = {name for name in names() if name not in driven and any(True for _ in cases(name))}
    assert left_out == {"js/serve_many_404"}  # see test_views


@cache
def differences_met() -> set[str]:
    return {one.title for case in copy.deepcopy(CASES) for one in DIFFERENCES if one.apply(case)}


@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda difference: difference.title)
def test_every_difference_is_met_and_written_down(difference: Difference) -> None:
    assert difference.title in differences_met()
    assert f"| {difference.title} |" in COMPATIBILITY.read_text("utf-8")


def test_middlewares_hear_what_the_official_ones_hear() -> None:
    """With one difference: a result is told by the call that made it, not by the next one."""
    recorder.events.clear()
    for case in cases("js/middleware"):
        drive(case)
    assert recorder.events == [
        ["runStarted", {}],
        ["beforeExecution", {"stepName": "one"}],
        ["afterExecution", {"stepName": "one", "result": 1}],
        ["beforeExecution", {"stepName": "a"}],
        ["afterExecution", {"stepName": "a", "result": "A"}],
        ["beforeExecution", {"stepName": "b"}],
        ["afterExecution", {"stepName": "b", "result": "B"}],
        ["runCompleted", {"result": "r"}],
    ]
