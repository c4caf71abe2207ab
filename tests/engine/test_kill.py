"""Workers killed without warning, at random points: every run ends, every atomic effect is there once."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from django.db.models import Count

from django_workflow.client.handle import RunHandle
from django_workflow.models import Delivery, JournalEntry, Run, Worker
from tests.effects.models import Effect
from tests.effects.workflows import STEPS, ten_effects
from tests.engine.workers import WorkerProcess, eventually

STEP_SECONDS = 0.02

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.heavy]


def finished_steps(run_id: str) -> int:
    return JournalEntry.objects.filter(run__run_id=run_id).count()


def wait_somewhere(run_id: str, dice: random.Random) -> None:
    """Wait for a random point inside or between the steps of a run."""
    enough = dice.randrange(STEPS)
    eventually(lambda: finished_steps(run_id) >= enough)
    time.sleep(dice.random() * STEP_SECONDS * 1.5)


# A few always, at the same points; what commits at every boundary do is told by tests/faults/test_killed_processes.py.
@pytest.mark.parametrize("kills", [5, pytest.param(20, marks=pytest.mark.slow)])
def test_no_result_is_lost_and_atomic_effects_happen_once_when_workers_are_killed(tmp_path: Path, kills: int) -> None:
    dice = random.Random(20)
    handles: list[RunHandle] = []
    for _ in range(kills):
        with WorkerProcess(log=tmp_path / "worker.log") as worker:
            eventually(lambda: not Run.objects.active().exists())  # what the worker before left behind
            handles.append(ten_effects.trigger(STEP_SECONDS))
            wait_somewhere(handles[-1].id, dice)
            worker.kill()
    with WorkerProcess(log=tmp_path / "worker.log"):
        eventually(lambda: not Run.objects.active().exists())

    assert [handle.run.error for handle in handles] == [""] * kills
    assert [handle.run.status for handle in handles] == [Run.Status.SUCCESS] * kills
    assert not Delivery.objects.exists()
    for handle in handles:
        assert handle.run.result == "[" + ",".join(f'"step {n}"' for n in range(STEPS)) + "]"
        assert finished_steps(handle.id) == STEPS
    counts = Effect.objects.filter(atomic=True).values("run_id", "step").annotate(times=Count("pk"))
    assert {row["times"] for row in counts} == {1}
    assert len(counts) == kills * STEPS // 2
    # The others run at least once: the step that was under way when its worker died may have run again.
    plain = Effect.objects.filter(atomic=False).values("run_id", "step").distinct().count()
    assert plain == kills * STEPS // 2
    assert Effect.objects.filter(atomic=False).count() <= kills * STEPS // 2 + kills


def test_a_worker_drains_on_sigterm_and_leaves_nothing_leased(tmp_path: Path) -> None:
    handle = ten_effects.trigger(0.05)
    with WorkerProcess(log=tmp_path / "worker.log") as worker:
        eventually(lambda: finished_steps(handle.id) >= 3)
        assert worker.stop() == 0
    assert not Delivery.objects.exclude(worker=None).exists()
    assert not Worker.objects.exists()
    steps = finished_steps(handle.id)
    assert 3 <= steps < STEPS
    assert Effect.objects.filter(run_id=handle.id).count() == steps
    with WorkerProcess(log=tmp_path / "worker.log"):
        eventually(lambda: handle.run.is_finished)
    assert Effect.objects.filter(run_id=handle.id).count() == STEPS
