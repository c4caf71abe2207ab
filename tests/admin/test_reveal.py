from __future__ import annotations

import json
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.urls import reverse

from django_workflow.models import Run
from django_workflow.testing.factories import make_step
from tests.admin.builders import make_finished_run, make_result, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def run() -> Run:
    config = json.dumps({"redact": ["body"]})
    run = make_finished_run(steps=0, payload='{"card":"card-no-4111"}', result='"card-no-4112"', config=config)
    make_result(make_step(run, name="charge"), {"card": "card-no-4113"})
    return run


def page_url(run: Run, view: str = "steps") -> str:
    return reverse("admin:django_workflow_run_change", args=[run.pk]) + f"?view={view}"


def reveal_url(run: Run) -> str:
    return reverse("admin:django_workflow_run_reveal", args=[run.pk])


def test_what_is_hidden_is_shown_for_a_reason_that_is_noted(client: Client, run: Run) -> None:
    client.force_login(make_user("ann", "view_run", "view_payload"))
    page = client.get(page_url(run)).content.decode()
    assert reveal_url(run) in page
    assert "card-no" not in page
    asked: Any = client.get(reveal_url(run))
    assert "card-no-4111" not in asked.content.decode()
    without = client.post(reveal_url(run), {"reason": "  "}).content.decode()
    assert "errorlist" in without
    assert "card-no-4111" not in without
    assert not LogEntry.objects.exists()
    shown = client.post(reveal_url(run), {"reason": "ticket 7"})
    for secret in ("card-no-4111", "card-no-4112", "card-no-4113", "1 charge"):
        assert secret in shown.content.decode()
    assert "no-store" in shown["Cache-Control"]
    assert "ticket 7" in LogEntry.objects.get().change_message
    assert "card-no" not in client.get(page_url(run)).content.decode()


def test_nothing_is_revealed_without_the_permission(viewing: Client, run: Run) -> None:
    assert reveal_url(run) not in viewing.get(page_url(run)).content.decode()
    assert viewing.get(reveal_url(run)).status_code == 403
    assert viewing.post(reveal_url(run), {"reason": "ticket 7"}).status_code == 403


def test_runs_without_hidden_values_offer_no_revealing(client: Client) -> None:
    client.force_login(make_user("root", superuser=True))
    run = make_finished_run(payload='{"a":1}')
    assert reveal_url(run) not in client.get(page_url(run)).content.decode()
