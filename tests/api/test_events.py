from __future__ import annotations

import base64
import json
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from rest_framework.test import APIClient

from django_workflow.models import Run, Waiter
from django_workflow.realtime.access import make_token
from django_workflow.testing.factories import make_run, make_waiter
from tests.admin.builders import make_user
from tests.api.conftest import as_user


@pytest.fixture
def answering(db: None) -> APIClient:
    return as_user(make_user("answering", "notify_run"))


def notify(client: Any, event_id: str = "approve-42", data: object = None, **query: str) -> Any:
    url = f"/workflows/api/events/{quote(event_id, safe='')}/notify/"
    parameters = "&".join(f"{name}={value}" for name, value in query.items())
    body = json.dumps({"eventData": data})
    return client.post(f"{url}?{parameters}", body, content_type="application/json")


def waiting(run_id: str = "wfr_1", event_id: str = "approve-42", **values: Any) -> Waiter:
    run = make_run(run_id=run_id, status=Run.Status.WAITING, **values)
    return make_waiter(run, event_id=event_id, deadline_at=timezone.now() + timedelta(days=1))


def told(waiter: Waiter) -> Any:
    """What the waiter was told; None while it waits."""
    waiter.refresh_from_db()
    if waiter.state == Waiter.State.WAITING:
        return None
    return json.loads(base64.b64decode(waiter.event_data))


def test_an_answer_reaches_the_run_that_waits(answering: APIClient) -> None:
    waiter = waiting()
    response = notify(answering, data={"approved": True, "limit": 10.50})
    assert (response.status_code, response.json()) == (200, {"success": True, "resolved": 1})
    assert told(waiter) == {"approved": True, "limit": 10.5}
    assert waiter.state == Waiter.State.RESOLVED


def test_the_second_answer_is_told_that_it_came_late(answering: APIClient) -> None:
    waiter = waiting()
    notify(answering, data=1)
    response = notify(answering, data=2)
    assert response.status_code == 409
    assert response.json()["code"] == "already_answered"
    assert told(waiter) == 1
    # It is not kept for the run's next wait either, whichever way it was addressed.
    assert notify(answering, data=2, run="wfr_1").status_code == 409
    assert Waiter.objects.count() == 1


def test_an_event_that_nobody_ever_waited_for_is_unknown(answering: APIClient) -> None:
    make_run(run_id="wfr_1", status=Run.Status.RUNNING)
    for query in ({}, {"run": "wfr_1"}, {"run": "wfr_none"}):
        response = notify(answering, **query)
        assert response.status_code == 404
        assert response.json()["code"] == "not_found"
    assert not Waiter.objects.exists()


def test_an_answer_reaches_all_who_wait_or_the_one_that_is_named(answering: APIClient) -> None:
    waiters = [waiting(f"wfr_{number}") for number in range(3)]
    assert notify(answering, data="a", run="wfr_1").json()["resolved"] == 1
    assert [told(waiter) for waiter in waiters] == [None, "a", None]
    assert notify(answering, data="b").json()["resolved"] == 2
    assert [told(waiter) for waiter in waiters] == ["b", "a", "b"]


@pytest.mark.parametrize("event_id", ["a/b", "https://shop.example/x?y=1", "ü 1", "100%"])
def test_event_ids_may_be_anything_that_a_path_can_hold(answering: APIClient, event_id: str) -> None:
    waiter = waiting(event_id=event_id)
    assert notify(answering, event_id, 1).status_code == 200
    assert told(waiter) == 1


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        ("", "application/json", 200),  # no data
        ("{}", "application/json", 200),
        ('{"eventData": 1}', "application/json; charset=utf-8", 200),
        ("[1]", "application/json", 400),
        ('{"eventData": tru}', "application/json", 400),
        ('{"eventData": 1}', "text/plain", 415),
    ],
)
def test_bodies_are_checked(answering: APIClient, body: str, kind: str, status: int) -> None:
    waiting()
    response = answering.post("/workflows/api/events/approve-42/notify/", body, content_type=kind)
    assert response.status_code == status, response.json()
    if status == 400:
        assert list(response.json()["errors"]) == ["eventData"]


def test_too_much_data_is_refused(answering: APIClient, settings: Any) -> None:
    settings.DJANGO_WORKFLOW = {"max_payload_bytes": 100}
    waiting()
    assert notify(answering, data="x" * 2000).status_code == 413


def test_an_owner_answers_his_own_runs_alone(owner: User) -> None:
    own, other = waiting("wfr_own", owner=owner), waiting("wfr_other")
    response = notify(as_user(owner), data="mine")
    assert response.json() == {"success": True, "resolved": 1}
    assert told(own) == "mine"
    assert told(other) is None
    assert notify(as_user(owner), run="wfr_other").status_code == 403


def test_strangers_may_not_answer(api: APIClient) -> None:
    waiter = waiting()
    assert notify(api).status_code == 403  # may look at runs, not answer them
    assert told(waiter) is None


def test_a_signed_token_admits_who_has_no_name(db: None) -> None:
    waiter, other = waiting(), waiting("wfr_2")
    client = APIClient()
    assert notify(client, token=make_token(["wfr_1"])).status_code == 403  # may read only
    assert notify(client, token="forged").status_code == 403
    response = notify(client, data="yes", token=make_token(["wfr_1"], respond=True))
    assert response.json() == {"success": True, "resolved": 1}
    assert (told(waiter), told(other)) == ("yes", None)


def test_the_widgets_form_works_without_javascript(db: None) -> None:
    waiter = waiting()
    client = Client(enforce_csrf_checks=True)
    client.force_login(make_user("answering", "notify_run"))
    form = {"eventData": '{"approved": true}'}
    url = "/workflows/api/events/approve-42/notify/"
    page = "http://testserver/orders/42/"
    assert client.post(url, form, headers={"referer": page}).status_code == 403  # no CSRF token
    client.cookies["csrftoken"] = "a" * 32
    response = client.post(url, {**form, "csrfmiddlewaretoken": "a" * 32}, headers={"referer": page})
    assert (response.status_code, response["Location"]) == (302, page)
    assert told(waiter) == {"approved": True}
    late = client.post(url, {**form, "csrfmiddlewaretoken": "a" * 32}, headers={"referer": page})
    assert late.status_code == 409


@pytest.mark.parametrize("form", [{"eventData": "{oops"}, {"eventData": ""}, {}])
def test_a_form_without_json_is_refused(answering: APIClient, form: dict[str, str]) -> None:
    waiting()
    response = answering.post("/workflows/api/events/approve-42/notify/", form, format="multipart")
    assert response.status_code == 400
    assert list(response.json()["errors"]) == ["eventData"]


def test_a_form_leads_back_to_pages_of_this_site_only(db: None) -> None:
    waiting()
    client = Client()
    client.force_login(make_user("answering", "notify_run"))
    response = client.post(
        "/workflows/api/events/approve-42/notify/", {"eventData": "1"}, headers={"referer": "https://evil.example/"}
    )
    assert (response.status_code, response.json()) == (200, {"success": True, "resolved": 1})


def test_what_is_waited_for_is_listed(api: APIClient, owner: User) -> None:
    waiter = waiting("wfr_own", owner=owner)
    waiting("wfr_2", "other-event")
    make_waiter(waiter.run, event_id="old", state=Waiter.State.RESOLVED)
    found = api.get("/workflows/api/waiters/").json()["results"]
    assert [row["run_id"] for row in found] == ["wfr_own", "wfr_2"]
    assert set(found[0]) >= {"event_id", "step_name", "since", "expires"}
    assert found[0]["event_id"] == "approve-42"
    for query in ({"run": "wfr_2"}, {"event": "other-event"}):
        assert [row["run_id"] for row in api.get("/workflows/api/waiters/", query).json()["results"]] == ["wfr_2"]
    own = as_user(owner).get("/workflows/api/waiters/").json()["results"]
    assert [row["run_id"] for row in own] == ["wfr_own"]
