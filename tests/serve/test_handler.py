"""One request after another through `handle`: what is run, sent and answered.

The protocol's own cases stand in the captured vectors; here is what they do not hold.
"""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from django.test import override_settings

from django_workflow.authoring.async_context import AsyncWorkflowContext
from django_workflow.authoring.context import WorkflowContext
from django_workflow.authoring.decorator import Workflow
from django_workflow.authoring.options import WorkflowOptions
from django_workflow.client import transports
from django_workflow.client.client import Client
from django_workflow.client.session import current_session
from django_workflow.errors import (
    EngineError,
    EngineUnavailable,
    NonRetryableError,
    PayloadInvalid,
    QuotaExceeded,
    RunEnded,
)
from django_workflow.protocol.headers import Headers
from django_workflow.protocol.requests import Batch, CancelRun, FetchRun, FinishRun, Notify, Publish
from django_workflow.protocol.steps import JournalMessage, Step, decode_step, encode_messages, encode_step
from django_workflow.serve import keys
from django_workflow.serve.endpoint import EndpointRequest, EndpointResponse
from django_workflow.serve.handler import handle
from tests.client.fakes import RecordingTransport

URL = "https://workflow.internal/workflows/serve/checkout/"
Context = WorkflowContext[Any]


class Session:
    """A delivery made in this process."""

    run_id = "wfr_1"
    first_run_id = "wfr_0"

    def __init__(self) -> None:
        self.started: list[Step] = []
        self.emitted: list[tuple[str, object]] = []

    def replay(self) -> None:
        return None

    def go_on(self) -> bool:
        return False

    def step_started(self, step: Step) -> None:
        self.started.append(step)

    def emit(self, event: str, data: object) -> None:
        self.emitted.append((event, data))


@pytest.fixture
def session() -> Session:
    return Session()


@pytest.fixture(autouse=True)
def _as_global_transport(transport: RecordingTransport, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(transports, "_transport", transport)
    yield
    assert current_session.get() is None


def workflow_of(function: Any, **options: Any) -> Workflow[Any, Any]:
    return Workflow(function, name="checkout", options=WorkflowOptions().using(**options))


def journal(*steps: Step, payload: str = "{}") -> list[JournalMessage]:
    messages = [JournalMessage("msg_0", payload)]
    return messages + [JournalMessage(f"msg_{i}", encode_step(s).decode()) for i, s in enumerate(steps, 1)]


def done(step_id: int, name: str, out: object = None) -> Step:
    return Step(step_id=step_id, step_name=name, step_type="Run", concurrent=1, out=json.dumps(out))


def delivery(messages: list[JournalMessage] | None = None, **headers: str) -> EndpointRequest:
    """A steps delivery; without messages a lazy one."""
    given = {
        "Upstash-Workflow-Sdk-Version": "1",
        "Upstash-Workflow-RunId": "wfr_1",
        "Upstash-Message-Id": messages[-1].message_id if messages else "msg_9",
        **{name.replace("_", "-"): text for name, text in headers.items()},
    }
    return EndpointRequest("POST", URL, Headers(given), encode_messages(messages) if messages else b"")


def said(response: EndpointResponse) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(response.body)
    return read


# Steps


def test_a_step_is_run_and_submitted(client: Client, transport: RecordingTransport, session: Session) -> None:
    workflow = workflow_of(lambda ctx: ctx.run("charge", lambda: {"paid": True}))
    response = handle(workflow, delivery(journal()), client=client, session=session)
    assert response.status == 200
    assert said(response) == {"workflowRunId": "wfr_1", "finishCondition": "success"}
    (message,) = transport.messages
    assert message.destination == URL
    step = decode_step(message.body)
    assert step == Step(step_id=1, step_name="charge", step_type="Run", concurrent=1, out='{"paid":true}')
    assert [step.step_name for step in session.started] == ["charge"]


def test_an_async_workflow_is_served_by_the_same_sync_code(client: Client, transport: RecordingTransport) -> None:
    async def fulfil(ctx: AsyncWorkflowContext[Any]) -> str:
        return await ctx.run("charge", lambda: "paid")

    workflow = workflow_of(fulfil)
    assert handle(workflow, delivery(journal()), client=client, session=Session()).status == 200
    assert [decode_step(message.body).step_name for message in transport.messages] == ["charge"]
    handle(workflow, delivery(journal(done(1, "charge", "paid"))), client=client, session=Session())
    assert transport.sent[-1] == FinishRun(run_id="wfr_1", result=b'"paid"')


def test_an_empty_delivery_takes_the_journal_from_the_engine(
    client: Client, transport: RecordingTransport, session: Session
) -> None:
    transport.journal = tuple(journal(done(1, "charge", 7)))

    def fulfil(ctx: Context) -> int:
        charged: int = ctx.run("charge", lambda: 1)
        return charged + 1

    assert handle(workflow_of(fulfil), delivery(), client=client, session=session).status == 200
    assert transport.sent == [
        FetchRun(run_id="wfr_1", message_id="msg_9"),
        FinishRun(run_id="wfr_1", result=b"8"),
    ]


def test_the_session_is_found_while_the_workflow_runs(client: Client, session: Session) -> None:
    seen: list[Any] = []
    workflow = workflow_of(lambda ctx: ctx.run("look", lambda: seen.append(current_session.get())))
    handle(workflow, delivery(journal()), client=client, session=session)
    assert seen == [session]


def test_events_go_to_the_session(client: Client, session: Session) -> None:
    def fulfil(ctx: Context) -> None:
        ctx.emit("started", {"a": 1})
        ctx.run("charge", lambda: ctx.progress(1, 2))

    handle(workflow_of(fulfil), delivery(journal()), client=client, session=session)
    assert session.emitted[0] == ("started", {"a": 1})
    assert len(session.emitted) == 2


def test_idempotency_keys_come_from_the_first_run_of_the_chain(client: Client, transport: RecordingTransport) -> None:
    workflow = workflow_of(lambda ctx: ctx.run("charge", lambda: ctx.idempotency_key))
    for run_id in ("wfr_1", "wfr_2"):
        handle(workflow, delivery(journal(), Upstash_Workflow_RunId=run_id), client=client, session=Session())
    first, second = (decode_step(message.body).out for message in transport.messages)
    assert first == second


@pytest.mark.usefixtures("signed")
def test_over_the_network_a_header_names_the_first_run_of_the_chain(
    client: Client, transport: RecordingTransport
) -> None:
    workflow = workflow_of(lambda ctx: ctx.run("charge", lambda: [ctx.idempotency_key, *ctx.headers]))
    named = {"Django_Workflow_First_Run": "wfr_0"}
    transport.journal = tuple(journal())
    for run_id, headers in (("wfr_0", {}), ("wfr_2", named), ("wfr_2", {})):
        handle(workflow, delivery(journal(), Upstash_Workflow_RunId=run_id, **headers), client=client)
    of_first, of_resumed, of_other = (json.loads(decode_step(item.body).out or "") for item in transport.messages)
    assert of_resumed[0] == of_first[0] != of_other[0]
    assert "Django-Workflow-First-Run" not in of_resumed  # nothing for users


def test_a_workflow_that_returns_before_a_step_turns_the_call_away(
    client: Client, transport: RecordingTransport, session: Session
) -> None:
    response = handle(workflow_of(lambda ctx: "no"), delivery(journal()), client=client, session=session)
    assert response.status == 400
    assert said(response)["workflowRunId"] == "wfr_1"
    assert transport.sent == []


@pytest.mark.parametrize(("is_async", "remedy"), [(False, 'ctx.run("work", function)'), (True, "await ctx.run(")])
def test_a_workflow_without_a_step_is_told_what_it_lacks(
    client: Client, session: Session, caplog: pytest.LogCaptureFixture, is_async: bool, remedy: str
) -> None:
    async def forgets_to_await(ctx: Any) -> None: ...

    workflow = workflow_of(forgets_to_await if is_async else lambda ctx: "no")
    message = said(handle(workflow, delivery(journal()), client=client, session=session))["message"]
    assert message.startswith(f"Workflow {workflow.name!r} returned before its first step")
    assert remedy in message
    assert message in caplog.text


def test_a_duplicate_runs_nothing(client: Client, transport: RecordingTransport, session: Session) -> None:
    twice = journal(done(1, "charge"), done(1, "charge"))
    workflow = workflow_of(lambda ctx: pytest.fail("was run"))
    assert (
        said(handle(workflow, delivery(twice), client=client, session=session))["finishCondition"] == "duplicate-step"
    )
    assert transport.sent == []


@pytest.mark.parametrize("body", [b"{}", b"nonsense", b"[]", b'[{"messageId":"a","body":"!"}]'])
def test_a_delivery_that_cannot_be_read_is_a_500(client: Client, session: Session, body: bytes) -> None:
    request = EndpointRequest("POST", URL, delivery(journal()).headers, body)
    response = handle(workflow_of(lambda ctx: None), request, client=client, session=session)
    assert response.status == 500
    assert said(response)["error"] == "InvocationInvalid"


def test_a_journal_message_that_is_no_step_is_a_500(client: Client, session: Session) -> None:
    messages = [*journal(), JournalMessage("msg_1", '{"no": "step"}')]
    response = handle(workflow_of(lambda ctx: None), delivery(messages), client=client, session=session)
    assert response.status == 500
    assert "msg_1" in said(response)["message"]


# Ends


def test_a_cancelled_run(client: Client, transport: RecordingTransport, session: Session) -> None:
    handle(workflow_of(lambda ctx: ctx.cancel()), delivery(journal()), client=client, session=session)
    assert transport.sent == [CancelRun(run_id="wfr_1")]


@pytest.mark.parametrize("ending", ["step", "finish", "cancel"])
@pytest.mark.parametrize(
    ("refusal", "status"),
    [
        (RunEnded("over"), 200),
        (QuotaExceeded("too much"), 489),
        (EngineError("broken", status=500), 500),
        (EngineUnavailable("gone"), 500),
    ],
)
def test_a_refusal_of_the_runs_own_submission(
    client: Client, transport: RecordingTransport, session: Session, refusal: EngineError, status: int, ending: str
) -> None:
    transport.refuse_with = refusal

    def fulfil(ctx: Context) -> None:
        if ending == "cancel":
            ctx.cancel()
        ctx.run("charge", lambda: 1)

    messages = journal(done(1, "charge")) if ending == "finish" else journal()
    response = handle(workflow_of(fulfil), delivery(messages), client=client, session=session)
    assert response.status == status
    assert ("Upstash-NonRetryable-Error" in response.headers) == (status == 489)


@pytest.mark.parametrize(("error", "status"), [(RunEnded("over"), 500), (QuotaExceeded("too much"), 500)])
def test_the_same_errors_out_of_a_steps_own_code_are_errors_of_the_step(
    client: Client, transport: RecordingTransport, session: Session, error: EngineError, status: int
) -> None:
    """Or the run would hang: nothing was submitted for it."""

    def refuse(request: Any) -> Any:
        raise error

    transport.answers[Notify] = refuse
    workflow = workflow_of(lambda ctx: ctx.run("tell", lambda: client.notify("paid", run_id="wfr_over") and None))
    response = handle(workflow, delivery(journal()), client=client, session=session)
    assert response.status == status
    assert response.headers["Upstash-Error-Step-Name"] == "tell"
    assert not any(isinstance(request, Batch) for request in transport.sent)


# Payloads


@dataclass
class Order:
    order_id: int


def fulfil_order(ctx: WorkflowContext[Order]) -> int:
    return ctx.run("charge", lambda: ctx.request_payload.order_id)


def test_a_bad_payload_is_not_tried_again(client: Client, session: Session) -> None:
    bad = delivery(journal(payload='{"order_id": "x"}'))
    response = handle(workflow_of(fulfil_order), bad, client=client, session=session)
    assert response.status == 489
    assert response.headers["Upstash-NonRetryable-Error"] == "true"
    assert said(response)["error"] == "PayloadInvalid"
    assert "order_id" in said(response)["message"]


def test_anothers_bad_payload_is_an_ordinary_error(client: Client, session: Session) -> None:
    def raising() -> None:
        raise PayloadInvalid("of the refund", workflow="refund")

    workflow = workflow_of(lambda ctx: ctx.run("start refund", raising))
    assert handle(workflow, delivery(journal()), client=client, session=session).status == 500


# From outside


@pytest.fixture
def signed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "verify", lambda request: True)


def first(body: bytes = b"{}", **headers: str) -> EndpointRequest:
    return EndpointRequest("POST", URL, Headers({n.replace("_", "-"): text for n, text in headers.items()}), body)


@pytest.mark.usefixtures("signed")
def test_a_request_starts_a_run_with_the_workflows_options(client: Client, transport: RecordingTransport) -> None:
    workflow = workflow_of(
        lambda ctx: ctx.run("charge", lambda: pytest.fail("was run")),
        retries=5,
        label="shop",
        headers={"X-Team": "a"},
        flow_control={"key": "bank", "rate": 1},
    )
    request = first(
        b'{"a":1}',
        Content_Type="application/json; charset=utf-8",
        Authorization="Bearer me",
        Upstash_Label="vip",
        Host="evil.example",
        Content_Length="7",
        X_Forwarded_For="1.2.3.4",
        Upstash_Retries="9",
        Upstash_Forward_X="no",
    )
    response = handle(workflow, request, client=client)
    (message,) = transport.messages
    assert message.workflow is not None
    assert said(response) == {"workflowRunId": message.workflow.run_id, "finishCondition": "success"}
    assert message.workflow.init
    assert message.body == b'{"a":1}'
    assert message.content_type == "application/json; charset=utf-8"
    assert message.retries == 5
    assert message.labels == ("shop", "vip")
    assert message.flow_control is not None
    assert message.headers == {
        "X-Team": "a",
        "Authorization": "Bearer me",
        "Upstash-Label": "shop,vip",
        "Upstash-Workflow-Sdk-Version": "1",
    }
    assert message.failure_callback is not None
    assert message.failure_callback.url == URL


@pytest.mark.usefixtures("signed")
def test_a_message_that_is_delivered_twice_starts_one_run(client: Client, transport: RecordingTransport) -> None:
    workflow = workflow_of(lambda ctx: ctx.run("charge", lambda: 1))
    for message_id in ("msg_1", "msg_1", "msg_2"):
        handle(workflow, first(Upstash_Message_Id=message_id), client=client)
    handle(workflow, first(), client=client)
    handle(workflow, first(), client=client)
    ids = [message.workflow.run_id for message in transport.messages if message.workflow]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 4


@pytest.mark.usefixtures("signed")
def test_a_bad_payload_starts_nothing(client: Client, transport: RecordingTransport) -> None:
    workflow = workflow_of(fulfil_order)
    posted = handle(workflow, first(b'{"order_id": "x"}'), client=client)
    assert (posted.status, said(posted)["error"]) == (400, "PayloadInvalid")
    by_schedule = handle(workflow, first(b'{"order_id": "x"}', Upstash_Message_Id="msg_1"), client=client)
    assert (by_schedule.status, said(by_schedule)["error"]) == (489, "PayloadInvalid")
    assert transport.sent == []


@pytest.mark.usefixtures("signed")
def test_a_workflow_may_turn_a_request_away(client: Client, transport: RecordingTransport) -> None:
    response = handle(workflow_of(lambda ctx: None), first(), client=client)
    assert response.status == 400
    assert said(response)["workflowRunId"] == "no-workflow-id"
    assert transport.sent == []


@pytest.mark.usefixtures("signed")
def test_an_engine_that_refuses_the_start(client: Client, transport: RecordingTransport) -> None:
    transport.refuse_with = EngineUnavailable("gone")
    assert handle(workflow_of(lambda ctx: ctx.run("a", lambda: 1)), first(), client=client).status == 500


@pytest.mark.usefixtures("signed")
def test_a_binary_body_is_published_by_itself(client: Client, transport: RecordingTransport) -> None:
    handle(workflow_of(lambda ctx: ctx.run("a", lambda: 1)), first(b"\xff\xfe"), client=client)
    (request,) = transport.sent
    assert isinstance(request, Publish)
    assert request.message.body == b"\xff\xfe"


@override_settings(DJANGO_WORKFLOW={"current_signing_key": "sig_0123456789abcdef0123456789abcdef"})
def test_an_unsigned_request_is_refused_and_nothing_is_run(client: Client, transport: RecordingTransport) -> None:
    workflow = workflow_of(lambda ctx: pytest.fail("was run"))
    for request in (first(), delivery(journal())):
        response = handle(workflow, request, client=client)
        assert response.status == 401
        assert said(response)["reason"] == "missing"
    assert transport.sent == []


def test_only_signed_requests_learn_where_an_error_came_from(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing() -> None:
        raise ValueError("secret place")

    workflow = workflow_of(lambda ctx: ctx.run("charge", failing))
    assert "failing" in said(handle(workflow, delivery(journal()), client=client, session=Session()))["stack"]
    monkeypatch.setattr(keys, "verify", lambda request: False)  # a developer without keys
    assert said(handle(workflow, delivery(journal()), client=client))["stack"] == ""


# Calls


def call_returned(status: int = 200, body: bytes = b'{"ok":1}', **fields: Any) -> EndpointRequest:
    answer = {
        "status": status,
        "header": {"Content-Type": ["application/json"]},
        "body": base64.b64encode(body).decode(),
        "maxRetries": 2,
        **fields,
    }
    headers = {
        "Upstash-Workflow-Callback": "true",
        "Upstash-Workflow-RunId": "wfr_1",
        "Upstash-Workflow-StepId": "3",
        "Upstash-Workflow-StepName": "charge",
        "Upstash-Workflow-StepType": "Call",
        "Upstash-Workflow-Concurrent": "2",
        "Upstash-Workflow-ContentType": "application/json",
    }
    return EndpointRequest("POST", URL, Headers(headers), json.dumps(answer).encode())


def test_a_calls_answer_becomes_its_result_and_runs_nothing(
    client: Client, transport: RecordingTransport, session: Session
) -> None:
    workflow = workflow_of(lambda ctx: pytest.fail("was run"))
    response = handle(workflow, call_returned(body=b"\xff\xe4"), client=client, session=session)
    assert said(response) == {"workflowRunId": "wfr_1", "finishCondition": "fromCallback"}
    (request,) = transport.sent
    assert isinstance(request, Publish)
    step = decode_step(request.message.body)
    assert (step.step_id, step.step_name, step.step_type, step.concurrent) == (3, "charge", "Call", 2)
    assert json.loads(step.out or "") == {
        "status": 200,
        "body": "\xff\xe4",
        "header": {"Content-Type": ["application/json"]},
    }


@pytest.mark.parametrize(
    ("fields", "is_result"),
    [
        ({"status": 500, "retried": 0}, False),
        ({"status": 500, "retried": 1}, False),
        ({"status": 500, "retried": 2}, True),  # the last attempt
        ({"status": 500, "maxRetries": 0}, True),  # no other will come
        ({"status": 0, "retried": 2}, True),  # nobody answered
        ({"status": 204, "retried": 0}, True),
    ],
)
def test_an_attempt_that_will_be_repeated_is_no_result(
    client: Client, transport: RecordingTransport, session: Session, fields: dict[str, Any], is_result: bool
) -> None:
    response = handle(workflow_of(lambda ctx: None), call_returned(**fields), client=client, session=session)
    assert said(response)["finishCondition"] == "fromCallback"
    assert len(transport.sent) == int(is_result)


@pytest.mark.parametrize(("refusal", "status"), [(RunEnded("over"), 200), (EngineUnavailable("gone"), 500)])
def test_a_result_of_a_call_that_is_refused(
    client: Client, transport: RecordingTransport, session: Session, refusal: EngineError, status: int
) -> None:
    transport.refuse_with = refusal
    assert handle(workflow_of(lambda ctx: None), call_returned(), client=client, session=session).status == status


# Failures


def run_failed(answer: bytes = b'{"message":"card refused"}', payload: bytes = b'{"order_id":7}') -> EndpointRequest:
    body = {
        "status": 500,
        "header": {"X-A": ["1"]},
        "body": base64.b64encode(answer).decode(),
        "url": URL,
        "sourceBody": base64.b64encode(payload).decode(),
        "workflowRunId": "wfr_1",
    }
    headers = {"Upstash-Workflow-Failure-Callback": "true", "Upstash-Workflow-RunId": "wfr_1"}
    return EndpointRequest("POST", URL, Headers(headers), json.dumps(body).encode())


def alert(ctx: Context, status: int, response: str, headers: dict[str, list[str]]) -> str:
    return f"{ctx.workflow_run_id} {ctx.request_payload.order_id} {status} {response} {headers}"


async def alert_async(ctx: Any, status: int, response: str, headers: dict[str, list[str]]) -> str:
    return alert(ctx, status, response, headers)


@pytest.mark.parametrize("function", [alert, alert_async])
def test_a_failure_function_gets_the_run_and_the_last_answer(client: Client, session: Session, function: Any) -> None:
    response = handle(workflow_of(fulfil_order, on_failure=function), run_failed(), client=client, session=session)
    assert response.status == 200
    assert said(response) == {"result": "wfr_1 7 500 card refused {'X-A': ['1']}"}


def test_an_answer_that_is_no_json_is_told_as_it_is(client: Client, session: Session) -> None:
    workflow = workflow_of(fulfil_order, on_failure=alert)
    response = handle(workflow, run_failed(b"<html>502</html>"), client=client, session=session)
    assert "<html>502</html>" in said(response)["result"]


def test_without_a_failure_function_the_engine_is_told(client: Client, session: Session) -> None:
    response = handle(workflow_of(fulfil_order), run_failed(), client=client, session=session)
    assert response.status == 200
    assert response.headers["Upstash-Workflow-Failure-Callback-Notfound"] == "true"
    assert said(response)["finishCondition"] == "failure-callback-undefined"


def test_a_workflow_that_turns_callers_away_turns_this_one_away(client: Client, session: Session) -> None:
    workflow = workflow_of(lambda ctx: None, on_failure=lambda *args: pytest.fail("was called"))
    response = handle(workflow, run_failed(), client=client, session=session)
    assert response.status == 500
    assert said(response)["message"] == "Not authorized to run the failure function."


def test_a_workflow_that_fails_before_its_first_step_still_reports(client: Client, session: Session) -> None:
    def failing(ctx: Context) -> None:
        raise ValueError("always")

    workflow = workflow_of(failing, on_failure=lambda *args: "told")
    assert said(handle(workflow, run_failed(), client=client, session=session)) == {"result": "told"}


def test_a_run_that_failed_for_its_payload_still_reports(client: Client, session: Session) -> None:
    workflow = workflow_of(fulfil_order, on_failure=lambda ctx, status, response, headers: response)
    response = handle(workflow, run_failed(payload=b'{"order_id":"x"}'), client=client, session=session)
    assert said(response) == {"result": "card refused"}


@pytest.mark.parametrize(("error", "status"), [(ValueError("no mail"), 500), (NonRetryableError("never"), 489)])
def test_a_failing_failure_function(client: Client, session: Session, error: Exception, status: int) -> None:
    def failing(*args: object) -> None:
        raise error

    workflow = workflow_of(fulfil_order, on_failure=failing)
    assert handle(workflow, run_failed(), client=client, session=session).status == status


def test_a_failure_function_has_no_steps(client: Client, session: Session) -> None:
    workflow = workflow_of(fulfil_order, on_failure=lambda ctx, *args: ctx.run("mail", lambda: 1))
    response = handle(workflow, run_failed(), client=client, session=session)
    assert response.status == 500
    assert "failure function has no steps" in said(response)["message"]


# Logs


def test_a_failing_step_is_logged_with_its_run_and_name(
    client: Client, session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    def failing() -> None:
        raise ValueError("card refused")

    with caplog.at_level(logging.INFO, "django_workflow.serve"):
        handle(workflow_of(lambda ctx: ctx.run("charge", failing)), delivery(journal()), client=client, session=session)
    (record,) = caplog.records
    assert record.getMessage() == "step 'charge' of workflow 'checkout' failed in run wfr_1: ValueError: card refused"
    assert (record.levelname, record.__dict__["run_id"], record.__dict__["step"]) == ("ERROR", "wfr_1", "charge")
    assert record.exc_info is not None
