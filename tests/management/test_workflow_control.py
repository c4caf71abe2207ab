"""`workflow_control`: its actions, filters, exit codes and JSON."""

from __future__ import annotations

import json
from io import StringIO

import pytest
from django.contrib.admin.models import LogEntry
from django.core.management import CommandError, call_command

from django_workflow.authoring.registry import registry
from django_workflow.models import BulkOperation, Run
from django_workflow.testing import run_workflows
from django_workflow.testing.factories import make_run
from tests.admin.builders import make_user
from tests.api.samples import ANYTHING, FAILING

pytestmark = pytest.mark.django_db


def said(*args: str) -> str:
    out = StringIO()
    call_command("workflow_control", *args, stdout=out, stderr=StringIO())
    return out.getvalue()


def refused(code: int, *args: str) -> str:
    with pytest.raises(CommandError) as caught:
        said(*args)
    assert caught.value.returncode == code
    return str(caught.value)


def status_of(run: Run) -> str:
    run.refresh_from_db()
    return str(run.status)


def test_named_runs_are_acted_on_and_what_is_refused_is_told() -> None:
    one, over = make_run(run_id="wfr_1", status="running"), make_run(run_id="wfr_2", status="success")
    assert said("pause", "1") == "wfr_1: Paused.\n"
    assert status_of(one) == "paused"
    out = StringIO()
    with pytest.raises(CommandError, match="1 of 2"):
        call_command("workflow_control", "cancel", "wfr_1", "wfr_2", "--json", stdout=out)
    assert [(entry["run_id"], entry["done"]) for entry in json.loads(out.getvalue())] == [
        ("wfr_1", True),
        ("wfr_2", False),
    ]
    assert (status_of(one), status_of(over)) == ("canceled", "success")


def test_failed_runs_are_resumed_by_a_filter() -> None:
    handles = registry.get(FAILING).trigger_many([None, None])
    run_workflows()
    make_run(workflow=FAILING, status="success")
    told = json.loads(said("resume", "--status", "failed", "--workflow", FAILING, "--json"))
    assert (told["state"], told["total"], told["done"]) == ("done", 2, 2)
    resumed = Run.objects.filter(trigger_kind="resume")
    assert {run.resumed_from.run_id for run in resumed if run.resumed_from} == {handle.id for handle in handles}
    assert BulkOperation.objects.get().action == "resume"


def test_what_was_skipped_makes_the_command_fail() -> None:
    make_run(run_id="wfr_1", workflow="a", status="running")
    make_run(run_id="wfr_2", workflow="a", status="success")
    assert refused(1, "cancel", "--workflow", "a") == "Not all could be done."
    assert Run.objects.get(run_id="wfr_1").status == "canceled"


def test_a_dry_run_only_tells() -> None:
    run = make_run(run_id="wfr_1", status="running")
    make_run(run_id="wfr_2", status="success")
    assert said("cancel", "--everything", "--dry-run").splitlines() == [
        "Would be done to 1 runs, not to 1.",
        "wfr_2: The run is over: Success.",
    ]
    assert json.loads(said("cancel", "wfr_1", "--dry-run", "--json"))["will"] == ["wfr_1"]
    assert status_of(run) == "running"


def test_parameters_reach_the_action() -> None:
    make_run(run_id="wfr_1", workflow=ANYTHING, status="success", payload="1")
    said("restart", "wfr_1", "--payload", "[2]")
    assert Run.objects.get(trigger_kind="restart").payload == "[2]"
    said("fork", "wfr_1", "--step", "0")
    assert Run.objects.get(trigger_kind="fork").payload == "1"


def test_a_user_is_asked_for_his_permissions_and_noted() -> None:
    run = make_run(run_id="wfr_1", status="running")
    make_user("clerk")
    refused(1, "cancel", "wfr_1", "--by", "clerk")
    refused(1, "cancel", "--everything", "--by", "clerk")
    assert status_of(run) == "running"
    make_user("boss", "cancel_run")
    said("cancel", "wfr_1", "--by", "boss", "--reason", "ordered twice")
    assert "ordered twice" in LogEntry.objects.get().change_message


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("cancel",), "--everything"),
        (("cancel", "wfr_1", "--status", "failed"), "not both"),
        (("cancel", "wfr_1", "--payload", "1"), "takes no --payload"),
        (("restart", "wfr_1", "--payload", "{"), "no JSON"),
        (("fork", "wfr_1"), "--step"),
        (("fork", "--everything", "--step", "1"), "single runs"),
        (("cancel", "wfr_1", "--by", "nobody"), "nobody"),
    ],
)
def test_bad_input_is_named_and_does_nothing(args: tuple[str, ...], words: str) -> None:
    run = make_run(run_id="wfr_1", status="running")
    assert words in refused(2, *args)
    assert status_of(run) == "running"


def test_an_unknown_run_stops_all() -> None:
    run = make_run(run_id="wfr_1", status="running")
    assert "wfr_none" in refused(1, "cancel", "wfr_1", "wfr_none")
    assert status_of(run) == "running"
