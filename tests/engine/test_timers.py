"""A worker's looks for waits that end and schedules that fire: in time, and few."""

from __future__ import annotations

from typing import Any

import pytest

from django_workflow.engine import timers
from django_workflow.engine.timers import LOOK_SECONDS, Timers
from django_workflow.engine.transport import EngineTransport
from django_workflow.models import Waiter
from django_workflow.protocol.requests import Wait
from django_workflow.testing import WorkflowClock
from tests.engine.deliveries import ALIAS, message, start, step

pytestmark = pytest.mark.django_db


class Monotonic:
    """Stands in for `time`: seconds pass when they are told to."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture
def monotonic(monkeypatch: pytest.MonkeyPatch) -> Monotonic:
    clock = Monotonic()
    monkeypatch.setattr(timers, "time", clock)
    return clock


def wait(timeout: float) -> None:
    run = start()
    waiting = step(1, None, step_type="Wait")
    EngineTransport().send(Wait(event_id="go", message=message(run.run_id), step=waiting, timeout=timeout))


def test_one_look_serves_many_claims(
    workflow_clock: WorkflowClock, monotonic: Monotonic, django_assert_num_queries: Any
) -> None:
    found = Timers(ALIAS)
    with django_assert_num_queries(2):
        for _ in range(10):
            assert found.keep(workflow_clock.now()) == []
    monotonic.seconds += LOOK_SECONDS
    with django_assert_num_queries(2):
        found.keep(workflow_clock.now())


def test_whoever_did_not_look_knows_when_to(workflow_clock: WorkflowClock, monotonic: Monotonic) -> None:
    """Else a worker would sleep through the end of a wait that began since the last look."""
    found = Timers(ALIAS)
    found.keep(workflow_clock.now())
    assert found.again_in is None
    monotonic.seconds += LOOK_SECONDS / 4
    found.keep(workflow_clock.now())
    assert found.again_in == pytest.approx(LOOK_SECONDS * 3 / 4)


def test_a_wait_that_begins_after_a_look_ends_in_time(workflow_clock: WorkflowClock, monotonic: Monotonic) -> None:
    found = Timers(ALIAS)
    found.keep(workflow_clock.now())
    wait(1)
    for _ in range(4):
        workflow_clock.advance(LOOK_SECONDS)
        monotonic.seconds += LOOK_SECONDS
        after = found.keep(workflow_clock.now())
    assert len(after) == 1
    assert Waiter.objects.get().state == Waiter.State.TIMED_OUT


def test_what_is_due_is_not_put_off(workflow_clock: WorkflowClock, monotonic: Monotonic) -> None:
    wait(0.1)
    found = Timers(ALIAS)
    assert found.keep(workflow_clock.now()) == []
    assert found.next_at is not None
    workflow_clock.advance(0.1)
    assert len(found.keep(workflow_clock.now())) == 1
    assert found.next_at is None
