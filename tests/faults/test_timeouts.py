"""Steps that do not return: a thread cannot be ended, so they are reported, keep their lease, and are not run twice.

With half of the pool stuck so, the worker is unhealthy, and `workflow_worker` leaves with exit code 2.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from django_workflow import WorkflowContext, workflow
from django_workflow.engine import worker as worker_module
from django_workflow.engine.worker import Worker
from django_workflow.models import Attempt, Delivery
from tests.effects.models import Effect
from tests.effects.workflows import EVERY_RESULT, every_kind, stuck
from tests.engine.workers import eventually
from tests.faults.invariants import all_over, assert_sound, broken_rules
from tests.faults.nursery import Nursery

pytestmark = pytest.mark.django_db(transaction=True)


class Stuck:
    """A step that does not return before it may."""

    def __init__(self) -> None:
        self.calls = 0
        self.may_return = Event()

    def __call__(self) -> int:
        self.calls += 1
        assert self.may_return.wait(60)
        return self.calls


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch, settings: Any) -> Iterator[Worker]:
    settings.DJANGO_WORKFLOW = {"request_timeout": 0.1}
    monkeypatch.setattr(worker_module, "HEARTBEAT_SECONDS", 0.05)
    worker = Worker(concurrency=4)
    worker.start()
    yield worker
    assert worker.drain()


def test_a_step_past_its_timeout_is_reported_and_runs_once(running: Worker, caplog: pytest.LogCaptureFixture) -> None:
    first, second = Stuck(), Stuck()

    @workflow(name="past-its-timeout", retries=3, retry_delay=0)
    def past_its_timeout(ctx: WorkflowContext[int]) -> int:
        return ctx.run("stay", (first, second)[ctx.request_payload])

    def overdue() -> list[str]:
        messages = (record.getMessage() for record in caplog.records)
        return [message for message in messages if "is past request_timeout" in message]

    handles = [past_its_timeout.trigger(0)]
    eventually(lambda: len(overdue()) == 1)
    assert "'stay'" in overdue()[0]
    assert handles[0].id in overdue()[0]
    assert running.healthy
    assert Delivery.objects.get().worker_id == running.key
    other = every_kind.trigger(0.0)
    eventually(lambda: other.run.is_finished)  # the rest of the pool works on
    assert other.run.result == EVERY_RESULT

    handles.append(past_its_timeout.trigger(1))
    eventually(lambda: len(overdue()) == 2)
    assert not running.healthy  # two of four
    assert broken_rules() == []
    for step in (first, second):
        step.may_return.set()
    eventually(all_over)
    eventually(lambda: running.healthy)
    assert [handle.run.result for handle in handles] == ["1", "1"]
    assert not Attempt.objects.exists()


def test_a_worker_with_a_stuck_pool_leaves_and_another_runs_its_steps(nursery: Nursery, tmp_path: Path) -> None:
    release = tmp_path / "release"
    handle = stuck.trigger(str(release))
    patches = {
        "django_workflow.management.commands.workflow_worker:HEALTH_INTERVAL": 0.05,
        "django_workflow.engine.worker:HEARTBEAT_SECONDS": 0.05,
    }
    worker = nursery.worker(concurrency=1, settings={"request_timeout": 0.1}, patches=patches)
    assert worker.wait() == 2
    assert Effect.objects.count() == 1
    release.touch()
    last = nursery.worker()
    eventually(all_over)
    assert last.stop() == 0
    assert handle.run.result == "2"  # at least once: the first one was cut off
    assert_sound()
