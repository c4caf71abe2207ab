"""What the stub does not let pass. Each case is a good request with one thing changed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.hosted_stub.samples import (
    RUN,
    URL,
    Service,
    call_headers,
    changed,
    init_headers,
    item,
    plan,
    step,
    step_headers,
)

INIT: list[tuple[dict[str, str | None], str]] = [
    ({"upstash_workflow_url": None}, "Upstash-Workflow-Url"),
    ({"upstash_workflow_url": "https://elsewhere.example/"}, "Upstash-Workflow-Url"),
    ({"upstash_feature_set": None}, "Upstash-Feature-Set lacks"),
    ({"upstash_feature_set": "LazyFetch,InitialBody"}, "lacks WF_DetectTrigger"),
    ({"upstash_feature_set": "LazyFetch,InitialBody,WF_Else"}, "WF_Else"),
    ({"upstash_forward_upstash_workflow_sdk_version": None}, "Forward-Upstash-Workflow-Sdk-Version"),
    ({"upstash_workflow_sdk_version": "2"}, "workflow-sdk-version"),
    ({"upstash_workflow_runid": None}, "without Upstash-Workflow-RunId"),
    ({"upstash_workflow_init": "yes"}, "workflow-init"),
    ({"upstash_workflow_else": "1"}, "no header Upstash-workflow-else"),
    ({"upstash_delay": "1.5s"}, "upstash-delay"),
    ({"upstash_delay": "90"}, "upstash-delay"),
    ({"upstash_delay": "soon"}, "upstash-delay"),
    ({"upstash_not_before": "tomorrow"}, "upstash-not-before"),
    ({"upstash_retries": "-1"}, "upstash-retries"),
    ({"upstash_retries": "3"}, "Failure-Callback-retries"),
    ({"upstash_retry_delay": "__import__('os')"}, "upstash-retry-delay"),
    ({"upstash_label": "two words"}, "upstash-label"),
    ({"upstash_redact_fields": "everything"}, "upstash-redact-fields"),
    ({"upstash_flow_control_key": "k"}, "come together"),
    ({"upstash_flow_control_key": "k", "upstash_flow_control_value": "speed=3"}, "flow-control-value"),
    ({"upstash_flow_control_key": "k k", "upstash_flow_control_value": "rate=3"}, "flow-control-key"),
    ({"upstash_failure_callback": "/relative"}, "upstash-failure-callback"),
    ({"upstash_failure_callback_workflow_runid": "wfr_other"}, "Failure-Callback-workflow-runid"),
    ({"upstash_failure_callback_workflow_calltype": "step"}, "Failure-Callback-workflow-calltype"),
    ({"upstash_failure_callback_forward_upstash_workflow_is_failure": None}, "workflow-is-failure"),
    ({"upstash_failure_callback_cron": "* * * * *"}, "no header Upstash-Failure-Callback-cron"),
    ({"upstash_forward_upstash_workflow_runid": RUN}, "not forwarded"),
    ({"upstash_workflow_trigger_by_sdk": "true"}, "REST did not start"),
    ({"upstash_callback": URL}, "neither a callback"),
    ({"x_tenant": "7"}, "Upstash-Forward-x-tenant"),
    ({"content_type": None}, "Content-Type"),
    ({"upstash_forward_x_a": "line\nbreak"}, "one line"),
]


@pytest.mark.parametrize(("changes", "reason"), INIT, ids=[str(changes) for changes, _ in INIT])
def test_a_start_is_refused(changes: dict[str, str | None], reason: str) -> None:
    service = Service()
    refused(service, service.batch(item(init_headers(**changes), {})), reason)


STEPS: list[tuple[dict[str, Any], str]] = [
    (step(2), "next step of run wfr_one is 1"),
    (step(0), "a targetStep"),
    (step(1, concurrent=2), "was not planned"),
    (step(1, concurrent=0), "concurrent"),
    (step(1, name=""), "empty name"),
    (step(1, stepType="Walk"), "Walk"),
    (step(1, stepType="Wait"), "The engine itself"),
    (step(1, stepType="Call", out='{"status":200}'), "not on its way"),
    (step(1, out=1), "not JSON in a string"),
    (step(1, out="no json"), "no JSON"),
    (step(1, extra=1), "extra"),
    (step(1, stepId="1"), "stepId"),
    (step(1, stepName=None), "stepName"),
    (step(1, stepType="SleepFor"), "wrong sleep"),
    (step(1, stepType="SleepFor", out=None, sleepFor=3), "Upstash-Delay"),
    (step(1, stepType="SleepUntil", out=None, sleepUntil=1_760_000_100), "Upstash-Not-Before"),
    (step(1, stepType="Notify", out=None), "no out"),
    (step(1, stepType="CreateWebhook", out='{"webhookUrl":"https://x/","eventId":"e"}'), "nobody listens"),
    (plan(1, 1), "no plan"),
    (plan(1, 2), "no group"),
]


@pytest.mark.parametrize(("body", "reason"), STEPS, ids=[json.dumps(body) for body, _ in STEPS])
def test_a_step_is_refused(body: dict[str, Any], reason: str) -> None:
    service = Service().started()
    refused(service, service.submit(body), reason)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"upstash_delay": "3s"}, "no delay"),
        ({"upstash_workflow_runid": "wfr_unknown"}, "no run"),
        ({"upstash_workflow_init": None}, "Upstash-Workflow-Init"),
        ({"upstash_workflow_calltype": "fromCallback"}, "headers of callbacks"),
        ({"upstash_workflow_invoke": "true"}, "start a run"),
        ({"upstash_cron": "* * * * *"}, "no schedule"),
    ],
)
def test_the_headers_of_a_step_are_refused(changes: dict[str, str | None], reason: str) -> None:
    service = Service().started()
    refused(service, service.batch(item(step_headers(**changes), step(1))), reason)


def test_a_group_is_planned_in_one_piece_and_its_branches_keep_their_names() -> None:
    service = Service().started()
    refused(service, service.submit(plan(2, 2), plan(3, 2)), "targetStep is 2, but the next step is 1")
    assert service.submit(plan(1, 2, "a"), plan(2, 2, "b")).status == 200
    refused(service, service.submit(step(3)), "before the end of [1, 2]")
    refused(service, service.submit(step(1, "other", concurrent=2)), "comes back as")
    assert service.submit(step(1, "a", concurrent=2)).status == 200
    assert service.stub.run(RUN).repeated == []  # type: ignore[union-attr]
    assert service.submit(step(1, "a", concurrent=2)).status == 200
    with pytest.raises(AssertionError, match="submitted twice"):
        service.stub.check_no_faults()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"upstash_callback": None}, "needs Upstash-Callback"),
        ({"upstash_callback": "https://elsewhere.example/"}, "Upstash-Callback is"),
        ({"upstash_retries": None}, "Upstash-Retries"),
        ({"upstash_feature_set": "InitialBody"}, "Upstash-Feature-Set of a call"),
        ({"upstash_forward_upstash_workflow_sdk_version": "1"}, "must not see"),
        ({"upstash_callback_workflow_calltype": "step"}, "Upstash-Callback-workflow-calltype"),
        ({"upstash_callback_workflow_runid": "wfr_x"}, "Upstash-Callback-workflow-runid"),
        ({"upstash_callback_forward_upstash_workflow_stepname": None}, "lacks stepname"),
        ({"upstash_callback_forward_upstash_workflow_stepid": "one"}, "are numbers"),
        ({"upstash_callback_forward_upstash_workflow_stepid": "2"}, "next step of run wfr_one is 1"),
        ({"upstash_workflow_url": "https://elsewhere.example/"}, "Upstash-Callback is"),
        ({"upstash_timeout": "1.5"}, "upstash-timeout"),
    ],
)
def test_a_call_is_refused(changes: dict[str, str | None], reason: str) -> None:
    service = Service().started()
    assert Service().started().batch(item(call_headers(), "{}", "https://bank.example/")).status == 200
    refused(service, service.batch(item(call_headers(**changes), "{}", "https://bank.example/")), reason)


def wait_body(**changes: Any) -> dict[str, Any]:
    late = {name: [value] for name, value in step_headers().items()}
    asked = {"stepId": 1, "stepName": "w", "stepType": "Wait", "concurrent": 1}
    body = {"url": URL, "timeout": "1h", "timeoutUrl": URL, "timeoutHeaders": late, "step": asked}
    return {**body, **changes}


@pytest.mark.parametrize(
    ("changes", "headers", "reason"),
    [
        ({"message": "may it?"}, {}, "message, which is not documented"),
        ({"timeout": "1.5s"}, {}, "timeout"),
        ({"timeout": None}, {}, "timeout"),
        ({"url": "https://elsewhere.example/"}, {}, "url of a wait"),
        ({"timeoutHeaders": {"A": "b"}}, {}, "list of texts"),
        ({"timeoutHeaders": {}}, {}, "timeoutHeaders name the run None"),
        ({"step": {"stepId": 1, "stepName": "w", "stepType": "Run", "concurrent": 1}}, {}, "stepType"),
        ({"step": {"stepId": 2, "stepName": "w", "stepType": "Wait", "concurrent": 1}}, {}, "next step"),
        ({}, {"upstash_workflow_calltype": None}, "CallType: step"),
        ({}, {"content_type": "text/plain"}, "application/json"),
        ({}, {"upstash_workflow_runid": "wfr_x"}, "no run"),
    ],
)
def test_a_wait_is_refused(changes: dict[str, Any], headers: dict[str, str | None], reason: str) -> None:
    service = Service().started()
    given = changed(step_headers(upstash_workflow_calltype="step"), headers)
    refused(service, service.call("POST", "/v2/wait/event", wait_body(**changes), given), reason)


@pytest.mark.parametrize(
    ("method", "path", "body", "reason"),
    [
        ("GET", "/v2/nothing", None, "no GET /v2/nothing"),
        ("GET", "/v2/batch", None, "no GET /v2/batch"),
        ("DELETE", "/v2/workflows/runs/wfr_one", None, "cancel is None"),
        ("DELETE", "/v2/workflows/runs/wfr_one?cancel=maybe", None, "cancel is 'maybe'"),
        ("DELETE", "/v2/workflows/runs/wfr_one?cancel=true", {"a": 1}, "has no result"),
        ("DELETE", "/v2/workflows/runs/wfr_one?cancel=false", b"text", "no JSON"),
        ("DELETE", "/v2/workflows/runs/wfr_x?cancel=false", None, "no run"),
        ("DELETE", "/v2/workflows/runs?ids=wfr_one", None, "takes no ids"),
        ("GET", "/v2/workflows/logs", None, "groupBy"),
        ("POST", "/v2/publish/group", b"", "no URL"),
        ("POST", "/v2/schedules/https://a.example/", b"", "Upstash-Cron"),
        ("GET", "/v2/workflows/runs/wfr_one", {"a": 1}, "no body"),
    ],
)
def test_a_path_a_query_or_a_body_is_refused(method: str, path: str, body: Any, reason: str) -> None:
    service = Service().started()
    refused(service, service.call(method, path, body), reason)


def test_a_batch_is_json_and_says_so() -> None:
    service = Service()
    refused(
        service, service.call("POST", "/v2/batch", b"[]", {"Content-Type": "text/plain"}), "Content-Type of a batch"
    )
    refused(service, service.batch(), "not empty")
    refused(service, service.batch({"destination": URL, "header": {}}), "header, which is not documented")
    refused(service, service.batch({"destination": URL, "queue": "q"}), "Queues")


def test_a_wrong_token_is_refused() -> None:
    service = Service()
    answer = service.call("GET", "/v2/keys", headers={"Authorization": "Bearer wrong"})
    assert answer.status == 401
    assert service.stub.faults == ["GET https://engine.example/v2/keys: The token is missing or wrong."]


def test_a_header_that_the_call_does_not_take_is_refused() -> None:
    service = Service().started()
    answer = service.call("GET", f"/v2/workflows/runs/{RUN}", headers={"Upstash-Message-Id": "msg_0001"})
    refused(service, answer, "takes no header Upstash-Message-Id")


def test_ordinary_refusals_are_no_faults() -> None:
    service = Service(most_retries=5).started()
    too_many = {"upstash_retries": "6", "upstash_failure_callback_retries": "6"}
    assert service.batch(item(init_headers("wfr_two", **too_many), {})).status == 412
    assert service.call("DELETE", f"/v2/workflows/runs/{RUN}?cancel=true").status == 200
    assert service.submit(step(1)).status == 400
    assert service.call("GET", f"/v2/workflows/runs/{RUN}").status == 404
    assert service.call("DELETE", f"/v2/workflows/runs/{RUN}?cancel=false").status == 200
    assert service.call("GET", "/v2/workflows/dlq/dlq_9").status == 404
    service.stub.check_no_faults()


def refused(service: Service, answer: Any, reason: str) -> None:
    assert answer.status in (400, 404), answer.body
    assert reason.lower() in json.loads(answer.body)["error"].lower()
    assert reason.lower() in service.stub.faults[-1].lower()
