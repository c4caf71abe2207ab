"""Messages and runs come in over HTTP, and the answers that SDKs read."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import msgspec
import pytest
from django.db import connections

from django_workflow import NonRetryableError, WorkflowContext, workflow
from django_workflow.authoring.registry import registry
from django_workflow.engine import intake, limits
from django_workflow.engine.settle import NO_SDK, NOT_A_WORKFLOW, NOT_STARTED
from django_workflow.models import DeadLetter, Delivery, MessageLog, Queue, Run, Schedule, UrlGroup
from django_workflow.protocol.identifiers import new_run_id
from django_workflow.protocol.steps import Step, decode_messages, encode_step
from django_workflow.testing import CallAnswer, WorkflowClock, mock_calls, run_workflows, workflow_clock
from django_workflow.testing.calls import Call
from tests.engine.http_api.conftest import Api

pytestmark = pytest.mark.django_db

URL = "https://host.example/hook"
OWN = "https://workflow.internal/workflows/serve/"
SDK = {"Upstash-Workflow-Sdk-Version": "1", "Upstash-Workflow-Sdk": "@upstash/workflow@v1.3.3"}


@pytest.fixture
def clock() -> Iterator[WorkflowClock]:
    with workflow_clock() as clock:
        yield clock


@pytest.fixture(autouse=True)
def _registry() -> Iterator[None]:
    with registry.isolated():
        yield


def url_group(name: str, *urls: str) -> None:
    group = UrlGroup(name=name)
    from django.utils import timezone

    from django_workflow.engine.url_groups import Endpoint

    group.endpoints = msgspec.json.encode([Endpoint(url=url) for url in urls]).decode()
    group.created_at = group.updated_at = timezone.now()
    group.save()


# Publish, enqueue, batch


def test_a_message_is_published(api: Api) -> None:
    answer = api.post(
        f"/v2/publish/{URL}?x=1", b"hello", headers={"Content-Type": "text/x", "Upstash-Forward-X-A": "1"}
    )
    message = MessageLog.objects.get()
    assert (answer.status, answer.json) == (200, {"messageId": message.message_id})
    assert (message.url, message.body, message.caller_ip) == (f"{URL}?x=1", "hello", "127.0.0.1")
    with mock_calls(CallAnswer()) as recorder:
        run_workflows()
    (call,) = recorder.calls
    assert (call.method, call.url, call.body) == ("POST", f"{URL}?x=1", b"hello")
    assert (call.headers["X-A"], call.headers["Content-Type"]) == ("1", "text/x")


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"])
def test_any_method_publishes_and_a_header_says_which_one_is_delivered(api: Api, method: str) -> None:
    assert api(method, f"/v2/publish/{URL}", headers={"Upstash-Method": "PATCH"}).status == 200
    assert MessageLog.objects.get().method == "PATCH"


def test_bytes_that_are_no_text_are_published(api: Api) -> None:
    assert api.post(f"/v2/publish/{URL}", b"\xff\0\xfe").status == 200
    with mock_calls(CallAnswer()) as recorder:
        run_workflows()
    assert recorder.calls[0].body == b"\xff\0\xfe"


def test_a_url_group_is_answered_with_a_bare_array(api: Api) -> None:
    url_group("all", URL, f"{URL}/2")
    answer = api.post("/v2/publish/all", b"x")
    assert answer.status == 200
    assert [item["url"] for item in answer.json] == [URL, f"{URL}/2"]
    assert all(item["messageId"] for item in answer.json)


def test_configuration_may_stand_in_the_query(api: Api) -> None:
    answer = api.post(f"/v2/publish/{URL}?a=1&Upstash-Retries=7&upstash-forward-x-b=%C3%BC&upstash-method=PUT")
    assert answer.status == 200
    message = MessageLog.objects.get()
    assert (message.url, message.max_retries, message.method) == (f"{URL}?a=1", 7, "PUT")
    assert msgspec.json.decode(message.config)["headers"] == {"x-b": "ü"}


def test_a_header_wins_over_the_query(api: Api) -> None:
    api.post(f"/v2/publish/{URL}?upstash-retries=7", headers={"Upstash-Retries": "2"})
    assert MessageLog.objects.get().max_retries == 2


@pytest.mark.parametrize("by", ["header", "query"])
def test_all_headers_are_forwarded_when_asked_for(api: Api, by: str) -> None:
    headers = {"X-Hub": "1", "Cookie": "c=1", "Upstash-Retries": "1"}
    query = "?upstash-header-forward=true"
    if by == "header":
        headers, query = {**headers, "Upstash-Header-Forward": "true"}, ""
    assert api.post(f"/v2/publish/{URL}{query}", b"x", headers=headers).status == 200
    with mock_calls(CallAnswer()) as recorder:
        run_workflows()
    (call,) = recorder.calls
    assert call.headers["X-Hub"] == "1"
    assert call.url == URL
    lower = {name.lower() for name in call.headers}
    assert not lower & {"authorization", "host", "upstash-retries", "upstash-header-forward"}
    assert len(lower) == len(call.headers)


def test_a_second_message_of_one_id_is_a_202(api: Api) -> None:
    headers = {"Upstash-Deduplication-Id": "once"}
    first = api.post(f"/v2/publish/{URL}", headers=headers)
    second = api.post(f"/v2/publish/{URL}", headers=headers)
    assert first.status == 200
    assert (second.status, second.json) == (202, {"messageId": first.json["messageId"], "deduplicated": True})
    assert MessageLog.objects.count() == 1


@pytest.mark.parametrize("by", ["header", "query"])
def test_a_cron_expression_makes_a_schedule(api: Api, by: str) -> None:
    headers, query = ({"Upstash-Cron": "0 9 * * *"}, "") if by == "header" else ({}, "?upstash-cron=0%209%20*%20*%20*")
    answer = api.post(f"/v2/publish/{URL}{query}", b"x", headers=headers)
    assert (answer.status, answer.json) == (200, {"scheduleId": Schedule.objects.get().schedule_id})
    assert Schedule.objects.get().destination == URL
    assert not MessageLog.objects.exists()
    assert api.post(f"/v2/enqueue/q/{URL}{query}", b"x", headers=headers).status == 400


@pytest.mark.parametrize("path", ["/v2/batch", "/v2/batch/trigger"])
def test_a_cron_expression_in_a_batch_is_refused_and_nothing_of_the_batch_is_taken(api: Api, path: str) -> None:
    """Passing over it would deliver at once what was meant for later."""
    answer = api.post(path, [{"destination": URL}, {"destination": URL, "headers": {"upstash-cron": "0 9 * * *"}}])
    assert answer.status == 400
    assert "Message 1 of the batch" in answer.error
    assert "/v2/schedules/" in answer.error
    assert not MessageLog.objects.exists()
    assert not Run.objects.exists()
    assert not Schedule.objects.exists()


@pytest.mark.parametrize("by", ["header", "query"])
def test_a_run_is_not_started_at_once_when_a_cron_expression_comes_with_it(api: Api, by: str) -> None:
    headers, query = ({"Upstash-Cron": "0 9 * * *"}, "") if by == "header" else ({}, "?upstash-cron=0%209%20*%20*%20*")
    assert api.post(f"/v2/trigger/{URL}{query}", b"x", headers=headers).status == 400
    assert not Run.objects.exists()


def test_enqueue_makes_the_queue(api: Api) -> None:
    answer = api.post(f"/v2/enqueue/orders/{URL}?x=1", b"x")
    assert answer.json == {"messageId": MessageLog.objects.get().message_id}
    assert MessageLog.objects.get().url == f"{URL}?x=1"
    queue = Queue.objects.get()
    assert (queue.name, queue.parallelism) == ("orders", 1)


def test_a_batch_is_answered_in_its_order(api: Api) -> None:
    url_group("all", URL, f"{URL}/2")
    items = [
        {"destination": URL, "body": '{"ü": "\\u00fc"}', "headers": {"upstash-retries": "1", "Upstash-Delay": "1h"}},
        {"destination": "all", "body": None},
        {"destination": f"{URL}/3", "queue": "orders", "headers": {"Upstash-Deduplication-Id": "a"}},
        {"destination": f"{URL}/3", "queue": None, "headers": {"Upstash-Deduplication-Id": "a"}},
    ]
    answer = api.post("/v2/batch", items)
    assert answer.status == 200
    first, group, queued, again = answer.json
    assert set(first) == {"messageId"}
    assert [item["url"] for item in group] == [URL, f"{URL}/2"]
    assert again == {**queued, "deduplicated": True}
    log = MessageLog.objects.get(max_retries=1)
    assert log.body == '{"ü": "\\u00fc"}'


def test_a_batch_is_taken_whole_or_not_at_all(api: Api) -> None:
    answer = api.post("/v2/batch", [{"destination": URL}, {"destination": "no-such-group"}])
    assert answer.status == 404
    assert not MessageLog.objects.exists()
    assert not Delivery.objects.exists()


def test_an_empty_batch_is_answered_with_nothing(api: Api) -> None:
    assert (api.post("/v2/batch", []).status, api.post("/v2/batch", []).json) == (200, [])


def test_a_message_in_a_batch_is_no_larger_than_one_by_itself(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LARGEST_MESSAGE_BYTES", 100)
    assert api.post("/v2/batch", [{"destination": URL, "body": "x" * 100}] * 3).status == 200
    answer = api.post("/v2/batch", [{"destination": URL, "body": "x" * 101}])
    assert answer.status == 413
    assert MessageLog.objects.count() == 3


@pytest.mark.parametrize(
    ("destination", "headers", "status"),
    [
        ("https://", {}, 400),
        ("https:///path", {}, 400),
        ("http://[::1", {}, 400),
        ("http://host:x/", {}, 400),
        ("http://host:99999/", {}, 400),
        ("http://ho st/", {}, 400),
        ("ftp://host/", {}, 404),  # a URL group of that name
        ("https://workflow.internal/admin/", {}, 400),
        (URL, {"Upstash-Method": "PROPPATCH"}, 400),
        (URL, {"Upstash-Label": "a b"}, 400),
        (URL, {"Upstash-Flow-Control-Key": "k" * 300, "Upstash-Flow-Control-Value": "rate=1"}, 400),
        (URL, {"Upstash-Callback": "host/path"}, 400),
        (URL, {"Upstash-Callback": "http://[::1"}, 400),
        (URL, {"Upstash-Failure-Callback-Retries": "many"}, 400),
        (URL, {"Upstash-Retry-Delay": "__import__('os')"}, 400),
        (URL, {"Upstash-Workflow-RunId": "r" * 300, "Upstash-Workflow-Init": "true"}, 400),
        (URL, {"Upstash-Workflow-RunId": "wfr_unknown"}, 400),
        (URL, {"Upstash-Retries": "1000000"}, 412),
        (URL, {"Upstash-Delay": "10000d"}, 412),
        (URL, {"Upstash-Timeout": "9" * 15 + "d"}, 400),
    ],
)
def test_a_message_that_cannot_be_delivered_is_refused(
    api: Api, destination: str, headers: dict[str, str], status: int
) -> None:
    answer = api.post("/v2/batch", [{"destination": destination, "headers": headers}])
    assert answer.status == status, answer.body
    assert answer.error
    assert not MessageLog.objects.exists()
    assert not Run.objects.exists()


# Starts by SDKs


def start(run_id: str, url: str = URL, **headers: str) -> dict[str, Any]:
    """A start as the JavaScript SDK sends it."""
    common = {
        "Upstash-Workflow-Init": "true",
        "Upstash-Workflow-RunId": run_id,
        "Upstash-Workflow-Url": url,
        "Upstash-Feature-Set": "LazyFetch,InitialBody,WF_DetectTrigger,WF_TriggerOnConfig",
        "Upstash-Forward-Upstash-Workflow-Sdk-Version": "1",
        "Upstash-Workflow-Sdk-Version": "1",
        "Content-Type": "application/json",
        "Upstash-Method": "POST",
    }
    return {"destination": url, "headers": {**common, **headers}, "body": '{"n":1}'}


def result(run_id: str, step_id: int, out: str = "1", url: str = URL, **headers: str) -> dict[str, Any]:
    """A step's result as the JavaScript SDK sends it."""
    step = Step(step_id=step_id, step_name=f"step {step_id}", step_type="Run", out=out, concurrent=1)
    item = start(run_id, url, **{"Upstash-Workflow-Init": "false", **headers})
    return {**item, "body": encode_step(step).decode()}


def test_a_run_is_started_and_a_second_start_is_a_duplicate(api: Api) -> None:
    run_id = new_run_id()
    first = api.post("/v2/batch", [start(run_id)])
    run = Run.objects.get(run_id=run_id)
    created = int(run.created_at.timestamp() * 1000)
    (item,) = first.json
    assert first.status == 200
    assert item["workflowRunId"] == run_id
    assert item["workflowCreatedAt"] == created
    assert item["messageId"]
    assert run.caller_ip == "127.0.0.1"
    assert api.post("/v2/batch", [start(run_id)]).json == [{**item, "deduplicated": True}]


def test_a_single_start_that_is_a_duplicate_is_a_202(api: Api) -> None:
    item = start(new_run_id())
    assert api.post(f"/v2/publish/{URL}", item["body"], headers=item["headers"]).status == 200
    answer = api.post(f"/v2/publish/{URL}", item["body"], headers=item["headers"])
    assert (answer.status, answer.json["deduplicated"]) == (202, True)


@pytest.mark.parametrize("header", [{"Upstash-Delay": "1h"}, {"Upstash-Not-Before": "4102444800"}])
def test_a_delayed_start_makes_a_run_that_can_be_cancelled(
    api: Api, clock: WorkflowClock, header: dict[str, str]
) -> None:
    run_id = new_run_id()
    api.post("/v2/batch", [start(run_id, **header)])
    assert run_workflows() == 0
    assert Run.objects.get().status == Run.Status.SCHEDULED
    assert api.delete(f"/v2/workflows/runs?workflowRunIds={run_id}").json == {"cancelled": 1}
    assert not Delivery.objects.exists()


class Endpoint:
    """A workflow of a foreign SDK: two steps, submitted over HTTP as it runs."""

    def __init__(self, api: Api, url: str = URL, **step_headers: str) -> None:
        self.api, self.url, self.step_headers = api, url, step_headers
        self.calls: list[Call] = []
        self.refused: list[int] = []

    def __call__(self, call: Call) -> CallAnswer:
        self.calls.append(call)
        headers = {name.lower(): value for name, value in call.headers.items()}
        run_id = headers["upstash-workflow-runid"]
        if "upstash-workflow-is-failure" in headers:
            return CallAnswer(200, {"result": "noted"}, SDK)
        if "upstash-workflow-unknown-sdk" in headers:
            forwarded = {
                f"Upstash-Forward-{name}": value for name, value in headers.items() if not name.startswith("upstash-")
            }
            item = start(run_id, self.url, **forwarded, **{"upstash-workflow-trigger-by-sdk": "true"})
            return self._submit("POST", "/v2/batch", [item])
        done = len(decode_messages(call.body)) - 1
        if done < 2:
            return self._submit("POST", "/v2/batch", [result(run_id, done + 1, url=self.url, **self.step_headers)])
        return self._submit("DELETE", f"/v2/workflows/runs/{run_id}?cancel=false", b'"done"')

    def _submit(self, method: str, target: str, body: Any) -> CallAnswer:
        answer = self.api(method, target, body)
        if answer.status >= 400:
            self.refused.append(answer.status)
        status = {400: 200, 412: 489}.get(answer.status, answer.status)
        return CallAnswer(status, b"{}", SDK)

    def headers(self, number: int) -> dict[str, str]:
        return {name.lower(): value for name, value in self.calls[number].headers.items()}


def test_a_foreign_workflow_runs_to_its_end(api: Api) -> None:
    run_id = new_run_id()
    api.post("/v2/batch", [start(run_id)])
    with mock_calls(Endpoint(api)) as recorder:
        assert run_workflows() == 3  # one more than steps
    run = Run.objects.get()
    assert (run.status, run.result) == (Run.Status.SUCCESS, '"done"')
    assert [len(decode_messages(call.body)) for call in recorder.calls] == [1, 2, 3]


# Configuration


def test_what_a_trigger_says_is_applied_to_all_calls_of_sdks_that_leave_it_to_the_engine(api: Api) -> None:
    said = {
        "Upstash-Forward-X-User": "ada",
        "Upstash-Retries": "7",
        "Upstash-Retry-Delay": "1000",
        "Upstash-Label": "vip",
        "Upstash-Flow-Control-Key": "k",
        "Upstash-Flow-Control-Value": "rate=100",
    }
    api.post("/v2/batch", [start(new_run_id(), **said)])
    endpoint = Endpoint(api)
    retries = []

    def answer(call: Call) -> CallAnswer:
        delivery = Delivery.objects.get()
        retries.append((delivery.max_retries, delivery.flow_key))
        return endpoint(call)

    with mock_calls(answer):
        run_workflows()
    assert retries == [(7, "k")] * 3
    for number in range(3):
        headers = endpoint.headers(number)
        assert headers["x-user"] == "ada"
        assert headers["upstash-label"] == "vip"


def test_what_sdks_repeat_on_each_step_overrides_what_is_kept(api: Api) -> None:
    """The Python SDK has no WF_TriggerOnConfig and says its configuration again with each step."""
    features = {"Upstash-Feature-Set": "LazyFetch,InitialBody"}
    said = {**features, "Upstash-Forward-X-User": "ada", "Upstash-Retries": "7"}
    api.post("/v2/batch", [start(new_run_id(), **said)])
    endpoint = Endpoint(api, **{**features, "Upstash-Forward-X-User": "bob", "Upstash-Retries": "2"})
    retries = []

    def answer(call: Call) -> CallAnswer:
        retries.append(Delivery.objects.get().max_retries)
        return endpoint(call)

    with mock_calls(answer):
        run_workflows()
    assert retries == [7, 2, 2]
    assert [endpoint.headers(number)["x-user"] for number in range(3)] == ["ada", "bob", "bob"]


def test_what_sdks_do_not_repeat_is_not_kept_for_them(api: Api) -> None:
    features = {"Upstash-Feature-Set": "LazyFetch,InitialBody"}
    api.post(
        "/v2/batch", [start(new_run_id(), **features, **{"Upstash-Forward-X-User": "ada", "Upstash-Retries": "7"})]
    )
    endpoint = Endpoint(api, **features)
    retries = []

    def answer(call: Call) -> CallAnswer:
        retries.append(Delivery.objects.get().max_retries)
        return endpoint(call)

    with mock_calls(answer):
        run_workflows()
    assert retries == [7, 3, 3]
    assert ["x-user" in endpoint.headers(number) for number in range(3)] == [True, False, False]


def test_transport_headers_that_an_sdk_forwards_are_dropped(api: Api) -> None:
    """SDKs copy the whole incoming request into forward headers; some of it would break the delivery."""
    stale = {
        "Host": "old.example",
        "Content-Length": "3",
        "Connection": "close, X-Hop",
        "X-Hop": "1",
        "Transfer-Encoding": "chunked",
        "Accept-Encoding": "br",
        "User-Agent": "curl",
        "Upstash-Signature": "stale",
        "Upstash-Message-Id": "msg_old",
        "Upstash-Retried": "5",
        "Upstash-Caller-Ip": "192.0.2.1",
        "X-Real": "1",
    }
    api.post("/v2/batch", [start(new_run_id(), **{f"Upstash-Forward-{name}": value for name, value in stale.items()})])
    endpoint = Endpoint(api)
    with mock_calls(endpoint):
        run_workflows()
    for number in range(3):
        headers = endpoint.headers(number)
        assert headers["x-real"] == "1"
        assert headers["upstash-retried"] == "0"
        assert headers["upstash-message-id"] != "msg_old"
        assert headers["upstash-signature"] != "stale"
        assert headers["user-agent"] == "Upstash-QStash"
        gone = {"host", "content-length", "connection", "x-hop", "transfer-encoding", "accept-encoding"}
        assert not gone & set(headers)
        assert len(headers) == len(endpoint.calls[number].headers)


def test_failure_callbacks_are_sent_as_the_trigger_says(api: Api) -> None:
    said = {
        "Upstash-Retries": "0",
        "Upstash-Failure-Callback": "https://fail.example/",
        "Upstash-Failure-Callback-Forward-X-Why": "a",
        "Upstash-Failure-Callback-Forward-Upstash-Workflow-Is-Failure": "true",
        "Upstash-Failure-Callback-Retries": "0",
        "Upstash-Failure-Callback-Workflow-RunId": "wfr_1",
    }
    api.post("/v2/batch", [start("wfr_1", **said)])
    with mock_calls(lambda call: CallAnswer(500, "broken")) as recorder:
        run_workflows()
    _, failure = recorder.calls
    assert (failure.url, failure.headers["X-Why"]) == ("https://fail.example/", "a")
    assert failure.headers["Upstash-Workflow-Is-Failure"] == "true"
    assert base64.b64decode(failure.json["sourceBody"]) == b'{"n":1}'
    assert failure.json["workflowRunId"] == "wfr_1"
    assert not Delivery.objects.exists()


# What the engine refuses a step


def test_a_step_of_a_cancelled_run_is_a_400_and_the_endpoint_stops(api: Api) -> None:
    run_id = new_run_id()
    api.post("/v2/batch", [start(run_id)])
    endpoint = Endpoint(api)

    def cancelled_meanwhile(call: Call) -> CallAnswer:
        assert api.delete(f"/v2/workflows/runs/{run_id}?cancel=true").status == 200
        return endpoint(call)

    with mock_calls(cancelled_meanwhile):
        run_workflows()
    assert endpoint.refused == [400]
    assert Run.objects.get().status == Run.Status.CANCELED
    assert not DeadLetter.objects.exists()
    assert not Delivery.objects.exists()


def test_too_many_retries_of_a_step_fail_its_run_at_once(api: Api) -> None:
    """412 makes SDKs answer 489, which is not tried again."""
    api.post("/v2/batch", [start(new_run_id())])
    endpoint = Endpoint(api, **{"Upstash-Retries": "1000000"})

    def answer(call: Call) -> CallAnswer:
        given = endpoint(call)
        headers = {**SDK, "Upstash-NonRetryable-Error": "true"} if given.status == 489 else SDK
        return CallAnswer(given.status, given.body, headers)

    with mock_calls(answer):
        assert run_workflows() == 1
    assert endpoint.refused == [412]
    assert Run.objects.get().status == Run.Status.FAILED


def test_our_own_endpoint_makes_a_489_of_a_412(api: Api) -> None:
    @workflow(retries=5)
    def greedy(ctx: WorkflowContext[None]) -> None:
        ctx.call("too often", url="https://third.example/", retries=1_000_000)

    handle = greedy.trigger()
    run_workflows()
    run = handle.run
    assert run.status == Run.Status.FAILED
    assert DeadLetter.objects.get().status == 489
    assert "1000000 retries" in run.error


# Starts by REST


def test_trigger_starts_a_run_of_our_own_endpoint(api: Api) -> None:
    seen: dict[str, Any] = {}

    @workflow
    def fulfils(ctx: WorkflowContext[dict[str, int]]) -> str:
        seen["headers"] = {name: ctx.headers.get(name) for name in ("x-user", "x-none")}
        seen["labels"] = ctx.labels
        return ctx.run("one", lambda: f"order {ctx.request_payload['order']}")

    headers = {"Upstash-Forward-X-User": "ada", "Upstash-Retries": "6", "Upstash-Label": "vip"}
    answer = api.post(f"/v2/trigger/{OWN}fulfils/", {"order": 42}, headers=headers)
    run = Run.objects.get()
    assert answer.status == 200
    assert answer.json["workflowRunId"] == run.run_id
    assert run.run_id.startswith("wfr_")
    assert answer.json["workflowCreatedAt"] == int(run.created_at.timestamp() * 1000)
    assert run.trigger_kind == Run.TriggerKind.API
    assert run_workflows() == 3  # one more than by an SDK: the endpoint is asked first
    run.refresh_from_db()
    assert (run.status, run.result) == (Run.Status.SUCCESS, '"order 42"')
    assert seen == {"headers": {"x-user": "ada", "x-none": None}, "labels": ("vip",)}
    assert msgspec.json.decode(run.config)["retries"] == 6
    assert not Delivery.objects.exists()


@pytest.mark.parametrize("trusted", [True, False])
def test_it_is_started_over_the_network_too(api: Api, trusted: bool) -> None:
    @workflow
    def fulfils(ctx: WorkflowContext[dict[str, int]]) -> int:
        return ctx.run("one", lambda: 1)

    api.post(f"/v2/trigger/{OWN}fulfils/", {"order": 42})
    run_workflows(trusted=trusted)
    assert Run.objects.get().status == Run.Status.SUCCESS


def test_trigger_starts_a_run_of_a_foreign_endpoint(api: Api) -> None:
    headers = {"Upstash-Workflow-RunId": "wfr_mine", "Upstash-Forward-X-User": "ada", "Upstash-Retries": "6"}
    answer = api.post(f"/v2/trigger/{URL}?tenant=a%2Fb", b"plain text", headers=headers)
    assert answer.json["workflowRunId"] == "wfr_mine"
    endpoint = Endpoint(api, f"{URL}?tenant=a%2Fb")
    with mock_calls(endpoint):
        assert run_workflows() == 4
    asked, *steps = (endpoint.headers(number) for number in range(4))
    assert asked["upstash-workflow-unknown-sdk"] == "true"
    assert asked["upstash-workflow-runid"] == "wfr_mine"
    assert "upstash-workflow-sdk-version" not in asked
    (payload,) = decode_messages(endpoint.calls[0].body)
    assert payload.raw == b"plain text"
    for headers in (asked, *steps):
        assert headers["x-user"] == "ada"
    for headers in steps:
        assert headers["upstash-workflow-sdk-version"] == "1"
        assert "upstash-workflow-unknown-sdk" not in headers
    run = Run.objects.get()
    assert run.status == Run.Status.SUCCESS
    assert msgspec.json.decode(run.config)["retries"] == 6
    assert {call.url for call in endpoint.calls} == {f"{URL}?tenant=a%2Fb"}


def test_a_second_trigger_of_one_id_is_a_duplicate(api: Api) -> None:
    headers = {"Upstash-Workflow-RunId": "wfr_mine"}
    first = api.post(f"/v2/trigger/{URL}", headers=headers)
    second = api.post(f"/v2/trigger/{URL}", headers=headers)
    assert (second.status, second.json) == (202, {**first.json, "deduplicated": True})
    assert Delivery.objects.count() == 1


def test_a_batch_starts_runs_together(api: Api) -> None:
    items = [
        {"destination": URL, "body": "1", "headers": {"Upstash-Workflow-RunId": "wfr_1"}},
        {"destination": f"{URL}/2", "body": "2"},
        {"destination": URL, "headers": {"Upstash-Workflow-RunId": "wfr_1"}},
    ]
    answer = api.post("/v2/batch/trigger", items)
    assert answer.status == 201
    first, second, again = answer.json
    assert first["workflowRunId"] == "wfr_1"
    assert again == {**first, "deduplicated": True}
    assert {run.run_id for run in Run.objects.all()} == {"wfr_1", second["workflowRunId"]}
    assert api.post("/v2/batch/trigger", [{"destination": URL}, {"destination": "group"}]).status == 400
    assert Run.objects.count() == 2


def test_a_trigger_needs_a_url(api: Api) -> None:
    answer = api.post("/v2/trigger/a-group")
    assert answer.status == 400
    assert "a-group" in answer.error


def test_a_delayed_trigger_is_delivered_later(api: Api, clock: WorkflowClock) -> None:
    api.post(f"/v2/trigger/{URL}?upstash-delay=1h")
    endpoint = Endpoint(api)
    with mock_calls(endpoint):
        assert run_workflows() == 0
        clock.advance(3601)
        assert run_workflows() == 4


def test_the_endpoint_is_taken_at_its_word_once(api: Api) -> None:
    """The delivery that asks may be made twice: its answer was lost, or its worker died."""
    api.post(f"/v2/trigger/{URL}", headers={"Upstash-Workflow-RunId": "wfr_1"})
    item = start("wfr_1", **{"upstash-workflow-trigger-by-sdk": "true", "Upstash-Forward-X-Sdk": "1"})
    (adopted,) = api.post("/v2/batch", [item]).json
    assert "deduplicated" not in adopted
    assert api.post("/v2/batch", [item]).json[0]["deduplicated"] is True
    assert Delivery.objects.count() == 1
    endpoint = Endpoint(api)
    with mock_calls(endpoint):
        assert run_workflows() == 3
    assert endpoint.headers(0)["x-sdk"] == "1"


@pytest.mark.django_db(transaction=True)
def test_two_answers_at_once_are_one_start(api: Api) -> None:
    for number in range(5):
        run_id = f"wfr_{number}"
        api.post(f"/v2/trigger/{URL}", headers={"Upstash-Workflow-RunId": run_id})
        item = start(run_id, **{"upstash-workflow-trigger-by-sdk": "true"})
        together = Barrier(2)

        def post(item: dict[str, Any] = item, together: Barrier = together) -> bool:
            together.wait(10)
            try:
                return "deduplicated" in Api().post("/v2/batch", [item]).json[0]
            finally:
                connections.close_all()

        with ThreadPoolExecutor(2) as pool:
            told = [future.result() for future in [pool.submit(post), pool.submit(post)]]
        assert sorted(told) == [False, True]
        assert Delivery.objects.filter(run__run_id=run_id).count() == 1


def test_an_sdk_that_starts_a_run_nobody_asked_for_starts_it(api: Api) -> None:
    item = start("wfr_1", **{"upstash-workflow-trigger-by-sdk": "true"})
    assert "deduplicated" not in api.post("/v2/batch", [item]).json[0]
    assert api.post("/v2/batch", [item]).json[0]["deduplicated"] is True


def test_what_was_asked_for_by_rest_outlasts_what_the_sdk_says(api: Api) -> None:
    said = {"Upstash-Workflow-RunId": "wfr_1", "Upstash-Forward-X-A": "rest", "Upstash-Label": "rest"}
    api.post(f"/v2/trigger/{URL}", headers={**said, "Upstash-Retries": "6"})
    more = {"Upstash-Forward-x-a": "sdk", "Upstash-Forward-X-B": "sdk", "Upstash-Label": "sdk", "Upstash-Retries": "1"}
    api.post("/v2/batch", [start("wfr_1", **more, **{"upstash-workflow-trigger-by-sdk": "true"})])
    run = Run.objects.get()
    config = msgspec.json.decode(run.config)
    assert config["retries"] == 6
    assert {name.lower(): value for name, value in config["headers"].items()} == {
        "x-a": "rest",
        "x-b": "sdk",
        "upstash-workflow-sdk-version": "1",
    }
    assert run.label_list == ["rest", "sdk"]
    assert "WF_DetectTrigger" in config["features"]


@pytest.mark.parametrize(
    ("headers", "error"),
    [
        ({}, NOT_A_WORKFLOW),
        ({"Upstash-Workflow-Sdk-Version": "1"}, NO_SDK),
        (SDK, NOT_STARTED),
    ],
)
def test_an_endpoint_that_does_not_start_the_run_fails_it(api: Api, headers: dict[str, str], error: str) -> None:
    api.post(f"/v2/trigger/{URL}", b"payload")

    def answer(call: Call) -> CallAnswer:
        return CallAnswer(200, "hello, world", headers)

    with mock_calls(answer) as recorder:
        run_workflows()
    run = Run.objects.get()
    assert (run.status, run.error) == (Run.Status.FAILED, error)
    letter = DeadLetter.objects.get()
    assert (letter.error, letter.response_body, letter.status) == (error, "hello, world", 200)
    _, failure = recorder.calls  # not tried again; the workflow's failure function is asked for
    assert failure.url == URL
    assert failure.headers["Upstash-Workflow-Is-Failure"] == "true"
    assert base64.b64decode(failure.json["sourceBody"]) == b"payload"


def test_an_endpoint_that_fails_is_asked_again(api: Api, clock: WorkflowClock) -> None:
    api.post(f"/v2/trigger/{URL}")
    endpoint, attempts = Endpoint(api), []

    def answer(call: Call) -> CallAnswer:
        attempts.append(call)
        return CallAnswer(500) if len(attempts) < 3 else endpoint(call)

    with mock_calls(answer):
        run_workflows(skip_delays=True)
    assert Run.objects.get().status == Run.Status.SUCCESS
    assert "Upstash-Workflow-Unknown-Sdk" in attempts[2].headers


def test_the_failure_function_of_our_own_workflow_runs(api: Api) -> None:
    told: list[Any] = []

    def note(ctx: Any, *args: Any) -> None:
        told.append(ctx.request_payload)

    @workflow(on_failure=note)
    def breaks(ctx: WorkflowContext[dict[str, int]]) -> None:
        def refuse() -> None:
            raise NonRetryableError("no")

        ctx.run("one", refuse)

    api.post(f"/v2/trigger/{OWN}breaks/", {"order": 1})
    run_workflows()
    assert Run.objects.get().status == Run.Status.FAILED
    assert told == [{"order": 1}]
    assert DeadLetter.objects.get().failure_state == DeadLetter.FailureState.SUCCESS


@pytest.mark.parametrize("url", [URL, f"{URL}/failed"])
def test_where_the_failure_of_a_rest_start_is_told(api: Api, url: str) -> None:
    headers = {"Upstash-Retries": "0", "Upstash-Forward-X-User": "ada"}
    if url != URL:
        headers |= {"Upstash-Failure-Callback": url, "Upstash-Failure-Callback-Retries": "0"}
    api.post(f"/v2/trigger/{URL}", headers=headers)
    with mock_calls(lambda call: CallAnswer(500)) as recorder:
        run_workflows()
    assert [call.url for call in recorder.calls] == [URL, url]
    assert recorder.calls[1].headers["X-User"] == "ada"
    assert recorder.calls[1].headers["Upstash-Workflow-Failure-Callback"] == "true"


# What is no workflow


@pytest.mark.parametrize("features", ["WF_DetectTrigger", "LazyFetch"])
def test_a_start_at_what_is_no_workflow_fails_when_the_sdk_asks_for_it(api: Api, features: str) -> None:
    api.post("/v2/batch", [start(new_run_id(), **{"Upstash-Feature-Set": features})])
    with mock_calls(CallAnswer(200, "hello")):
        run_workflows()
    run = Run.objects.get()
    if features == "WF_DetectTrigger":
        assert (run.status, run.error) == (Run.Status.FAILED, NOT_A_WORKFLOW)
        assert DeadLetter.objects.get().response_body == "hello"
    else:
        assert run.status == Run.Status.RETRYING


def test_an_invocation_of_what_is_no_workflow_fails_its_step(api: Api) -> None:
    @workflow
    def asks_a_stranger(ctx: WorkflowContext[None]) -> bool:
        return ctx.invoke("child", workflow=URL).is_failed

    handle = asks_a_stranger.trigger()
    with mock_calls(CallAnswer(200, "hello")):
        run_workflows()
    assert handle.run.result == "true"
    assert Run.objects.get(url=URL).error == NOT_A_WORKFLOW


# Invocations between endpoints


def test_our_own_workflow_invokes_a_foreign_one(api: Api) -> None:
    @workflow
    def asks_a_stranger(ctx: WorkflowContext[None]) -> Any:
        return ctx.invoke("child", workflow=URL, body={"a": 1}).body

    handle = asks_a_stranger.trigger()
    endpoint = Endpoint(api)
    with mock_calls(endpoint):
        run_workflows()
    assert handle.run.result == '"done"'
    (payload,) = decode_messages(endpoint.calls[0].body)
    assert json.loads(payload.raw) == {"a": 1}


def test_a_foreign_workflow_invokes_our_own(api: Api) -> None:
    @workflow
    def doubles(ctx: WorkflowContext[dict[str, int]]) -> int:
        return ctx.run("double", lambda: ctx.request_payload["n"] * 2)

    run_id, child_id = new_run_id(), new_run_id()
    api.post("/v2/batch", [start(run_id)])
    journals = []

    def answer(call: Call) -> CallAnswer:
        messages = decode_messages(call.body)
        journals.append(messages)
        if len(messages) > 1:
            return CallAnswer(api.delete(f"/v2/workflows/runs/{run_id}?cancel=false").status, b"", SDK)
        step = {"stepId": 1, "stepName": "ask", "stepType": "Invoke", "concurrent": 1}
        body = {
            "body": '{"n":21}',
            "headers": {"Upstash-Workflow-RunId": [run_id], "Upstash-Workflow-Init": ["false"]},
            "workflowRunId": run_id,
            "workflowRunCreatedAt": 1,
            "workflowUrl": URL,
            "step": step,
        }
        headers = start(child_id, f"{OWN}doubles/")["headers"] | {
            "Upstash-Workflow-Invoke": "true",
            "Upstash-Forward-Upstash-Workflow-Invoke-Count": "1",
        }
        assert api.post(f"/v2/publish/{OWN}doubles/", body, headers=headers).status == 200
        return CallAnswer(200, b"", SDK)

    with mock_calls(answer):
        run_workflows()
    assert Run.objects.get(run_id=run_id).status == Run.Status.SUCCESS
    assert Run.objects.get(run_id=child_id).result == "42"
    _, answered = journals[1]
    assert json.loads(json.loads(answered.raw)["out"]) == {"body": "42", "isFailed": False, "isCanceled": False}


def test_a_start_that_another_process_made_meanwhile_takes_nothing_of_its_batch_away(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id, going = new_run_id(), new_run_id()
    for item in (start(run_id), start(going)):
        api.post("/v2/batch", [item])
    looks = [None]  # as long as the other one's transaction is open, its run cannot be seen
    known_run = intake.known_run
    monkeypatch.setattr(intake, "known_run", lambda unit, name: looks.pop() if looks else known_run(unit, name))
    answer = api.post("/v2/batch", [{"destination": URL}, result(going, 1), start(run_id)])
    assert answer.status == 200
    assert [item.get("deduplicated", False) for item in answer.json] == [False, False, True]
    assert MessageLog.objects.get().message_id == answer.json[0]["messageId"]
    assert Delivery.objects.filter(kind=Delivery.Kind.MESSAGE).count() == 1
    assert Run.objects.get(run_id=going).journal.count() == 1
