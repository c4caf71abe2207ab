"""Requests as the official SDK sends them, for tests that change one thing; and an endpoint made of a function."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from tests.hosted_stub.network import Answer, HttpRequest
from tests.hosted_stub.replay import FEATURES
from tests.hosted_stub.service import HostedStub

ENGINE = "https://engine.example"
URL = "https://shop.example/workflows/order"
RUN = "wfr_one"
SERVED = {"Upstash-Workflow-Sdk-Version": ["1"], "Upstash-Workflow-Sdk": ["v1.3.2"]}

Headers = dict[str, str]


def step_headers(**changes: str | None) -> Headers:
    """Headers of a step's message; names with underscores, None leaves one away."""
    headers = {
        "content-type": "application/json",
        "upstash-workflow-init": "false",
        "upstash-workflow-runid": RUN,
        "upstash-workflow-url": URL,
        "upstash-feature-set": FEATURES,
        "upstash-workflow-sdk-version": "1",
        "upstash-forward-upstash-workflow-sdk-version": "1",
    }
    return changed(headers, changes)


def init_headers(run_id: str = RUN, **changes: str | None) -> Headers:
    failure = {
        "": URL,
        "-feature-set": FEATURES,
        "-forward-upstash-workflow-is-failure": "true",
        "-forward-upstash-workflow-failure-callback": "true",
        "-workflow-runid": run_id,
        "-workflow-init": "false",
        "-workflow-url": URL,
        "-workflow-calltype": "failureCall",
    }
    headers = step_headers(upstash_workflow_init="true", upstash_workflow_runid=run_id)
    headers |= {f"upstash-failure-callback{name}": value for name, value in failure.items()}
    return changed(headers, changes)


def call_headers(**changes: str | None) -> Headers:
    back = {
        "": URL,
        "-feature-set": FEATURES,
        "-workflow-calltype": "fromCallback",
        "-workflow-init": "false",
        "-workflow-runid": RUN,
        "-workflow-url": URL,
        "-forward-upstash-workflow-callback": "true",
        "-forward-upstash-workflow-stepid": "1",
        "-forward-upstash-workflow-stepname": "pay",
        "-forward-upstash-workflow-steptype": "Call",
        "-forward-upstash-workflow-concurrent": "1",
        "-forward-upstash-workflow-contenttype": "application/json",
    }
    headers = step_headers(
        upstash_workflow_calltype="toCallback",
        upstash_feature_set="WF_NoDelete,InitialBody",
        upstash_retries="0",
        upstash_forward_upstash_workflow_sdk_version=None,
    )
    headers |= {f"upstash-callback{name}": value for name, value in back.items()}
    return changed(headers, changes)


def changed(headers: Headers, changes: Mapping[str, str | None]) -> Headers:
    found = dict(headers)
    for name, value in changes.items():
        name = name.replace("_", "-")
        if value is None:
            del found[name]
        else:
            found[name] = value
    return found


def step(step_id: int, name: str = "step", **changes: Any) -> dict[str, Any]:
    """The body of a result; None leaves a key away."""
    body = {"stepId": step_id, "stepName": name, "stepType": "Run", "out": "1", "concurrent": 1, **changes}
    return {key: value for key, value in body.items() if value is not None}


def plan(target: int, count: int, name: str = "branch", **changes: Any) -> dict[str, Any]:
    return step(0, name, out=None, targetStep=target, concurrent=count, **changes)


def item(headers: Headers, body: Any = None, destination: str = URL) -> dict[str, Any]:
    text = body if isinstance(body, str) else json.dumps(body)
    return {"destination": destination, "headers": headers, **({} if body is None else {"body": text})}


class Service:
    """A stub whose deliveries are answered by `endpoint`, and a client of it."""

    def __init__(self, endpoint: Callable[[HttpRequest], Answer] | None = None, **options: Any) -> None:
        self.now = 1_760_000_000.0
        self.endpoint = endpoint or (lambda request: Answer(200, SERVED))
        self.stub = HostedStub(lambda request, timeout: self.endpoint(request), lambda: self.now, url=ENGINE, **options)

    def call(self, method: str, path: str, body: Any = None, headers: Headers | None = None) -> Answer:
        given = {"Authorization": f"Bearer {self.stub.token}", **(headers or {})}
        raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        return self.stub.handle(method, ENGINE + path, given.items(), raw)

    def batch(self, *items: dict[str, Any]) -> Answer:
        return self.call("POST", "/v2/batch", list(items), {"Content-Type": "application/json"})

    def started(self) -> Service:
        """With a run whose first delivery is due."""
        assert self.batch(item(init_headers(), {"order": 1})).status == 200
        return self

    def submit(self, *steps: dict[str, Any], run: str = RUN, **headers: str | None) -> Answer:
        return self.batch(*(item(step_headers(upstash_workflow_runid=run, **headers), body) for body in steps))

    @property
    def run(self) -> dict[str, Any]:
        return self.stub.state_of(RUN)

    def journal(self) -> list[Any]:
        found: list[Any] = json.loads(self.call("GET", f"/v2/workflows/runs/{RUN}").body)
        return found
