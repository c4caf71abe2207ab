"""Finding runs: by id, by status or group of statuses, by words, and those that a user may see."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from django.db.models import OuterRef, Q, Subquery
from django.db.models.functions import Coalesce

from django_workflow.conf import get_settings
from django_workflow.models import Run, Step, Worker
from django_workflow.protocol.identifiers import RUN_PREFIX

if TYPE_CHECKING:
    from django_workflow.models.run import RunQuerySet

ACTIVE = "active"
FINISHED = "finished"
STATUS_CHOICES = (ACTIVE, FINISHED, *Run.Status.values)
NEWEST = 1000
LONGEST_SEARCH = 1000
"""Characters of a search that count; SQLite gives up on patterns of 50,000 bytes."""


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
    """Runs that a search for this text means: of that id, label or related object, or with it in summary or error."""
    text = text[:LONGEST_SEARCH]
    return queryset.filter(
        Q(run_id__in=run_ids(text))
        | Q(labels__contains=f",{text},")
        | Q(object_id=text)
        | Q(summary__icontains=text)
        | Q(error__icontains=text)
    )


def recent_values(queryset: RunQuerySet) -> tuple[list[str], list[str]]:
    """Workflows and labels of the newest runs, for lists of choices: cheap, however many runs there are."""
    newest = queryset.order_by("-created_at").values_list("workflow", "labels")[:NEWEST]
    workflows: set[str] = set()
    labels: set[str] = set()
    for workflow, wrapped in newest:
        workflows.add(workflow)
        labels.update(filter(None, wrapped.split(",")))
    return sorted(workflows), sorted(labels)


def is_alive(worker: Worker, now: datetime) -> bool:
    """Whether a worker reported lately, on this machine's clock."""
    return now - worker.heartbeat_at < timedelta(seconds=get_settings().worker_timeout)


def has_living_worker(now: datetime) -> bool:
    since = now - timedelta(seconds=get_settings().worker_timeout)
    return Worker.objects.using(get_settings().database).filter(heartbeat_at__gt=since, draining=False).exists()
