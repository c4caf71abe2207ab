"""A worker that stands still past its lease, and goes on: others have done its work, and it writes nothing."""

from __future__ import annotations

from threading import Event

import pytest
from django.db import transaction

from django_workflow.models import Delivery, JournalEntry, Run, Worker
from tests.effects.models import Effect
from tests.effects.workflows import every_kind
from tests.engine.workers import eventually
from tests.faults.invariants import all_over, assert_all_done, assert_sound
from tests.faults.nursery import Child, Nursery

pytestmark = pytest.mark.django_db(transaction=True)

SHORT = {"worker_timeout": 4}
STEP_SECONDS = 0.1


def freeze_between_transactions(worker: Child) -> None:
    """A worker that is frozen inside of a transaction keeps its rows locked until its connection ends."""
    while True:
        worker.freeze()
        with transaction.atomic():
            free = (
                len(Run.objects.select_for_update(skip_locked=True)),
                len(Delivery.objects.select_for_update(skip_locked=True)),
            )
            if free == (Run.objects.count(), Delivery.objects.count()):
                return
        worker.thaw()
        Event().wait(0.02)


@pytest.mark.postgresql
@pytest.mark.mariadb
@pytest.mark.parametrize(
    "results", [1, pytest.param(3, marks=pytest.mark.slow), pytest.param(6, marks=pytest.mark.slow)]
)
def test_another_worker_takes_over_and_the_frozen_one_writes_nothing(nursery: Nursery, results: int) -> None:
    handles = [every_kind.trigger(STEP_SECONDS) for _ in range(4)]
    frozen = nursery.worker(settings=SHORT)
    eventually(lambda: JournalEntry.objects.exclude(step_id=None).count() >= results)
    freeze_between_transactions(frozen)
    other = nursery.worker(settings=SHORT)
    eventually(all_over)
    frozen.thaw()
    eventually(lambda: Worker.objects.count() == 2)  # it has learnt that it was taken for dead, and is listed again
    late = every_kind.trigger(0.0)
    eventually(all_over)
    assert (frozen.stop(), other.stop()) == (0, 0)
    assert_all_done([*handles, late])


@pytest.mark.sqlite
def test_the_only_worker_of_a_file_goes_on_where_it_stood(nursery: Nursery) -> None:
    """Its lock on the file keeps others out while it lives, frozen or not."""
    handles = [every_kind.trigger(STEP_SECONDS) for _ in range(3)]
    frozen = nursery.worker()
    eventually(lambda: Effect.objects.exists())
    frozen.freeze()
    standby = nursery.worker()
    frozen.thaw()
    eventually(all_over)
    assert (frozen.stop(), standby.stop()) == (0, 0)
    assert_all_done(handles)
    assert_sound()
