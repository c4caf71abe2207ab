"""The OpenAPI schema: it validates, is served to staff, and the endpoints keep to it."""

from __future__ import annotations

import base64
import sys
from collections.abc import Iterator
from io import StringIO
from typing import Any

import pytest
import schemathesis
from django.contrib.auth.models import User
from django.core.management import call_command
from django.core.signals import request_finished, request_started
from django.core.wsgi import get_wsgi_application
from django.db import close_old_connections, transaction
from django.test import Client
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.management.commands.spectacular import Command
from drf_spectacular.settings import patched_settings
from hypothesis import HealthCheck, Phase, settings
from rest_framework.test import APIClient
from schemathesis import GenerationMode, checks
from schemathesis.specs.openapi import checks as conformance

from django_workflow.api.described import Described
from django_workflow.api.schema import SchemaView
from django_workflow.api.urls import urlpatterns
from django_workflow.models import Run
from django_workflow.testing.factories import make_run, make_step, make_waiter
from tests.admin.builders import make_dead_letter, make_event, make_schedule, make_user
from tests.api import samples
from tests.api.conftest import as_user

SCHEMA = "/workflows/api/schema/"


def test_a_projects_schema_with_this_api_in_it_validates_without_a_warning() -> None:
    out = StringIO()
    call_command(Command(), "--validate", "--fail-on-warn", "--format", "openapi-json", stdout=out)
    assert "workflow_runs" in out.getvalue()


def test_every_endpoint_describes_itself() -> None:
    missing = [
        pattern.name
        for pattern in urlpatterns
        if pattern.name != "api-schema" and not isinstance(getattr(pattern.callback.cls, "described", None), Described)
    ]
    assert missing == []


def test_names_of_operations_are_unique() -> None:
    ids = [p.callback.cls.described.operation_id for p in urlpatterns if p.name != "api-schema"]
    assert len(ids) == len(set(ids))


def served(client: Any) -> dict[str, Any]:
    response = client.get(SCHEMA, headers={"accept": "application/vnd.oai.openapi+json"})
    assert response.status_code == 200, response.content
    return response.json()  # type: ignore[no-any-return]


def test_staff_get_the_schema_of_this_api_alone(api: APIClient) -> None:
    found = served(api)
    assert found["openapi"] == "3.1.1"
    assert all(path.startswith("/workflows/api/") for path in found["paths"])
    operation = found["paths"]["/workflows/api/runs/{run_id}/cancel/"]["post"]
    assert set(operation["responses"]) >= {"200", "401", "403", "404", "409", "429"}
    assert list(operation["responses"]["409"]["content"]) == ["application/problem+json"]


def test_others_do_not(owner: User) -> None:
    assert as_user(owner).get(SCHEMA).status_code == 403
    assert APIClient().get(SCHEMA).status_code in (401, 403)


def test_serving_requests_loads_nothing_of_the_schema(api: APIClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where drf-spectacular is missing, the rest of the API works."""
    monkeypatch.setitem(sys.modules, "drf_spectacular", None)
    monkeypatch.setitem(sys.modules, "django_workflow.api.schema", None)
    assert api.get("/workflows/api/runs/").status_code == 200


# The endpoints against their schema


def described() -> Any:
    """The schema as it is served, without a request: cases are collected before there is a database."""
    with patched_settings(SchemaView.custom_settings):
        found = SchemaGenerator(api_version="1").get_schema(request=None, public=True)
    schema = schemathesis.openapi.from_dict(found)
    schema.app = get_wsgi_application()
    schema.config.generation.update(modes=[GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
    return schema


CHECKS = [
    checks.not_a_server_error,
    conformance.status_code_conformance,
    conformance.content_type_conformance,
    conformance.response_schema_conformance,
]
schema = described()
PASSWORD = "pw"
KNOWN = {
    "run_id": "wfr_1",
    "event_id": "approve-42",
    "name": samples.ANYTHING,
}
"""Half of the cases name what there is: else all of them end in 404."""


@pytest.fixture
def world(db: None) -> Iterator[str]:
    """Rows of every kind, and the credentials of somebody who may do everything."""
    run = make_run(run_id="wfr_1", status=Run.Status.RUNNING, payload='{"a": [1, null]}', result='"x"')
    make_step(run, name="reserve")
    make_waiter(run, event_id="approve-42")
    make_event(run, type="stepStart")
    make_dead_letter(run)
    make_schedule()
    boss = make_user("boss")
    boss.is_superuser = True
    boss.set_password(PASSWORD)
    boss.save()
    # The handler of a whole server closes connections between requests, and with them the test's transaction.
    for signal in (request_started, request_finished):
        signal.disconnect(close_old_connections)
    yield "Basic " + base64.b64encode(f"boss:{PASSWORD}".encode()).decode()
    for signal in (request_started, request_finished):
        signal.connect(close_old_connections)


@schema.parametrize()
@settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_no_request_breaks_the_api_or_its_schema(case: Any, world: str) -> None:
    for name, value in KNOWN.items():
        if name in (case.path_parameters or {}) and len(str(case.path_parameters[name])) % 2:
            case.path_parameters[name] = value
    with transaction.atomic():
        case.call_and_validate(headers={"Authorization": world}, checks=CHECKS)
        transaction.set_rollback(True)


def cursor(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


HOSTILE_QUERIES = [
    ("runs/", "cursor=" + cursor("p=yesterday")),
    ("runs/", "cursor=" + cursor("p=")),
    ("runs/", "cursor=" + cursor("o=99999999999999999999")),
    ("runs/", "cursor=" + cursor("p=\0")),
    ("runs/wfr_1/steps/", "cursor=" + cursor("p=one")),
    ("runs/wfr_1/steps/", "cursor=" + cursor("p=" + "9" * 40)),
    ("waiters/", "cursor=" + cursor("p=0000-00-00")),
    ("schedules/", "cursor=" + cursor("p=\0")),
    ("dead-letters/", "cursor=" + cursor("p=x")),
    ("runs/", "created_after=0001-01-01T00:00:00%2B23:59"),
    ("runs/", "created_before=9999-12-31T23:59:59-23:59"),
    ("runs/", "created_after=0001-01-01T00:00:00"),
    ("runs/", "search=%00"),
    ("runs/", "label=%00"),
    ("runs/", "workflow=%00"),
    ("runs/", "search=" + "x" * 70_000),
    ("runs/", "search=%ff%fe"),
    ("waiters/", "run=%00"),
    ("waiters/", "event=%00"),
    ("runs/wfr_1/events/", "after=%00"),
    ("runs/%00/", ""),
    ("runs/%00/steps/", ""),
    ("runs/" + "x" * 5000 + "/", ""),
]


@pytest.mark.every_database
@pytest.mark.parametrize(("path", "query"), HOSTILE_QUERIES)
def test_a_hostile_query_is_answered_or_refused(world: str, path: str, query: str) -> None:
    answer = Client(raise_request_exception=False).get(
        f"/workflows/api/{path}?{query}", headers={"authorization": world}
    )
    assert answer.status_code in (200, 400, 404), answer.content[:500]


@pytest.mark.every_database
@pytest.mark.parametrize(
    "path",
    [
        "runs/%00/cancel/",
        "runs/%00/fork/",
        "events/%00/notify/",
        "events/approve-42/notify/?run=%00",
        "workflows/%00/trigger/",
        f"workflows/{samples.ANYTHING}/trigger/?label=%00",
        f"workflows/{samples.ANYTHING}/trigger/?run_id=%00",
        f"workflows/{samples.ANYTHING}/trigger/?run_id={'x' * 5000}",
        f"workflows/{samples.ANYTHING}/trigger/?delay=1e400",
        f"workflows/{samples.ANYTHING}/trigger/?delay={'9' * 40}d",
        f"workflows/{samples.ANYTHING}/trigger/?label={'x' * 5000}",
    ],
)
def test_a_hostile_post_is_answered_or_refused(world: str, path: str) -> None:
    answer = Client(raise_request_exception=False).post(
        f"/workflows/api/{path}", b"{}", content_type="application/json", headers={"authorization": world}
    )
    assert answer.status_code in (200, 400, 404, 409), answer.content[:500]
