"""Which version of the project's code a run started with: noted for its own workflows, and for none elsewhere."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import override_settings

from django_workflow import WorkflowContext, workflow
from django_workflow.client.client import Client
from django_workflow.models import Run
from django_workflow.testing import run_workflows

pytestmark = pytest.mark.django_db


@workflow(name="versioned")
def flow(ctx: WorkflowContext[Any]) -> None:
    ctx.run("only", lambda: None)


def version(value: str) -> override_settings:
    return override_settings(DJANGO_WORKFLOW={"code_version": value, "call_allow": ["elsewhere.example"]})


def test_a_run_keeps_the_version_that_it_started_with() -> None:
    with version("2026.1"):
        handle = flow.trigger(None)
    with version("2026.2"):
        run_workflows()
        again = Client().restart_run(handle.id)
    handle.run.refresh_from_db()
    assert (handle.run.status, handle.run.code_version) == (Run.Status.SUCCESS, "2026.1")
    assert Run.objects.get(run_id=again.workflow_run_id).code_version == "2026.2"


def test_without_the_setting_nothing_is_noted() -> None:
    assert flow.trigger(None).run.code_version == ""


def test_a_run_of_an_endpoint_elsewhere_has_none() -> None:
    with version("2026.1"):
        elsewhere = Client().trigger("https://elsewhere.example/workflows/serve/versioned/", b"{}")
    assert elsewhere.run.code_version == ""
