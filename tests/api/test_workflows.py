from __future__ import annotations

import base64
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from rest_framework.test import APIClient

from django_workflow.errors import EngineUnavailable
from django_workflow.models import Run
from django_workflow.testing.factories import make_run
from tests.admin.builders import make_dead_letter, make_schedule, make_user
from tests.api import samples
from tests.api.conftest import as_user

TRIGGER = f"/workflows/api/workflows/{samples.PLACE_ORDER}/trigger/"


@pytest.fixture
def trigger_user(db: None) -> User:
    return make_user("boss", "trigger_workflow")


@pytest.fixture
def triggering(trigger_user: User) -> APIClient:
    return as_user(trigger_user)


def test_the_body_is_the_payload_and_the_run_belongs_to_who_started_it(
    triggering: APIClient, trigger_user: User
) -> None:
    response = triggering.post(TRIGGER, {"order_id": 42, "email": "a@b.c"}, format="json")
    assert response.status_code == 200, response.json()
    run = Run.objects.get(run_id=response.json()["workflowRunId"])
    assert run.workflow == samples.PLACE_ORDER
    assert run.owner == trigger_user
    assert run.trigger_kind == Run.TriggerKind.API
    assert triggering.get(f"/workflows/api/runs/{run.run_id}/").json()["payload"] == {"order_id": 42, "email": "a@b.c"}


@pytest.mark.parametrize("body", ["", "null", "[1, 2]", '"text"', '{"deep": {"er": 1.5}}'])
def test_a_workflow_without_a_payload_type_takes_any_json(triggering: APIClient, body: str) -> None:
    url = f"/workflows/api/workflows/{samples.ANYTHING}/trigger/"
    response = triggering.post(url, body, content_type="application/json")
    assert response.status_code == 200, response.json()


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ('{"order_id": "x", "email": "a@b.c"}', "$.order_id"),
        ('{"order_id": 1', "$"),
        ("\xff", "$"),
    ],
)
def test_a_bad_payload_is_refused_by_field_and_starts_nothing(triggering: APIClient, body: str, field: str) -> None:
    response = triggering.post(TRIGGER, body.encode("latin-1"), content_type="application/json")
    assert response.status_code == 400
    error = response.json()
    assert list(error["errors"]) == [field]
    assert error["code"] == "payload_invalid"
    assert error["detail"]
    assert not Run.objects.exists()


def test_options_come_in_the_query(triggering: APIClient, trigger_user: User) -> None:
    body = {"order_id": 1, "email": "a@b.c"}
    url = f"{TRIGGER}?label=vip&label=eu&run_id=order-1&delay=1h"
    assert triggering.post(url, body, format="json").json() == {"workflowRunId": "wfr_order-1"}
    run = Run.objects.get()
    assert run.label_list == ["vip", "eu"]
    assert run.status == Run.Status.SCHEDULED
    # A second one makes no second run, and takes nothing over.
    Run.objects.update(owner=None)
    assert triggering.post(url, body, format="json").json() == {"workflowRunId": "wfr_order-1"}
    assert Run.objects.get().owner is None


@pytest.mark.parametrize("query", ["lable=x", "delay=soon", "run_id=a/b", "label=a,b"])
def test_bad_options_are_refused_by_name(triggering: APIClient, query: str) -> None:
    response = triggering.post(f"{TRIGGER}?{query}", {"order_id": 1, "email": "a@b.c"}, format="json")
    assert response.status_code == 400
    assert list(response.json()["errors"]) == [query.partition("=")[0]]
    assert not Run.objects.exists()


def test_other_bodies_are_refused(triggering: APIClient, settings: Any) -> None:
    assert triggering.post(TRIGGER, "order_id=1", content_type="application/x-www-form-urlencoded").status_code == 415
    settings.DJANGO_WORKFLOW = {"max_payload_bytes": 100}
    response = triggering.post(TRIGGER, {"order_id": 1, "email": "x" * 200}, format="json")
    assert response.status_code == 413
    assert response.json()["code"] == "too_large"


def test_chunked_bodies_get_411_under_wsgi(triggering: APIClient) -> None:
    response = triggering.generic("POST", TRIGGER, "", HTTP_TRANSFER_ENCODING="chunked", CONTENT_LENGTH="")
    assert response.status_code == 411


def test_an_unknown_workflow_is_told(triggering: APIClient) -> None:
    response = triggering.post("/workflows/api/workflows/nothing/trigger/", {}, format="json")
    assert response.status_code == 404
    assert "nothing" in response.json()["detail"]


def test_an_engine_that_does_not_answer_is_503(triggering: APIClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise EngineUnavailable("down")

    monkeypatch.setattr("django_workflow.engine.transport.EngineTransport.send", refuse)
    response = triggering.post(TRIGGER, {"order_id": 1, "email": "a@b.c"}, format="json")
    assert response.status_code == 503
    assert response.json()["code"] == "unavailable"


def test_trigger_needs_its_permission(api: APIClient, owner: User) -> None:
    for client in (api, as_user(owner)):
        response = client.post(TRIGGER, {"order_id": 1, "email": "a@b.c"}, format="json")
        assert response.status_code == 403
        assert response.json()["code"] == "permission_denied"


def test_sessions_need_a_csrf_token_and_passwords_do_not(trigger_user: User) -> None:
    trigger_user.set_password("pw")
    trigger_user.save()
    client = APIClient(enforce_csrf_checks=True)
    client.login(username="boss", password="pw")
    assert client.post(TRIGGER, {"order_id": 1, "email": "a@b.c"}, format="json").status_code == 403
    client.logout()
    client.credentials(HTTP_AUTHORIZATION="Basic " + base64.b64encode(b"boss:pw").decode())
    assert client.post(TRIGGER, {"order_id": 1, "email": "a@b.c"}, format="json").status_code == 200


def test_workflows_are_listed_with_their_active_runs(api: APIClient) -> None:
    make_run(workflow=samples.PLACE_ORDER, status="running")
    make_run(workflow=samples.PLACE_ORDER, status="success")
    found = {row["name"]: row for row in api.get("/workflows/api/workflows/").json()}
    assert found[samples.PLACE_ORDER]["active_runs"] == 1
    assert found[samples.PLACE_ORDER]["url"].endswith(f"/workflows/serve/{samples.PLACE_ORDER}/")
    assert found[samples.ANYTHING]["active_runs"] == 0


def test_schedules_and_dead_letters_are_listed(api: APIClient) -> None:
    make_schedule(payload='{"a":1}')
    make_dead_letter(make_run(run_id="wfr_1", status="failed"))
    schedule = api.get("/workflows/api/schedules/").json()["results"][0]
    assert (schedule["schedule_id"], schedule["cron"], schedule["payload"]) == ("nightly", "0 3 * * *", {"a": 1})
    letter = api.get("/workflows/api/dead-letters/").json()["results"][0]
    assert (letter["run_id"], letter["status"], letter["failure_state"]) == ("wfr_1", 500, "none")


@pytest.mark.parametrize("path", ["schedules/", "dead-letters/", "workflows/"])
def test_lists_need_their_permission(owner: User, path: str) -> None:
    for user in (owner, make_user("staff")):
        assert as_user(user).get(f"/workflows/api/{path}").status_code == 403


def test_the_checks_pass_with_the_api_included(db: None) -> None:
    call_command("check")
