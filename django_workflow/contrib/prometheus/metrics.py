"""What is counted in this process, from the package's signals: runs, steps, failures.

Names of steps are no labels: code may make them up (`import chunk 17`), and each would be a time series for ever.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from django.dispatch import Signal
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram, multiprocess

from django_workflow import signals
from django_workflow.contrib.prometheus.collector import DatabaseCollector
from django_workflow.engine.meters import use_meter
from django_workflow.models import Run, Step

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
LONG_SECONDS = (0.1, 0.5, 1, 5, 15, 60, 300, 1800, 3600, 6 * 3600, 86_400, 7 * 86_400, 30 * 86_400)

runs_started = Counter("workflow_runs_started", "Runs whose first call was accepted.", ["workflow"])
runs_finished = Counter("workflow_runs_finished", "Runs that reached their end.", ["workflow", "status"])
run_seconds = Histogram(
    "workflow_run_duration_seconds", "From creation to end.", ["workflow", "status"], buckets=LONG_SECONDS
)
step_seconds = Histogram(
    "workflow_step_duration_seconds", "From a step's start to its result.", ["workflow", "type"], buckets=SECONDS
)
step_failures = Counter("workflow_step_failures", "Attempts that failed.", ["workflow", "will_retry"])
deliveries_failed = Counter("workflow_deliveries_failed", "Deliveries that were given up.", ["workflow"])

commit_facts = Histogram(
    "workflow_commit_facts",
    "Facts (results, acknowledgements, starts) that one transaction of a worker wrote.",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
)
write_lock_seconds = Counter(
    "workflow_write_lock_seconds", "Time with SQLite's write lock; its rate is the share of the time that it is taken."
)


class EngineMeter:
    """Implements `engine.meters.Meter`."""

    def committed(self, facts: int) -> None:
        commit_facts.observe(facts)

    def wrote(self, seconds: float) -> None:
        write_lock_seconds.inc(seconds)


def connect() -> None:
    """Count from now on, and have the registry ask the database."""
    receivers: dict[Signal, Callable[..., None]] = {
        signals.run_started: _run_started,
        signals.run_finished: _run_finished,
        signals.step_completed: _step_completed,
        signals.step_failed: _step_failed,
        signals.delivery_failed: _delivery_failed,
    }
    for signal, receiver in receivers.items():
        signal.connect(receiver, dispatch_uid=f"django_workflow.prometheus.{receiver.__name__}")
    use_meter(EngineMeter())
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR") is None:
        REGISTRY.register(DatabaseCollector())


def registry() -> CollectorRegistry:
    """What this process knows; with PROMETHEUS_MULTIPROC_DIR what all of them do, and the database once."""
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR") is None:
        return REGISTRY
    together = CollectorRegistry()
    multiprocess.MultiProcessCollector(together)  # type: ignore[no-untyped-call, unused-ignore]
    together.register(DatabaseCollector())
    return together


def _run_started(sender: Any, run: Run, **kwargs: Any) -> None:
    runs_started.labels(run.workflow).inc()


def _run_finished(sender: Any, run: Run, **kwargs: Any) -> None:
    runs_finished.labels(run.workflow, run.status).inc()
    if run.finished_at is not None:
        run_seconds.labels(run.workflow, run.status).observe((run.finished_at - run.created_at).total_seconds())


def _step_completed(sender: Any, run: Run, step: Step | None, **kwargs: Any) -> None:
    if step is not None and step.duration is not None:
        step_seconds.labels(run.workflow, step.step_type).observe(step.duration.total_seconds())


def _step_failed(sender: Any, run: Run, will_retry: bool, **kwargs: Any) -> None:
    step_failures.labels(run.workflow, "yes" if will_retry else "no").inc()


def _delivery_failed(sender: Any, run: Run | None = None, **kwargs: Any) -> None:
    deliveries_failed.labels("" if run is None else run.workflow).inc()
