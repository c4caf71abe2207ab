"""`/v2/schedules`: what clients send and read."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from django_workflow import WorkflowContext, workflow
from django_workflow.client.urls import workflow_url
from django_workflow.engine import scheduler
from django_workflow.engine.scheduler import Declared
from django_workflow.models import Run, Schedule, UrlGroup
from django_workflow.testing import CallAnswer, WorkflowClock, mock_calls, run_workflows, workflow_clock
from tests.engine.http_api.conftest import Answer, Api

URL = "https://shop.example/nightly"
START = datetime(2026, 1, 1, tzinfo=UTC)
START_MS = 1_767_225_600_000
HOUR_MS = 3_600_000

pytestmark = pytest.mark.django_db


@pytest.fixture
def clock() -> Iterator[WorkflowClock]:
    with workflow_clock(START) as clock:
        yield clock


def make(api: Api, destination: str = URL, body: Any = b"", **headers: str) -> Answer:
    """Headers are given as `upstash_retries="3"`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return api.post(f"/v2/schedules/{destination}", body, headers={"Upstash-Cron": "0 * * * *", **named})


def shown(api: Api, schedule_id: str = "sch1") -> Any:
    answer = api.get(f"/v2/schedules/{schedule_id}")
    assert answer.status == 200
    return answer.json


class TestCreate:
    def test_everything_that_was_asked_for_is_shown(self, api: Api, clock: WorkflowClock) -> None:
        answer = make(
            api,
            f"{URL}?day=1&b=%2F",
            '{"a":1}',
            upstash_cron="CRON_TZ=Asia/Tokyo 0 10 * * *  ",
            content_type="application/json",
            upstash_schedule_id="sch1",
            upstash_method="PUT",
            upstash_forward_x_shop="7",
            upstash_delay="1m30s",
            upstash_timeout="90",
            upstash_retries="5",
            upstash_retry_delay="1000 * retried",
            upstash_callback="https://a.example/back",
            upstash_callback_forward_x_back="1",
            upstash_failure_callback="https://a.example/failed",
            upstash_failure_callback_forward_x_failed="2",
            upstash_queue_name="orders",
            upstash_label="vip, eu",
            upstash_flow_control_key="shop",
            upstash_flow_control_value="parallelism=2, rate=10, period=1m",
        )
        assert (answer.status, answer.json) == (200, {"scheduleId": "sch1"})
        assert shown(api) == {
            "scheduleId": "sch1",
            "cron": "CRON_TZ=Asia/Tokyo 0 10 * * *",
            "createdAt": START_MS,
            "destination": f"{URL}?day=1&b=%2F",
            "method": "PUT",
            "header": {"Content-Type": ["application/json"], "X-Shop": ["7"]},
            "body": '{"a":1}',
            "retries": 5,
            "delay": 90,
            "timeout": 90,
            "callback": "https://a.example/back",
            "callbackHeader": {"X-Back": ["1"]},
            "failureCallback": "https://a.example/failed",
            "failureCallbackHeader": {"X-Failed": ["2"]},
            "callerIP": "127.0.0.1",
            "isPaused": False,
            "queueName": "orders",
            "flowControlKey": "shop",
            "parallelism": 2,
            "rate": 10,
            "period": 60,
            "retryDelayExpression": "1000 * retried",
            "label": "vip",
            "labels": ["vip", "eu"],
            "nextScheduleTime": START_MS + HOUR_MS,
        }

    def test_little_is_shown_of_one_that_says_little(self, api: Api, clock: WorkflowClock) -> None:
        schedule_id = make(api).json["scheduleId"]
        assert shown(api, schedule_id) == {
            "scheduleId": schedule_id,
            "cron": "0 * * * *",
            "createdAt": START_MS,
            "destination": URL,
            "method": "POST",
            "retries": 3,
            "callerIP": "127.0.0.1",
            "isPaused": False,
            "nextScheduleTime": START_MS + HOUR_MS,
        }

    def test_it_is_said_in_the_query_as_well(self, api: Api) -> None:
        config = "upstash-cron=5+4+*+*+*&upstash-schedule-id=sch1&upstash-queue-name=orders&upstash-delay=3s"
        assert api.post(f"/v2/schedules/{URL}?{config}&day=1").status == 200
        found = shown(api)
        assert (found["cron"], found["queueName"], found["delay"]) == ("5 4 * * *", "orders", 3)
        assert found["destination"] == f"{URL}?day=1"

    def test_a_body_that_is_no_text_is_shown_in_base64(self, api: Api) -> None:
        make(api, body=b"\xff\x00", upstash_schedule_id="sch1")
        assert base64.b64decode(shown(api)["bodyBase64"]) == b"\xff\x00"
        assert "body" not in shown(api)

    def test_what_it_asks_to_hide_is_hidden_and_sent_all_the_same(self, api: Api, clock: WorkflowClock) -> None:
        hide = {"upstash_redact_fields": "body,header[X-Key]", "upstash_forward_x_key": "secret"}
        make(api, body="secret", upstash_schedule_id="sch1", upstash_forward_x_open="1", **hide)
        digest = hashlib.sha256(b"secret").hexdigest()
        assert shown(api)["body"] == f"REDACTED:{digest}"
        assert shown(api)["header"] == {"X-Key": [f"REDACTED:{digest}"], "X-Open": ["1"]}
        clock.advance("1h")
        with mock_calls(CallAnswer()) as recorder:
            run_workflows()
        assert (recorder.calls[0].body, recorder.calls[0].headers["X-Key"]) == (b"secret", "secret")

    def test_the_same_id_overwrites_completely(self, api: Api) -> None:
        make(api, body="my-payload", upstash_schedule_id="sch1", upstash_label="a", upstash_queue_name="q")
        make(api, "https://new.example/", upstash_schedule_id="sch1", upstash_cron="1 1 1 1 1")
        found = shown(api)
        assert (found["destination"], found["cron"]) == ("https://new.example/", "1 1 1 1 1")
        assert not {"body", "label", "queueName"} & found.keys()
        assert len(api.get("/v2/schedules").json) == 1

    @pytest.mark.parametrize(
        ("headers", "status", "said"),
        [
            ({"upstash_cron": ""}, 400, "A schedule needs Upstash-Cron"),
            ({"upstash_cron": "* * * *"}, 400, "it needs five fields"),
            ({"upstash_cron": "CRON_TZ=Mars/Base 0 0 * * *"}, 400, "is no time zone"),
            ({"upstash_cron": "0 0 30 2 *"}, 400, "Bad day-of-month"),
            ({"upstash_schedule_id": "a/b"}, 400, "cannot be a schedule's id"),
            ({"upstash_queue_name": "a b"}, 400, "queue's name"),
            ({"upstash_retries": "1000000"}, 412, "retries were asked for"),
            ({"upstash_delay": "soon"}, 400, "Upstash-Delay"),
            ({"upstash_workflow_runid": "wfr_1"}, 400, "takes no Upstash-Workflow-RunId"),
        ],
    )
    def test_what_cannot_be_done_is_refused(self, api: Api, headers: dict[str, str], status: int, said: str) -> None:
        answer = make(api, **headers)
        assert answer.status == status
        assert said in answer.error
        assert not Schedule.objects.exists()

    def test_a_group_has_to_exist(self, api: Api) -> None:
        assert make(api, "nobody").status == 404
        UrlGroup.objects.create(
            name="all", endpoints='[{"url":"https://a.example/"}]', headers="{}", created_at=START, updated_at=START
        )
        schedule_id = make(api, "all").json["scheduleId"]
        assert shown(api, schedule_id)["destination"] == "all"


class TestLife:
    def test_what_became_of_the_last_messages_is_shown(self, api: Api, clock: WorkflowClock) -> None:
        make(api, upstash_schedule_id="sch1", upstash_retries="0")
        assert "lastScheduleTime" not in shown(api)
        states = []
        for status in (500, 200):
            clock.advance("1h")
            run_due_schedules(clock)
            states.append(list(shown(api)["lastScheduleStates"].values()))
            with mock_calls(CallAnswer(status)):
                run_workflows()
            states.append(list(shown(api)["lastScheduleStates"].values()))
        assert states == [["IN_PROGRESS"], ["FAIL"], ["IN_PROGRESS"], ["SUCCESS"]]
        found = shown(api)
        assert found["lastScheduleTime"] == START_MS + 2 * HOUR_MS
        assert found["nextScheduleTime"] == START_MS + 3 * HOUR_MS
        assert api.get("/v2/schedules").json == [found]

    def test_why_it_failed_to_fire_is_shown(self, api: Api, clock: WorkflowClock) -> None:
        UrlGroup.objects.create(
            name="all", endpoints='[{"url":"https://a.example/"}]', headers="{}", created_at=START, updated_at=START
        )
        make(api, "all", upstash_schedule_id="sch1")
        UrlGroup.objects.all().delete()
        clock.advance("1h")
        run_due_schedules(clock)
        assert "There is no URL group 'all'" in shown(api)["error"]

    @pytest.mark.parametrize("method", ["PATCH", "POST", "PUT"])
    def test_pause_and_resume_as_often_as_one_likes(self, api: Api, method: str, clock: WorkflowClock) -> None:
        make(api, upstash_schedule_id="sch1")
        for _ in range(2):
            assert api(method, "/v2/schedules/sch1/pause").status == 200
            assert shown(api)["isPaused"] is True
            assert "nextScheduleTime" not in shown(api)
        clock.advance("150m")
        for _ in range(2):
            assert api(method, "/v2/schedules/sch1/resume").status == 200
            assert shown(api)["isPaused"] is False
            assert shown(api)["nextScheduleTime"] == START_MS + 3 * HOUR_MS

    def test_fired_by_hand_it_names_its_messages(self, api: Api, clock: WorkflowClock) -> None:
        make(api, upstash_schedule_id="sch1")
        answer = api.post("/v2/schedules/sch1/run")
        assert answer.status == 200
        assert shown(api)["lastScheduleStates"] == {answer.json["messageIds"][0]: "IN_PROGRESS"}
        assert shown(api)["nextScheduleTime"] == START_MS + HOUR_MS

    def test_deleted_it_is_gone(self, api: Api) -> None:
        make(api, upstash_schedule_id="sch1")
        assert api.delete("/v2/schedules/sch1").status == 200
        assert api.get("/v2/schedules").json == []
        for method, path in (
            ("GET", ""),
            ("DELETE", ""),
            ("PATCH", "/pause"),
            ("PATCH", "/resume"),
            ("POST", "/run"),
        ):
            answer = api(method, f"/v2/schedules/sch1{path}")
            assert (answer.status, answer.error) == (404, "There is no schedule 'sch1'.")

    def test_a_host_named_like_a_call_is_a_destination(self, api: Api) -> None:
        assert make(api, "https://run", upstash_schedule_id="sch1").status == 200
        assert shown(api)["destination"] == "https://run"


class TestInCode:
    @pytest.fixture(autouse=True)
    def declared(self, monkeypatch: pytest.MonkeyPatch, clock: WorkflowClock) -> None:
        @workflow(name="nightly-report", retries=7, label="reports")
        def report(ctx: WorkflowContext[None]) -> str:
            return ctx.run("write", lambda: "done")

        items = [Declared("nightly-report", "0 3 * * *", "Europe/Berlin", report.scheduled_message)]
        monkeypatch.setattr(scheduler, "_declarations", lambda: items)
        scheduler.reconcile("default", clock.now())

    def test_it_is_shown_like_the_others(self, api: Api) -> None:
        (found,) = api.get("/v2/schedules").json
        assert found["scheduleId"] == "nightly-report"
        assert found["cron"] == "CRON_TZ=Europe/Berlin 0 3 * * *"
        assert found["destination"] == workflow_url("nightly-report")
        assert (found["retries"], found["labels"], found["inCode"]) == (7, ["reports"], True)
        assert found["nextScheduleTime"] == START_MS + 2 * HOUR_MS

    def test_it_is_neither_overwritten_nor_deleted(self, api: Api) -> None:
        for answer in (make(api, upstash_schedule_id="nightly-report"), api.delete("/v2/schedules/nightly-report")):
            assert answer.status == 409
            assert "declared in code, by the workflow of that name" in answer.error
            assert "@workflow(schedule=…)" in answer.error

    def test_it_is_paused_and_fired_like_the_others(self, api: Api, clock: WorkflowClock) -> None:
        assert api("PATCH", "/v2/schedules/nightly-report/pause").status == 200
        assert shown(api, "nightly-report")["isPaused"] is True
        answer = api.post("/v2/schedules/nightly-report/run").json
        run_workflows()
        run = Run.objects.get()
        assert (run.run_id, run.status) == (answer["workflowRunId"], Run.Status.SUCCESS)
        assert shown(api, "nightly-report")["lastScheduleStates"] == {answer["messageIds"][0]: "SUCCESS"}


def run_due_schedules(clock: WorkflowClock) -> None:
    from django_workflow.engine.cycle import fire_schedules

    fire_schedules("default", clock.now())
