"""Endpoints on threads of their own: the same answers as by Django's ASGI handler, and everything else left to it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest
from asgiref.testing import ApplicationCommunicator
from django.core.signals import request_started
from django.db import connection, connections
from django.http import HttpRequest, HttpResponse

from django_workflow import WorkflowContext, workflow
from django_workflow.asgi import WorkflowApplication
from django_workflow.client.urls import workflow_path, workflow_url
from django_workflow.engine import signing_keys
from django_workflow.models import JournalEntry, Run
from django_workflow.protocol.signature import sign
from django_workflow.protocol.steps import JournalMessage, encode_messages

pytestmark = pytest.mark.django_db(transaction=True)

steps_on: list[Any] = []


@workflow(name="on-threads")
def on_threads(ctx: WorkflowContext[int]) -> int:
    def where() -> int:
        connection.ensure_connection()
        steps_on.append(connection.connection)
        return 1

    return ctx.run("where", where)


async def django(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 299, "headers": []})
    await send({"type": "http.response.body", "body": b"Django"})


@pytest.fixture
def application() -> Iterator[WorkflowApplication]:
    steps_on.clear()
    application = WorkflowApplication(django, endpoint_threads=1)
    yield application
    steps_on.clear()
    assert application._endpoints is not None
    with application._endpoints._pool as pool:  # its one thread keeps its connection otherwise
        pool.submit(connections.close_all).result()


def answer(
    application: WorkflowApplication, path: str, body: bytes = b"", headers: dict[str, str] | None = None, **scope: Any
) -> tuple[int, bytes]:
    async def ask() -> tuple[int, bytes]:
        sent = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
        asked = ApplicationCommunicator(
            application,
            {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": sent, **scope},
        )
        await asked.send_input({"type": "http.request", "body": body[:3], "more_body": True})
        await asked.send_input({"type": "http.request", "body": body[3:]})
        start = await asked.receive_output(30)
        rest = await asked.receive_output(30)
        return start["status"], rest["body"]

    return asyncio.run(ask())


def delivery(run: Run) -> tuple[bytes, dict[str, str]]:
    body = encode_messages([JournalMessage("msg_1", run.payload)])
    headers = {
        "Host": "testserver",
        "Content-Length": str(len(body)),
        "Upstash-Workflow-RunId": run.run_id,
        "Upstash-Workflow-Sdk-Version": "1",
        "Upstash-Message-Id": "msg_1",
        "Upstash-Signature": sign(workflow_url("on-threads"), body, signing_keys.signing_pair().current, time.time()),
    }
    return body, headers


def test_a_signed_delivery_is_answered_and_its_step_submitted(application: WorkflowApplication) -> None:
    runs = [on_threads.trigger(number).run for number in range(3)]
    started: list[object] = []
    request_started.connect(lambda **values: started.append(values), weak=False, dispatch_uid="test-threads")
    try:
        for run in runs:
            status, text = answer(application, workflow_path("on-threads"), *delivery(run))
            assert status == 200, text
    finally:
        request_started.disconnect(dispatch_uid="test-threads")
    assert JournalEntry.objects.filter(run__in=runs, step_id=1).count() == 3
    # One thread with one connection, kept from request to request; and Django was not asked.
    assert len(set(map(id, steps_on))) == 1
    assert steps_on[0] is not connections["default"].connection
    assert started == []


def test_a_request_that_nobody_signed_is_refused(application: WorkflowApplication) -> None:
    run = on_threads.trigger(1).run
    body, headers = delivery(run)
    status, _ = answer(application, workflow_path("on-threads"), body, {**headers, "Upstash-Signature": "no"})
    assert status == 401
    assert steps_on == []


def test_a_project_below_a_path_is_found(application: WorkflowApplication) -> None:
    run = on_threads.trigger(1).run
    status, text = answer(application, "/below" + workflow_path("on-threads"), *delivery(run), root_path="/below")
    assert status == 200, text


def test_middleware_of_the_project_sees_the_request(application: WorkflowApplication, settings: Any) -> None:
    settings.MIDDLEWARE = ["tests.serve.test_threads.turn_away"]
    assert answer(application, workflow_path("on-threads"), b"{}") == (418, b"by the middleware")


def turn_away(get_response: Any) -> Any:
    def middleware(request: HttpRequest) -> HttpResponse:
        return HttpResponse("by the middleware", status=418)

    return middleware


@pytest.mark.parametrize("path", ["/", "/workflows/api/runs/", "/admin/"])
def test_other_requests_are_djangos(application: WorkflowApplication, path: str) -> None:
    assert answer(application, path) == (299, b"Django")


def test_without_threads_everything_is_djangos() -> None:
    assert answer(WorkflowApplication(django), workflow_path("on-threads")) == (299, b"Django")


def test_too_large_a_body_is_refused(application: WorkflowApplication, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_workflow.serve.threads.MAX_BODY_BYTES", 10)
    monkeypatch.setattr("django_workflow.serve.views.MAX_BODY_BYTES", 10)
    status, _ = answer(application, workflow_path("on-threads"), b"x" * 50, {"Host": "testserver"})
    assert status == 413
