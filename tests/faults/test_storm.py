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
    [(300, 40, 60), pytest.param(10_000, 400, 1800, marks=pytest.mark.slow)],
    ids=["300 runs", "10,000 runs"],
)
def test_runs_in_a_storm(nursery: Nursery, runs: int, commits: int, patience: float) -> None:
    # So many that hardly a run has to do with six of them, each of which has a dozen in hand when it dies. A busy
    # machine needs more commits for the same work, and would kill more.
    most_killed = 8 if runs < 1000 else runs // 100
    dice = random.Random(runs)
    with transaction.atomic():
        for number in range(runs):
            stormy.trigger(number)
    killed = 0
    while not all_over():
        points = [dice.choice(POINTS[:3]), dice.choice(("deadlock", "serialization", "unanswered"))]
        crash = (points[0], dice.randrange(commits // 2, commits)) if killed < most_killed else None
        worker = nursery.worker(
            crash=crash,
            refusal=(points[1], 20),
            concurrency=8,
            # A lease whose commit was not answered is given back two heartbeats later.
            patches={"django_workflow.engine.worker:HEARTBEAT_SECONDS": 0.2},
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

    hopeless = set(range(HOPELESS - 1, runs, HOPELESS))
    ended = {int(payload): (status, result, error) for payload, status, result, error in _ends()}
    # One that had to do with six workers that died is given up, by right. That few have to is a matter of chance.
    lost = {n for n, end in ended.items() if end[0] == Run.Status.FAILED and end[2].startswith("worker lost: 6 ")}
    assert len(lost) <= runs / 100, lost
    assert {n: end[2] for n, end in ended.items() if end[0] == Run.Status.FAILED and n not in lost} == {
        n: f"WorkflowNonRetryableError: {n} is hopeless" for n in hopeless - lost
    }
    failed = hopeless | lost
    assert all(end == (Run.Status.SUCCESS, f"[{n},{n}]", "") for n, end in ended.items() if n not in failed)
    assert DeadLetter.objects.count() == len(failed)
    atomic = Effect.objects.filter(atomic=True).values("run_id").annotate(times=Count("pk"))
    assert {row["times"] for row in atomic} == {1}
    assert runs - len(lost) <= len(atomic) <= runs
    assert_sound()


def _ends() -> list[tuple[str, str, str | None, str]]:
    return list(Run.objects.values_list("payload", "status", "result", "error"))
