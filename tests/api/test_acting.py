"""What the API does to runs: one by one and many, with its permissions, refusals and bodies."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from rest_framework.test import APIClient

from django_workflow.authoring.registry import registry
from django_workflow.control import bulk
from django_workflow.control.actions import ACTIONS
from django_workflow.models import Run
from django_workflow.testing import run_workflows
from django_workflow.testing.factories import make_run
from tests.admin.builders import make_user
from tests.api.conftest import as_user
from tests.api.samples import ANYTHING, FAILING, PLACE_ORDER

RUNS = "/workflows/api/runs/"
BULK = "/workflows/api/bulk-operations/"

pytestmark = pytest.mark.django_db

PATHS = {name: name.replace("_", "-") for name in ACTIONS if name not in ("notify", "delete")}


@pytest.fixture
def boss() -> APIClient:
    return as_user(make_user("boss", "view_run", *{action.permission for action in ACTIONS.values()}))


def post(client: APIClient, path: str, **body: Any) -> Any:
    return client.post(path, json.dumps(body), content_type="application/json")


def failed_run() -> Run:

    handle = registry.get(FAILING).trigger()
    run_workflows()
    run: Run = handle.run
    assert run.status == "failed"
    return run


@pytest.mark.parametrize("name", PATHS)
def test_an_action_needs_its_permission(name: str) -> None:
    make_run(run_id="wfr_1", status="running")
    others = {action.permission for action in ACTIONS.values()} - {ACTIONS[name].permission}
    clients = [
        as_user(make_user("other", "view_run", *others)),
        as_user(make_user("no-staff", ACTIONS[name].permission, staff=False)),
    ]
    for client in clients:
        assert post(client, f"{RUNS}wfr_1/{PATHS[name]}/").status_code == 403
    assert Run.objects.get().status == "running"


def test_a_run_is_paused_and_goes_on(boss: APIClient) -> None:
    make_run(run_id="wfr_1")
    paused = post(boss, f"{RUNS}wfr_1/pause/", reason="wait for the shop")
    assert (paused.status_code, paused.json()["status"]) == (200, "paused")
    again = post(boss, f"{RUNS}wfr_1/pause/")
    assert (again.status_code, again.json()["detail"]) == (409, "The run is paused already.")
    assert post(boss, f"{RUNS}wfr_1/unpause/").json()["status"] == "queued"
    assert "wait for the shop" in LogEntry.objects.earliest("action_time").change_message


def test_a_failed_run_is_resumed(boss: APIClient) -> None:
    run = failed_run()
    answer = post(boss, f"{RUNS}{run.run_id}/resume/").json()
    assert Run.objects.get(run_id=answer["run_id"]).resumed_from == run
    assert post(boss, f"{RUNS}{run.run_id}/resume/").status_code == 409
    assert post(boss, f"{RUNS}wfr_none/resume/").status_code == 404


def test_a_run_is_restarted_with_another_payload(boss: APIClient) -> None:
    make_run(run_id="wfr_1", workflow=PLACE_ORDER, status="canceled", payload='{"order_id":1,"email":"a@b.c"}')
    path = f"{RUNS}wfr_1/restart/"
    bad = post(boss, path, payload={"order_id": "one", "email": "a@b.c"})
    assert (bad.status_code, list(bad.json()["errors"])) == (400, ["$.order_id"])
    good = post(boss, path, payload={"order_id": 2, "email": "x@y.z"}, labels=["again"], delay="1h")
    run = Run.objects.get(run_id=good.json()["run_id"])
    assert (json.loads(run.payload)["order_id"], run.label_list, run.status) == (2, ["again"], "scheduled")
    assert json.loads(Run.objects.get(run_id=post(boss, path).json()["run_id"]).payload)["order_id"] == 1


@pytest.mark.parametrize(
    "body",
    [
        {"labels": ["two words"]},
        {"labels": "vip"},
        {"delay": "soon"},
        {"run_id": "a/b"},
        {"reasons": "typo"},
        {"reason": 5},
    ],
)
def test_a_bad_body_is_refused_and_does_nothing(boss: APIClient, body: dict[str, Any]) -> None:
    make_run(run_id="wfr_1", workflow=ANYTHING, status="success")
    answer = post(boss, f"{RUNS}wfr_1/restart/", **body)
    assert answer.status_code == 400, answer.json()
    assert Run.objects.count() == 1


def test_a_run_is_forked(boss: APIClient) -> None:
    make_run(run_id="wfr_1", workflow=ANYTHING, status="success", payload="1")
    path = f"{RUNS}wfr_1/fork/"
    new = post(boss, path, step=0, payload=None).json()["run_id"]
    assert Run.objects.get(run_id=new).payload == ""  # null is no payload
    assert post(boss, path).status_code == 400
    assert post(boss, path, step=3).status_code == 409


def test_a_similar_run_is_its_starters(boss: APIClient) -> None:
    make_run(run_id="wfr_1", workflow=ANYTHING, payload="1", labels=",vip,")
    new = post(boss, f"{RUNS}wfr_1/start-similar/", run_id="mine").json()["run_id"]
    run = Run.objects.select_related("owner").get(run_id=new)
    assert (new, run.payload, run.label_list) == ("wfr_mine", "1", ["vip"])
    assert run.owner is not None
    assert run.owner.username == "boss"


# Many


def test_many_runs_are_chosen_as_in_the_list(boss: APIClient) -> None:
    for status in ("running", "waiting", "success"):
        make_run(workflow="a", status=status)
    other = make_run(workflow="b", status="running")
    answer = post(boss, f"{BULK}start/?workflow=a&status=active", action="cancel", reason="closing down").json()
    assert (answer["state"], answer["total"], answer["done"]) == ("done", 2, 2)
    other.refresh_from_db()
    assert other.status == "running"
    assert boss.get(BULK).json()["results"][0]["id"] == answer["id"]


def test_runs_are_named_or_all_are_meant(boss: APIClient) -> None:
    one, other = make_run(status="running"), make_run(status="running")
    assert post(boss, f"{BULK}start/", action="cancel").status_code == 400
    assert post(boss, f"{BULK}start/", action="cancel", run_ids=[]).json()["total"] == 0
    assert post(boss, f"{BULK}start/", action="cancel", run_ids=[one.run_id, "wfr_none"]).json()["done"] == 1
    answer = post(boss, f"{BULK}start/", action="cancel", everything=True).json()
    assert (answer["total"], answer["done"], answer["skipped"]) == (2, 1, 1)
    assert answer["errors"] == [{"run_id": one.run_id, "error": "The run is over: Canceled."}]
    other.refresh_from_db()
    assert other.status == "canceled"


def test_many_runs_need_the_permission_too(boss: APIClient) -> None:
    make_run(status="running")
    client = as_user(make_user("viewer", "view_run"))
    assert post(client, f"{BULK}start/", action="cancel", everything=True).status_code == 403
    assert post(boss, f"{BULK}start/", action="fork", everything=True).status_code == 400
    assert Run.objects.get().status == "running"


def test_an_operation_is_followed_and_stopped(boss: APIClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "AT_ONCE", 0)
    monkeypatch.setattr(bulk, "BATCH", 2)
    for _ in range(5):
        make_run(status="running")
    started = post(boss, f"{BULK}start/", action="cancel", everything=True).json()
    assert (started["state"], started["done"]) == ("running", 0)
    path = f"{BULK}{started['id']}/"
    assert boss.get(path).json()["done"] == 2  # no worker lives: asking helps
    stopped = post(boss, f"{path}abort/").json()
    assert (stopped["state"], stopped["done"]) == ("aborted", 2)
    assert boss.get(path).json() == stopped
    assert Run.objects.filter(status="canceled").count() == 2


def test_operations_are_their_starters(boss: APIClient) -> None:
    path = f"{BULK}{post(boss, f'{BULK}start/', action='cancel', run_ids=[]).json()['id']}/"
    other = as_user(make_user("other", "cancel_run"))
    assert (other.get(path).status_code, other.get(BULK).json()["results"]) == (404, [])
    assert as_user(make_user("auditor", "view_bulkoperation")).get(path).status_code == 200
