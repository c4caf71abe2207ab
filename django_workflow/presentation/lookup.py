"""Finding runs: by id, by status or group of statuses, by words, those that are stuck; and what recent ones have."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from django.db.models import Exists, OuterRef, Q, Subquery
from django.db.models.functions import Coalesce

from django_workflow.conf import get_settings
from django_workflow.models import Run, Step, Waiter, Worker
from django_workflow.protocol.identifiers import RUN_PREFIX

if TYPE_CHECKING:
    from django_workflow.models.run import RunQuerySet

ACTIVE = "active"
FINISHED = "finished"
STATUS_CHOICES = (ACTIVE, FINISHED, *Run.Status.values)
NEWEST = 1000
LONGEST_SEARCH = 1000
"""Characters of a search that count; SQLite gives up on patterns of 50,000 bytes."""
LABELS = 20
STUCK_AFTER = timedelta(hours=1)


def runs() -> RunQuerySet:
    """All runs, from the database that holds this app's tables."""
    return Run.objects.using(get_settings().database)


def run_ids(text: str) -> tuple[str, ...]:
    """The ids that a person may mean: as typed, and with `wfr_` in front."""
    return (text,) if text.startswith(RUN_PREFIX) else (text, RUN_PREFIX + text)


def find_run(queryset: RunQuerySet, text: str) -> Run | None:
    """The run of that id, with or without `wfr_`; the id as typed wins."""
    found = {run.run_id: run for run in queryset.filter(run_id__in=run_ids(text))}
    return next((found[run_id] for run_id in run_ids(text) if run_id in found), None)


def with_step_count(queryset: RunQuerySet) -> RunQuerySet:
    """Each run with its `step_count`: how many steps it has reached, which is its highest step number."""
    last = Step.objects.using(queryset.db).filter(run=OuterRef("pk")).order_by("-step_id").values("step_id")[:1]
    return queryset.annotate(step_count=Coalesce(Subquery(last), 0))


def with_status(queryset: RunQuerySet, status: str) -> RunQuerySet:
    """Runs of a status, or of a group: `active`, `finished`."""
    if status == ACTIVE:
        return queryset.active()
    if status == FINISHED:
        return queryset.finished()
    return queryset.filter(status=status)


def matching(queryset: RunQuerySet, text: str) -> RunQuerySet:
    """Runs that a search for this text means: of that id, label, related object or flow-control key, waiting for that
    event, or with the text in summary or error."""
    text = text[:LONGEST_SEARCH]
    return queryset.filter(
        Q(run_id__in=run_ids(text))
        | Q(labels__contains=f",{text},")
        | Q(object_id=text)
        | Q(flow_key=text)
        | Q(pk__in=Waiter.objects.using(queryset.db).filter(event_id=text).values("run"))
        | Q(summary__icontains=text)
        | Q(error__icontains=text)
    )


def stuck(queryset: RunQuerySet, now: datetime) -> Q:
    """The condition of runs that should have moved in the last hour and did not.

    A run that is queued, running or retrying moves with its steps; one that sleeps or starts later is due at an
    instant. One step that takes longer than an hour counts as stuck too: from here it cannot be told apart.
    """
    before = now - STUCK_AFTER
    moved = Q(queued_at__gte=before) | Q(started_at__gte=before) | Q(finished_at__gte=before) | Q(due_at__gte=before)
    steps = Step.objects.using(queryset.db).filter(moved, run=OuterRef("pk"))
    busy = Q(status__in=(Run.Status.QUEUED, Run.Status.RUNNING, Run.Status.RETRYING), created_at__lt=before)
    timed = Q(status__in=(Run.Status.SLEEPING, Run.Status.SCHEDULED), due_at__lt=before)
    return (busy & (Q(due_at=None) | Q(due_at__lt=before)) & ~Exists(steps)) | timed


@dataclass(frozen=True, slots=True)
class RecentValues:
    """What the newest runs have, for lists of choices. `related_types` are keys of content types."""

    workflows: list[str]
    labels: list[str]
    code_versions: list[str]
    related_types: list[int]


def recent_values(queryset: RunQuerySet) -> RecentValues:
    """Cheap, however many runs there are."""
    newest = queryset.order_by("-created_at").values_list("workflow", "labels", "code_version", "content_type_id")[
        :NEWEST
    ]
    workflows: set[str] = set()
    labels: Counter[str] = Counter()
    versions: set[str] = set()
    types: set[int] = set()
    for workflow, wrapped, version, content_type in newest:
        workflows.add(workflow)
        labels.update(filter(None, wrapped.split(",")))
        versions.update(filter(None, [version]))
        types.update(filter(None, [content_type]))
    common = [label for label, _number in labels.most_common(LABELS)]
    return RecentValues(sorted(workflows), sorted(common), sorted(versions), sorted(types))


def is_alive(worker: Worker, now: datetime) -> bool:
    """Whether a worker reported lately, on this machine's clock."""
    return now - worker.heartbeat_at < timedelta(seconds=get_settings().worker_timeout)


def has_living_worker(now: datetime) -> bool:
    since = now - timedelta(seconds=get_settings().worker_timeout)
    return Worker.objects.using(get_settings().database).filter(heartbeat_at__gt=since, draining=False).exists()
