"""What waits, read from the database at each scrape: the same facts as the admin's health page."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from django.db import DatabaseError, InterfaceError
from django.db.models import Count
from django.utils import timezone
from prometheus_client.core import GaugeMetricFamily

from django_workflow.models import Run
from django_workflow.presentation import lookup
from django_workflow.presentation.health import Health, read_health

logger = logging.getLogger("django_workflow.prometheus")


class DatabaseCollector:
    """Registered with a registry of prometheus_client; asks nothing before the first scrape."""

    def describe(self) -> list[Any]:
        return []

    def collect(self) -> Iterator[Any]:
        now = timezone.now()
        try:
            health = read_health(now)
            active = dict(lookup.runs().active().order_by().values_list("status").annotate(number=Count("pk")))
        except (DatabaseError, InterfaceError) as error:
            logger.warning("Nothing could be read for a scrape: %s", error)
            yield _gauge("workflow_database_up", "Whether the database answered this scrape.", 0)
            return
        yield _gauge("workflow_database_up", "Whether the database answered this scrape.", 1)
        yield _active_runs(active)
        yield from _gauges(health, now)


def _active_runs(found: dict[str, int]) -> Any:
    family = GaugeMetricFamily("workflow_runs_active", "Runs that are not over, by status.", labels=["status"])
    for status in sorted(set(Run.Status.values) - set(Run.FINAL)):
        family.add_metric([status], found.get(status, 0))
    return family


def _gauges(health: Health, now: datetime) -> Iterator[Any]:
    workers, due, outbox = health.workers, health.due, health.outbox
    yield _gauge("workflow_workers_alive", "Workers that reported lately.", workers.alive)
    yield _gauge("workflow_worker_slots", "Deliveries that living workers can have in flight.", workers.slots)
    yield _gauge("workflow_deliveries_in_flight", "Deliveries that workers hold.", workers.in_flight)
    yield _gauge("workflow_deliveries_due", "Deliveries that could start now.", due.ready)
    yield _gauge("workflow_deliveries_overdue", "Those that have been due for over a minute.", due.overdue)
    yield _gauge("workflow_deliveries_held", "Due, but held by a flow-control key or a queue.", due.held)
    yield _gauge("workflow_delivery_lag_seconds", "Since when the oldest delivery is due.", _age(due.oldest_at, now))
    yield _gauge("workflow_outbox_unsent", "Messages that the hosted engine has not got.", outbox.unsent)
    yield _gauge("workflow_outbox_lag_seconds", "Age of the oldest of them.", _age(outbox.oldest_at, now))
    yield _gauge("workflow_outbox_given_up", "Messages that could not be handed over.", outbox.given_up)


def _gauge(name: str, help_text: str, value: float) -> Any:
    return GaugeMetricFamily(name, help_text, value=value)


def _age(since: datetime | None, now: datetime) -> float:
    return 0.0 if since is None else max((now - since).total_seconds(), 0.0)
