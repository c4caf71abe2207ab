"""The workflows behind the captured traffic, written for this package: same steps, same names, same values.

`WORKFLOWS` has them by the first part of the file's name and the path of the endpoint: `("js", "run")`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from django_workflow.authoring import steps as step
from django_workflow.authoring.async_context import AsyncWorkflowContext
from django_workflow.authoring.context import WorkflowContext
from django_workflow.authoring.decorator import Workflow
from django_workflow.authoring.middleware import Middleware
from django_workflow.authoring.options import WorkflowOptions
from django_workflow.authoring.results import WaitResult
from django_workflow.errors import NonRetryableError, RetryAfterError
from tests.vectors import ENGINE

LABEL_HEADERS = ("content-type", "upstash-label", "upstash-message-id", "upstash-retried")

WORKFLOWS: dict[tuple[str, str], Workflow[Any, Any]] = {}
JS = "http://127.0.0.1:18090"

Context = WorkflowContext[Any]


def endpoint(sdk: str, *paths: str, **options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        for path in paths:
            WORKFLOWS[sdk, path] = Workflow(
                function, name=path.replace("/", "-"), options=WorkflowOptions().using(**options)
            )
        return function

    return add


def value(result: Any) -> Callable[[], Any]:
    """A step's function that gives this."""
    return lambda: result


def raising(error: BaseException) -> Callable[[], Any]:
    def function() -> Any:
        raise error

    return function


def event(result: WaitResult[Any]) -> dict[str, Any]:
    """What a wait gives in JavaScript: without data there is no key."""
    data = {} if result.event_data is None else {"eventData": result.event_data}
    return {**data, "timeout": result.timeout}


# JavaScript


@endpoint("js", "run")
def js_run(ctx: Context) -> Any:
    first = ctx.run("step1", lambda: {"x": ctx.request_payload})
    second = ctx.run("step2", value("text ü"))
    ctx.run("undef", value(None))
    ctx.run("null", value(None))
    ctx.run("num", value(42))
    return {"a": first, "b": second}


@endpoint("js", "sleep")
def js_sleep(ctx: Context) -> str:
    ctx.sleep("s-num", 5)
    ctx.sleep("s-str", "10m")
    ctx.sleep_until("su", 1760000000)
    ctx.sleep_until("su-date", datetime.fromtimestamp(1760000000, tz=UTC))
    ctx.sleep_until("su-float", 1760000000.6)
    return "done"


@endpoint("js", "auth", on_failure=lambda ctx, status, response, headers: None)
def js_auth(ctx: Context) -> str | None:
    if ctx.headers.get("authorization") != "Bearer ok":
        return None
    ctx.run("s", lambda: ctx.request_payload)
    return "authed"


@endpoint("js", "call")
def js_call(ctx: Context) -> None:
    answer = ctx.call(
        "callit",
        f"{ENGINE}/ext/json",
        "POST",
        '{"a":1}',
        headers={"content-type": "application/json", "x-custom": "v"},
        retries=2,
        retry_delay="1000",
        timeout=30,
        flow_control={"key": "fk", "rate": 5, "parallelism": 2, "period": "1m"},
    )
    ctx.run("after", lambda: answer.body)


@endpoint("js", "callfail")
def js_callfail(ctx: Context) -> None:
    answer = ctx.call("failing", f"{ENGINE}/ext/fail", "PUT", retries=1)
    ctx.run("after", lambda: [answer.status, answer.body])


@endpoint("js", "callget")
def js_callget(ctx: Context) -> None:
    answer = ctx.call("getit", f"{ENGINE}/ext/text")
    ctx.run("after", lambda: [answer.status, answer.body])


@endpoint("js", "cancel")
def js_cancel(ctx: Context) -> None:
    ctx.run("one", value(1))
    ctx.cancel()


@endpoint("js", "changed")
@endpoint("py", "changed")
def changed(ctx: Context) -> None:
    ctx.run("new-name", value(1))


@endpoint("js", "nestedrun")
def js_nestedrun(ctx: Context) -> None:
    ctx.run("outer", lambda: ctx.run("inner", value(1)))


@endpoint("js", "wait")
def js_wait(ctx: Context) -> None:
    got = ctx.wait_for_event("w1", "evt-1", timeout="20s")
    ctx.run("got", lambda: event(got))


@endpoint("js", "waitnum")
def js_waitnum(ctx: Context) -> None:
    first = ctx.wait_for_event("w2", "evt-2", timeout=60)
    second = ctx.wait_for_event("w3", "evt-3")
    ctx.run("got", lambda: [event(first), event(second)])


@endpoint("js", "notify")
def js_notify(ctx: Context) -> None:
    ctx.notify("n1", "evt-1", {"k": "v"})
    ctx.notify("n2", "evt-2", "plain", workflow_run_id="wfr_target")
    ctx.run("got", value(1))


@endpoint("js", "webhook")
def js_webhook(ctx: Context) -> None:
    hook = ctx.create_webhook("mk hook")
    called = ctx.wait_for_webhook("wait hook", hook, timeout="30s")
    request = called.request
    ctx.run("got", lambda: "timeout" if request is None else [request.method, request.url, request.text])


@endpoint("js", "parallel")
def js_parallel(ctx: Context) -> None:
    first, second, _ = ctx.parallel(step.run("p1", value(1)), step.run("p2", value(2)), step.sleep("psleep", 3))
    ctx.run("after", lambda: [first, second])


@endpoint("js", "parallel2")
def js_parallel2(ctx: Context) -> None:
    ctx.run("pre", value(0))
    results = ctx.parallel(
        step.run("a", value("A")),
        step.call("b", f"{ENGINE}/ext/json"),
        step.wait_for_event("w", "evt-p", timeout="1m"),
        step.sleep_until("u", 1760000000),
    )
    ctx.run("post", lambda: len(results))


@endpoint("js", "nested")
async def js_nested(ctx: AsyncWorkflowContext[Any]) -> None:
    async def chain(name: str) -> str:
        first: str = await ctx.run(f"{name}-1", value(name))
        await ctx.sleep(f"{name}-s", 1)
        return await ctx.run(f"{name}-2", lambda: first + "!")

    both = await asyncio.gather(chain("x"), chain("y"))
    await ctx.run("end", lambda: both)


@endpoint("js", "parfail")
def js_parfail(ctx: Context) -> None:
    ctx.parallel(step.run("ok", value(1)), step.run("bad", raising(Exception("branch bad"))))


@endpoint("js", "throwearly")
def js_throwearly(ctx: Context) -> None:
    raise Exception("before step")


@endpoint("js", "api")
def js_api(ctx: Context) -> None:
    """What the helpers for three services come to: calls."""
    ctx.call(
        "ai",
        f"{ENGINE}/ext/openai/v1/chat/completions",
        "POST",
        '{"model":"m","messages":[{"role":"user","content":"hi"}]}',
        headers={"authorization": "Bearer sk-x", "content-type": "application/json"},
    )
    ctx.call(
        "mail",
        "https://api.resend.com/emails",
        "POST",
        '{"from":"a@b.c","to":["d@e.f"],"subject":"s","html":"<p>"}',
        headers={"authorization": "Bearer re-x"},
    )
    ctx.call(
        "an",
        "https://api.anthropic.com/v1/messages",
        "POST",
        '{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"hi"}]}',
        headers={"x-api-key": "sk-y", "anthropic-version": "2023-06-01", "content-type": "application/json"},
    )


@endpoint("js", "label")
def js_label(ctx: Context) -> None:
    created_at = ctx.workflow_run_created_at
    assert created_at is not None
    # Not those that the recorder's and our test's requests differ in.
    headers = sorted([n.lower(), text] for n, text in ctx.headers.items() if n.lower() in LABEL_HEADERS)
    ctx.run("l", lambda: [list(ctx.labels), ctx.label, ctx.retried, int(created_at.timestamp() * 1000), headers])


@endpoint("js", "retryafter")
def js_retryafter(ctx: Context) -> None:
    ctx.run("ra", raising(RetryAfterError(10, "later")))


@endpoint("js", "retryafterstr")
def js_retryafterstr(ctx: Context) -> None:
    ctx.run("ra", raising(RetryAfterError("2m", "later")))


@endpoint("js", "nonretry", on_failure=lambda ctx, status, response, headers: "nr handled")
def js_nonretry(ctx: Context) -> None:
    ctx.run("nr", raising(NonRetryableError("no more")))


def handled(ctx: Context, status: int, response: str, headers: dict[str, list[str]]) -> str:
    return f'handled {status} {response} {{"in":{ctx.request_payload["in"]}}}'


@endpoint("js", "fail", on_failure=handled)
def js_fail(ctx: Context) -> None:
    ctx.run("boom", raising(Exception("went wrong")))


@endpoint("js", "failnofn")
def js_failnofn(ctx: Context) -> None:
    ctx.run("boom", raising(Exception("went wrong")))


def failing(ctx: Context, status: int, response: str, headers: dict[str, list[str]]) -> None:
    raise Exception("ff failed")


@endpoint("js", "failfnthrows", on_failure=failing)
def js_failfnthrows(ctx: Context) -> None:
    ctx.run("boom", raising(Exception("went wrong")))


class Recorder(Middleware):
    """Keeps what it is told, in the words of the official SDK."""

    def __init__(self) -> None:
        self.events: list[list[Any]] = []

    def run_started(self, ctx: Any) -> None:
        self.events.append(["runStarted", {}])

    def before_execution(self, ctx: Any, step_name: str) -> None:
        self.events.append(["beforeExecution", {"stepName": step_name}])

    def after_execution(self, ctx: Any, step_name: str, result: Any) -> None:
        self.events.append(["afterExecution", {"stepName": step_name, "result": result}])

    def run_completed(self, ctx: Any, result: Any) -> None:
        self.events.append(["runCompleted", {"result": result}])


recorder = Recorder()


@endpoint("js", "mw", middlewares=[recorder])
def js_mw(ctx: Context) -> str:
    ctx.run("one", value(1))
    ctx.parallel(step.run("a", value("A")), step.run("b", value("B")))
    return "r"


@endpoint("js", "many/parent")
def js_parent(ctx: Context) -> None:
    done = ctx.invoke(
        "inv",
        f"{JS}/many/child",
        {"p": 1},
        headers={"x-h": "1"},
        workflow_run_id="child1",
        retries=1,
        retry_delay="500",
        flow_control={"key": "k", "rate": 1},
        label="lab",
    )
    failed = ctx.invoke("invfail", f"{JS}/many/childfail", "str", retries=0)
    cancelled = ctx.invoke("invcancel", f"{JS}/many/childcancel")

    def result(end: Any) -> dict[str, Any]:
        body = {} if end.body is None else {"body": end.body}
        return {"isCanceled": end.is_canceled, "isFailed": end.is_failed, **body}

    ctx.run("res", lambda: {"r": result(done), "f": result(failed), "cc": result(cancelled)})
    answer = ctx.call("callwf", f"{JS}/many/child", "POST", '{"q":2}', headers={"h": "2"})
    ctx.run("res2", lambda: answer.body["finishCondition"])


@endpoint("js", "many/child")
def js_child(ctx: Context) -> dict[str, str]:
    ctx.run("child step", lambda: ctx.request_payload)
    return {"child": "result"}


@endpoint("js", "many/childfail", on_failure=lambda ctx, status, response, headers: "child ff")
def js_childfail(ctx: Context) -> None:
    ctx.run("child boom", raising(Exception("child failed")))


@endpoint("js", "many/childcancel")
def js_childcancel(ctx: Context) -> None:
    ctx.run("s", value(1))
    ctx.cancel()


# Python


@endpoint("py", "run")
def py_run(ctx: Context) -> None:
    ctx.run("step1", lambda: {"x": ctx.request_payload})
    ctx.run("step2", value("text ü"))
    ctx.run("none", value(None))
    ctx.run("num", value(42))


@endpoint("py", "runretries", retries=5)
def py_runretries(ctx: Context) -> None:
    ctx.run("a", value(1))


@endpoint("py", "auth")
def py_auth(ctx: Context) -> None:
    if ctx.headers.get("authorization") == "Bearer ok":
        ctx.run("s", lambda: ctx.request_payload)


@endpoint("py", "call")
def py_call(ctx: Context) -> None:
    answer = ctx.call(
        "callit", f"{ENGINE}/ext/json", "POST", {"a": 1}, headers={"x-custom": "v"}, retries=2, timeout=30
    )
    ctx.run("after", lambda: [answer.status, answer.body])


@endpoint("py", "callfail")
def py_callfail(ctx: Context) -> None:
    answer = ctx.call("failing", f"{ENGINE}/ext/fail", "PUT", retries=1, timeout="30s")
    ctx.run("after", lambda: [answer.status, answer.body])


@endpoint("py", "callget")
def py_callget(ctx: Context) -> None:
    answer = ctx.call("getit", f"{ENGINE}/ext/text")
    ctx.run("after", lambda: [answer.status, answer.body])


@endpoint("py", "failcall", retries=1, on_failure=handled)
def py_failcall(ctx: Context) -> None:
    ctx.call("x", f"{ENGINE}/ext/json", "POST", '"s"', headers={"h": "v"})


@endpoint("py", "fail", on_failure=handled)
def py_fail(ctx: Context) -> None:
    ctx.run("boom", raising(ValueError("went wrong")))


@endpoint("py", "failnofn")
def py_failnofn(ctx: Context) -> None:
    ctx.run("boom", raising(ValueError("went wrong")))


@endpoint("py", "fail5", retries=1, on_failure=handled)
def py_fail5(ctx: Context) -> None:
    ctx.run("one", value(1))
    ctx.run("boom", raising(ValueError("went wrong")))


@endpoint("py", "failurl", failure_url=f"{ENGINE}/ext/failure")
def py_failurl(ctx: Context) -> None:
    ctx.run("one", value(1))


@endpoint("py", "sleep")
def py_sleep(ctx: Context) -> None:
    ctx.sleep("s-num", 5)
    ctx.sleep("s-str", "10m")
    ctx.sleep_until("su", 1760000000)
    ctx.sleep_until("su-dt", datetime.fromtimestamp(1760000000, tz=UTC))
    ctx.sleep_until("su-str", "2025-10-09T08:53:20+00:00")
    ctx.sleep_until("su-f", 1760000000.6)


@endpoint("py", "nested")
async def py_nested(ctx: AsyncWorkflowContext[Any]) -> None:
    async def outer() -> Any:
        return await ctx.run("inner", value(1))

    await ctx.run("outer", outer)


@endpoint("py", "parallel")
async def py_parallel(ctx: AsyncWorkflowContext[Any]) -> None:
    await asyncio.gather(ctx.run("a", value(1)), ctx.run("b", value(2)))
