"""Failed runs over HTTP: listed, resumed, restarted, deleted, one or many; their failure callbacks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from django_workflow.engine.records import RunConfig, decode_config, encode_config
from django_workflow.models import DeadLetter, Delivery, Run
from django_workflow.protocol.publish import CallbackConfig
from django_workflow.testing import WorkflowClock, workflow_clock
from django_workflow.testing.factories import make_run
from tests.admin.builders import make_dead_letter
from tests.engine.http_api.conftest import Api
from tests.vectors import exchanges

pytestmark = pytest.mark.django_db

ENDPOINT = "https://one.example/flow"


@pytest.fixture(autouse=True)
def clock() -> Iterator[WorkflowClock]:
    with workflow_clock() as clock:
        yield clock


def fail(**values: Any) -> DeadLetter:
    """A run of another SDK's endpoint that failed at its first call."""
    letter = {name: values.pop(name) for name in ("status", "failure_state", "created_at") if name in values}
    config = RunConfig(retries=3, failure_callback=CallbackConfig(url=ENDPOINT + "/failed"))
    defaults = {"status": Run.Status.FAILED, "url": ENDPOINT, "payload": "payload", "config": encode_config(config)}
    run = make_run(**{**defaults, **values, "status": Run.Status.FAILED})
    return make_dead_letter(run, message_key=run.pk, **letter)


def ids(*letters: DeadLetter) -> str:
    return "&".join(f"dlqIds={letter.pk}" for letter in letters)


def started(answer: Any) -> list[Run]:
    assert answer.status == 200, answer.body
    return [Run.objects.get(run_id=run["workflowRunId"]) for run in answer.json["workflowRuns"]]


# Listing


@pytest.mark.parametrize("target", ["/v2/workflows/dlq?", "/v2/dlq?source=workflow&"])
def test_both_lists_are_the_same(api: Api, target: str) -> None:
    letter = fail(run_id="wfr_1", labels=",vip,eu,", caller_ip="1.1.1.1")
    answer = api.get(target)
    assert set(answer.json) == {"messages"}
    (message,) = answer.json["messages"]
    assert message["dlqId"] == str(letter.pk)
    assert message["workflowRunId"] == "wfr_1"
    assert (message["label"], message["labels"], message["callerIP"]) == ("vip", ["vip", "eu"], "1.1.1.1")
    assert (message["body"], message["maxRetries"]) == ("payload", 3)
    assert (message["responseStatus"], message["failureCallback"]) == (500, ENDPOINT + "/failed")
    assert api.get(f"/v2/workflows/dlq/{letter.pk}").json == message


@pytest.mark.parametrize("exchange", [e for e in exchanges("sdk->engine") if "/v2/dlq" in e.url], ids=str)
def test_what_the_official_client_lists_is_answered(api: Api, exchange: Any) -> None:
    target = exchange.url[exchange.url.index("/v2/") :]
    answer = api.get(target.replace("cursor=c&", ""))
    assert (answer.status, answer.json) == (200, {"messages": []})


def test_each_filter_chooses(api: Api, clock: WorkflowClock) -> None:
    began = int(clock.now().timestamp() * 1000)
    fail(run_id="wfr_0", labels=",vip,", failure_state=DeadLetter.FailureState.FAILED)
    clock.advance(1)
    fail(run_id="wfr_1", url="https://two.example/", flow_key="slow", status=503)
    clock.advance(1)
    fail(run_id="wfr_2", caller_ip="2.2.2.2", failure_state=DeadLetter.FailureState.IN_PROGRESS)
    for query, expected in (
        ("", [2, 1, 0]),
        ("workflowRunId=wfr_0", [0]),
        ("workflowUrl=https://two.example/", [1]),
        ("url=https://two.example/", [1]),
        (f"workflowCreatedAt={began + 2000}", [2]),
        ("label=vip", [0]),
        ("callerIp=2.2.2.2", [2]),
        ("flowControlKey=slow", [1]),
        ("responseStatus=503", [1]),
        ("failureFunctionState=CALLBACK_FAIL", [0]),
        ("failureCallbackState=CALLBACK_FAIL,CALLBACK_INPROGRESS", [2, 0]),
        (f"fromDate={began + 1000}", [2, 1]),
        (f"toDate={began + 1000}", [1, 0]),
        ("count=2", [2, 1]),
    ):
        found = [message["workflowRunId"] for message in api.get(f"/v2/workflows/dlq?{query}").json["messages"]]
        assert found == [f"wfr_{number}" for number in expected], query
    cursor = api.get("/v2/workflows/dlq?count=2").json["cursor"]
    (last,) = api.get(f"/v2/workflows/dlq?count=2&cursor={cursor}").json["messages"]
    assert last["workflowRunId"] == "wfr_0"


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("failureFunctionState=CALLBACK_LOST", "is none of CALLBACK_INPROGRESS"),
        ("host=one.example", "no parameter 'host'"),
        ("count=0", "count must be at least 1"),
        ("cursor=!", "cursor was not made by this engine"),
        ("responseStatus=bad", "no whole number"),
    ],
)
def test_what_cannot_be_understood_is_refused(api: Api, query: str, reason: str) -> None:
    answer = api.get(f"/v2/workflows/dlq?{query}")
    assert answer.status == 400
    assert reason in answer.error


def test_a_list_takes_the_same_queries_however_long_it_is(api: Api, django_assert_max_num_queries: Any) -> None:
    fail()
    with django_assert_max_num_queries(100) as few:
        api.get("/v2/workflows/dlq")
    for _ in range(20):
        fail()
    with django_assert_max_num_queries(len(few)):
        assert len(api.get("/v2/workflows/dlq").json["messages"]) == 21


# One


@pytest.mark.parametrize("action", ["resume", "restart"])
def test_one_is_started_again(api: Api, action: str) -> None:
    letter = fail(run_id="wfr_1")
    answer = api.post(f"/v2/workflows/dlq/{action}/{letter.pk}", headers={"Upstash-Retries": "7"})
    assert answer.status == 200
    run = Run.objects.get(run_id=answer.json["workflowRunId"])
    assert answer.json["workflowCreatedAt"] == int(run.created_at.timestamp() * 1000)
    assert run.resumed_from == letter.run
    assert decode_config(run.config).retries == 7
    delivery = Delivery.objects.get(run=run)
    assert (delivery.destination, delivery.position, delivery.max_retries) == (ENDPOINT, 0, 7)
    assert api.post(f"/v2/workflows/dlq/{action}/{letter.pk}").status == 404


def test_one_is_deleted_once(api: Api) -> None:
    letter = fail()
    assert api.delete(f"/v2/workflows/dlq/{letter.pk}").status == 200
    assert api.delete(f"/v2/workflows/dlq/{letter.pk}").status == 404
    assert api.get(f"/v2/workflows/dlq/{letter.pk}").status == 404


# Many


@pytest.mark.parametrize("action", ["resume", "restart"])
def test_several_are_started_by_id(api: Api, action: str) -> None:
    one, two, three = fail(), fail(), fail()
    runs = started(api.post(f"/v2/workflows/dlq/{action}?{ids(two, one)}&label=ignored"))
    assert [run.resumed_from for run in runs] == [two.run, one.run]
    assert DeadLetter.objects.get() == three


def test_ids_may_come_as_json(api: Api) -> None:
    one, two = fail(), fail()
    (run,) = started(api.post("/v2/workflows/dlq/resume", {"dlqIds": [str(one.pk)]}))
    assert run.resumed_from == one.run
    assert api.delete("/v2/workflows/dlq", {"dlqIds": [str(two.pk)]}).json == {"deleted": 1}


def test_several_are_started_by_filters(api: Api) -> None:
    fail(labels=",vip,")
    fail(labels=",eu,")
    assert len(started(api.post("/v2/workflows/dlq/resume?label=vip"))) == 1
    assert len(started(api.post("/v2/workflows/dlq/restart", {"label": "eu", "workflowUrl": ENDPOINT}))) == 1


def test_all_are_started_in_parts_of_fifty(api: Api) -> None:
    for _ in range(51):
        fail()
    first = api.post("/v2/workflows/dlq/restart?count=100")
    assert len(started(first)) == 50
    rest = api.post(f"/v2/workflows/dlq/restart?count=100&cursor={first.json['cursor']}")
    assert len(started(rest)) == 1
    assert "cursor" not in rest.json


def test_an_unknown_id_starts_none(api: Api) -> None:
    letter = fail()
    answer = api.post(f"/v2/workflows/dlq/resume?{ids(letter)}&dlqIds=1725323658779-0")
    assert answer.status == 404
    assert "1725323658779-0" in answer.error
    assert DeadLetter.objects.get() == letter


def test_several_are_deleted(api: Api) -> None:
    one, two = fail(), fail()
    fail(labels=",vip,")
    fail()
    assert api.delete(f"/v2/workflows/dlq?{ids(one, two)}&dlqIds=unknown").json == {"deleted": 2}
    assert api.delete("/v2/workflows/dlq?label=vip").json == {"deleted": 1}
    assert api.delete("/v2/workflows/dlq?count=100").json == {"deleted": 1}
    assert api.delete("/v2/workflows/dlq?dlqIds=").status == 400  # nobody means all by that


@pytest.mark.parametrize(
    "exchange",
    [e for e in exchanges("sdk->engine") if "/v2/workflows/dlq" in e.url and "callback" not in e.url],
    ids=str,
)
def test_what_the_official_client_asks_to_do_is_done(api: Api, exchange: Any) -> None:
    """The ids are those of the capture, so nothing is found by them; all else means what is there."""
    target = exchange.url[exchange.url.index("/v2/") :].replace("&cursor=c", "").replace("label=l", "label=vip")
    fail(labels=",vip,")
    answer = api(exchange.method, target, exchange.body, headers=dict(exchange.headers) | {"Authorization": ""})
    assert answer.status == 401
    headers = {name: value for name, value in exchange.headers.items() if name != "Authorization"}
    answer = api(exchange.method, target, exchange.body, headers=headers)
    if "dlqIds" in target and exchange.method == "POST":
        assert answer.status == 404
    elif exchange.method == "POST":
        assert len(started(answer)) == 1
    else:
        assert answer.json == {"deleted": 0 if "dlqIds" in target else 1}


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"Upstash-Retries": "many"}, "Upstash-Retries"),
        ({"Upstash-Retry-Delay": "soon("}, "Upstash-Retry-Delay"),
        ({"Upstash-Flow-Control-Value": "parallelism=1"}, "Flow-Control-Key"),
        ({"Upstash-Failure-Callback": "nowhere"}, "absolute URL"),
    ],
)
def test_a_bad_override_is_refused(api: Api, headers: dict[str, str], reason: str) -> None:
    letter = fail()
    answer = api.post(f"/v2/workflows/dlq/resume/{letter.pk}", headers=headers)
    assert answer.status == 400
    assert reason in answer.error
    assert DeadLetter.objects.exists()


def test_too_many_retries_are_too_many_here_too(api: Api) -> None:
    assert api.post(f"/v2/workflows/dlq/resume/{fail().pk}", headers={"Upstash-Retries": "1000000"}).status == 412


# Failure callbacks


def test_a_failed_callback_is_made_again_and_stopped(api: Api) -> None:
    letter = fail(run_id="wfr_1", failure_state=DeadLetter.FailureState.FAILED)
    path = f"/v2/workflows/dlq/callback/{letter.pk}"
    answer = api.post(path)
    assert (answer.status, answer.json["workflowRunId"]) == (200, "wfr_1")
    (message,) = api.get("/v2/workflows/dlq").json["messages"]
    assert message["failureCallbackInfo"] == {"state": "CALLBACK_INPROGRESS"}
    assert message["failureFunctionState"] == "CALLBACK_INPROGRESS"
    delivery = Delivery.objects.get()
    assert delivery.destination == ENDPOINT + "/failed"
    assert msgspec.json.decode(delivery.body)["workflowRunId"] == "wfr_1"
    assert api.post(path).status == 400
    assert api.delete(path).status == 200
    assert api.delete(path).status == 400
    assert not Delivery.objects.exists()
    assert api.post("/v2/workflows/dlq/callback/unknown").status == 404


def test_other_methods_are_refused(api: Api) -> None:
    assert api("PUT", "/v2/workflows/dlq").status == 405
    assert api.post("/v2/workflows/dlq").status == 405
    assert api.get("/v2/workflows/dlq/resume/a").status == 405
