"""The worker of a hosted site: its duties, its life."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.test import override_settings

from django_workflow import WorkflowContext, workflow
from django_workflow.asgi import make_worker, wants_worker
from django_workflow.engine.supervisor import Supervisor
from django_workflow.mirror import worker as module
from django_workflow.mirror.worker import HostedWorker
from django_workflow.models import Outbox, Run, Schedule, Worker
from tests.engine.workers import eventually
from tests.mirror.conftest import Hosted


@workflow(name="tended", schedule="0 3 * * *")
def tended(ctx: WorkflowContext[None]) -> None:
    ctx.run("work", lambda: None)


@pytest.fixture
def working(hosted: Hosted, monkeypatch: pytest.MonkeyPatch) -> Iterator[HostedWorker]:
    """A worker whose threads share the test's pretended network."""
    monkeypatch.setattr(module, "SEND_EVERY", 0.01)
    monkeypatch.setattr(module, "CHECK_EVERY", 0.01)
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.02)
    worker = HostedWorker()
    yield worker
    worker.stop()


def test_it_sends_what_waits_asks_about_silent_runs_and_makes_schedules(hosted: Hosted, working: HostedWorker) -> None:
    hosted.away()
    handle = tended.trigger()
    hosted.clock.advance("1m")
    working.start()
    working.start()  # does nothing
    eventually(lambda: not Outbox.objects.unsent().exists())
    eventually(lambda: Schedule.objects.filter(workflow="tended").exists())
    Run.objects.filter(run_id=handle.id).update(check_at=hosted.clock.now())
    asked = hosted.asked("GET", "/v2/workflows/")
    eventually(lambda: hosted.asked("GET", "/v2/workflows/") > asked)
    assert working.healthy
    assert working.stop()
    assert working.wait(1)


def test_it_reports_and_takes_its_leave(hosted: Hosted, working: HostedWorker) -> None:
    working.start()
    eventually(lambda: Worker.objects.filter(heartbeat__gte=2).exists())
    Worker.objects.all().delete()  # taken for dead, say after the machine slept
    eventually(lambda: Worker.objects.exists())
    working.stop()
    eventually(lambda: not Worker.objects.exists())


def test_it_goes_on_when_the_engine_is_away_and_says_so_once(
    hosted: Hosted, working: HostedWorker, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RECONCILE_AGAIN", 0.01)
    hosted.away(6)
    with caplog.at_level(logging.WARNING, "django_workflow.worker"):
        working.start()
        eventually(lambda: Schedule.objects.filter(workflow="tended").exists())
    told = [record for record in caplog.records if "the schedules" in record.getMessage()]
    assert len(told) == 1
    assert working.healthy


def test_it_prunes(hosted: Hosted, settings: Any) -> None:
    handle = tended.trigger()
    hosted.run()
    Run.objects.filter(run_id=handle.id).update(finished_at=hosted.clock.now() - timedelta(days=31))
    Outbox.objects.update(sent_at=hosted.clock.now() - timedelta(days=2))
    module.prune()
    assert not Run.objects.exists()
    assert not Outbox.objects.exists()


HOSTED = {"engine": "qstash", "token": "t", "base_url": "https://shop.example"}


def test_a_server_process_starts_the_worker_that_fits_its_engine() -> None:
    with override_settings(DJANGO_WORKFLOW={**HOSTED, "worker_autostart": True}):
        assert wants_worker()
        assert isinstance(make_worker(), HostedWorker)
    with override_settings(DJANGO_WORKFLOW={**HOSTED, "worker_autostart": False}):
        assert not wants_worker()
    with override_settings(DJANGO_WORKFLOW={}):
        assert isinstance(make_worker(), Supervisor)


def test_the_command_runs_it(hosted: Hosted, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    import signal

    started: list[str] = []

    class Fake(HostedWorker):
        def start(self) -> None:
            started.append("hosted")
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("django_workflow.management.commands.workflow_worker.HostedWorker", Fake)
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(SystemExit) as ended:
            call_command("workflow_worker")
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])
    assert (ended.value.code, started) == (0, ["hosted"])
