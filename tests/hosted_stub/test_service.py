"""The stub's own life: deliveries, retries, failures, waits, invocations, dead letters, logs."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import jwt
import pytest

from tests.hosted_stub.network import Answer, HttpRequest, NoAnswer
from tests.hosted_stub.samples import (
    RUN,
    SERVED,
    URL,
    Service,
    call_headers,
    init_headers,
    item,
    plan,
    step,
    step_headers,
)
from tests.hosted_stub.values import Cron

FAILED = Answer(500, SERVED, b'{"error":"ValueError","message":"no"}')
SECOND = "wfr_two"


class Workflow:
    """An endpoint that answers from a script, and keeps what it was sent."""

    def __init__(self, *answers: Answer | NoAnswer) -> None:
        self.answers = list(answers)
        self.requests: list[HttpRequest] = []

    def __call__(self, request: HttpRequest) -> Answer:
        self.requests.append(request)
        answer = self.answers.pop(0) if self.answers else Answer(200, SERVED)
        if isinstance(answer, NoAnswer):
            raise answer
        return answer

    def steps(self, number: int = -1) -> list[str]:
        """The names of the steps of one delivery, plans with a question mark."""
        elements = json.loads(self.requests[number].body)[1:]
        bodies = [json.loads(base64.b64decode(each["body"])) for each in elements if each["callType"] == "step"]
        return [body["stepName"] + ("?" if body["stepId"] == 0 else "") for body in bodies]


@pytest.fixture
def workflow() -> Workflow:
    return Workflow()


@pytest.fixture
def service(workflow: Workflow) -> Iterator[Service]:
    service = Service(workflow).started()
    yield service
    service.stub.check_no_faults()


def states(service: Service) -> list[Any]:
    return [[each.get("state") for each in group["steps"]] for group in service.run["steps"]]


# Deliveries


def test_a_delivery_is_signed_and_says_what_it_is(service: Service, workflow: Workflow) -> None:
    assert service.stub.run_due() == 1
    (request,) = workflow.requests
    assert (request.method, request.target) == ("POST", URL)
    assert request.header("Upstash-Workflow-RunId") == RUN
    assert request.header("User-Agent") == "Upstash-QStash"
    claims = jwt.decode(
        request.header("Upstash-Signature") or "", service.stub.keys.current, algorithms=["HS256"], issuer="Upstash"
    )
    assert claims["sub"] == URL


def test_parallel_branches_are_delivered_twice_each(service: Service, workflow: Workflow) -> None:
    service.submit(plan(1, 2, "a"), plan(2, 2, "b"))
    service.stub.run_due()
    service.submit(step(2, "b", concurrent=2))
    service.submit(step(1, "a", concurrent=2))
    service.stub.run_due()
    assert [workflow.steps(number) for number in range(5)] == [
        [],
        ["a?"],
        ["a?", "b?"],
        ["a?", "b?", "b"],
        ["a?", "b?", "b", "a"],
    ]


def test_a_sleep_delays_its_delivery(service: Service) -> None:
    service.stub.run_due()
    sleep = step(1, stepType="SleepFor", out=None, sleepFor="1h")
    service.submit(sleep, upstash_delay="1h")
    assert service.stub.run_due() == 0
    assert service.stub.next_due_at() == service.now + 3_600
    assert states(service) == [["STEP_SUCCESS"], ["STEP_PROGRESS"], ["STEP_PROGRESS"]]
    service.now += 3_600
    assert service.stub.run_due() == 1
    assert states(service) == [["STEP_SUCCESS"], ["STEP_SUCCESS"]]


def test_a_large_body_is_left_out(workflow: Workflow) -> None:
    service = Service(workflow, lazy_above=10).started()
    service.stub.run_due()
    assert workflow.requests[0].body == b""
    assert [element["messageId"] for element in service.journal()] == ["msg_0001"]


def test_forwarded_headers_are_kept_for_the_run_but_not_those_of_the_transport(workflow: Workflow) -> None:
    service = Service(workflow)
    given = {"upstash_forward_x_tenant": "7", "upstash_forward_host": "a", "upstash_forward_content_length": "3"}
    service.batch(item(init_headers(**given), {}))
    service.stub.run_due()
    service.submit(step(1))
    service.stub.run_due()
    assert [request.header("X-Tenant") for request in workflow.requests] == ["7", "7"]
    assert not any(request.header(name) for request in workflow.requests for name in ("Host", "Content-Length"))


# Retries and failures


def retries(service: Service, workflow: Workflow, headers: dict[str, str | None], *answers: Any) -> list[float]:
    """The pauses before each attempt of a run that is started with these headers."""
    workflow.answers = list(answers)
    config = {f"upstash_failure_callback_{n[8:]}": v for n, v in headers.items() if n != "upstash_timeout"}
    service.batch(item(init_headers(SECOND, **headers, **config), {}))
    message = service.stub.messages[-1]
    pauses = []
    while message.state == "pending":
        pauses.append(round(message.due - service.now, 1))
        service.now = message.due
        service.stub.deliver(message)
    return pauses


@pytest.mark.parametrize(
    ("headers", "answers", "pauses"),
    [
        ({}, [FAILED] * 4, [0, 12.2, 148.4, 1808.0]),
        ({"upstash_retries": "2", "upstash_retry_delay": "5000 * retried"}, [FAILED] * 3, [0, 0, 5]),
        ({"upstash_retries": "1"}, [Answer(429, {"Retry-After": ["90"]}), FAILED], [0, 90]),
        ({"upstash_retries": "1"}, [Answer(429, {"Retry-After": ["1m30s"]}), FAILED], [0, 90]),
        ({"upstash_retries": "1"}, [Answer(429, {"X-RateLimit-Reset": ["0"]}), FAILED], [0, 0]),
        ({"upstash_retries": "1"}, [Answer(429, {"Retry-After": ["100000"]}), FAILED], [0, 12.2]),
        ({"upstash_retries": "5"}, [Answer(489, {"Upstash-NonRetryable-Error": ["true"]})], [0]),
        ({"upstash_retries": "1"}, [Answer(489), FAILED], [0, 12.2]),
        ({"upstash_retries": "1"}, [NoAnswer("refused"), FAILED], [0, 12.2]),
        ({"upstash_retries": "1"}, [Answer(302, {"Location": ["/"]}), FAILED], [0, 12.2]),
    ],
)
def test_a_failed_attempt_is_repeated_in_time(
    headers: dict[str, str | None], answers: list[Any], pauses: list[float], service: Service, workflow: Workflow
) -> None:
    assert retries(service, workflow, headers, *answers) == pauses
    assert service.stub.state_of(SECOND)["workflowState"] == "RUN_FAILED"


def test_a_failed_run_tells_its_failure_function_and_is_a_dead_letter(service: Service, workflow: Workflow) -> None:
    workflow.answers = [*[FAILED] * 4, Answer(200, SERVED, b'{"result":"told"}')]
    for _ in range(5):
        service.now = service.stub.next_due_at() or 0
        service.stub.run_due()
    told = json.loads(workflow.requests[-1].body)
    assert workflow.requests[-1].header("Upstash-Workflow-Is-Failure") == "true"
    assert workflow.requests[-1].header("Upstash-Workflow-Sdk-Version") is None
    assert (told["status"], base64.b64decode(told["body"]), told["retried"]) == (500, FAILED.body, 3)
    assert base64.b64decode(told["sourceBody"]) == b'{"order": 1}'
    run = service.run
    assert run["workflowState"] == "RUN_FAILED"
    assert run["failureFunction"]["state"] == "CALLBACK_SUCCESS"
    assert states(service) == [["STEP_SUCCESS"], ["STEP_FAILED"]]
    letters = json.loads(service.call("GET", "/v2/dlq?source=workflow").body)["messages"]
    assert [(each["dlqId"], each["workflowRunId"], each["responseStatus"]) for each in letters] == [
        (told["dlqId"], RUN, 500)
    ]


def test_a_missing_failure_function_is_none(service: Service, workflow: Workflow) -> None:
    service.stub.run_due()
    none = {**SERVED, "Upstash-Workflow-Failure-Callback-Notfound": ["true"]}
    retries(service, workflow, {"upstash_retries": "0"}, FAILED, Answer(200, none))
    service.stub.run_due()
    assert "failureFunction" not in service.stub.state_of(SECOND)


def test_an_endpoint_that_is_no_workflow_fails_the_run(workflow: Workflow) -> None:
    workflow.answers = [Answer(200, {}, b"hello")]
    service = Service(workflow).started()
    service.stub.run_due()
    assert service.run["workflowState"] == "RUN_FAILED"
    (found,) = service.stub.letters.values()
    assert found.error.startswith("detected a non-workflow destination")


def test_appends_to_an_ended_run_are_refused_and_a_second_end_is_not(service: Service) -> None:
    service.stub.run_due()
    path = f"/v2/workflows/runs/{RUN}?cancel=false"
    assert service.call("DELETE", path, {"done": True}).status == 200
    assert service.submit(step(1)).status == 400
    assert service.call("DELETE", path, {"done": True}).status == 200
    assert service.run["workflowRunResponse"] == '{"done": true}'


def test_a_canceled_run_makes_no_more_calls_and_leaves_no_letter(service: Service, workflow: Workflow) -> None:
    assert json.loads(service.call("DELETE", f"/v2/workflows/runs?workflowRunIds={RUN}").body) == {"cancelled": 1}
    assert json.loads(service.call("DELETE", f"/v2/workflows/runs?workflowRunIds={RUN}").body) == {"cancelled": 0}
    assert service.stub.run_due() == 0
    assert (workflow.requests, service.stub.letters) == ([], {})
    assert states(service) == [["STEP_SUCCESS"], ["STEP_CANCELED"]]


def test_the_same_run_id_or_deduplication_id_makes_one_run(service: Service) -> None:
    (again,) = json.loads(service.batch(item(init_headers(), {})).body)
    assert again["deduplicated"] is True
    other = init_headers(SECOND, upstash_deduplication_id="d")
    first, second = (json.loads(service.batch(item(other, {})).body)[0] for _ in range(2))
    assert second == {**second, "messageId": first["messageId"], "deduplicated": True}
    assert len(service.stub.runs) == 2


# Calls, waits, invocations


def test_a_call_comes_back_after_each_attempt_with_the_users_headers(workflow: Workflow) -> None:
    service = Service(workflow)
    service.batch(item(init_headers(upstash_forward_x_tenant="7"), {}))
    service.stub.run_due()
    service.batch(item(call_headers(upstash_retries="1", upstash_retry_delay="1000"), "{}", "https://bank.example/"))
    workflow.answers = [Answer(503), Answer(200, SERVED)]
    service.stub.run_due()
    service.now += 1
    service.stub.run_due()
    bank = [request for request in workflow.requests if "bank" in request.target]
    back = [request for request in workflow.requests if request.header("Upstash-Workflow-Callback")]
    assert [request.header("X-Tenant") for request in (*bank, *back)] == [None, None, "7", "7"]
    assert [(json.loads(each.body)["status"], json.loads(each.body)["retried"]) for each in back] == [
        (503, 0),
        (200, 1),
    ]
    assert service.run["workflowState"] == "RUN_STARTED"
    assert service.submit(step(1, "pay", stepType="Call", out='{"status":200,"body":"","header":{}}')).status == 200
    (found,) = service.run["steps"][1]["steps"]
    assert (found["callUrl"], found["callResponseStatus"], found["state"]) == (
        "https://bank.example/",
        200,
        "STEP_SUCCESS",
    )
    service.stub.check_no_faults()


def wait(service: Service, step_id: int = 1, timeout: str = "1h", event: str = "paid", run: str = RUN) -> None:
    headers = step_headers(upstash_workflow_calltype="step", upstash_workflow_runid=run)
    asked = {"stepId": step_id, "stepName": "w", "stepType": "Wait", "concurrent": 1}
    late = {name: [value] for name, value in headers.items()}
    body = {"url": URL, "timeout": timeout, "timeoutUrl": URL, "timeoutHeaders": late, "step": asked}
    assert service.call("POST", f"/v2/wait/{event}", body, headers).status == 200


def last_step(workflow: Workflow) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(base64.b64decode(json.loads(workflow.requests[-1].body)[-1]["body"]))
    return found


def test_a_wait_ends_with_its_event_or_its_time(service: Service, workflow: Workflow) -> None:
    service.stub.run_due()
    wait(service)
    assert service.stub.run_due() == 0
    (told,) = json.loads(service.call("POST", "/v2/notify/paid", {"by": "ada"}).body)
    assert told["waiter"]["url"] == URL
    service.stub.run_due()
    assert base64.b64decode(last_step(workflow)["out"]) == b'{"by": "ada"}'
    assert json.loads(service.call("POST", "/v2/notify/paid", {}).body) == []
    wait(service, 2)
    service.now += 3_600
    service.stub.run_due()
    assert (last_step(workflow)["waitTimeout"], "out" in last_step(workflow)) == (True, False)


def test_an_event_for_the_run_is_kept_for_one_wait_each(service: Service, workflow: Workflow) -> None:
    service.stub.run_due()
    for number in (1, 2):
        assert len(json.loads(service.call("POST", f"/v2/notify/{RUN}/paid", number).body)) == 1
    wait(service)
    service.stub.run_due()
    wait(service, 2)
    service.stub.run_due()
    assert base64.b64decode(last_step(workflow)["out"]) == b"2"
    wait(service, 3)
    assert len(json.loads(service.call("GET", "/v2/waiters/paid").body)) == 1


def test_a_webhook_is_called_without_a_token(service: Service, workflow: Workflow) -> None:
    service.stub.run_due()
    hook = f"{service.stub.url}/v2/workflows/hooks/{service.stub.user_id}/{RUN}/evt_1"
    made = json.dumps({"webhookUrl": hook, "eventId": "evt_1"})
    service.submit(step(1, "hook", stepType="CreateWebhook", out=made))
    service.stub.run_due()
    assert service.stub.handle("PUT", hook + "?a=1", [("X-A", "b")], b"hello").status == 200
    wait(service, 2, event="evt_1")
    service.stub.run_due()
    called = json.loads(base64.b64decode(last_step(workflow)["out"]))
    assert (called["method"], called["header"], base64.b64decode(called["body"])) == ("PUT", {"X-A": ["b"]}, b"hello")
    assert f"{called['proto']}://{called['host']}{called['url']}" == hook + "?a=1"


@pytest.mark.parametrize(
    ("end", "out"),
    [
        ("finish", {"isCanceled": False, "isFailed": False, "body": "1"}),
        ("fail", {"isCanceled": False, "isFailed": True}),
        ("cancel", {"isCanceled": True, "isFailed": False}),
    ],
)
def test_the_invoking_run_is_told_how_the_other_ended(service: Service, workflow: Workflow, end: str, out: Any) -> None:
    service.stub.run_due()
    count = {"upstash_forward_upstash_workflow_invoke_count": "1", "upstash_workflow_invoke": "true"}
    count["upstash_failure_callback_forward_upstash_workflow_invoke_count"] = "1"
    limits = {"upstash_retries": "0", "upstash_failure_callback_retries": "0"}
    asked = {"stepId": 1, "stepName": "inv", "stepType": "Invoke", "concurrent": 1}
    headers = {name: [value] for name, value in step_headers().items()}
    created = round(service.stub.runs[0].created * 1000)
    invoke = {"body": "{}", "headers": headers, "workflowRunId": RUN, "workflowRunCreatedAt": created}
    invoke |= {"workflowUrl": URL, "step": asked}
    child = init_headers(SECOND, **count, **limits)
    assert service.call("POST", f"/v2/publish/{URL}", invoke, child).status == 200
    if end == "fail":
        workflow.answers = [FAILED]
    service.stub.run_due()
    if end != "fail":
        cancel = str(end == "cancel").lower()
        service.call("DELETE", f"/v2/workflows/runs/{SECOND}?cancel={cancel}", None if end == "cancel" else 1)
        service.stub.run_due()
    step = next(
        json.loads(base64.b64decode(json.loads(request.body)[-1]["body"]))
        for request in workflow.requests
        if request.header("Upstash-Workflow-RunId") == RUN and request.body.count(b"messageId") == 2
    )
    assert json.loads(step["out"]) == out
    assert service.stub.state_of(SECOND)["invoker"]["workflowRunId"] == RUN


def test_a_start_by_rest_asks_the_endpoint_first(workflow: Workflow) -> None:
    service = Service(workflow)
    answer = json.loads(service.call("POST", f"/v2/trigger/{URL}", {"a": 1}).body)
    message = service.stub.next_due()
    assert message is not None
    request = service.stub.begin(message)
    assert request.header("Upstash-Workflow-Unknown-Sdk") == "true"
    run = answer["workflowRunId"]
    again = step_headers(
        upstash_workflow_init="true", upstash_workflow_runid=run, upstash_workflow_trigger_by_sdk="true"
    )
    assert service.batch(item(again, {"a": 1})).status == 200
    service.stub.settle(message, Answer(200, SERVED))
    assert service.stub.run_due() == 1
    assert workflow.requests[-1].header("Upstash-Workflow-Sdk-Version") == "1"
    service.stub.check_no_faults()


# Dead letters


def revived(service: Service, how: str, **headers: str) -> str:
    (found,) = service.stub.letters
    names = {f"Upstash-{name.replace('_', '-')}": value for name, value in headers.items()}
    answer = service.call("POST", f"/v2/workflows/dlq/{how}?dlqIds={found}", headers=names)
    (run,) = json.loads(answer.body)["workflowRuns"]
    assert service.stub.letters == {}
    return str(run["workflowRunId"])


def fail(service: Service, workflow: Workflow) -> None:
    """Let the next delivery fail for good."""
    non_retryable = Answer(489, {"Upstash-NonRetryable-Error": ["true"]})
    workflow.answers = [non_retryable]
    service.stub.run_due()


def test_resume_keeps_the_finished_steps_and_restart_none(service: Service, workflow: Workflow) -> None:
    service.stub.run_due()
    service.submit(step(1, "one"))
    fail(service, workflow)
    run = revived(service, "resume", Retries="7")
    service.stub.run_due()
    assert workflow.requests[-1].header("Upstash-Workflow-RunId") == run
    assert workflow.steps() == ["one"]
    assert service.stub.messages[-1].config.retries == 7
    service.submit(step(2, "two"), run=run)
    fail(service, workflow)
    revived(service, "restart")
    service.stub.run_due()
    assert workflow.steps() == []


def test_resume_redoes_the_branches_that_came_to_nothing(service: Service, workflow: Workflow) -> None:
    service.stub.run_due()
    service.submit(plan(1, 3, "a"), plan(2, 3, "b"), plan(3, 3, "c"))
    service.stub.deliver(service.stub.next_due() or service.stub.messages[-1])
    service.submit(step(1, "a", concurrent=3))
    fail(service, workflow)
    before = len(workflow.requests)
    run = revived(service, "resume")
    service.stub.run_due()
    delivered = [workflow.steps(number)[-1] for number in range(before, len(workflow.requests))]
    assert sorted(delivered) == ["a", "b?", "c?"]
    assert service.submit(step(2, "b", concurrent=3), step(3, "c", concurrent=3), run=run).status == 200


def test_a_failure_callback_is_called_again_only_when_it_failed(service: Service, workflow: Workflow) -> None:
    workflow.answers = [Answer(489, {"Upstash-NonRetryable-Error": ["true"]}), Answer(500)]
    limits = {"upstash_retries": "0", "upstash_failure_callback_retries": "0"}
    service.call("DELETE", f"/v2/workflows/runs/{RUN}?cancel=true")
    service.batch(item(init_headers(SECOND, **limits), {}))
    service.stub.run_due()
    (found,) = service.stub.letters
    assert service.call("POST", f"/v2/workflows/dlq/callback/{found}").status == 200
    service.stub.run_due()
    assert service.call("POST", f"/v2/workflows/dlq/callback/{found}").status == 400
    assert service.call("DELETE", f"/v2/workflows/dlq/{found}").status == 200


# Limits, schedules, logs


def test_a_key_lets_its_rate_through_window_by_window(workflow: Workflow) -> None:
    service = Service(workflow)
    limits = {"flow_control_key": "k", "flow_control_value": "rate=2, period=1m"}
    both = {f"upstash_{p}{name}": value for name, value in limits.items() for p in ("", "failure_callback_")}
    for number in range(5):
        service.batch(item(init_headers(f"wfr_{number}", **both), {}))
    made = []
    for _ in range(3):
        made.append(service.stub.run_due())
        service.now += 60
    assert made == [2, 2, 1]


def test_a_key_with_parallelism_one_has_one_call_in_flight(workflow: Workflow) -> None:
    service = Service(workflow)
    limits = {"flow_control_key": "k", "flow_control_value": "parallelism=1"}
    both = {f"upstash_{p}{name}": value for name, value in limits.items() for p in ("", "failure_callback_")}
    service.batch(*(item(init_headers(f"wfr_{number}", **both), {}) for number in range(2)))
    first = service.stub.next_due()
    assert first is not None
    service.stub.begin(first)
    assert service.stub.next_due() is None
    service.stub.settle(first, Answer(200, SERVED))
    assert service.stub.next_due() is not None


def test_a_schedule_publishes_a_plain_message(workflow: Workflow) -> None:
    service = Service(workflow)
    path = f"/v2/schedules/{URL}"
    service.call("POST", path, {"s": 1}, {"Upstash-Cron": "0 * * * *", "Upstash-Schedule-Id": "hourly"})
    service.now += 3_600
    assert service.stub.run_due() == 1
    (request,) = workflow.requests
    assert request.header("Upstash-Schedule-Id") == "hourly"
    assert request.header("Upstash-Workflow-RunId") is None
    service.call("PATCH", "/v2/schedules/hourly/pause")
    service.now += 7_200
    assert service.stub.run_due() == 0
    assert service.call("DELETE", "/v2/schedules/hourly").status == 200
    service.stub.check_no_faults()


@pytest.mark.parametrize(
    ("cron", "start", "fires"),
    [
        ("*/15 9-10 * * 1-5", 1_760_000_000, 1_760_000_400),  # Thursday, 2025-10-09, 08:53:20
        ("CRON_TZ=Europe/Berlin 0 3 * * *", 1_774_612_800, 1_774_663_200),  # 2026-03-28 03:00 in winter time
        ("0 0 13 * 5", 1_760_000_000, 1_760_054_400),  # the 13th, and every Friday
    ],
)
def test_a_cron_expression_fires_in_its_zone(cron: str, start: float, fires: float) -> None:
    assert Cron.parse(cron).after(start) == fires


def test_logs_show_groups_and_are_paged_and_filtered(service: Service) -> None:
    service.stub.run_due()
    service.submit(plan(1, 2, "a"), plan(2, 2, "b"))
    service.stub.run_due()
    service.submit(step(1, "a", concurrent=2))
    service.stub.run_due()
    assert [(group["type"], len(group["steps"])) for group in service.run["steps"]] == [
        ("sequential", 1),
        ("parallel", 2),
    ]
    assert states(service)[1] == ["STEP_SUCCESS", "STEP_PROGRESS"]
    service.batch(item(init_headers(SECOND, upstash_label="vip"), {}))
    path = "/v2/workflows/events?groupBy=workflowRunId"
    page = json.loads(service.call("GET", path + "&count=1").body)
    assert [run["workflowRunId"] for run in page["runs"]] == [SECOND]
    page = json.loads(service.call("GET", f"{path}&count=1&cursor={page['cursor']}").body)
    assert ([run["workflowRunId"] for run in page["runs"]], "cursor" in page) == ([RUN], False)
    page = json.loads(service.call("GET", path + "&label=vip&state=RUN_STARTED").body)
    assert [run["labels"] for run in page["runs"]] == [["vip"]]


def test_an_outage_is_met_instead_of_an_answer(service: Service) -> None:
    service.stub.trouble.extend([Answer(503), NoAnswer("no route")])
    assert service.submit(step(1)).status == 503
    with pytest.raises(NoAnswer, match="no route"):
        service.submit(step(1))
    assert service.stub.runs[0].steps == {}
    service.stub.trouble.append(NoAnswer("the line broke", taken=True))
    with pytest.raises(NoAnswer, match="the line broke"):
        service.submit(step(1))
    assert service.stub.runs[0].steps[1].state == "done"
