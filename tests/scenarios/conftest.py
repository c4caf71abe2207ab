"""Every scenario runs over each edge: in process as a project runs it, and with every message through its wire form,
signed, with nothing handed back and no journal by reference."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from django_workflow.apps import make_transport
from django_workflow.client.transports import WireTransport, use_transport
from django_workflow.models import Delivery, Run
from django_workflow.testing import WorkflowClock, run_workflows, workflow_clock


@dataclass
class Engine:
    """Drives the runs of one scenario."""

    clock: WorkflowClock
    trusted: bool

    def run(self, *, skip_delays: bool = False, declare_schedules: bool = False) -> int:
        return run_workflows(skip_delays=skip_delays, declare_schedules=declare_schedules, trusted=self.trusted)

    def finish(self, handle: Any, *, skip_delays: bool = True) -> Run:
        """Run everything to its end; the run, which must have succeeded and left nothing behind."""
        self.run(skip_delays=skip_delays)
        run = handle.run
        assert run.status == Run.Status.SUCCESS, f"{run.status}: {run.error} {run.why}"
        assert not Delivery.objects.exists()
        return run

    def fail(self, handle: Any) -> Run:
        """Run everything to its end; the run, which must have failed and left nothing behind."""
        self.run(skip_delays=True)
        run = handle.run
        assert run.status == Run.Status.FAILED, f"{run.status}: {run.why}"
        assert not Delivery.objects.exists()
        return run


@pytest.fixture(params=["in_process", "on_the_wire"])
def engine(request: pytest.FixtureRequest, db: None) -> Iterator[Engine]:
    trusted = request.param == "in_process"
    if not trusted:
        use_transport(lambda: WireTransport(make_transport()))
    try:
        with workflow_clock() as clock:
            yield Engine(clock, trusted)
    finally:
        use_transport(make_transport)
