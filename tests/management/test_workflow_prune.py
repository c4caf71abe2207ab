from __future__ import annotations

import io
import json
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from django_workflow import workflow
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


def test_a_workflow_may_say_how_long_its_runs_are_kept(settings: Any) -> None:
    @workflow(name="kept-shortly", aliases=["kept-before"], retention="1d")
    def shortly(ctx: Any) -> None: ...

    @workflow(name="kept-long", retention=timedelta(days=365))
    def long(ctx: Any) -> None: ...

    now = timezone.now()
    for name in ("kept-shortly", "kept-before", "kept-long"):
        for days in (0.5, 2, 40):
            make_finished_run(run_id=f"wfr_{name}_{days}", workflow=name, finished_at=now - timedelta(days=days))
    young = {f"wfr_{name}_0.5" for name in ("kept-shortly", "kept-before", "kept-long")}
    said()
    assert left() == {"wfr_2", "wfr_active", "wfr_kept-long_2", "wfr_kept-long_40", *young}
    # Whoever says it on the command line means all runs.
    said("--older-than", "1d")
    assert left() == {"wfr_active", *young}


def test_a_chain_is_kept_as_long_as_its_workflow_says() -> None:
    @workflow(name="kept-as-chain", retention="10d")
    def chained(ctx: Any) -> None: ...

    now = timezone.now()
    first = make_finished_run(run_id="wfr_first", workflow="kept-as-chain", finished_at=now - timedelta(days=20))
    resumed = make_finished_run(run_id="wfr_next", workflow="kept-as-chain", finished_at=now - timedelta(days=9))
    Run.objects.filter(pk=resumed.pk).update(first_run=first)
    said()
    assert {"wfr_first", "wfr_next"} <= left()
    Run.objects.filter(pk=resumed.pk).update(finished_at=now - timedelta(days=11))
    said()
    assert not {"wfr_first", "wfr_next"} & left()
