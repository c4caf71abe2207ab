"""Runs workflows in a test: everything that is due, one delivery after the other, on the test's own connection."""

from __future__ import annotations

from collections import deque
from datetime import datetime
from typing import Any
from uuid import UUID

from django_workflow.client.client import get_client
from django_workflow.conf import get_settings
from django_workflow.engine import cycle, scheduler, waiters
from django_workflow.engine.after import After
from django_workflow.engine.clock import current_clock
from django_workflow.engine.committer import Writer
from django_workflow.engine.dispatch import Dispatcher
from django_workflow.engine.facts import Fact
from django_workflow.engine.leases import claim
from django_workflow.engine.records import Lease
from django_workflow.engine.shared import remember, send_signals, shared_cache
from django_workflow.errors import Misconfigured
from django_workflow.protocol.identifiers import uuid7
from django_workflow.protocol.requests import Notified
from django_workflow.testing.calls import current_network
from django_workflow.testing.clock import WorkflowClock

LARGEST_RUN = 100_000


class Harness:
    """The engine's cycle without threads. `trusted=False` sends every message through its wire form, signed."""

    def __init__(self, *, trusted: bool = True, batch: int = 16) -> None:
        if get_settings().is_hosted:
            raise Misconfigured(
                'The engine is hosted ("engine": "qstash"), and no test can drive it. In the settings of your tests '
                'write DJANGO_WORKFLOW = {**DJANGO_WORKFLOW, "engine": "embedded", "base_url": None}.'
            )
        self.alias = get_settings().database
        self.worker_key: UUID = uuid7()
        self.batch = batch
        self.deliveries = 0
        cache = shared_cache(self.alias)
        self._dispatcher = Dispatcher(self.alias, cache, self._now, current_network[-1], trusted=trusted)
        self._writer = Writer(self.alias, self.worker_key, cache, self._now, may_continue=lambda lease: True)
        self._ready: deque[Lease] = deque()

    def _now(self) -> datetime:
        return current_clock().now()

    def run_due(self) -> int:
        """Make every delivery that is due, and those that follow from them. Returns how many were made."""
        before = self.deliveries
        while self._fill():
            self._deliver(self._ready.popleft())
            if self.deliveries - before > LARGEST_RUN:
                raise AssertionError(f"More than {LARGEST_RUN} deliveries: a workflow seems to run for ever.")
        return self.deliveries - before

    def next_due_at(self) -> datetime | None:
        """When a run has something due next: a sleep, a retry, a deadline. Schedules are not run ahead of."""
        found = claim(self.alias, self.worker_key, self._now(), 1)
        self._ready.extend(found.leases)
        if found.leases:
            return self._now()
        instants = (found.next_due_at, waiters.next_deadline(self.alias))
        return min((at for at in instants if at is not None), default=None)

    def _fill(self) -> bool:
        if not self._ready:
            for after in (
                cycle.end_overdue_waits(self.alias, self._now()),
                cycle.fire_schedules(self.alias, self._now()),
            ):
                if after is not None:
                    self._follow(after)
            self._ready.extend(claim(self.alias, self.worker_key, self._now(), self.batch).leases)
        return bool(self._ready)

    def _deliver(self, lease: Lease) -> None:
        self.deliveries += 1
        self._dispatcher.network = current_network[-1]
        reported: list[Fact] = []
        dispatched = self._dispatcher.dispatch(lease, reported.append)
        if dispatched.after is not None:
            self._follow(dispatched.after)
        else:
            self._follow(self._writer.write([*reported, dispatched.settlement]).after)

    def _follow(self, after: After) -> None:
        remember(self.alias, after)
        self._ready.extend(after.followups)
        send_signals(self.alias, after)


def run_workflows(*, skip_delays: bool = False, declare_schedules: bool = False, trusted: bool = True) -> int:
    """Run everything that is due, to its end or to its next wait. Returns the number of deliveries made.

    `skip_delays` moves the test's clock (see `workflow_clock`) over sleeps, retries and deadlines until nothing is
    left to do. `declare_schedules` writes the schedules that workflows declare first.
    """
    harness = Harness(trusted=trusted)
    if declare_schedules:
        scheduler.reconcile(harness.alias, current_clock().now())
    made = harness.run_due()
    clock = current_clock()
    while skip_delays:
        due = harness.next_due_at()
        if due is None:
            break
        if not isinstance(clock, WorkflowClock):
            raise AssertionError("run_workflows(skip_delays=True) moves time: use it inside workflow_clock().")
        clock.move_to(max(due, clock.now()))
        made += harness.run_due()
    return made


def send_event(event_id: str, data: Any = None, *, run: Any = None) -> tuple[Notified, ...]:
    """Send an event to whoever waits for it; with `run` (a Run, handle or id) it is kept for that run's next wait."""
    run_id = getattr(run, "run_id", None) or getattr(run, "id", None) or run
    return tuple(get_client().notify(event_id, data, run_id=run_id))
