"""Every kind of step, in sync and async workflows: what it submits at first, and what its replay gives."""

from __future__ import annotations

import asyncio
import datetime as dt
import functools
import inspect
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from django_workflow import AsyncWorkflowContext, FlowControl, Workflow, WorkflowContext, step
from django_workflow.authoring import steps
from django_workflow.authoring.context_base import BaseContext, RunDetails
from django_workflow.authoring.invocation import dry_run, invoke
from django_workflow.authoring.results import (
    CallResponse,
    InvokeResult,
    NotifyResult,
    WaitResult,
    Webhook,
    WebhookRequest,
    WebhookResult,
)
from django_workflow.errors import Misconfigured, PayloadInvalid, ResultInvalid, StepError
from django_workflow.protocol.publish import FlowControl as Flow
from django_workflow.protocol.requests import Notified, Notify
from django_workflow.protocol.steps import Step
from django_workflow.protocol.waits import WebhookEvent, encode_webhook
from django_workflow.replay.journal import Journal
from django_workflow.replay.outcome import (
    CallSubmission,
    Failed,
    InvokeSubmission,
    StepFound,
    StepSubmission,
    WaitSubmission,
)
from tests.client.fakes import RecordingTransport
from tests.replay.driver import Engine

NOTHING = object()


@dataclass
class Approval:
    approved: bool
    by: str = ""


def both(ask: Any) -> list[Any]:
    """A workflow of one step, in its sync and its async form; `ask(ctx)` asks for the step."""

    def sync(ctx: Any) -> None:
        results.append(ask(ctx))

    async def awaited(ctx: Any) -> None:
        results.append(await ask(ctx))

    results: list[Any] = []
    found = []
    for function in (sync, awaited):
        function.results = results  # type: ignore[attr-defined]
        found.append(function)
    return found


def check(ask: Any, submission: Any, result: Any, step_type: str, **options: Any) -> None:
    """The step's submission, and the result that its replay gives; alike in sync and async workflows."""
    for function in both(ask):
        engine = Engine(function, **options)
        assert dry_run(engine.workflow, RunDetails(run_id="wfr_1")) == StepFound()
        engine.run_to_end()
        (made,) = engine.submissions
        assert made.step.step_type == step_type
        assert made.step.step_name == "s"
        assert made.step.step_id == 1
        if submission is not NOTHING:
            assert made == submission
        assert function.results == [result]
        function.results.clear()


def result_step(type_: str, **fields: Any) -> Step:
    return Step(step_id=1, step_name="s", step_type=type_, concurrent=1, **fields)


def approval(by: str, *, approved: bool = True) -> Approval:
    return Approval(approved, by)


async def approval_async(by: str) -> Approval:
    await asyncio.sleep(0)
    return Approval(True, by)


def task(function: Any) -> Any:
    """A task of django.tasks, or what one looks like where Django has none."""
    try:
        from django.tasks import task as make
    except ImportError:
        return SimpleNamespace(func=function, takes_context=False, name=function.__name__)
    return make(function)


class Clerk:
    def approve(self, by: str) -> Approval:
        return Approval(True, by)


@pytest.mark.parametrize(
    "ask",
    [
        lambda ctx: ctx.run("s", approval, "ann"),
        lambda ctx: ctx.run("s", approval, by="ann", approved=True),
        lambda ctx: ctx.run("s", approval, "ann", atomic=True),
        lambda ctx: ctx.run("s", functools.partial(approval, "ann")),
        lambda ctx: ctx.run("s", functools.partial(approval, approved=True), "ann"),
        lambda ctx: ctx.run("s", Clerk().approve, "ann"),
        lambda ctx: ctx.run("s", approval_async, "ann"),
        lambda ctx: ctx.run("s", functools.partial(approval_async, "ann")),
        lambda ctx: ctx.run("s", Approval, True, "ann"),
        lambda ctx: ctx.run("s", task(approval), "ann"),
    ],
)
def test_run(ask: Any) -> None:
    out = '{"approved":true,"by":"ann"}'
    check(ask, StepSubmission(result_step("Run", out=out)), Approval(True, "ann"), "Run")


def test_run_gives_plain_json_without_an_annotation() -> None:
    check(lambda ctx: ctx.run("s", lambda: Approval(True)), NOTHING, {"approved": True, "by": ""}, "Run")


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (1, "was given a int (1), not a function"),
        (None, "was given a NoneType"),
        (
            SimpleNamespace(func=approval, takes_context=True, name="approve"),
            "the task 'approve', which takes a task context",
        ),
    ],
)
def test_run_takes_functions(function: Any, text: str) -> None:
    outcome = Engine(lambda ctx: ctx.run("s", function)).run_to_end()
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, StepError)
    assert text in str(outcome.error)


def test_a_result_that_does_not_fit_its_annotation_fails_the_step_at_once() -> None:
    def wrong() -> int:
        return 1.5  # type: ignore[return-value]

    outcome = Engine(lambda ctx: ctx.run("s", wrong)).run_to_end()
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, ResultInvalid)
    assert "The result of step 's' does not fit its return annotation: Expected `int`" in str(outcome.error)


@pytest.mark.parametrize(
    ("duration", "seconds", "sleep_for"),
    [(90, 90.0, 90), ("1d12h", 129600.0, 129600), (dt.timedelta(minutes=1), 60.0, 60), (0.5, 0.5, 0.5)],
)
def test_sleep(duration: Any, seconds: float, sleep_for: float) -> None:
    submission = StepSubmission(result_step("SleepFor", sleep_for=sleep_for), delay=seconds)
    check(lambda ctx: ctx.sleep("s", duration), submission, None, "SleepFor")


@pytest.mark.parametrize(
    "instant",
    [
        1767225600,
        1767225600.0,
        "2026-01-01T00:00:00+00:00",
        "2026-01-01T01:00:00+01:00",
        "2026-01-01T00:00:00Z",
        dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
        dt.datetime(2026, 1, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=1))),
    ],
)
def test_sleep_until(instant: Any) -> None:
    submission = StepSubmission(result_step("SleepUntil", sleep_until=1767225600), not_before=1767225600)
    check(lambda ctx: ctx.sleep_until("s", instant), submission, None, "SleepUntil")


@pytest.mark.parametrize(
    ("instant", "text"),
    [
        (dt.datetime(2026, 1, 1), "has no time zone"),
        ("2026-01-01T00:00:00", "has no time zone"),
        ("tomorrow", "'tomorrow' is no instant"),
        (True, "An instant cannot be a bool"),
        (dt.date(2026, 1, 1), "An instant cannot be a date"),
    ],
)
def test_an_uncertain_instant_is_refused(instant: Any, text: str) -> None:
    outcome = Engine(lambda ctx: ctx.sleep_until("s", instant)).run_to_end()
    assert isinstance(outcome, Failed)
    assert text in str(outcome.error)
    assert outcome.step_name == "s"


def test_call() -> None:
    submission = CallSubmission(
        result_step("Call"),
        url="https://pay.example/charge",
        method="POST",
        body=b'{"order":7}',
        headers={"X-Key": "k", "Content-Type": "application/json"},
        retries=3,
        retry_delay="1000",
        timeout=30.0,
        flow_control=Flow("pay", rate=5),
    )
    check(
        lambda ctx: ctx.call(
            "s",
            url="https://pay.example/charge",
            method="post",
            body={"order": 7},
            headers={"X-Key": "k"},
            retries=3,
            retry_delay=1,
            timeout="30s",
            flow_control=FlowControl("pay", rate=5),
        ),
        submission,
        CallResponse(200, {}, {"ok": True}, b'{"ok": true}'),
        "Call",
        answers={"https://pay.example/charge": '{"ok": true}'},
    )


@pytest.mark.parametrize(
    ("body", "headers", "sent", "sent_headers"),
    [
        (None, None, b"", {}),
        ("text", None, b"text", {}),
        (b"\x00", None, b"\x00", {}),
        ([1], {"content-TYPE": "application/vnd.api+json"}, b"[1]", {"content-TYPE": "application/vnd.api+json"}),
        (Approval(True), None, b'{"approved":true,"by":""}', {"Content-Type": "application/json"}),
    ],
)
def test_the_body_of_a_call(body: Any, headers: Any, sent: bytes, sent_headers: dict[str, str]) -> None:
    engine = Engine(lambda ctx: ctx.call("s", "https://x/", body=body, headers=headers))
    engine.deliver()
    (made,) = engine.submissions
    assert isinstance(made, CallSubmission)
    assert (made.method, made.body, made.headers, made.retries) == ("GET", sent, sent_headers, 0)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"url": "pay.example"}, "calls 'pay.example', but a URL starts with http"),
        ({}, "give either url= or workflow="),
        ({"url": "https://x/", "body": {"a": float("nan")}}, "The body of call 's' cannot be stored: nan"),
        ({"url": "https://x/", "headers": {"a b": "c"}}, "'a b'"),
        ({"url": "https://x/", "timeout": "soon"}, "'soon' is no duration"),
        ({"url": "https://x/", "retries": -1}, "retries is -1"),
    ],
)
def test_a_call_that_makes_no_sense(arguments: Any, text: str) -> None:
    outcome = Engine(lambda ctx: ctx.call("s", **arguments)).run_to_end()
    assert isinstance(outcome, Failed)
    assert text in str(outcome.error)


def child_function(ctx: WorkflowContext[Approval]) -> Approval:
    return ctx.run("a", lambda: ctx.request_payload)


CHILD: Workflow[Approval, Approval] = Workflow(child_function, name="child")


def test_call_of_a_workflow() -> None:
    engine = Engine(lambda ctx: ctx.call("s", workflow=CHILD, body=Approval(True)))
    engine.deliver()
    (made,) = engine.submissions
    assert isinstance(made, CallSubmission)
    assert (made.method, made.body) == ("POST", b'{"approved":true,"by":""}')
    assert made.url == "https://workflow.internal/workflows/serve/child/"
    outcome = Engine(lambda ctx: ctx.call("s", workflow=CHILD, body={"by": 1})).run_to_end()
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, PayloadInvalid)


def test_wait_for_event() -> None:
    submission = WaitSubmission(result_step("Wait"), "approve-7", 172800.0, "Approve order 7?")
    check(
        lambda ctx: ctx.wait_for_event("s", "approve-7", timeout="2d", type=Approval, message="Approve order 7?"),
        submission,
        WaitResult(Approval(True), timeout=False),
        "Wait",
        events={"approve-7": {"approved": True}},
    )


def test_wait_for_event_waits_seven_days_unless_told_otherwise() -> None:
    check(
        lambda ctx: ctx.wait_for_event("s", "evt"),
        WaitSubmission(result_step("Wait"), "evt", 604800.0),
        WaitResult(None, timeout=True),
        "Wait",
    )


@pytest.mark.parametrize(
    ("data", "read"), [("text", "text"), (b"no JSON", "no JSON"), ([1], [1]), (b"", None), (b"\xff", "\ufffd")]
)
def test_what_an_event_brings(data: Any, read: Any) -> None:
    check(
        lambda ctx: ctx.wait_for_event("s", "evt"),
        NOTHING,
        WaitResult(read, timeout=False),
        "Wait",
        events={"evt": data},
    )


def test_an_event_that_does_not_fit_its_type_can_be_caught() -> None:
    def wf(ctx: WorkflowContext[Any]) -> str:
        try:
            ctx.wait_for_event("s", "evt", type=Approval)
        except PayloadInvalid as error:
            return error.field
        return ""

    assert Engine(wf, events={"evt": {"approved": "maybe"}}).run() == "$.approved"


@pytest.mark.parametrize("event_id", ["", None, 7, "x" * 256, "a\0"])
def test_an_event_id_is_a_text(event_id: Any) -> None:
    for ask in (lambda ctx: ctx.wait_for_event("s", event_id), lambda ctx: ctx.notify("s", event_id)):
        outcome = Engine(ask).run_to_end()
        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, StepError)
        assert "vent id" in str(outcome.error)


def test_notify(transport: RecordingTransport) -> None:
    reached = Notified(message_id="msg_1", workflow_run_id="wfr_2")
    transport.answers[Notify] = lambda request: (reached,)
    check(
        lambda ctx: ctx.notify("s", "evt", {"k": 1}),
        NOTHING,
        NotifyResult("evt", {"k": 1}, (reached,)),
        "Notify",
    )
    sync, awaited = transport.sent
    assert isinstance(sync, Notify)
    assert (sync.event_id, sync.body, sync.run_id) == ("evt", b'{"k":1}', None)
    assert sync.deduplication_id
    assert sync == awaited, "every attempt of the step carries the same id"


def test_notify_of_one_run(transport: RecordingTransport) -> None:
    Engine(lambda ctx: ctx.notify("s", "evt", workflow_run_id="wfr_2")).run()
    (request,) = transport.sent
    assert isinstance(request, Notify)
    assert (request.run_id, request.body) == ("wfr_2", b"")


def test_invoke() -> None:
    submission = InvokeSubmission(
        result_step("Invoke"),
        workflow="child",
        body=b'{"approved":true,"by":""}',
        run_id="child-7",
        headers={"X-A": "b"},
        retries=2,
        retry_delay="1000",
        flow_control=Flow("k", parallelism=1),
        labels=("vip",),
    )
    check(
        lambda ctx: ctx.invoke(
            "s",
            CHILD,
            Approval(True),
            headers={"X-A": "b"},
            workflow_run_id="child-7",
            retries=2,
            retry_delay=1,
            flow_control={"key": "k", "parallelism": 1},
            label="vip",
        ),
        submission,
        InvokeResult(Approval(False, "bob"), is_failed=False, is_canceled=False),
        "Invoke",
        children={"child": {"approved": False, "by": "bob"}},
    )


def test_invoke_takes_what_is_not_said_from_the_other_workflow() -> None:
    bound = CHILD.using(retries=7, label="kept", headers={"X-A": "a", "X-B": "b"})
    engine = Engine(lambda ctx: ctx.invoke("s", bound, Approval(True), headers={"X-A": "said"}))
    engine.deliver()
    (made,) = engine.submissions
    assert isinstance(made, InvokeSubmission)
    assert (made.retries, made.labels, made.headers) == (7, ("kept",), {"X-A": "said", "X-B": "b"})


def test_invoke_of_an_endpoint_elsewhere() -> None:
    check(
        lambda ctx: ctx.invoke("s", "https://other.example/wf", {"a": 1}),
        InvokeSubmission(result_step("Invoke"), workflow="https://other.example/wf", body=b'{"a":1}'),
        InvokeResult([1], is_failed=False, is_canceled=False),
        "Invoke",
        children={"https://other.example/wf": [1]},
    )


@pytest.mark.parametrize("ask", [lambda ctx: ctx.invoke("s", len), lambda ctx: ctx.call("s", workflow=len)])
def test_a_function_that_is_no_workflow_is_no_target(ask: Any) -> None:
    outcome = Engine(ask).run_to_end()
    assert isinstance(outcome, Failed)
    assert "<built-in function len>, which is no workflow" in str(outcome.error)


def test_invoke_checks_name_and_payload() -> None:
    outcome = Engine(lambda ctx: ctx.invoke("s", "child")).run_to_end()
    assert isinstance(outcome, Failed)
    assert "pass the workflow, or the URL of an endpoint" in str(outcome.error)
    outcome = Engine(lambda ctx: ctx.invoke("s", CHILD, {"by": 1})).run_to_end()
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, PayloadInvalid)


def test_webhooks(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.DJANGO_WORKFLOW = {"base_url": "https://shop.example"}
    settings.ROOT_URLCONF = "tests.authoring.urls"
    monkeypatch.setattr("django_workflow.authoring.step_kinds.new_event_id", lambda: "evt_1")
    hook = Webhook("https://shop.example/workflows/hooks/wfr_1/evt_1/", "evt_1")
    out = '{"webhookUrl":"https://shop.example/workflows/hooks/wfr_1/evt_1/","eventId":"evt_1"}'
    check(
        lambda ctx: ctx.create_webhook("s"),
        StepSubmission(result_step("CreateWebhook", out=out)),
        hook,
        "CreateWebhook",
    )
    event = WebhookEvent(
        method="POST", header={"A": ["b"]}, body=b'{"k":1}', proto="https", host="shop.example", url="/hooks/x?y=1"
    )
    expected = WebhookRequest("POST", "https://shop.example/hooks/x?y=1", {"A": ["b"]}, b'{"k":1}')
    check(
        lambda ctx: ctx.wait_for_webhook("s", hook, timeout="30s"),
        WaitSubmission(result_step("WaitForWebhook"), "evt_1", 30.0),
        WebhookResult(expected, timeout=False),
        "WaitForWebhook",
        events={"evt_1": encode_webhook(event)},
    )
    assert expected.json() == {"k": 1}
    assert expected.text == '{"k":1}'
    check(lambda ctx: ctx.wait_for_webhook("s", hook), NOTHING, WebhookResult(None, timeout=True), "WaitForWebhook")


def test_a_webhook_of_the_hosted_engine_names_the_tokens_user(settings: Any) -> None:
    token = "eyJVc2VySUQiOiJkZWZhdWx0VXNlciIsIlBhc3N3b3JkIjoiZGVmYXVsdFBhc3N3b3JkIn0="
    settings.DJANGO_WORKFLOW = {"engine": "qstash", "token": token, "base_url": "https://shop.example"}
    hook = Engine(lambda ctx: ctx.create_webhook("s")).run
    engine = Engine(lambda ctx: ctx.create_webhook("s").webhook_url)
    assert engine.run().startswith("https://qstash.upstash.io/v2/workflows/hooks/defaultUser/wfr_1/evt_")
    settings.DJANGO_WORKFLOW = {"engine": "qstash", "token": "x", "base_url": "https://shop.example"}
    with pytest.raises(Misconfigured, match="Failed to decode QStash token while running create webhook step"):
        hook()


def test_a_webhook_needs_an_address() -> None:
    with pytest.raises(Misconfigured, match="Set base_url in DJANGO_WORKFLOW"):
        Engine(lambda ctx: ctx.create_webhook("s")).run()


@pytest.mark.parametrize("kind", ["run", "sleep", "sleep_until", "call", "wait_for_event", "notify", "create_webhook"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("", "A workflow step name cannot be undefined or an empty string."),
        (None, 'A workflow step name must be a string. Received "None" (NoneType).'),
        (7, 'A workflow step name must be a string. Received "7" (int). The name comes first: ctx.run('),
    ],
)
def test_a_step_has_a_name(kind: str, name: Any, text: str) -> None:
    arguments = {"run": [len], "create_webhook": [], "call": ["https://x/"]}.get(kind, ["1"])
    for function in both(lambda ctx: getattr(ctx, kind)(name, *arguments)):
        outcome = Engine(function).run_to_end()
        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, StepError)
        assert str(outcome.error).startswith(text)


@pytest.mark.parametrize("name", ["x" * 256, "a\0b", "\ud800"])
def test_a_name_that_cannot_be_stored_is_refused(name: str) -> None:
    for ask in (lambda ctx: ctx.run(name, len, "x"), lambda ctx: ctx.sleep(name, 1)):
        for function in both(ask):
            outcome = Engine(function).run_to_end()
            assert isinstance(outcome, Failed)
            assert isinstance(outcome.error, StepError)
            assert "The step name " in str(outcome.error)


# The facts of a run


def facts(ctx: BaseContext[Any]) -> list[Any]:
    return [
        ctx.request_payload,
        ctx.workflow_run_id,
        ctx.url,
        dict(ctx.headers),
        ctx.headers["AUTHORIZATION"],
        ctx.label,
        ctx.labels,
        ctx.retried,
        ctx.workflow_run_created_at,
    ]


def test_the_facts_of_a_run() -> None:
    seen = []

    def wf(ctx: WorkflowContext[int]) -> None:
        seen.append(facts(ctx))
        ctx.run("a", lambda: 1)

    details = RunDetails(
        run_id="wfr_1",
        url="https://here/",
        payload=b"7",
        headers={"Authorization": "Bearer x", "Upstash-Workflow-RunId": "wfr_1", "X-Forwarded-For": "1.2.3.4"},
        labels=("a", "b"),
        retried=2,
        created_at=1767225600000,
    )
    invoke(Workflow(wf, name="wf"), details, Journal(), Engine(wf, 7))
    assert seen == [
        [
            7,
            "wfr_1",
            "https://here/",
            {"Authorization": "Bearer x"},
            "Bearer x",
            "a",
            ("a", "b"),
            2,
            dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
        ]
    ]


def test_facts_that_nobody_gave() -> None:
    seen = []

    def wf(ctx: WorkflowContext[Any]) -> None:
        seen.append([ctx.request_payload, ctx.label, ctx.labels, ctx.workflow_run_created_at, repr(ctx)])
        ctx.run("a", lambda: 1)

    invoke(Workflow(wf, name="wf"), RunDetails(run_id="wfr_1"), Journal(), Engine(wf))
    assert seen == [[None, None, (), None, "<WorkflowContext of run wfr_1 of 'wf'>"]]


def test_a_payload_that_does_not_fit_fails_the_call_that_reads_it() -> None:
    def wf(ctx: WorkflowContext[int]) -> int:
        return ctx.run("a", lambda: ctx.request_payload)

    outcome = invoke(Workflow(wf, name="wf"), RunDetails(run_id="wfr_1", payload=b'"x"'), Journal(), Engine(wf, 7))
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, PayloadInvalid)


def test_the_idempotency_key_is_the_steps_own_and_stays_over_attempts_and_resumes() -> None:
    keys = []

    def wf(ctx: WorkflowContext[Any]) -> None:
        ctx.run("a", lambda: keys.append(ctx.idempotency_key))
        ctx.run("b", lambda: keys.append(ctx.idempotency_key))

    async def awf(ctx: AsyncWorkflowContext[Any]) -> None:
        async def read() -> None:
            await asyncio.sleep(0)
            keys.append(ctx.idempotency_key)

        await ctx.run("a", read)
        await ctx.run("b", lambda: keys.append(ctx.idempotency_key))

    Engine(wf).run()
    Engine(awf).run()
    assert len(set(keys)) == 2
    assert keys[:2] == keys[2:]
    resumed = RunDetails(run_id="wfr_2", first_run_id="wfr_1")
    invoke(Workflow(wf, name="wf"), resumed, Journal(), Engine(wf))
    assert keys[4] == keys[0]
    restarted = RunDetails(run_id="wfr_2")
    invoke(Workflow(wf, name="wf"), restarted, Journal(), Engine(wf))
    assert keys[5] not in keys[:4]


def test_outside_of_a_step_there_is_no_idempotency_key() -> None:
    with pytest.raises(StepError, match="read it inside a step's function"):
        Engine(lambda ctx: ctx.idempotency_key).run()


# Events of the workflow's own


def emits(ctx: WorkflowContext[Any]) -> None:
    ctx.emit("start", {"n": 1})

    def work() -> None:
        ctx.emit("in a", {"n": 2})
        ctx.progress(1, 10)

    ctx.run("a", work)
    ctx.emit("between")
    ctx.parallel(step.run("b", lambda: None), step.run("c", lambda: None))
    ctx.progress(10, 10)


async def emits_async(ctx: AsyncWorkflowContext[Any]) -> None:
    await ctx.emit("start", {"n": 1})

    async def work() -> None:
        await asyncio.sleep(0)
        await ctx.emit("in a", {"n": 2})
        await ctx.progress(1, 10)

    await ctx.run("a", work)
    await ctx.emit("between")
    await ctx.parallel(step.run("b", lambda: None), step.run("c", lambda: None))
    await ctx.progress(10, 10)


async def emits_in_sync_step(ctx: AsyncWorkflowContext[Any]) -> None:
    await ctx.emit("start", {"n": 1})

    def work() -> None:
        ctx.emit("in a", {"n": 2})
        ctx.progress(1, 10)

    await ctx.run("a", work)
    await ctx.emit("between")
    await asyncio.gather(ctx.run("b", lambda: None), ctx.run("c", lambda: None))
    await ctx.progress(10, 10)


@pytest.mark.parametrize("function", [emits, emits_async, emits_in_sync_step])
def test_events_are_sent_once_and_not_when_code_is_replayed(function: Any) -> None:
    engine = Engine(function)
    dry_run(engine.workflow, RunDetails(run_id="wfr_1"))
    engine.run()
    assert engine.emitted == [
        ("start", {"n": 1}),
        ("in a", {"n": 2}),
        ("workflow.progress", {"done": 1, "total": 10, "stepName": "a"}),
        ("between", None),
        ("workflow.progress", {"done": 10, "total": 10}),
    ]


# The surface


def test_both_contexts_and_the_steps_take_the_same_arguments() -> None:
    names = ["run", "sleep", "sleep_until", "call", "wait_for_event", "notify", "invoke", "wait_for_webhook"]
    for name in [*names, "create_webhook", "parallel", "emit", "progress", "cancel"]:
        ours = inspect.signature(getattr(WorkflowContext, name)).parameters
        theirs = inspect.signature(getattr(AsyncWorkflowContext, name)).parameters
        assert ours == theirs, name
        if name in names:
            described = inspect.signature(getattr(steps, name)).parameters
            assert list(described.values()) == list(ours.values())[1:], name
    assert steps.__all__ == sorted(names)


def test_every_public_method_has_a_docstring() -> None:
    for context in (WorkflowContext, AsyncWorkflowContext):
        for name, member in inspect.getmembers(context):
            if not name.startswith("_"):
                assert inspect.getdoc(member), name
