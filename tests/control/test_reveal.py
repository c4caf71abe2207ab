"""What is hidden of a run, shown to somebody who may see it."""

from __future__ import annotations

import logging
from typing import Annotated, Any

import pytest
from django.contrib.admin.models import LogEntry
from django.urls import reverse

from django_workflow import Secret, WorkflowContext, workflow
from django_workflow.control.action import ActionRefused
from django_workflow.control.reveal import reveal
from django_workflow.models import Run
from django_workflow.testing import run_workflows
from tests.admin.builders import make_user
from tests.api.conftest import as_user

pytestmark = pytest.mark.django_db


def sign(name: str) -> Annotated[str, Secret]:
    return f"signature of {name}"


@workflow(name="revealed", payload=Annotated[str, Secret])
def revealed(ctx: WorkflowContext[Any]) -> Annotated[str, Secret]:
    ctx.run("count", len, ctx.request_payload)
    return ctx.run("sign", sign, ctx.request_payload)


@pytest.fixture(params=["fields", "bodies"])
def run(request: pytest.FixtureRequest) -> Run:
    flow = revealed if request.param == "fields" else revealed.using(redact="body")
    handle = flow.trigger("ada")
    run_workflows()
    return handle.run


def test_it_is_shown_for_a_reason_and_noted(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    user = make_user("clerk", "view_run", "view_payload")
    with caplog.at_level(logging.WARNING, "django_workflow.control"):
        shown = reveal(run, by=user, reason=" ticket 4711 ")
    assert (shown.payload, shown.result) == ("ada", "signature of ada")
    assert shown.results == {1: 3, 2: "signature of ada"}
    entry = LogEntry.objects.get()
    assert (entry.user, entry.object_id) == (user, str(run.pk))
    assert "Revealed payload and results." in entry.get_change_message()
    assert "ticket 4711" in entry.get_change_message()
    assert "revealed to clerk: ticket 4711" in caplog.text
    assert "signature" not in caplog.text


@pytest.mark.parametrize(
    ("permissions", "reason", "why"),
    [
        (("view_run",), "ticket", "permission"),
        (("view_run", "view_payload"), "  ", "reason"),
    ],
)
def test_it_is_refused_without_permission_or_reason(run: Run, permissions: Any, reason: str, why: str) -> None:
    with pytest.raises(ActionRefused, match=why):
        reveal(run, by=make_user("clerk", *permissions), reason=reason)
    assert not LogEntry.objects.exists()


def test_the_api_reveals(run: Run) -> None:
    url = reverse("django_workflow:run-reveal", args=[run.run_id])
    api = as_user(make_user("clerk", "view_run", "view_payload"))
    assert api.post(url, {"reason": "ticket"}, format="json").json() == {
        "run_id": run.run_id,
        "payload": "ada",
        "result": "signature of ada",
        "steps": [{"step_id": 1, "result": 3}, {"step_id": 2, "result": "signature of ada"}],
    }
    assert LogEntry.objects.count() == 1
    answer = api.post(url, {"reason": " "}, format="json")
    assert answer.status_code == 400
    assert "reason" in answer.json()["errors"]
    assert as_user(make_user("viewer", "view_run")).post(url, {"reason": "x"}, format="json").status_code == 403
    # Permission to reveal is none to see runs.
    assert as_user(make_user("other", "view_payload")).post(url, {"reason": "x"}, format="json").status_code == 404
