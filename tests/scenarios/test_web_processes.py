"""Deliveries over the network to this project's own web processes (`base_url`), and webhooks, which need it."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import pytest
from django.test import Client

from django_workflow import WorkflowContext, workflow
from django_workflow.models import Run
from django_workflow.testing import CallAnswer, mock_calls
from django_workflow.testing.calls import Call
from tests.scenarios.conftest import Engine

handed_out: list[str] = []


def web_process(call: Call) -> CallAnswer:
    """Answers what the network would bring to this site."""
    parts = urlsplit(call.url)
    assert parts.netloc == "testserver"
    headers = {name: value for name, value in call.headers.items() if name.lower() != "content-type"}
    response = Client(raise_request_exception=False).generic(
        call.method,
        parts.path,
        call.body,
        content_type=call.headers.get("Content-Type", "application/json"),
        headers=headers,
        secure=parts.scheme == "https",
    )
    return CallAnswer(response.status_code, response.content, dict(response.items()))


@pytest.fixture(autouse=True)
def _site(settings) -> None:
    settings.DJANGO_WORKFLOW = {**settings.DJANGO_WORKFLOW, "base_url": "https://testserver"}
    handed_out.clear()


@workflow(name="webhook")
def webhook(ctx: WorkflowContext[None]) -> list[Any]:
    hook = ctx.create_webhook("make hook")
    ctx.run("hand out", handed_out.append, hook.webhook_url)
    result = ctx.wait_for_webhook("wait for it", hook, timeout="1h")
    if result.timeout:
        return ["timeout"]
    return [result.request.method, result.request.body.decode()]


@workflow(name="async-webhook")
async def async_webhook(ctx: WorkflowContext[None]) -> list[Any]:
    hook = await ctx.create_webhook("make hook")
    await ctx.run("hand out", handed_out.append, hook.webhook_url)
    result = await ctx.wait_for_webhook("wait for it", hook, timeout="1h")
    if result.timeout:
        return ["timeout"]
    return [result.request.method, result.request.body.decode()]


both = pytest.mark.parametrize("flow", [webhook, async_webhook], ids=["sync", "async"])


def test_a_run_is_served_by_web_processes(engine: Engine) -> None:
    @workflow(name="over-the-network")
    def flow(ctx: WorkflowContext[int]) -> int:
        first = ctx.run("one", lambda: ctx.request_payload + 1)
        return ctx.run("two", lambda: first * 2)

    with mock_calls(web_process) as recorder:
        run = engine.finish(flow.trigger(4))
    assert run.result == "10"
    assert {urlsplit(call.url).path for call in recorder.calls} == {"/workflows/serve/over-the-network/"}
    assert all("Upstash-Signature" in call.headers for call in recorder.calls)


@both
def test_a_call_of_the_webhook_ends_the_wait(engine: Engine, flow: Any) -> None:
    with mock_calls(web_process):
        handle = flow.trigger()
        engine.run()
        assert handle.run.status == Run.Status.WAITING
        response = Client().put(urlsplit(handed_out[0]).path, b"hello", content_type="text/plain", secure=True)
        assert response.status_code == 200
        assert engine.finish(handle).result == '["PUT","hello"]'
    assert Client().post(urlsplit(handed_out[0]).path).status_code == 404


@both
def test_a_webhook_times_out(engine: Engine, flow: Any) -> None:
    with mock_calls(web_process):
        handle = flow.trigger()
        engine.run()
        engine.clock.advance("1h")
        assert engine.finish(handle).result == '["timeout"]'


def test_a_webhook_that_is_called_early_is_kept(engine: Engine) -> None:
    @workflow(name="slow-webhook")
    def slow(ctx: WorkflowContext[None]) -> str:
        hook = ctx.create_webhook("make hook")
        ctx.run("hand out", handed_out.append, hook.webhook_url)
        ctx.sleep("pause", "1h")
        return ctx.wait_for_webhook("wait for it", hook, timeout="1h").request.body.decode()

    with mock_calls(web_process):
        handle = slow.trigger()
        engine.run()
        Client().post(urlsplit(handed_out[0]).path, b"early", content_type="text/plain")
        assert engine.finish(handle).result == '"early"'
