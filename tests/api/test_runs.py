from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries
from rest_framework.test import APIClient

from django_workflow.models import Run, Step
from django_workflow.testing.factories import make_run, make_step, make_waiter
from tests.admin.builders import make_event, make_finished_run, make_result, make_user
from tests.api.conftest import as_user

RUNS = "/workflows/api/runs/"


def listed(api: APIClient, **query: Any) -> list[str]:
    response = api.get(RUNS, query)
    assert response.status_code == 200, response.json()
    return [run["run_id"] for run in response.json()["results"]]


def test_a_run_in_the_list_tells_how_it_stands(api: APIClient, owner: User) -> None:
    now = timezone.now()
    parent = make_run(run_id="wfr_parent", created_at=now - timedelta(hours=1))
    make_step(
        make_run(
            run_id="wfr_1",
            workflow="fulfil_order",
            status=Run.Status.SLEEPING,
            why="Sleeping until 12:00 UTC.",
            summary="Order 42",
            labels=",vip,eu,",
            owner=owner,
            parent=parent,
            created_at=now,
            started_at=now - timedelta(seconds=2),
        )
    )
    run = api.get(RUNS).json()["results"][0]
    assert run.pop("duration_seconds") >= 2
    expected = {
        "run_id": "wfr_1",
        "workflow": "fulfil_order",
        "status": "sleeping",
        "why": "Sleeping until 12:00 UTC.",
        "summary": "Order 42",
        "labels": ["vip", "eu"],
        "owner": "owner",
        "parent": "wfr_parent",
        "resumed_from": None,
        "step_count": 1,
        "trigger_kind": "code",
        "error": "",
    }
    assert {key: run[key] for key in expected} == expected
    assert datetime.fromisoformat(run["created_at"]) == now


def test_pages_follow_one_another_by_cursor(api: APIClient) -> None:
    now = timezone.now()
    for number in range(5):
        make_run(run_id=f"wfr_{number}", created_at=now + timedelta(seconds=number))
    first = api.get(RUNS, {"page_size": 2}).json()
    assert [run["run_id"] for run in first["results"]] == ["wfr_4", "wfr_3"]
    make_run(run_id="wfr_new", created_at=now + timedelta(seconds=9))  # does not shift the next page
    second = api.get(first["next"]).json()
    assert [run["run_id"] for run in second["results"]] == ["wfr_2", "wfr_1"]
    assert [run["run_id"] for run in api.get(second["next"]).json()["results"]] == ["wfr_0"]
    assert api.get(RUNS, {"cursor": "nonsense"}).status_code == 404


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"status": "active"}, ["wfr_a"]),
        ({"status": "finished"}, ["wfr_c", "wfr_b"]),
        ({"status": ["failed", "running"]}, ["wfr_c", "wfr_a"]),
        ({"status": "failed,running"}, ["wfr_c", "wfr_a"]),
        ({"status": ""}, ["wfr_c", "wfr_b", "wfr_a"]),
        ({"workflow": "one"}, ["wfr_a"]),
        ({"workflow": ["one", "two"]}, ["wfr_b", "wfr_a"]),
        ({"label": "vip"}, ["wfr_b", "wfr_a"]),
        ({"label": ["vip", "eu"]}, ["wfr_a"]),  # all of them
        ({"has_error": "true"}, ["wfr_c"]),
        ({"has_error": "0"}, ["wfr_b", "wfr_a"]),
        ({"trigger_kind": "schedule"}, ["wfr_b"]),
        ({"code_version": ["v1", "v2"]}, ["wfr_b", "wfr_a"]),
        ({"created_after": "2030-01-02T00:00:00Z"}, ["wfr_c", "wfr_b"]),
        ({"created_before": "2030-01-02T00:00:00Z"}, ["wfr_a"]),
        ({"search": "b"}, ["wfr_b"]),
        ({"search": "no stock"}, ["wfr_c"]),
        ({"status": "finished", "label": "vip"}, ["wfr_b"]),
    ],
)
def test_the_list_is_narrowed(api: APIClient, query: dict[str, Any], expected: list[str]) -> None:
    day = datetime(2030, 1, 1, 12, tzinfo=timezone.get_default_timezone())
    make_run(run_id="wfr_a", workflow="one", status="running", labels=",vip,eu,", code_version="v1", created_at=day)
    make_run(
        run_id="wfr_b",
        workflow="two",
        status="success",
        labels=",vip,",
        trigger_kind="schedule",
        code_version="v2",
        created_at=day + timedelta(days=1),
    )
    make_run(
        run_id="wfr_c", workflow="three", status="failed", error="no stock left", created_at=day + timedelta(days=2)
    )
    assert listed(api, **query) == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("status", "sleepy"),
        ("trigger_kind", "nobody"),
        ("has_error", "maybe"),
        ("created_after", "yesterday"),
        ("created_after", "2030-13-01T00:00:00Z"),
        ("colour", "red"),
    ],
)
def test_a_bad_filter_is_refused_by_name(api: APIClient, name: str, value: str) -> None:
    response = api.get(RUNS, {name: value})
    assert response.status_code == 400
    error = response.json()
    assert list(error["errors"]) == [name]
    assert error["code"] == "invalid"
    assert error["detail"]


def test_the_number_of_queries_does_not_grow_with_the_runs(
    api: APIClient, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    def queries() -> int:
        with django_assert_max_num_queries(50) as captured:
            listed(api)
        return len(captured)

    make_run()
    queries()  # asks for the permissions as well
    first = queries()
    for number in range(10):
        make_step(make_run(owner=make_user(f"user {number}"), parent=make_run(), resumed_from=make_run()))
    assert queries() == first


def test_a_run_by_itself_comes_with_values_steps_and_waits(api: APIClient) -> None:
    run = make_run(
        run_id="wfr_1",
        status=Run.Status.WAITING,
        payload='{"order_id":42,"headers":{"Authorization":"Bearer x"}}',
        result='"done"',
        error="boom",
    )
    make_result(make_step(run, name="reserve"), {"total": 1200})
    make_step(run, name="approval", step_type="Wait", status=Step.Status.WAITING, finished_at=None)
    make_waiter(run, event_id="approve-42", step_name="approval")
    make_waiter(run, event_id="old", state="resolved")
    found = api.get(f"{RUNS}wfr_1/").json()
    assert found["payload"] == {"order_id": 42, "headers": {"Authorization": "REDACTED"}}
    assert found["result"] == "done"
    assert found["error"] == "boom"
    assert found["step_count"] == 2
    assert [(step["step_id"], step["name"], step["status"], step["result"]) for step in found["steps"]] == [
        (1, "reserve", "success", {"total": 1200}),
        (2, "approval", "waiting", None),
    ]
    assert [waiter["event_id"] for waiter in found["waiters"]] == ["approve-42"]


def test_hidden_bodies_stay_hidden(api: APIClient) -> None:
    run = make_finished_run(
        steps=0, run_id="wfr_1", payload='"secret"', result='"secret"', config=json.dumps({"redact": ["body"]})
    )
    make_result(make_step(run), "secret")
    make_event(run, type="stepFinish", result="secret")
    for url in (f"{RUNS}wfr_1/", f"{RUNS}wfr_1/steps/", f"{RUNS}wfr_1/events/"):
        text = api.get(url).content.decode()
        assert '"secret"' not in text
        assert '"REDACTED"' in text


def test_many_steps_come_in_pages(api: APIClient) -> None:
    run = make_run(run_id="wfr_1")
    Step.objects.bulk_create(
        Step(run=run, step_id=number, name="s", step_type="Run", status=Step.Status.SUCCESS) for number in range(1, 252)
    )
    found = api.get(f"{RUNS}wfr_1/").json()
    assert (len(found["steps"]), found["step_count"]) == (200, 251)
    first = api.get(f"{RUNS}wfr_1/steps/").json()
    second = api.get(first["next"]).json()
    assert [step["step_id"] for step in first["results"] + second["results"]] == list(range(1, 252))


def test_events_are_read_from_a_cursor_on(api: APIClient) -> None:
    run = make_run(run_id="wfr_1")
    events = [make_event(run, number, stepName=f"s{number}") for number in range(5)]
    url = f"{RUNS}wfr_1/events/"
    first = api.get(url, {"limit": 2}).json()
    assert [event["data"]["stepName"] for event in first["results"]] == ["s0", "s1"]
    assert first["results"][0] == {
        "id": events[0].event_id,
        "event": "workflow.update",
        "data": {"type": "stepStart", "workflowRunId": "wfr_1", "stepName": "s0"},
    }
    assert first["more"] is True
    rest = api.get(url, {"after": first["cursor"]}).json()
    assert [event["data"]["stepName"] for event in rest["results"]] == ["s2", "s3", "s4"]
    assert rest["more"] is False
    assert api.get(url, {"after": rest["cursor"]}).json() == {"results": [], "cursor": rest["cursor"], "more": False}


@pytest.mark.parametrize(("name", "value"), [("after", "soon"), ("limit", "0"), ("limit", "1001"), ("limit", "two")])
def test_bad_cursors_and_limits_are_refused_by_name(api: APIClient, name: str, value: str) -> None:
    make_run(run_id="wfr_1")
    response = api.get(f"{RUNS}wfr_1/events/", {name: value})
    assert response.status_code == 400
    assert list(response.json()["errors"]) == [name]


@pytest.mark.parametrize("path", ["", "steps/", "events/"])
def test_an_owner_reads_his_own_runs_and_no_others(owner: User, path: str) -> None:
    make_run(run_id="wfr_own", owner=owner)
    make_run(run_id="wfr_other", owner=make_user("other"))
    client = as_user(owner)
    assert listed(client) == ["wfr_own"]
    assert client.get(f"{RUNS}wfr_own/{path}").status_code == 200
    response = client.get(f"{RUNS}wfr_other/{path}")
    assert response.status_code == 404
    assert response.json()["code"] == "not_found"


def test_staff_without_the_permission_sees_only_what_is_theirs(db: None) -> None:
    make_run()
    assert listed(as_user(make_user("staff"))) == []
    # A permission without staff status opens nothing either.
    assert listed(as_user(make_user("customer", "view_run", staff=False))) == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("get", "runs/"),
        ("get", "runs/wfr_1/"),
        ("post", "runs/wfr_1/cancel/"),
        ("post", "runs/wfr_1/restart/"),
        ("get", "bulk-operations/"),
        ("post", "bulk-operations/start/"),
        ("get", "workflows/"),
        ("post", "workflows/x/trigger/"),
        ("get", "waiters/"),
        ("post", "events/x/notify/"),
        ("get", "schedules/"),
        ("get", "dead-letters/"),
    ],
)
def test_nobody_gets_in_without_a_name(db: None, method: str, path: str) -> None:
    make_run(run_id="wfr_1")
    response = getattr(APIClient(), method)(f"/workflows/api/{path}")
    assert response.status_code in (401, 403)
    assert set(response.json()) == {"type", "title", "status", "detail", "code"}


def test_cancel_ends_a_run_and_may_be_repeated(db: None) -> None:
    run = make_run(run_id="wfr_1", status=Run.Status.RUNNING)
    client = as_user(make_user("boss", "view_run", "cancel_run"))
    for _number in range(2):
        response = client.post(f"{RUNS}wfr_1/cancel/")
        assert response.status_code == 200
        assert response.json().items() >= {"success": True, "run_id": "wfr_1", "status": "canceled"}.items()
    run.refresh_from_db()
    assert run.status == Run.Status.CANCELED


def test_a_run_that_ended_otherwise_is_not_canceled(db: None) -> None:
    make_finished_run(run_id="wfr_1")
    client = as_user(make_user("boss", "cancel_run"))
    response = client.post(f"{RUNS}wfr_1/cancel/")
    assert response.status_code == 409
    assert response.json()["code"] == "conflict"
    assert client.post(f"{RUNS}wfr_none/cancel/").status_code == 404


def test_cancel_needs_its_permission_even_for_an_owner(api: APIClient, owner: User) -> None:
    make_run(run_id="wfr_1", owner=owner)
    for client in (api, as_user(owner)):
        assert client.post(f"{RUNS}wfr_1/cancel/").status_code == 403
