"""What `run_workflows` does with a project whose engine is not in it."""

from __future__ import annotations

from typing import Any

import pytest

from django_workflow import WorkflowContext, workflow
from django_workflow.errors import Misconfigured
from django_workflow.testing import run_workflows

HOSTED = {"engine": "qstash", "token": "a token", "base_url": "https://shop.example"}


@workflow(name="one-step")
def one_step(ctx: WorkflowContext[None]) -> int:
    return ctx.run("one", lambda: 1)


@pytest.mark.django_db
def test_a_hosted_engine_is_not_driven_and_the_remedy_is_told(settings: Any) -> None:
    settings.DJANGO_WORKFLOW = HOSTED
    with pytest.raises(Misconfigured, match='"engine": "embedded"'):
        run_workflows()


@pytest.mark.django_db
def test_a_hosted_site_is_tested_with_the_embedded_engine(settings: Any) -> None:
    settings.DJANGO_WORKFLOW = HOSTED
    settings.DJANGO_WORKFLOW = {**settings.DJANGO_WORKFLOW, "engine": "embedded", "base_url": None}
    handle = one_step.trigger()
    run_workflows()
    assert handle.run.result == "1"
