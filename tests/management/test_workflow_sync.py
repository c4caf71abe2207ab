"""`manage.py workflow_sync`."""

from __future__ import annotations

import json
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from django_workflow import WorkflowContext, workflow
from django_workflow.models import Outbox, Run
from tests.mirror.conftest import Hosted, hosted

__all__ = ["hosted"]


@workflow(name="synced", schedule="0 3 * * *")
def synced(ctx: WorkflowContext[None]) -> None:
    ctx.run("work", lambda: None)


def sync(*arguments: str) -> dict[str, Any]:
    out = StringIO()
    call_command("workflow_sync", "--json", *arguments, stdout=out)
    counts: dict[str, Any] = json.loads(out.getvalue())
    return counts


def test_everything_is_brought_together(hosted: Hosted) -> None:
    hosted.away()
    handle = synced.trigger()
    hosted.clock.advance("1m")
    counts = sync()
    assert counts.pop("schedules_made") >= 1
    assert counts == {
        "sent": 1,
        "asked": 1,
        "changed": 0,
        "failed": 0,
        "schedules_deleted": 0,
        "unsent": 0,
        "given_up": 0,
    }
    hosted.run()
    assert handle.run.status == Run.Status.SUCCESS
    out = StringIO()
    call_command("workflow_sync", stdout=out)
    assert "sent: 0, asked: 0" in out.getvalue()


def test_runs_since_are_found(hosted: Hosted) -> None:
    synced.trigger()
    hosted.run()
    Run.objects.all().delete()
    day = hosted.clock.now().date().isoformat()
    assert sync("--since", f"{day}T00:00:00+00:00")["changed"] == 1
    assert sync("--since", "20000d")["changed"] == 0  # known by now


def test_one_run_is_asked_about(hosted: Hosted) -> None:
    handle = synced.trigger()
    hosted.run()
    Run.objects.all().delete()
    assert sync("--run", handle.id) == {"asked": 1, "changed": 1, "failed": 0}
    assert handle.run.status == Run.Status.SUCCESS


def test_trouble_is_an_exit_code(hosted: Hosted) -> None:
    hosted.away(100)
    synced.trigger()
    hosted.clock.advance("1m")
    with pytest.raises(CommandError) as caught:
        sync()
    assert caught.value.returncode == 1
    assert Outbox.objects.unsent().exists()
    with pytest.raises(CommandError) as caught:
        sync("--run", "wfr_1")
    assert caught.value.returncode == 1


@pytest.mark.parametrize("arguments", [("--since", "yesterday"), ("--run", "a b")])
def test_bad_input_is_told(hosted: Hosted, arguments: tuple[str, ...]) -> None:
    with pytest.raises(CommandError) as caught:
        sync(*arguments)
    assert caught.value.returncode == 2


def test_the_embedded_engine_needs_none_of_it(db: None) -> None:
    with pytest.raises(CommandError, match="embedded") as caught:
        sync()
    assert caught.value.returncode == 2
