"""Short deliveries share a thread; one that blocks all the same holds up nobody for long."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from threading import Event, Lock, current_thread

import pytest
from django.db import connection

from django_workflow import WorkflowContext, workflow
from django_workflow.engine.short_deliveries import SHORT, Durations, Role
from django_workflow.engine.worker import Worker
from django_workflow.models import Run
from django_workflow.testing import WorkflowClock
from tests.engine.deliveries import Hand, start
from tests.engine.workers import eventually


@pytest.fixture
def running() -> Iterator[Worker]:
    worker = Worker(concurrency=2)
    worker.start()
    yield worker
    assert worker.drain()


class Gate:
    """What the steps of `gated` do: note their thread, and wait if they are told to."""

    def __init__(self) -> None:
        self.threads: list[str] = []
        self.opened = Event()
        self.opened.set()

    def pass_through(self) -> None:
        self.threads.append(current_thread().name)
        assert self.opened.wait(60)


gate = Gate()


@workflow(name="gated")
def gated(ctx: WorkflowContext[None]) -> None:
    ctx.run("gate", gate.pass_through)
    ctx.run("after", dict)


@workflow(name="beside")
def beside(ctx: WorkflowContext[None]) -> None:
    ctx.run("one", dict)


@pytest.mark.django_db
class TestDurations:
    def test_a_delivery_counts_as_short_once_it_was(self, workflow_clock: WorkflowClock) -> None:
        start()
        (lease,) = Hand(workflow_clock).claim()
        durations = Durations()
        assert not durations.is_short(lease)
        durations.note(lease, SHORT / 2)
        assert durations.is_short(lease)
        assert not durations.is_short(replace(lease, position=lease.position + 1))
        assert not durations.is_short(replace(lease, destination="https://elsewhere.example/"))
        assert not durations.is_short(replace(lease, kind="call"))

    def test_one_slow_time_of_a_busy_machine_does_not_count_and_a_blocked_one_does(
        self, workflow_clock: WorkflowClock
    ) -> None:
        start()
        (lease,) = Hand(workflow_clock).claim()
        durations = Durations()
        durations.note(lease, SHORT / 4)
        durations.note(lease, SHORT * 2)
        assert durations.is_short(lease)
        durations.note(lease, 1.0)
        assert not durations.is_short(lease)


class TestRole:
    def test_another_thread_takes_over_while_the_first_is_blocked(self) -> None:
        seen: list[str] = []
        release, lock = Event(), Lock()
        held: list[bool] = []

        def turn() -> bool:
            with lock:
                seen.append(current_thread().name)
                first = len(seen) == 1
            if not first:
                return not release.is_set()
            role.begin()
            release.wait(60)
            held.append(role.end())
            return True

        role = Role("test", turn)
        role.start()
        eventually(lambda: bool(seen))

        def moved() -> bool:
            role.watch()
            return len(set(seen)) > 1

        eventually(moved)
        release.set()
        assert role.wait_for_end(30)
        eventually(lambda: held == [False])

    def test_a_duty_that_raises_is_done_by_nobody(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("threading.excepthook", lambda arguments: None)

        def turn() -> bool:
            raise ZeroDivisionError

        role = Role("test", turn)
        role.start()
        eventually(lambda: not role.alive)
        role._end()


@pytest.mark.django_db(transaction=True)
class TestWorker:
    @pytest.mark.parametrize("runs", [1, 20])
    def test_runs_whose_steps_are_short_leave_the_pool(self, running: Worker, runs: int) -> None:
        role = "committer" if connection.vendor == "sqlite" or runs == 1 else "runner"

        def is_made_there() -> bool:
            gate.threads.clear()
            handles = [gated.trigger() for _ in range(runs)]
            eventually(lambda: all(handle.run.is_finished for handle in handles))
            return any(f"workflow-{role}" in name for name in gate.threads)

        # A loaded machine may take longer for one or the other.
        eventually(is_made_there, timeout=60)

    def test_a_short_delivery_that_blocks_holds_up_no_other_run(self, running: Worker) -> None:
        for flow in (gated, beside):
            handle = flow.trigger()
            eventually(lambda handle=handle: handle.run.is_finished)  # type: ignore[misc]
        running._durations._seconds.update(dict.fromkeys(running._durations._seconds, SHORT / 10))
        gate.opened.clear()
        gate.threads.clear()
        try:
            blocked = gated.trigger()
            eventually(lambda: bool(gate.threads))
            others = [beside.trigger() for _ in range(3)]
            for other in others:
                eventually(lambda other=other: other.run.is_finished)  # type: ignore[misc]
            assert not blocked.run.is_finished
        finally:
            gate.opened.set()
        eventually(lambda: blocked.run.is_finished)
        assert blocked.run.status == Run.Status.SUCCESS
        assert running.healthy

    def test_a_transaction_that_a_step_left_open_swallows_no_result(self, running: Worker) -> None:
        @workflow(name="leaves-a-transaction", retries=0)
        def leaves(ctx: WorkflowContext[None]) -> None:
            ctx.run("leave", lambda: connection.set_autocommit(False))

        for _ in range(3):
            handle = leaves.trigger()
            eventually(lambda handle=handle: handle.run.is_finished)  # type: ignore[misc]
        started = time.monotonic()
        handle = beside.trigger()
        eventually(lambda: handle.run.is_finished)
        assert time.monotonic() - started < 60
