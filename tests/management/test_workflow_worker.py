"""`manage.py workflow_worker`: what it says; how it works is tested with whole processes."""

from __future__ import annotations

import io
import json
from typing import Any, ClassVar

import pytest
from django.core.management import CommandError, call_command

from django_workflow.management.commands import workflow_worker


class Stuck:
    """Stands for a pool that nothing moves in."""

    healthy = False
    concurrency: ClassVar[int | None] = None

    def __init__(self, concurrency: int | None) -> None:
        Stuck.concurrency = concurrency

    def start(self) -> None:
        pass


def test_programs_are_told_by_lines_of_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workflow_worker, "Supervisor", Stuck)
    monkeypatch.setattr(workflow_worker, "HEALTH_INTERVAL", 0.0)
    monkeypatch.setattr("signal.signal", lambda *arguments: None)
    out = io.StringIO()
    with pytest.raises(SystemExit) as left:
        call_command("workflow_worker", "--json", "--concurrency", "3", stdout=out, stderr=io.StringIO())
    assert left.value.code == 2
    lines: list[dict[str, Any]] = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["started", "stuck"]
    assert all(set(line) == {"event", "at", "pid"} for line in lines)
    assert Stuck.concurrency == 3


def test_a_worker_of_nothing_is_refused() -> None:
    with pytest.raises(CommandError, match="at least 1"):
        call_command("workflow_worker", "--concurrency", "0")
