"""Errors are problem details: RFC 9457."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import InterfaceError, OperationalError
from rest_framework.exceptions import ErrorDetail, Throttled, ValidationError
from rest_framework.test import APIClient

from django_workflow.api import errors
from django_workflow.errors import EngineError
from django_workflow.testing.factories import make_run
from tests.admin.builders import make_user
from tests.api.conftest import as_user

RUNS = "/workflows/api/runs/"


def test_a_problem_has_the_members_of_the_rfc_and_a_code(api: APIClient) -> None:
    response = api.get(f"{RUNS}wfr_none/")
    assert response["Content-Type"] == "application/problem+json"
    assert response.json() == {
        "type": "urn:django-workflow:problem:not_found",
        "title": "Not Found",
        "status": 404,
        "detail": "There is no run “wfr_none” that you may see.",
        "code": "not_found",
    }


def test_bad_values_are_told_by_field(api: APIClient) -> None:
    problem = api.get(RUNS, {"status": "sleepy"}).json()
    assert problem["errors"] == {"status": [problem["detail"]]}


def test_what_went_well_is_plain_json(api: APIClient) -> None:
    assert api.get(RUNS)["Content-Type"] == "application/json"


def test_people_who_browse_get_a_page(viewer: User) -> None:
    response = as_user(viewer).get(f"{RUNS}wfr_none/", headers={"accept": "text/html"})
    assert response.status_code == 404
    assert response["Content-Type"].startswith("text/html")


@pytest.mark.parametrize(
    "path", ["runs/", "runs/wfr_1/", "runs/wfr_1/cancel/", "workflows/", "workflows/x/trigger/", "events/x/notify/"]
)
def test_every_endpoint_can_be_looked_at_in_a_browser(db: None, path: str) -> None:
    make_run(run_id="wfr_1")
    boss = make_user("boss", "view_run", "cancel_run", "trigger_workflow", "notify_run")
    for method in ("get", "options"):
        response = getattr(as_user(boss), method)(f"/workflows/api/{path}", headers={"accept": "text/html"})
        assert response.status_code in (200, 405)
        assert response["Content-Type"].startswith("text/html")


@pytest.mark.parametrize("method", ["put", "delete", "patch"])
def test_other_methods_are_refused_as_a_problem(api: APIClient, method: str) -> None:
    response = getattr(api, method)(RUNS)
    assert (response.status_code, response.json()["code"]) == (405, "method_not_allowed")
    assert response["Allow"]


@pytest.mark.parametrize("error", [OperationalError("gone"), InterfaceError("closed")])
def test_a_lost_database_is_503(
    api: APIClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    def fail(*args: Any) -> None:
        raise error

    monkeypatch.setattr("django_workflow.api.views.filter_runs", fail)
    response = api.get(RUNS)
    assert (response.status_code, response.json()["code"]) == (503, "unavailable")
    assert str(error) not in response.content.decode()
    assert any(record.levelno == logging.ERROR for record in caplog.records)


def test_an_engine_that_refuses_is_502_and_keeps_its_words_for_the_log(caplog: pytest.LogCaptureFixture) -> None:
    response = errors.handle(EngineError("token abc is wrong", status=401), {})
    assert response is not None
    assert (response.status_code, response.data["code"]) == (502, "engine")
    assert "abc" not in str(response.data)
    assert "abc" in caplog.text


def test_every_sentence_of_a_nested_error_is_kept() -> None:
    error = ValidationError({"a": [ErrorDetail("One.", "one"), "Two."], "b": {"c": ["Three."]}})
    response = errors.handle(error, {})
    assert response is not None
    assert response.data["errors"] == {"a": ["One.", "Two."], "b": ["Three."]}
    assert (response.data["detail"], response.data["code"]) == ("One.", "one")


def test_who_calls_too_often_is_told_when_to_come_back() -> None:
    response = errors.handle(Throttled(wait=7), {})
    assert response is not None
    assert (response.status_code, response.data["code"], response["Retry-After"]) == (429, "throttled", "7")


def test_a_project_limits_a_scope_and_no_other(api: APIClient, settings: Any) -> None:
    make_run(run_id="wfr_1")
    settings.REST_FRAMEWORK = {"DEFAULT_THROTTLE_RATES": {"workflow_read": "2/min"}}
    assert [api.get(RUNS).status_code for _ in range(3)] == [200, 200, 429]
    assert api.get(RUNS)["Content-Type"] == "application/problem+json"
    assert api.post(f"{RUNS}wfr_1/cancel/").status_code == 403  # another scope: not throttled, but not allowed either


def test_without_rates_nothing_is_limited(api: APIClient, settings: Any) -> None:
    settings.REST_FRAMEWORK = {"DEFAULT_THROTTLE_CLASSES": ["rest_framework.throttling.ScopedRateThrottle"]}
    assert {api.get(RUNS).status_code for _ in range(5)} == {200}


def test_the_projects_own_ways_with_lists_and_versions_are_not_the_apis(api: APIClient, settings: Any) -> None:
    settings.REST_FRAMEWORK = {
        "DEFAULT_VERSIONING_CLASS": "rest_framework.versioning.NamespaceVersioning",
        "ALLOWED_VERSIONS": ["v1"],
        "DEFAULT_PAGINATION_CLASS": "rest_framework.pagination.LimitOffsetPagination",
        "PAGE_SIZE": 1,
    }
    assert api.get(RUNS).status_code == 200
    assert isinstance(api.get("/workflows/api/workflows/").json(), list)
