"""`manage.py workflow_worker`: what it says; how it works is tested with whole processes."""

from __future__ import annotations

import gc
import io
import json
import os
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from django.core.management import CommandError, call_command

from django_workflow.management.commands import workflow_worker

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _thawed() -> Iterator[None]:
    """The command runs in this process, whose objects are collected again after it."""
    yield
    gc.unfreeze()


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


class Loaded:
    """Something that a starting worker loads."""


def test_collections_pass_over_what_is_loaded_when_work_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    class Loading(Stuck):
        kept: ClassVar[Loaded]
        dropped: ClassVar[weakref.ref[Loaded]]

        def start(self) -> None:
            kept, dropped = Loaded(), Loaded()
            dropped.itself = dropped  # type: ignore[attr-defined] # only a collection finds it
            Loading.kept, Loading.dropped = kept, weakref.ref(dropped)

        @property
        def healthy(self) -> bool:  # type: ignore[override]
            assert gc.get_freeze_count() > 0
            assert not any(found is Loading.kept for found in gc.get_objects())
            assert Loading.dropped() is None, "garbage was frozen instead of collected"
            assert gc.isenabled()
            return False

    monkeypatch.setattr(workflow_worker, "Supervisor", Loading)
    monkeypatch.setattr(workflow_worker, "HEALTH_INTERVAL", 0.0)
    monkeypatch.setattr("signal.signal", lambda *arguments: None)
    with pytest.raises(SystemExit) as left:
        call_command("workflow_worker", stdout=io.StringIO(), stderr=io.StringIO())
    assert left.value.code == 2


def test_a_worker_of_nothing_is_refused() -> None:
    with pytest.raises(CommandError, match="at least 1"):
        call_command("workflow_worker", "--concurrency", "0")


SIGNALLED = """
import sys, time
import django
django.setup()
from django.core.management import call_command
from django_workflow.management.commands import workflow_worker

class Idle:
    healthy = True
    def __init__(self, concurrency): ...
    def start(self):
        sys.settrace(slowly)
    def stop(self):
        return True

def slowly(*event):  # each line of a handler lasts, so that the next signal finds it at work
    time.sleep(0.001)
    return slowly

workflow_worker.Supervisor = Idle
call_command("workflow_worker")
"""


def test_a_signal_may_come_while_another_is_handled() -> None:
    """`timeout` sends two at once, to the process and to its group; so does an impatient Ctrl-C."""
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-u", "-c", SIGNALLED]
    with subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert "Worker started" in process.stdout.readline()
            for _ in range(10):
                process.send_signal(signal.SIGTERM)
                time.sleep(0.002)
            assert process.wait(20) == 0
        finally:
            process.kill()
