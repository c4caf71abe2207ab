from __future__ import annotations

import io
import json
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from django_workflow.api.serializers import RunDetailSerializer, RunSerializer, StepSerializer
from django_workflow.management.reports import run_detail_json, run_json
from django_workflow.models import Run, Step
from django_workflow.presentation import lookup
from django_workflow.testing.factories import make_run, make_step
from tests.admin.builders import make_attempt, make_finished_run, make_result

pytestmark = pytest.mark.django_db


def said(*arguments: str) -> str:
    """What the command printed."""
    out = io.StringIO()
    call_command("workflow_runs", *arguments, stdout=out, stderr=io.StringIO())
    return out.getvalue()


def code_of(*arguments: str) -> int:
    with pytest.raises(CommandError) as raised:
        said(*arguments)
    return raised.value.returncode


def test_runs_are_listed_newest_first_as_a_table() -> None:
    now = timezone.now()
    make_run(run_id="wfr_old", workflow="fulfil_order", labels=",vip,", created_at=now - timedelta(hours=1))
    make_finished_run(run_id="wfr_new", workflow="report", steps=2, created_at=now)
    lines = said().splitlines()
    assert lines[0].split() == ["STATUS", "RUN", "WORKFLOW", "LABELS", "PROGRESS", "CREATED", "DURATION"]
    assert lines[1].split()[:3] == ["success", "wfr_new", "report"]
    assert "2 steps" in lines[1]
    assert "3.0 s" in lines[1]
    assert lines[2].split()[:4] == ["queued", "wfr_old", "fulfil_order", "vip"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--status", "active"], {"wfr_a"}),
        (["--status", "failed"], {"wfr_b"}),
        (["--workflow", "one"], {"wfr_a"}),
        (["--label", "vip", "--label", "eu"], {"wfr_a"}),
        (["--search", "no stock"], {"wfr_b"}),
        (["list", "--limit", "1"], {"wfr_b"}),
    ],
)
def test_the_list_is_narrowed(arguments: list[str], expected: set[str]) -> None:
    now = timezone.now()
    make_run(run_id="wfr_a", workflow="one", labels=",vip,eu,", created_at=now - timedelta(seconds=1))
    make_run(run_id="wfr_b", workflow="two", status="failed", error="no stock", labels=",vip,", created_at=now)
    assert {run["run_id"] for run in json.loads(said(*arguments, "--json"))} == expected


def test_the_list_takes_one_query(django_assert_num_queries: DjangoAssertNumQueries) -> None:
    for _number in range(5):
        make_finished_run()
    with django_assert_num_queries(1):
        said()


def test_a_run_is_shown_with_a_timeline_of_its_steps() -> None:
    now = timezone.now()
    run = make_run(
        run_id="wfr_1",
        workflow="fulfil_order",
        status=Run.Status.FAILED,
        error="CardError: declined",
        error_step="charge",
        payload='{"order_id": 42}',
        started_at=now - timedelta(seconds=10),
        finished_at=now,
    )
    make_result(
        make_step(run, name="reserve", started_at=now - timedelta(seconds=10), finished_at=now - timedelta(seconds=5)),
        {"total": 1200},
    )
    make_step(
        run,
        name="charge",
        status=Step.Status.FAILED,
        attempts=2,
        error="CardError: declined",
        started_at=now - timedelta(seconds=5),
        finished_at=now,
    )
    make_attempt(run, number=1, step_name="charge", status=500, error="timeout")
    text = said("show", "1")  # the prefix may be left out
    lines = {line.split()[1]: line for line in text.splitlines() if "|" in line}
    assert "fulfil_order  failed  10.0 s" in text
    assert "Failed in charge: CardError: declined" in text
    assert '"order_id": 42' in text
    assert "|###############               |" in lines["reserve"]
    assert "|               ###############|" in lines["charge"]
    assert '{"total": 1200}' in lines["reserve"]
    assert "timeout" in text


def test_json_has_the_names_that_the_api_has() -> None:
    run = lookup.with_step_count(lookup.runs()).get(pk=make_finished_run().pk)
    now = timezone.now()
    not_here = {"owner", "parent", "resumed_from"}
    assert set(run_json(run, now)) == set(RunSerializer().fields) - not_here
    detail: dict[str, Any] = run_detail_json(run, now)
    steps = detail.pop("steps")
    assert set(detail) == set(RunDetailSerializer().fields) - not_here - {"deadline_at"}
    assert set(steps[0]) == set(StepSerializer().fields)
    shown = json.loads(said("show", run.run_id, "--json"))
    for name in ("created_at", "duration_seconds", "status", "step_count"):
        assert shown[name] == RunSerializer(run).data[name]


def test_bad_input_and_unknown_runs_have_their_exit_codes() -> None:
    assert code_of("show") == 2
    assert code_of("list", "wfr_1") == 2
    assert code_of("--limit", "0") == 2
    assert code_of("show", "wfr_none") == 1
    with pytest.raises(CommandError):
        said("--status", "sleepy")


def test_a_run_is_watched_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(run_id="wfr_w", workflow="report", status=Run.Status.RUNNING, started_at=timezone.now())
    make_step(run, name="first")
    rounds = []

    def wait(seconds: float) -> None:
        rounds.append(seconds)
        make_step(run, name=f"step {len(rounds)}")
        if len(rounds) == 2:
            Run.objects.filter(pk=run.pk).update(status=Run.Status.SUCCESS, finished_at=timezone.now())

    monkeypatch.setattr("time.sleep", wait)
    text = said("show", "w", "--watch")
    assert len(rounds) == 2
    followed, shown = text.split("\n\n", 1)
    assert [line.split()[:3] for line in followed.splitlines()] == [
        ["done", "1", "first"],
        ["done", "2", "step"],
        ["done", "3", "step"],
    ]
    assert "wfr_w  report  success" in shown
    assert json.loads(said("show", "w", "--watch", "--json"))["status"] == "success"


def test_watching_a_run_that_fails_exits_with_1() -> None:
    make_run(run_id="wfr_f", status=Run.Status.FAILED, error="no stock", started_at=timezone.now())
    assert code_of("show", "f", "--watch") == 1
    assert said("show", "f").startswith("wfr_f")


def test_watching_may_be_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", interrupt)
    make_run(run_id="wfr_i", status=Run.Status.RUNNING, started_at=timezone.now())
    assert code_of("show", "i", "--watch") == 130


def test_a_list_cannot_be_watched() -> None:
    assert code_of("--watch") == 2


def test_colours_are_for_terminals() -> None:
    make_run(run_id="wfr_c", status=Run.Status.FAILED)
    assert "\x1b[" not in said()
    out = io.StringIO()
    call_command("workflow_runs", force_color=True, stdout=out)
    assert "\x1b[" in out.getvalue()


@pytest.mark.parametrize(("variables", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True)])
def test_no_color_does_without(variables: dict[str, str], coloured: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(run_id="wfr_c", status=Run.Status.FAILED)
    monkeypatch.setattr("django.core.management.color.supports_color", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert ("\x1b[" in said()) == coloured
