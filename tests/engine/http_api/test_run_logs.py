"""Logs of runs over HTTP: both names, both modes, filters, cursors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from django_workflow.client.client import get_client
from django_workflow.engine.publishing import accept_all
from django_workflow.engine.writing import write
from django_workflow.models import Run, Step
from django_workflow.protocol.identifiers import message_id_of
from django_workflow.protocol.publish import FlowControl
from django_workflow.testing import WorkflowClock, workflow_clock
from django_workflow.testing.factories import make_run, make_step
from tests.admin.builders import make_attempt, make_result
from tests.engine import deliveries as by_hand
from tests.engine.http_api.conftest import Api
from tests.vectors import exchanges

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def clock() -> Iterator[WorkflowClock]:
    with workflow_clock() as clock:
        yield clock


def now(clock: WorkflowClock) -> int:
    return int(clock.now().timestamp() * 1000)


def start(url: str = "https://one.example/a", caller_ip: str = "", **values: Any) -> Run:
    """A run of another SDK."""
    run_id = values.pop("run_id", None) or f"wfr_{Run.objects.count()}"
    message = by_hand.message(run_id, b"payload", init=True, url=url, **values)
    write(by_hand.ALIAS, lambda unit: accept_all(unit, [message], caller_ip=caller_ip))
    return Run.objects.get(run_id=run_id)


def found(api: Api, query: str = "") -> list[str]:
    answer = api.get(f"/v2/workflows/events?groupBy=workflowRunId{query}")
    assert answer.status == 200, answer.body
    return [run["workflowRunId"] for run in answer.json["runs"]]


def test_a_run_that_was_just_started_looks_as_sdks_expect(api: Api, clock: WorkflowClock) -> None:
    run = start(headers={"Upstash-Workflow-Sdk-Version": "1"}, content_type="application/json", retries=3)
    answer = api.get(f"/v2/workflows/logs?groupBy=workflowRunId&workflowRunId={run.run_id}")
    (log,) = answer.json["runs"]
    assert set(answer.json) == {"runs"}  # the last page has no cursor
    message_id = log["steps"][0]["steps"][0]["messageId"]
    assert log == {
        "workflowRunId": run.run_id,
        "workflowUrl": "https://one.example/a",
        "workflowState": "RUN_STARTED",
        "workflowRunCreatedAt": now(clock),
        "steps": [
            {
                "type": "sequential",
                "steps": [
                    {
                        "callType": "step",
                        "concurrent": 1,
                        "createdAt": now(clock),
                        "headers": {
                            "Content-Type": ["application/json"],
                            "Upstash-Workflow-Sdk-Version": ["1"],
                        },
                        "messageId": message_id,
                        "out": "payload",
                        "retries": 3,
                        "state": "STEP_SUCCESS",
                        "stepName": "init",
                        "stepType": "Initial",
                    }
                ],
            },
            {
                "type": "next",
                "steps": [
                    {
                        "messageId": message_id,
                        "nextDeliveryTime": now(clock),
                        "retries": 3,
                        "state": "STEP_PROGRESS",
                    }
                ],
            },
        ],
    }


def test_both_names_and_both_modes_are_served(api: Api) -> None:
    start()
    for name in ("logs", "events"):
        assert len(api.get(f"/v2/workflows/{name}?groupBy=workflowRunId").json["runs"]) == 1
        (event,) = api.get(f"/v2/workflows/{name}").json["events"]
        assert event["state"] == "RUN_STARTED"


@pytest.mark.parametrize("exchange", [e for e in exchanges("sdk->engine") if "/v2/workflows/events" in e.url], ids=str)
def test_what_the_official_client_asks_is_answered(api: Api, exchange: Any) -> None:
    target = exchange.url[exchange.url.index("/v2/") :]
    answer = api.get(target.replace("cursor=c&", ""))
    assert (answer.status, answer.json) == (200, {"runs": []})


def test_runs_come_newest_first_and_ten_at_once(api: Api, clock: WorkflowClock) -> None:
    for _ in range(12):
        start()
        clock.advance(1)
    first = api.get("/v2/workflows/logs?groupBy=workflowRunId&count=100").json
    assert [run["workflowRunId"] for run in first["runs"]] == [f"wfr_{n}" for n in range(11, 1, -1)]
    start()  # a new one moves nobody
    rest = api.get(f"/v2/workflows/logs?groupBy=workflowRunId&cursor={first['cursor']}").json
    assert [run["workflowRunId"] for run in rest["runs"]] == ["wfr_1", "wfr_0"]
    assert "cursor" not in rest


def test_runs_of_one_instant_are_all_paged(api: Api) -> None:
    for _ in range(5):
        start()
    seen: list[str] = []
    cursor = ""
    for _ in range(3):
        page = api.get(f"/v2/workflows/logs?groupBy=workflowRunId&count=2&cursor={cursor}").json
        seen += [run["workflowRunId"] for run in page["runs"]]
        cursor = page.get("cursor", "")
    assert sorted(seen) == [f"wfr_{n}" for n in range(5)]
    assert cursor == ""


def test_each_filter_chooses(api: Api, clock: WorkflowClock) -> None:
    began = now(clock)
    start("https://one.example/a", labels=("vip", "eu"), caller_ip="1.1.1.1")
    clock.advance(1)
    start("https://one.example:8443/b?x=1", labels=("eu",), flow_control=FlowControl(key="slow", parallelism=1))
    clock.advance(1)
    start("https://two.example/a/b", caller_ip="2.2.2.2")
    step = make_result(make_step(Run.objects.get(run_id="wfr_1")), 1)
    message_id = step.run.journal.get().message_id
    for query, expected in (
        ("", {0, 1, 2}),
        ("&workflowRunId=wfr_0", {0}),
        ("&workflowRunId=wfr_0,wfr_2", {0, 2}),
        ("&workflowUrl=https://one.example/a", {0}),  # the whole URL
        ("&workflowUrl=https%3A%2F%2Fone.example%2Fa&workflowUrl=https://two.example/a/b", {0, 2}),
        (f"&workflowCreatedAt={began + 1000}", {1}),
        ("&label=vip", {0}),
        ("&label=eu", {0, 1}),
        ("&label=vi", set()),
        ("&label=vip&callerIp=2.2.2.2", set()),  # different filters must all hold
        ("&callerIP=1.1.1.1,2.2.2.2", {0, 2}),
        ("&flowControlKey=slow", {1}),
        (f"&fromDate={began + 1000}", {1, 2}),
        (f"&toDate={began + 1000}", {0, 1}),
        (f"&fromDate={began + 1}&toDate={began + 1999}", {1}),
        ("&host=one.example", {0, 1}),
        ("&host=ONE.example,two.example", {0, 1, 2}),
        ("&host=example", set()),
        ("&path=/a", {0}),
        ("&path=/b", {1}),  # whatever follows in the query
        ("&path=/a/b,/a", {0, 2}),
        (f"&messageId={message_id}", {1}),
        (f"&messageId={message_id_of(Run.objects.get(run_id='wfr_2').pk)}", {2}),
        ("&messageId=msg_unknown", set()),
        ("&state=RUN_STARTED", {0, 1, 2}),
        (f"&workflowRuns=wfr_0@{began},wfr_1@{began}", {0}),
        (f"&workflowRuns=wfr_0@{began},wfr_2@{began + 2000}&label=none", {0, 2}),  # then no other filter counts
    ):
        assert set(found(api, query)) == {f"wfr_{n}" for n in expected}, query


def test_states_of_runs_and_of_their_steps_choose(api: Api) -> None:
    runs = {
        status: make_run(run_id=f"wfr_{status}", status=status)
        for status in (Run.Status.RUNNING, Run.Status.SUCCESS, Run.Status.FAILED, Run.Status.CANCELED)
    }
    make_step(runs[Run.Status.RUNNING], status=Step.Status.RETRYING)
    make_step(runs[Run.Status.FAILED], status=Step.Status.FAILED)
    for query, expected in (
        ("RUN_STARTED", {"running"}),
        ("RUN_SUCCESS", {"success"}),
        ("RUN_FAILED,RUN_CANCELED", {"failed", "canceled"}),
        ("STEP_RETRY", {"running"}),
        ("STEP_FAILED", {"failed"}),
        ("STEP_PROGRESS", set()),
        ("RUN_SUCCESS&state=STEP_RETRY", {"success", "running"}),
    ):
        assert set(found(api, f"&state={query}")) == {f"wfr_{name}" for name in expected}, query


def test_events_have_the_same_filters(api: Api, clock: WorkflowClock) -> None:
    began = now(clock)
    run = start("https://one.example/a", labels=("vip",))
    start("https://two.example/a")
    clock.advance(10)
    make_attempt(run, retry_at=clock.now(), finished_at=clock.now())
    make_step(run, started_at=clock.now(), finished_at=clock.now())

    def states(query: str) -> list[str]:
        return [event["state"] for event in api.get(f"/v2/workflows/logs?{query}").json["events"]]

    assert states("label=vip") == ["STEP_SUCCESS", "STEP_RETRY", "STEP_PROGRESS", "RUN_STARTED"]
    assert states("host=two.example") == ["RUN_STARTED"]
    assert states("state=RUN_STARTED") == ["RUN_STARTED", "RUN_STARTED"]
    assert states("state=STEP_RETRY,STEP_FAILED") == ["STEP_RETRY"]
    assert states(f"toDate={began}") == ["RUN_STARTED", "RUN_STARTED"]
    assert states(f"fromDate={began + 1}&state=STEP_PROGRESS") == ["STEP_PROGRESS"]
    assert states(f"messageId={message_id_of(run.pk)}") == ["STEP_RETRY", "RUN_STARTED"]
    assert len(states(f"workflowRuns={run.run_id}@{began}")) == 4
    assert len(states("count=1")) == 1


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("groupBy=label", "grouped by workflowRunId"),
        ("state=RUN_LOST", "'RUN_LOST' is none of RUN_STARTED"),
        ("groupBy=workflowRunId&state=CALLBACK_FAIL", "is none of"),
        ("count=0", "count must be at least 1"),
        ("count=-1", "no whole number"),
        ("cursor=nonsense", "cursor was not made by this engine"),
        ("groupBy=workflowRunId&cursor=bnVsbA", "cursor was not made by this engine"),
        ("fromDate=999999999999999", "is no instant"),
        ("trimBody=-2", "no whole number"),
        ("workflowRuns=wfr_1", "<run id>@<its creation"),
        ("colour=red", "no parameter 'colour'"),
    ],
)
def test_what_cannot_be_understood_is_refused(api: Api, query: str, reason: str) -> None:
    answer = api.get(f"/v2/workflows/logs?{query}")
    assert answer.status == 400
    assert reason in answer.error


def test_bodies_can_be_left_out(api: Api) -> None:
    start()
    (run,) = api.get("/v2/workflows/logs?groupBy=workflowRunId&trimBody=-1").json["runs"]
    assert "out" not in run["steps"][0]["steps"][0]


def test_the_client_asks_for_the_same(clock: WorkflowClock) -> None:
    start(labels=("vip",), caller_ip="1.1.1.1")
    clock.advance(60)
    start()
    client = get_client()
    assert [run.workflow_run_id for run in client.logs().runs] == ["wfr_1", "wfr_0"]
    (log,) = client.logs(label="vip", caller_ip=["1.1.1.1"], to_date=clock.now(), state="RUN_STARTED").runs
    assert log.workflow_run_caller_ip == "1.1.1.1"
    assert not client.logs(workflow="by-hand").runs
    with pytest.raises(ValueError, match="names nothing"):
        client.logs(run_ids=[])
