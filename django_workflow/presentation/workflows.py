"""What became of each workflow's runs lately, for lists of workflows: in three queries, however many runs there are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from math import ceil

from django.db.models import Count, Min

from django_workflow.authoring.registry import registry
from django_workflow.client.urls import workflow_url
from django_workflow.errors import Misconfigured
from django_workflow.models import Run
from django_workflow.presentation import lookup

LATELY = timedelta(hours=24)
TIMED = 5000
"""Runs whose durations are looked at for the percentiles: the newest successful ones."""


@dataclass(slots=True)
class Numbers:
    """`lately` counts the runs that were created in the last 24 hours by status, `active` all that are not over.

    `p50` and `p95` are durations of successful runs of the last 24 hours; None without any.
    """

    lately: dict[str, int] = field(default_factory=dict)
    active: int = 0
    oldest_active_at: datetime | None = None
    p50: timedelta | None = None
    p95: timedelta | None = None

    @property
    def total(self) -> int:
        return sum(self.lately.values())

    def count(self, status: str) -> int:
        return self.lately.get(status, 0)

    @property
    def success_rate(self) -> float | None:
        """Of the runs that succeeded or failed; None when none did."""
        ended = self.count(Run.Status.SUCCESS) + self.count(Run.Status.FAILED)
        return self.count(Run.Status.SUCCESS) / ended if ended else None


@dataclass(frozen=True, slots=True)
class Gone:
    """Runs that are not over of a workflow that this code does not have. `is_elsewhere`: its endpoint is not this
    site's, so nothing is missing."""

    name: str
    active: int
    is_elsewhere: bool


def numbers_by_workflow(now: datetime, names: Iterable[str] | None = None) -> dict[str, Numbers]:
    """By name; workflows without any run of late and without active ones are left out. None: of all workflows."""
    runs = lookup.runs().order_by()
    if names is not None:
        runs = runs.filter(workflow__in=list(names))
    found: dict[str, Numbers] = {}
    since = now - LATELY
    lately = runs.filter(created_at__gte=since).values_list("workflow", "status").annotate(number=Count("pk"))
    for workflow, status, number in lately:
        found.setdefault(workflow, Numbers()).lately[status] = number
    active = runs.active().values_list("workflow").annotate(number=Count("pk"), oldest_at=Min("created_at"))
    for workflow, number, oldest_at in active:
        numbers = found.setdefault(workflow, Numbers())
        numbers.active, numbers.oldest_active_at = number, oldest_at
    durations: dict[str, list[timedelta]] = {}
    ended = runs.filter(created_at__gte=since, status=Run.Status.SUCCESS)
    timed = ended.order_by("-created_at").values_list("workflow", "started_at", "finished_at")[:TIMED]
    for workflow, started_at, finished_at in timed:
        if started_at is not None and finished_at is not None:
            durations.setdefault(workflow, []).append(finished_at - started_at)
    for workflow, lengths in durations.items():
        lengths.sort()
        found[workflow].p50, found[workflow].p95 = percentile(lengths, 50), percentile(lengths, 95)
    return found


def percentile(ordered: Sequence[timedelta], percent: int) -> timedelta:
    """The nearest-rank percentile of lengths in ascending order, of which there is at least one."""
    return ordered[max(ceil(len(ordered) * percent / 100), 1) - 1]


def gone(found: dict[str, Numbers]) -> list[Gone]:
    """Workflows with active runs that this code does not register, by name."""
    missing = {name: numbers for name, numbers in found.items() if numbers.active and registry.find(name) is None}
    if not missing:
        return []
    urls = lookup.runs().active().filter(workflow__in=list(missing)).order_by().values_list("workflow")
    one_url = dict(urls.annotate(url=Min("url")))
    return [
        Gone(name, missing[name].active, is_elsewhere=one_url.get(name) != _own_url(name)) for name in sorted(missing)
    ]


def _own_url(name: str) -> str | None:
    """The URL that a workflow of this site has by that name. Runs from elsewhere have names that could be none here."""
    try:
        return workflow_url(name)
    except Misconfigured:
        return None
