"""Runs that failed runs were turned into: their rows, and the chain that they belong to."""

from __future__ import annotations

import logging

from django.db import Error as DatabaseError

from django_workflow.client.urls import code_version_of
from django_workflow.conf import get_settings
from django_workflow.mirror.change import changing
from django_workflow.mirror.run_rows import CHECK_AFTER, from_ms
from django_workflow.mirror.surroundings import surroundings
from django_workflow.models import DeadLetter, Run
from django_workflow.protocol.requests import RestartRuns, ResumeRuns
from django_workflow.protocol.resources import StartedRun, StartedRuns

logger = logging.getLogger("django_workflow.mirror")


def note_started_again(request: ResumeRuns | RestartRuns, answer: StartedRuns) -> None:
    """Write the rows of runs that were resumed or restarted by the ids of their dead letters.

    Runs that a filter chose are found by their first delivery, as a new run each: which one was which is not told.
    """
    if len(request.dlq_ids) != len(answer.workflow_runs):
        return
    resumed = isinstance(request, ResumeRuns)
    for dlq_id, started in zip(request.dlq_ids, answer.workflow_runs, strict=True):
        try:
            _note(dlq_id, started, resumed=resumed)
        except DatabaseError:
            logger.exception("Run %s was started of dead letter %s, but has no row yet.", started, dlq_id)


def _note(dlq_id: str, started: StartedRun, *, resumed: bool) -> None:
    alias, now = get_settings().database, surroundings().now()
    letter = DeadLetter.objects.using(alias).filter(dlq_id=dlq_id).select_related("run").first()
    if letter is None or letter.run is None:
        return
    failed = letter.run

    def made() -> Run:
        return Run(
            run_id=started.workflow_run_id,
            workflow=failed.workflow,
            url=failed.url,
            payload=failed.payload,
            payload_is_base64=failed.payload_is_base64,
            flow_key=failed.flow_key,
            labels=failed.labels,
            owner_id=failed.owner_id,
            content_type_id=failed.content_type_id,
            object_id=failed.object_id,
            trigger_kind=Run.TriggerKind.RESUME if resumed else Run.TriggerKind.RESTART,
            code_version=code_version_of(failed.url),
            created_at=from_ms(started.workflow_created_at) or now,
            engine=Run.Engine.HOSTED,
            check_at=now + CHECK_AFTER,
            config=failed.config,
        )

    with changing(started.workflow_run_id, create=made) as change:
        if change is None:
            return
        change.run.trigger_kind = Run.TriggerKind.RESUME if resumed else Run.TriggerKind.RESTART
        if resumed:
            change.run.resumed_from_id = failed.pk
            change.run.first_run_id = failed.first_run_id or failed.pk
    # The engine may have called first: then the row was made of its delivery, which knows nothing of these.
    unknown = Run.objects.using(alias).filter(run_id=started.workflow_run_id, owner=None, content_type=None)
    unknown.update(owner=failed.owner_id, content_type=failed.content_type_id, object_id=failed.object_id)
    letter.delete()
