from __future__ import annotations

import io
import json
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from django_workflow.models import Run
from django_workflow.testing.factories import make_run
from tests.admin.builders import make_finished_run

pytestmark = pytest.mark.django_db


def said(*arguments: str) -> str:
    out = io.StringIO()
    call_command("workflow_prune", *arguments, stdout=out)
    return out.getvalue()


@pytest.fixture(autouse=True)
def _runs() -> None:
    now = timezone.now()
    make_finished_run(run_id="wfr_40", finished_at=now - timedelta(days=40))
    make_finished_run(run_id="wfr_2", finished_at=now - timedelta(days=2))
    make_run(run_id="wfr_active", created_at=now - timedelta(days=99))


def left() -> set[str]:
    return set(Run.objects.values_list("run_id", flat=True))


def test_the_setting_says_what_is_old(settings: Any) -> None:
    assert said() == "Deleted runs: 1, messages: 0, events: 0, attempts: 0, workers: 0, operations: 0\n"
    assert left() == {"wfr_2", "wfr_active"}
    settings.DJANGO_WORKFLOW = {"retention": "1d"}
    assert json.loads(said("--json"))["runs"] == 1
    assert left() == {"wfr_active"}


def test_the_command_line_may_say_it_and_only_count() -> None:
    assert said("--older-than", "1d", "--dry-run") == "Would delete runs: 2, messages: 0\n"
    assert len(left()) == 3
    said("--older-than", "1d", "--batch", "1", "--max-batches", "1")
    assert left() == {"wfr_2", "wfr_active"}
    said("--older-than", "1d")
    assert left() == {"wfr_active"}


@pytest.mark.parametrize("arguments", [["--older-than", "soon"], ["--batch", "0"], ["--max-batches", "0"]])
def test_bad_input_exits_with_2(arguments: list[str]) -> None:
    with pytest.raises(CommandError) as raised:
        said(*arguments)
    assert raised.value.returncode == 2
