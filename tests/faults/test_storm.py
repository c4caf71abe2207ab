"""Many runs while everything fails now and then: steps, commits, answers of commits, workers. Seeded.

One attempt in twenty fails in its step; one commit in twenty is refused, or is made and not answered; each worker is
killed after some commits more, before, during or after one, and another takes its place.
"""

from __future__ import annotations

import random

import pytest
from django.db import transaction
from django.db.models import Count

from django_workflow.models import DeadLetter, Delivery, Run, Worker
from tests.effects.models import Effect
from tests.effects.workflows import HOPELESS, stormy
from tests.engine.workers import eventually
from tests.faults.crashes import POINTS
from tests.faults.invariants import all_over, assert_sound
from tests.faults.nursery import Nursery

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize(
    ("runs", "commits", "patience"),
    # So many runs that none has to do with six workers that die: it would be given up.
    [(300, 40, 60), pytest.param(10_000, 400, 1800, marks=pytest.mark.slow)],
    ids=["300 runs", "10,000 runs"],
)
def test_runs_in_a_storm(nursery: Nursery, runs: int, commits: int, patience: float) -> None:
    dice = random.Random(runs)
    with transaction.atomic():
        for number in range(runs):
            stormy.trigger(number)
    killed = 0
    while not all_over():
        points = [dice.choice(POINTS[:3]), dice.choice(("deadlock", "serialization", "unanswered"))]
        worker = nursery.worker(
            crash=(points[0], dice.randrange(commits // 2, commits)), refusal=(points[1], 20), concurrency=8
        )
        eventually(lambda worker=worker: all_over() or worker.ended(), patience, every=0.05)  # type: ignore[misc]
        killed += worker.ended()
        worker.kill()
    assert killed
    last = nursery.worker()
    # Failure callbacks, and what the workers before left behind.
    eventually(
        lambda: not Delivery.objects.exists() and list(Worker.objects.values_list("pid", flat=True)) == [last.pid]
    )
    assert last.stop() == 0

    failed = set(range(HOPELESS - 1, runs, HOPELESS))
    ended = {int(payload): (status, result, error) for payload, status, result, error in _ends()}
    assert {n: end[2] for n, end in ended.items() if end[0] == Run.Status.FAILED} == {
        n: f"WorkflowNonRetryableError: {n} is hopeless" for n in failed
    }
    assert all(end == (Run.Status.SUCCESS, f"[{n},{n}]", "") for n, end in ended.items() if n not in failed)
    assert DeadLetter.objects.count() == len(failed)
    atomic = Effect.objects.filter(atomic=True).values("run_id").annotate(times=Count("pk"))
    assert {row["times"] for row in atomic} == {1}
    assert len(atomic) == runs
    assert_sound()


def _ends() -> list[tuple[str, str, str | None, str]]:
    return list(Run.objects.values_list("payload", "status", "result", "error"))
