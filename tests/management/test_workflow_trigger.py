from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from django_workflow.management.commands import workflow_trigger
from django_workflow.models import Run
from django_workflow.testing.factories import make_worker
from django_workflow.testing.harness import run_workflows
from tests.api import samples

pytestmark = pytest.mark.django_db
ORDER = '{"order_id": 4, "email": "a@b.c"}'


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def said(*arguments: str, out: io.StringIO | None = None) -> str:
    out = out or io.StringIO()
    call_command("workflow_trigger", *arguments, stdout=out, stderr=io.StringIO())
    return out.getvalue()


def code_of(*arguments: str) -> int:
    with pytest.raises(CommandError) as raised:
        said(*arguments)
    return raised.value.returncode


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drive runs on the test's connection where the command would start a worker in its process."""

    def drive(run_id: str, wait: Callable[[Run], bool]) -> None:
        while not wait(Run.objects.get(run_id=run_id)):
            run_workflows()

    monkeypatch.setattr(workflow_trigger, "drive_inline", drive)


def test_a_run_is_started_and_its_id_printed() -> None:
    run_id = said(samples.PLACE_ORDER, ORDER, "--label", "vip", "--label", "eu", "--run-id", "order-4").strip()
    run = Run.objects.get()
    assert run_id == run.run_id == "wfr_order-4"
    assert run.label_list == ["vip", "eu"]
    assert run.trigger_kind == Run.TriggerKind.CODE
    assert json.loads(said(samples.ANYTHING, "--json")) == {"workflowRunId": Run.objects.latest("created_at").run_id}


def test_the_payload_may_come_from_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(ORDER.encode())))
    said(samples.PLACE_ORDER, "-")
    assert json.loads(Run.objects.get().payload) == json.loads(ORDER)


@pytest.mark.usefixtures("inline")
def test_wait_follows_the_steps_to_the_end() -> None:
    text = said(samples.PLACE_ORDER, ORDER, "--wait")
    assert "done      1 reserve stock" in text
    assert "done      2 send mail" in text
    assert "Success: wfr_" in text
    assert "400 to a@b.c" in text


@pytest.mark.usefixtures("inline")
def test_a_terminal_gets_a_bar_that_is_cleared_at_the_end() -> None:
    text = said(samples.PLACE_ORDER, ORDER, "--wait", out=Terminal())
    assert "[         queued         ] 0 steps" in text
    assert text.split("\r\x1b[K")[-1].startswith("\x1b[") or "Success" in text.split("\r\x1b[K")[-1]


@pytest.mark.usefixtures("inline")
def test_wait_as_json_prints_the_run_and_nothing_else() -> None:
    run = json.loads(said(samples.PLACE_ORDER, ORDER, "--wait", "--json"))
    assert (run["status"], run["result"]) == ("success", "400 to a@b.c")
    assert [step["name"] for step in run["steps"]] == ["reserve stock", "send mail"]


@pytest.mark.usefixtures("inline")
def test_a_failed_run_exits_with_1() -> None:
    with pytest.raises(CommandError, match="no stock") as raised:
        said(samples.FAILING, "--wait")
    assert raised.value.returncode == 1


def test_with_a_worker_alive_the_command_only_looks_on() -> None:
    make_worker(heartbeat_at=timezone.now())
    with pytest.raises(CommandError, match="Still going on") as raised:
        said(samples.PLACE_ORDER, ORDER, "--timeout", "0.2")
    assert raised.value.returncode == 3
    assert Run.objects.get().status == Run.Status.QUEUED


def test_ctrl_c_leaves_the_run_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(workflow_trigger, "drive_inline", interrupt)
    assert code_of(samples.ANYTHING, "--wait") == 130
    assert Run.objects.get().status == Run.Status.QUEUED


@pytest.mark.parametrize(
    "arguments",
    [
        ["nothing"],
        [samples.PLACE_ORDER, '{"order_id": "x", "email": "y"}'],
        [samples.PLACE_ORDER, "{oops"],
        [samples.ANYTHING, "--run-id", "a b"],
        [samples.ANYTHING, "--label", "a,b"],
        [samples.ANYTHING, "--timeout", "soon"],
    ],
)
def test_bad_input_exits_with_2_and_starts_nothing(arguments: list[str]) -> None:
    assert code_of(*arguments) == 2
    assert not Run.objects.exists()


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        ([], " Give it behind the name, as JSON."),
        (["{oops"], "It has to be JSON, but is '{oops'; text has quotes of its own"),
    ],
)
def test_a_payload_that_is_none_is_told_how_to_give_it(payload: list[str], words: str) -> None:
    with pytest.raises(CommandError) as raised:
        said(samples.PLACE_ORDER, *payload)
    assert words in str(raised.value)


def test_a_run_that_nobody_is_there_to_drive_is_told() -> None:
    err = io.StringIO()
    call_command("workflow_trigger", samples.ANYTHING, stdout=io.StringIO(), stderr=err)
    assert err.getvalue() == "No worker is alive: the run waits for manage.py workflow_worker, or say --wait.\n"
    make_worker(heartbeat_at=timezone.now())
    err = io.StringIO()
    call_command("workflow_trigger", samples.ANYTHING, stdout=io.StringIO(), stderr=err)
    assert err.getvalue() == ""
