"""Names, labels and ids that would break out of a header: refused by name, or carried without doing so."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx
import pytest

from django_workflow import WorkflowContext, workflow
from django_workflow.apps import make_transport
from django_workflow.authoring.registry import registry
from django_workflow.client.transports import HttpTransport, use_transport
from django_workflow.models import Run, Waiter
from django_workflow.testing import run_workflows, workflow_clock

pytestmark = pytest.mark.django_db

HOSTILE = [
    "a\r\nUpstash-Retries: 9",
    "a\nX: y",
    "a\rX: y",
    "a\x00b",
    "a\x0b\x0cb",
    "a\x85b",  # a line break to str.splitlines()
    "a\u2028b",
    "ä\r\nX: y",
    "\ud800",
    "日本語",
    "🙂",
    "a, b",
    'a"b;c=d',
    " a ",
]
hostile = pytest.mark.parametrize("text", HOSTILE, ids=ascii)


PLACES: list[Callable[[Any, str], Any]] = [
    lambda ship, text: ship.using(label=text).trigger(),
    lambda ship, text: ship.using(run_id=text).trigger(),
    lambda ship, text: ship.using(headers={"X-Own": text}).trigger(),
    lambda ship, text: ship.using(headers={text: "1"}).trigger(),
    lambda ship, text: ship.using(flow_control={"key": text, "parallelism": 1}).trigger(),
    lambda ship, text: ship.using(retry_delay=text).trigger(),
]


@hostile
@pytest.mark.parametrize("place", PLACES, ids=["label", "run id", "header", "header name", "flow key", "retry delay"])
def test_a_trigger_is_refused_or_starts_a_run_that_keeps_to_itself(place: Any, text: str) -> None:
    with registry.isolated(), workflow_clock():

        @workflow(retries=0)
        def ship(ctx: WorkflowContext[Any]) -> list[str]:
            ctx.run("step", lambda: None)
            return sorted(name.lower() for name in ctx.headers)

        try:
            handle = place(ship, text)
        except (ValueError, TypeError):
            assert not Run.objects.exists()
            return
        run_workflows(skip_delays=True)
        assert handle.run.status == "success", handle.run.error
        assert '"x"' not in handle.run.result
        assert "\n" not in handle.run.run_id


@hostile
@pytest.mark.parametrize("place", PLACES, ids=["label", "run id", "header", "header name", "flow key", "retry delay"])
def test_a_request_to_a_hosted_engine_has_the_headers_that_were_meant(place: Any, text: str) -> None:
    sent: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(200, json=[{"messageId": "msg_1", "workflowRunId": "wfr_1"}])

    use_transport(HttpTransport("https://engine.example", "t", transport=httpx.MockTransport(answer)))
    try:
        with registry.isolated():

            @workflow(retries=3)
            def ship(ctx: WorkflowContext[Any]) -> None: ...

            with suppress(ValueError, TypeError):
                place(ship, text)
    finally:
        use_transport(make_transport)
    for request in sent:
        lines = [(name.lower(), value) for name, value in request.headers.raw]
        assert all(not set(name + value) & set(b"\r\n\0") for name, value in lines)
        for message in json.loads(request.content):
            names = {name.lower(): value for name, value in message["headers"].items()}
            assert "x" not in names
            assert names["upstash-retries"] == "3"


@hostile
def test_a_step_s_name_is_refused_or_carried(text: str) -> None:
    with registry.isolated(), workflow_clock():

        @workflow(retries=0)
        def ship(ctx: WorkflowContext[Any]) -> None:
            ctx.run(text, lambda: None)
            ctx.sleep(text + "2", 1)

        handle = ship.trigger()
        run_workflows(skip_delays=True)
        run = handle.run
        assert run.status in ("success", "failed")
        if run.status == "success":
            assert [step.name for step in run.steps.order_by("step_id")] == [text, text + "2"]
        else:
            assert "cannot be stored" in run.error


@hostile
def test_an_event_s_id_is_refused_or_waited_for(text: str) -> None:
    with registry.isolated(), workflow_clock():

        @workflow(retries=0)
        def ship(ctx: WorkflowContext[Any]) -> None:
            ctx.wait_for_event("wait", text, timeout="1h")

        handle = ship.trigger()
        run_workflows()
        run = handle.run
        assert run.status in ("waiting", "failed"), run.why
        if run.status == "waiting":
            assert Waiter.objects.get().event_id == text
        else:
            assert run.error


@hostile
@pytest.mark.parametrize("where", ["name", "value", "callback"])
def test_headers_of_a_call_are_refused_or_sent_whole(text: str, where: str) -> None:
    from django_workflow.testing import CallAnswer, mock_calls

    with registry.isolated(), workflow_clock(), mock_calls(CallAnswer(200)) as recorder:

        @workflow(retries=0)
        def ship(ctx: WorkflowContext[Any]) -> None:
            headers = {text: "1"} if where == "name" else {"X-Own": text}
            ctx.call("pay" if where != "callback" else text, url="https://pay.example/", headers=headers)

        handle = ship.trigger()
        run_workflows(skip_delays=True)
        assert handle.run.status in ("success", "failed")
        for call in recorder.calls:
            for name, value in call.headers.items():
                assert not set(name + value) & {"\n", "\r", "\0"}, (name, value)
                assert name.lower() != "x"
