"""A site that the network knows (`base_url`): calls of its workflows come over it, and it can hand out webhooks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from django_workflow import WorkflowContext, workflow
from django_workflow.models import Run
from tests.scenarios.conftest import Engine

handed_out: list[str] = []


@pytest.fixture(autouse=True)
def calls(engine: Engine, settings: Any) -> Iterator[list[Any]]:
    """Calls over the network, as far as the edge shows them."""
    handed_out.clear()
    with engine.site_on_network(settings) as recorder:
        yield recorder.calls


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


@pytest.mark.edges("in_process", "on_the_wire", reason="a hosted engine has no other way to call a workflow")
def test_a_run_is_served_by_web_processes(engine: Engine, calls: list[Any]) -> None:
    @workflow(name="over-the-network")
    def flow(ctx: WorkflowContext[int]) -> int:
        first = ctx.run("one", lambda: ctx.request_payload + 1)
        return ctx.run("two", lambda: first * 2)

    run = engine.finish(flow.trigger(4))
    assert run.result == "10"
    assert {urlsplit(call.url).path for call in calls} == {"/workflows/serve/over-the-network/"}
    assert all("Upstash-Signature" in call.headers for call in calls)


@both
def test_a_call_of_the_webhook_ends_the_wait(engine: Engine, flow: Any) -> None:
    handle = flow.trigger()
    engine.run()
    assert handle.run.status == Run.Status.WAITING
    assert engine.visit("PUT", handed_out[0], b"hello") == 200
    assert engine.finish(handle).result == '["PUT","hello"]'
    assert engine.visit("POST", handed_out[0], b"") == 404


@both
def test_a_webhook_times_out(engine: Engine, flow: Any) -> None:
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

    handle = slow.trigger()
    engine.run()
    assert engine.visit("POST", handed_out[0], b"early") == 200
    assert engine.finish(handle).result == '"early"'
