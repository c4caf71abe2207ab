"""Rows for tests, stating only what a test is about."""

from __future__ import annotations

from typing import Any

from django_workflow.engine.clock import current_clock
from django_workflow.models import Delivery, Run, Step, Waiter, Worker
from django_workflow.protocol.identifiers import new_run_id


def make_run(**values: Any) -> Run:
    """A run without deliveries."""
    defaults = {
        "run_id": new_run_id(),
        "workflow": "sample",
        "url": "https://workflow.internal/workflows/serve/sample/",
        "created_at": current_clock().now(),
    }
    return Run.objects.create(**{**defaults, **values})


def make_step(run: Run | None = None, **values: Any) -> Step:
    """A finished step."""
    run = run or make_run()
    now = current_clock().now()
    defaults = {
        "step_id": run.steps.count() + 1,
        "name": "sample step",
        "step_type": "Run",
        "status": Step.Status.SUCCESS,
        "queued_at": now,
        "started_at": now,
        "finished_at": now,
    }
    return Step.objects.create(run=run, **{**defaults, **values})


def make_delivery(run: Run | None = None, **values: Any) -> Delivery:
    """A delivery that is due now."""
    run = run or make_run()
    now = current_clock().now()
    defaults = {"message_key": run.pk, "solo": True, "destination": run.url, "due_at": now, "created_at": now}
    return Delivery.objects.create(run=run, **{**defaults, **values})


def make_waiter(run: Run | None = None, **values: Any) -> Waiter:
    """A wait without a deadline."""
    run = run or make_run()
    defaults = {
        "event_id": "sample-event",
        "step": '{"stepId":1,"stepName":"wait","stepType":"Wait","concurrent":1}',
        "step_id": 1,
        "step_name": "wait",
        "created_at": current_clock().now(),
    }
    return Waiter.objects.create(run=run, **{**defaults, **values})


def make_worker(**values: Any) -> Worker:
    """A worker on another host."""
    now = current_clock().now()
    defaults = {"host": "elsewhere", "pid": 1, "concurrency": 1, "started_at": now, "heartbeat_at": now}
    return Worker.objects.create(**{**defaults, **values})
