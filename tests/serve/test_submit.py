"""Submissions as messages. The wire form of each stands in the captured vectors, see test_vectors."""

from __future__ import annotations

import json
from typing import Any

import pytest

from django_workflow.client.client import Client
from django_workflow.errors import EngineError, QuotaExceeded, RunEnded
from django_workflow.protocol.publish import CALL_FEATURES, FEATURES, FlowControl
from django_workflow.protocol.requests import Batch, CancelRun, FinishRun, Publish, Wait
from django_workflow.protocol.steps import Step, StepType, decode_step
from django_workflow.replay.outcome import CallSubmission, InvokeSubmission, StepSubmission, WaitSubmission
from django_workflow.serve import submit
from django_workflow.serve.submit import Submitter
from tests.client.fakes import RecordingTransport

URL = "https://shop.example/serve/checkout/"


def step(step_id: int = 1, kind: str = StepType.RUN, **fields: Any) -> Step:
    return Step(step_id=step_id, step_name="charge", step_type=kind, concurrent=fields.pop("concurrent", 1), **fields)


def submitter(client: Client, **options: Any) -> Submitter:
    return Submitter(client, "wfr_1", URL, **options)


def test_a_result_is_a_message_to_the_workflow_itself(client: Client, transport: RecordingTransport) -> None:
    assert submitter(client).submit([StepSubmission(step(out="1"))]) is False
    (message,) = transport.messages
    assert message.destination == URL
    assert decode_step(message.body) == step(out="1")
    assert message.headers == {"Upstash-Workflow-Sdk-Version": "1"}
    assert message.content_type == "application/json"
    assert message.retries is None  # the run keeps the configuration of its trigger
    assert message.failure_callback is None
    fields = message.workflow
    assert fields is not None
    assert (fields.run_id, fields.url, fields.init, fields.features) == ("wfr_1", URL, False, FEATURES)


def test_a_sleep_is_a_message_that_comes_later(client: Client, transport: RecordingTransport) -> None:
    submitter(client).submit([StepSubmission(step(), delay=90.0), StepSubmission(step(2), not_before=1760000000.5)])
    assert [(m.delay, m.not_before) for m in transport.messages] == [(90.0, None), (None, 1760000000.5)]


def test_the_plans_of_a_group_go_in_one_batch(client: Client, transport: RecordingTransport) -> None:
    plans = [StepSubmission(step(0, target_step=n, concurrent=3)) for n in (1, 2, 3)]
    submitter(client).submit(plans)
    (request,) = transport.sent
    assert isinstance(request, Batch)
    assert [decode_step(m.body).target_step for m in request.messages] == [1, 2, 3]


def test_a_call_goes_to_its_target_and_calls_back(client: Client, transport: RecordingTransport) -> None:
    submitter(client).submit(
        [
            CallSubmission(
                step(3, StepType.CALL, concurrent=2),
                url="https://bank.example/charge",
                method="PUT",
                body=b"<x/>",
                headers={"content-type": "text/xml", "X-Custom": "v"},
                retries=2,
                retry_delay="1000",
                timeout=30.0,
                flow_control=FlowControl("bank", rate=5),
            )
        ]
    )
    (message,) = transport.messages
    assert (message.destination, message.method, message.body) == ("https://bank.example/charge", "PUT", b"<x/>")
    assert (message.retries, message.retry_delay, message.timeout) == (2, "1000", 30.0)
    assert message.flow_control == FlowControl("bank", rate=5)
    assert message.content_type == "text/xml"
    # Nothing of the workflow reaches the target: a workflow there would take the call for one of its own steps.
    assert message.headers == {"content-type": "text/xml", "X-Custom": "v"}
    assert message.workflow is not None
    assert message.workflow.call_type == "toCallback"
    assert message.workflow.features == CALL_FEATURES
    assert message.callback is not None
    assert message.callback.url == URL
    assert message.callback.headers == {
        "Upstash-Workflow-RunId": "wfr_1",
        "Upstash-Workflow-CallType": "fromCallback",
        "Upstash-Workflow-Init": "false",
        "Upstash-Workflow-Url": URL,
        "Upstash-Feature-Set": ",".join(FEATURES),
        "Upstash-Retries": "3",
        "Upstash-Forward-Upstash-Workflow-Callback": "true",
        "Upstash-Forward-Upstash-Workflow-StepId": "3",
        "Upstash-Forward-Upstash-Workflow-StepName": "charge",
        "Upstash-Forward-Upstash-Workflow-StepType": "Call",
        "Upstash-Forward-Upstash-Workflow-Concurrent": "2",
        "Upstash-Forward-Upstash-Workflow-ContentType": "text/xml",
    }


def test_a_call_is_json_and_not_repeated_unless_told(client: Client, transport: RecordingTransport) -> None:
    submitter(client).submit([CallSubmission(step(1, StepType.CALL), url="https://bank.example/")])
    (message,) = transport.messages
    assert (message.method, message.retries, message.content_type) == ("GET", 0, "application/json")


def test_a_wait_is_a_request_of_its_own(client: Client, transport: RecordingTransport) -> None:
    waiting = step(1, StepType.WAIT)
    submitter(client).submit([WaitSubmission(waiting, "paid", 60.0)])
    (request,) = transport.sent
    assert isinstance(request, Wait)
    assert (request.event_id, request.step, request.timeout) == ("paid", waiting, 60.0)
    assert request.message.destination == URL
    assert request.message.headers == {"Upstash-Workflow-Sdk-Version": "1"}
    assert request.message.workflow is not None
    assert request.message.workflow.run_id == "wfr_1"


def test_an_invoke_starts_another_run_and_says_how_to_go_on(client: Client, transport: RecordingTransport) -> None:
    submitter(client, created_at=1760000000000, invoke_count=2).submit(
        [
            InvokeSubmission(
                step(4, StepType.INVOKE),
                workflow="child",
                body=b'{"p":1}',
                run_id="child1",
                headers={"X-H": "1"},
                retries=1,
                labels=("lab",),
            )
        ]
    )
    (request,) = transport.sent
    assert isinstance(request, Publish)
    message = request.message
    child = "https://workflow.internal/workflows/serve/child/"
    assert message.destination == child
    assert message.workflow is not None
    assert message.workflow.invoke
    assert message.workflow.init
    assert (message.workflow.run_id, message.workflow.url) == ("wfr_child1", child)
    assert message.headers == {
        "X-H": "1",
        "Upstash-Label": "lab",
        "Upstash-Workflow-Invoke-Count": "3",
        "Upstash-Workflow-Sdk-Version": "1",
    }
    assert message.failure_callback is not None
    assert message.failure_callback.url == child
    assert message.failure_callback.headers["Upstash-Forward-Upstash-Workflow-Invoke-Count"] == "3"
    body = json.loads(message.body)
    assert body["body"] == '{"p":1}'
    assert body["step"] == {"stepId": 4, "stepName": "charge", "stepType": "Invoke", "concurrent": 1}
    assert (body["workflowRunId"], body["workflowUrl"]) == ("wfr_1", URL)
    assert body["workflowRunCreatedAt"] == 1760000000000
    assert body["headers"]["Upstash-Workflow-RunId"] == ["wfr_1"]
    assert body["headers"]["Upstash-Forward-Upstash-Workflow-Sdk-Version"] == ["1"]
    assert body["headers"]["Upstash-Forward-Upstash-Workflow-Invoke-Count"] == ["2"]


def test_an_invoke_without_a_payload_has_no_body(client: Client, transport: RecordingTransport) -> None:
    submitter(client).submit([InvokeSubmission(step(1, StepType.INVOKE), workflow="child")])
    assert "body" not in json.loads(transport.messages[0].body)


def test_the_depth_of_an_invoked_run_travels_with_its_messages(client: Client, transport: RecordingTransport) -> None:
    port = submitter(client, invoke_count=2)
    port.submit([StepSubmission(step()), CallSubmission(step(2, StepType.CALL), url="https://bank.example/")])
    first, call = transport.messages
    assert first.headers["Upstash-Workflow-Invoke-Count"] == "2"
    assert call.headers["Upstash-Workflow-Invoke-Count"] == "2"
    assert call.callback is not None
    assert call.callback.headers["Upstash-Forward-Upstash-Workflow-Invoke-Count"] == "2"


@pytest.mark.parametrize("error", [RunEnded("over"), QuotaExceeded("too much")])
def test_a_refusal_passes_through(client: Client, transport: RecordingTransport, error: EngineError) -> None:
    transport.refuse_with = error
    with pytest.raises(type(error)):
        submitter(client).submit([StepSubmission(step())])


def test_the_end_of_a_run(client: Client, transport: RecordingTransport) -> None:
    submitter(client).finish(b'"done"')
    submitter(client).finish(None)
    submitter(client).cancel()
    assert transport.sent == [
        FinishRun(run_id="wfr_1", result=b'"done"'),
        FinishRun(run_id="wfr_1"),
        CancelRun(run_id="wfr_1"),
    ]


class Session:
    run_id = "wfr_1"

    def __init__(self) -> None:
        self.started: list[Step] = []

    def replay(self) -> None:
        return None

    def go_on(self) -> bool:
        return False

    def step_started(self, step: Step) -> None:
        self.started.append(step)


def test_a_start_is_told_to_the_session_alone(client: Client, transport: RecordingTransport) -> None:
    session = Session()
    submitter(client, session=session).step_started(step())
    submitter(client).step_started(step())
    assert session.started == [step()]
    assert transport.sent == []


def test_a_transaction_is_the_transports(client: Client, transport: RecordingTransport) -> None:
    with submitter(client).transaction():
        pass
    assert transport.transactions == 1


def test_events_without_a_session_go_to_the_emitter(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A delivery over the network has none."""
    monkeypatch.setattr(submit, "_emitter", None)  # put back afterwards
    submitter(client).emit("told", 1)  # nobody there: not an error
    told: list[tuple[str, str, object]] = []
    submit.use_emitter(lambda run_id, event, data: told.append((run_id, event, data)))
    submitter(client).emit("told", {"a": 1})
    assert told == [("wfr_1", "told", {"a": 1})]
