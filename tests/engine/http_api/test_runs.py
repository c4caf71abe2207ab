"""Runs and events over HTTP: fetched, finished, cancelled, waited for, notified, called by webhooks."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from django.test import override_settings

from django_workflow import WorkflowContext, workflow
from django_workflow.authoring.registry import registry
from django_workflow.client.client import get_client
from django_workflow.models import DeadLetter, Delivery, Run, Waiter
from django_workflow.protocol.identifiers import new_run_id
from django_workflow.protocol.steps import Step, decode_messages, decode_step, encode_step
from django_workflow.testing import CallAnswer, WorkflowClock, mock_calls, run_workflows, workflow_clock
from django_workflow.testing.calls import Call
from tests.engine.http_api.conftest import MOUNT, Api

pytestmark = pytest.mark.django_db

URL = "https://host.example/flow"
FEATURES = "LazyFetch,InitialBody,WF_TriggerOnConfig"


@pytest.fixture(autouse=True)
def clock() -> Iterator[WorkflowClock]:
    with workflow_clock() as clock, registry.isolated():
        yield clock


def message_headers(run_id: str, url: str = URL, *, init: bool = False, **more: str) -> dict[str, str]:
    return {
        "Upstash-Workflow-Init": "true" if init else "false",
        "Upstash-Workflow-RunId": run_id,
        "Upstash-Workflow-Url": url,
        "Upstash-Feature-Set": FEATURES,
        "Upstash-Forward-Upstash-Workflow-Sdk-Version": "1",
        **more,
    }


def start(api: Api, run_id: str | None = None, url: str = URL, **options: Any) -> str:
    """Start a run as an SDK does; its id."""
    run_id = run_id or new_run_id()
    headers = message_headers(run_id, url, init=True, **options.pop("headers", {}))
    answer = api.post("/v2/batch", [{"destination": url, "headers": headers, "body": "payload"}], **options)
    assert answer.status == 200
    return run_id


def append(api: Api, run_id: str, step_id: int, out: str = "1") -> int:
    """Publish a step's result; the answer's status."""
    body = encode_step(Step(step_id=step_id, step_name=f"step {step_id}", step_type="Run", out=out, concurrent=1))
    return api.post(f"/v2/publish/{URL}", body, headers=message_headers(run_id)).status


def status_of(run_id: str) -> str:
    return Run.objects.get(run_id=run_id).status


# Fetching


def test_a_living_run_is_fetched(api: Api) -> None:
    run_id = start(api)
    append(api, run_id, 1, '"ü"')
    answer = api.get(f"/v2/workflows/runs/{run_id}")
    assert answer.status == 200
    first, second = answer.json
    assert set(first) == {"messageId", "body", "callType"}
    assert base64.b64decode(first["body"]) == b"payload"
    assert first["callType"] == second["callType"] == "step"
    step = decode_step(base64.b64decode(second["body"]).decode())
    assert (step.step_id, step.out) == (1, '"ü"')


@pytest.mark.parametrize("end", ["?cancel=true", "?cancel=false", None])
def test_a_run_that_is_over_or_unknown_is_a_404(api: Api, end: str | None) -> None:
    run_id = start(api) if end else "wfr_unknown"
    if end:
        api.delete(f"/v2/workflows/runs/{run_id}{end}")
    answer = api.get(f"/v2/workflows/runs/{run_id}")
    assert answer.status == 404
    assert run_id in answer.error


def test_ids_may_hold_what_has_to_be_encoded(api: Api) -> None:
    run_id = start(api, "wfr-a b/ü?")
    answer = api.get("/v2/workflows/runs/wfr-a%20b%2F%C3%BC%3F")
    assert answer.status == 200
    assert api.delete("/v2/workflows/runs/wfr-a%20b%2F%C3%BC%3F?cancel=true").status == 200
    assert status_of(run_id) == Run.Status.CANCELED


# Ending


@pytest.mark.parametrize(("body", "result"), [(b'{"ok":true}', '{"ok":true}'), (b"", None)])
def test_a_run_ends_with_its_result_and_may_be_told_so_again(api: Api, body: bytes, result: str | None) -> None:
    run_id = start(api)
    assert api.delete(f"/v2/workflows/runs/{run_id}?cancel=false", body).status == 200
    run = Run.objects.get()
    assert (run.status, run.result) == (Run.Status.SUCCESS, result)
    assert api.delete(f"/v2/workflows/runs/{run_id}?cancel=false", b"2").status == 200
    run.refresh_from_db()
    assert run.result == result


def test_a_step_for_a_run_that_is_over_is_a_400(api: Api) -> None:
    run_id = start(api)
    api.delete(f"/v2/workflows/runs/{run_id}?cancel=false")
    assert append(api, run_id, 1) == 400
    assert append(api, "wfr_unknown", 1) == 400


def test_a_cancelled_run_leaves_nothing_behind(api: Api) -> None:
    run_id = start(api, headers={"Upstash-Failure-Callback": "https://fail.example/"})
    wait(api, run_id)
    assert api.delete(f"/v2/workflows/runs/{run_id}?cancel=true").status == 200
    assert status_of(run_id) == Run.Status.CANCELED
    assert not Delivery.objects.exists()
    assert not DeadLetter.objects.exists()
    assert api.get("/v2/waiters/evt").json == []


def test_an_unknown_run_cannot_be_ended(api: Api) -> None:
    for how in ("true", "false"):
        assert api.delete(f"/v2/workflows/runs/wfr_unknown?cancel={how}").status == 404
    assert api.delete("/v2/workflows/runs/wfr_unknown?cancel=maybe").status == 400


def test_who_invoked_a_run_hears_that_it_was_cancelled(api: Api) -> None:
    @workflow
    def waits_for_stranger(ctx: WorkflowContext[None]) -> Any:
        done = ctx.invoke("child", workflow=URL)
        return [done.is_canceled, done.is_failed]

    handle = waits_for_stranger.trigger()
    with mock_calls(CallAnswer(200, b"", {"Upstash-Workflow-Sdk-Version": "1"})):
        run_workflows()
        child = Run.objects.get(url=URL)
        api.delete(f"/v2/workflows/runs/{child.run_id}?cancel=true")
        run_workflows()
    assert handle.run.result == "[true,false]"


# Bulk


def cancelled(api: Api, query: str = "", body: Any = b"") -> int:
    answer = api.delete(f"/v2/workflows/runs{query}", body)
    assert answer.status == 200, answer.body
    assert set(answer.json) == {"cancelled"}
    return int(answer.json["cancelled"])


def test_runs_are_cancelled_by_id_once(api: Api) -> None:
    one, two, three = (start(api) for _ in range(3))
    assert cancelled(api, f"?workflowRunIds={one}&workflowRunIds={two}&workflowRunIds=wfr_unknown") == 2
    assert cancelled(api, f"?workflowRunIds={one},{three}") == 1
    assert cancelled(api, "", {"workflowRunIds": [one, two, three]}) == 0
    assert {run.status for run in Run.objects.all()} == {Run.Status.CANCELED}


def test_where_ids_are_given_nothing_else_counts(api: Api) -> None:
    run_id = start(api)
    assert cancelled(api, f"?workflowRunIds={run_id}&label=none&workflowUrl=https://other.example/") == 1


@pytest.mark.parametrize(
    ("query", "number"),
    [
        ("", 4),
        ("?count=3", 3),
        ("?workflowUrl=https://host.example/flow", 3),
        ("?workflowUrl=https://host.example/flow&workflowUrlExactMatch=true", 2),
        ("?label=vip", 1),
        ("?label=vip&label=eu", 2),
        ("?label=vip,eu", 2),
        ("?flowControlKey=k", 1),
        ("?callerIp=192.0.2.7", 1),
        ("?callerIP=192.0.2.7", 1),
        ("?callerIp=192.0.2.8", 0),
        ("?label=eu&workflowUrl=https://other.example", 0),
        ("?fromDate=4102444800000", 0),
        ("?toDate=4102444800000", 4),
        ("?toDate=0", 0),
    ],
)
def test_runs_are_cancelled_by_filters(api: Api, query: str, number: int) -> None:
    start(api, headers={"Upstash-Label": "vip"})
    start(api, headers={"Upstash-Label": "eu", "Upstash-Flow-Control-Key": "k", "Upstash-Flow-Control-Value": "rate=1"})
    start(api, url=f"{URL}/deeper", REMOTE_ADDR="192.0.2.7")
    start(api, url="https://other.example/")
    assert cancelled(api, query) == number
    assert Run.objects.filter(status=Run.Status.CANCELED).count() == number


@pytest.mark.parametrize(
    ("query", "body"),
    [
        ("?nonsense=1", b""),
        ("?workflowRunIds=", b""),
        ("?count=many", b""),
        ("?fromDate=99999999999999999999", b""),
        ("?fromDate=999999999999999999", b""),
        ("", {"workflowRunIds": []}),
        ("", b"{"),
        ("", b"[]"),
    ],
)
def test_what_cannot_be_read_cancels_nothing(api: Api, query: str, body: Any) -> None:
    run_id = start(api)
    assert api.delete(f"/v2/workflows/runs{query}", body).status == 400
    assert status_of(run_id) == Run.Status.QUEUED


# Waiting and notifying


def wait(api: Api, run_id: str, event_id: str = "evt", step_id: int = 1, timeout: str = "1h", status: int = 200) -> Any:
    step = {"stepId": step_id, "stepName": "wait", "stepType": "Wait", "concurrent": 1}
    body = {"url": URL, "timeout": timeout, "timeoutUrl": URL, "timeoutHeaders": {}, "step": step}
    answer = api.post(f"/v2/wait/{event_id}", body, headers=message_headers(run_id))
    assert answer.status == status, answer.body
    return answer.json


def delivered_step(api: Api, run_id: str) -> dict[str, Any]:
    """The last step of the run, as its endpoint gets it."""
    messages = api.get(f"/v2/workflows/runs/{run_id}").json
    return msgspec.json.decode(base64.b64decode(messages[-1]["body"]))  # type: ignore[no-any-return]


def test_an_event_reaches_all_who_wait(api: Api) -> None:
    runs = [start(api), start(api)]
    for run_id in runs:
        assert wait(api, run_id)["messageId"]
    waiters = api.get("/v2/waiters/evt").json
    assert [waiter["url"] for waiter in waiters] == [URL, URL]
    assert all(waiter["deadline"] > 1_000_000_000 for waiter in waiters)
    answer = api.post("/v2/notify/evt", b'{"yes":1}', headers={"Content-Type": "application/json"})
    assert answer.status == 200
    assert {told["workflowRunId"] for told in answer.json} == set(runs)
    for told in answer.json:
        assert told["waiter"]["url"] == URL
        assert told["messageId"]
        assert told["workflowCreatedAt"]
    for run_id in runs:
        step = delivered_step(api, run_id)
        assert base64.b64decode(step["out"]) == b'{"yes":1}'
        assert (step["waitEventId"], step["waitTimeout"]) == ("evt", False)
    assert api.get("/v2/waiters/evt").json == []


def test_an_event_that_nobody_waits_for_is_lost(api: Api) -> None:
    run_id = start(api)
    answer = api.post("/v2/notify/evt", b"1")
    assert (answer.status, answer.json) == (200, [])
    wait(api, run_id)
    assert len(api.get("/v2/waiters/evt").json) == 1


def test_an_event_for_one_run_waits_for_its_wait(api: Api) -> None:
    run_id, other = start(api), start(api)
    wait(api, other)
    for data in (b"1", b"2"):
        (told,) = api.post(f"/v2/notify/{run_id}/evt", data).json
        assert told["workflowRunId"] == run_id
        assert told["messageId"]
    assert wait(api, run_id)["messageId"]
    assert base64.b64decode(delivered_step(api, run_id)["out"]) == b"1"
    wait(api, run_id, step_id=2)
    assert base64.b64decode(delivered_step(api, run_id)["out"]) == b"2"
    assert len(api.get("/v2/waiters/evt").json) == 1  # the other run's


def test_a_wait_that_is_submitted_again_is_one_wait(api: Api) -> None:
    run_id = start(api)
    wait(api, run_id)
    assert wait(api, run_id) == {}
    assert Waiter.objects.count() == 1


def test_a_wait_times_out(api: Api, clock: WorkflowClock) -> None:
    run_id = start(api)
    wait(api, run_id, timeout="20s")
    calls = []
    with mock_calls(lambda call: calls.append(call) or CallAnswer(200)):  # type: ignore[func-returns-value]
        run_workflows()
        clock.advance(21)
        run_workflows()
    step = msgspec.json.decode(decode_messages(calls[-1].body)[-1].raw)
    assert step["waitTimeout"] is True
    assert "out" not in step


def test_event_ids_may_hold_slashes(api: Api) -> None:
    run_id = start(api)
    wait(api, run_id, "order/1 ü".replace(" ", "%20").replace("ü", "%C3%BC"))
    assert Waiter.objects.get().event_id == "order/1 ü"
    assert len(api.get("/v2/waiters/order%2F1%20%C3%BC").json) == 1
    assert len(api.post(f"/v2/notify/{run_id}/order/1%20%C3%BC", b"1").json) == 1
    assert Waiter.objects.get().state == Waiter.State.RESOLVED


@pytest.mark.parametrize(
    ("event_id", "timeout", "status"),
    [("evt", "soon", 400), ("evt", "-1s", 400), ("evt", "1000d", 412), ("e" * 256, "1h", 400)],
)
def test_a_wait_that_cannot_be_is_refused(api: Api, event_id: str, timeout: str, status: int) -> None:
    wait(api, start(api), event_id, timeout=timeout, status=status)
    assert not Waiter.objects.exists()


def test_a_run_that_is_over_neither_waits_nor_hears(api: Api) -> None:
    run_id = start(api)
    api.delete(f"/v2/workflows/runs/{run_id}?cancel=true")
    for gone in (run_id, "wfr_unknown"):
        wait(api, gone, status=400)
        assert api.post(f"/v2/notify/{gone}/evt", b"1").status == 400
    answer = api.post("/v2/wait/evt", b"{}", headers=message_headers(run_id))
    assert answer.status == 400


def test_an_event_with_an_id_is_given_once(api: Api) -> None:
    run_id = start(api)
    wait(api, run_id)
    headers = {"Upstash-Deduplication-Id": "n1"}
    assert "deduplicated" not in api.post("/v2/notify/evt", b"1", headers=headers).json[0]
    assert api.post("/v2/notify/evt", b"1", headers=headers).json[0]["deduplicated"] is True


# Webhooks


def hook_event(api: Api, run_id: str) -> dict[str, Any]:
    wait(api, run_id, step_id=Run.objects.get(run_id=run_id).journal.count() + 1)
    step = delivered_step(api, run_id)
    return msgspec.json.decode(base64.b64decode(step["out"]))  # type: ignore[no-any-return]


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH"])
def test_a_webhook_takes_any_request_without_a_token(api: Api, method: str) -> None:
    run_id = start(api)
    token, api.token = api.token, None
    target = f"/v2/workflows/hooks/user/{run_id}/evt?a=%2Fb&a=2"
    headers = {"X-Hub": "ü".encode().decode("latin-1"), "Authorization": "Basic dTpw", "Content-Type": "text/x"}
    answer = api(method, target, b"\xff\0", headers=headers)
    assert answer.status == 200
    assert answer.json["messageId"]
    api.token = token
    event = hook_event(api, run_id)
    assert event["method"] == method
    assert f"{event['proto']}://{event['host']}{event['url']}" == f"http://testserver{MOUNT}{target}"
    assert base64.b64decode(event["body"]) == b"\xff\0"
    assert event["header"]["X-Hub"] == ["ü"]
    assert event["header"]["Authorization"] == ["Basic dTpw"]  # the caller's, for the workflow to check
    assert event["header"]["Content-Type"] == ["text/x"]


def test_early_calls_of_a_webhook_serve_one_wait_each(api: Api) -> None:
    run_id = start(api)
    for body in (b"1", b"2"):
        assert api.post(f"/v2/workflows/hooks/user/{run_id}/evt", body).status == 200
    assert base64.b64decode(hook_event(api, run_id)["body"]) == b"1"
    assert base64.b64decode(hook_event(api, run_id)["body"]) == b"2"


def test_a_webhook_of_no_run_is_a_404(api: Api) -> None:
    api.token = None
    assert api.post("/v2/workflows/hooks/user/wfr_unknown/evt").status == 404
    assert api.post("/workflows/hooks/user/wfr_unknown").status == 404


def test_our_own_workflows_hear_webhooks_of_both_addresses(api: Api) -> None:
    """Project and engine API are one site: what one of them takes, both do."""

    @workflow
    def listens(ctx: WorkflowContext[None]) -> Any:
        hook = ctx.create_webhook("make")
        first = ctx.wait_for_webhook("first", hook, "1d").request
        second = ctx.wait_for_webhook("second", hook, "1d").request
        return [request.body.decode() if request else None for request in (first, second)]

    def serve(call: Call) -> CallAnswer:
        headers = {**call.headers, "Host": "shop.example"}
        content_type = headers.pop("Content-Type")
        path = call.url.removeprefix("https://shop.example")
        response: Any = api.browser.post(path, call.body, content_type=content_type, headers=headers, secure=True)
        return CallAnswer(response.status_code, response.content, dict(response.items()))

    settings = {"engine_api": True, "base_url": "https://shop.example"}
    with override_settings(DJANGO_WORKFLOW=settings, ALLOWED_HOSTS=["shop.example"]), mock_calls(serve):
        handle = listens.trigger()
        run_workflows()
        (address,) = Waiter.objects.values_list("event_id", flat=True)
        path = f"/workflows/hooks/{handle.id}/{address}/"
        headers = {"Host": "shop.example"}
        assert api.browser.post(path, b"one", content_type="text/plain", headers=headers).status_code == 200
        answer = api.post(f"/v2/workflows/hooks/u/{handle.id}/{address}", b"two", HTTP_HOST="shop.example")
        assert answer.status == 200
        run_workflows()
    assert handle.run.result == '["one","two"]'


def test_the_client_of_this_project_reaches_runs_that_came_over_http(api: Api) -> None:
    run_id = start(api)
    wait(api, run_id)
    assert len(get_client().notify("evt", {"a": 1})) == 1
    assert base64.b64decode(delivered_step(api, run_id)["out"]) == b'{"a":1}'
