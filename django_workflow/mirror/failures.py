"""Dead letters of hosted runs: why a run failed for good, and what became of its failure function."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from django_workflow.conf import get_settings
from django_workflow.mirror.change import RunChange, message_key
from django_workflow.models import DeadLetter
from django_workflow.models.dead_letter import kind_of_error
from django_workflow.protocol.bodies import printable
from django_workflow.protocol.callbacks import FailureBody


def note_dead_letter(change: RunChange, failure: FailureBody, error: str) -> None:
    """Keep the engine's dead letter of a run, under the engine's own id for it."""
    put_dead_letter(
        change,
        dlq_id=failure.dlq_id,
        message_id=failure.source_message_id,
        status=failure.status,
        error=error,
        response_headers=msgspec.json.encode(failure.header).decode(),
        response_body=printable(failure.body.decode("utf-8", "replace")),
        failure_state=DeadLetter.FailureState.IN_PROGRESS,
    )


def put_dead_letter(
    change: RunChange,
    *,
    dlq_id: str,
    message_id: str,
    status: int,
    error: str,
    response_headers: str = "",
    response_body: str = "",
    failure_state: str = DeadLetter.FailureState.NONE,
) -> None:
    """Write a run's dead letter, or complete the one that there is."""
    values = {
        "dlq_id": dlq_id,
        "step_name": change.run.error_step,
        "destination": change.run.url,
        "status": status,
        "error": error,
        "error_kind": kind_of_error(error, status),
        "response_headers": response_headers,
        "response_body": response_body,
    }
    made = {
        **values,
        "message_key": message_key(message_id or change.run.run_id),
        "failure_state": failure_state,
        "created_at": change.run.finished_at or change.now,
    }
    DeadLetter.objects.using(change.alias).update_or_create(run=change.run, defaults=values, create_defaults=made)


def forget_dead_letters(dlq_ids: Sequence[str]) -> None:
    """The engine has deleted these. What it deleted by filters stays here: which ones those were is not told."""
    DeadLetter.objects.using(get_settings().database).filter(dlq_id__in=dlq_ids).delete()


def note_failure_function(run_id: str, state: str, response: str) -> None:
    """How the failure function ended, or stands."""
    letters = DeadLetter.objects.using(get_settings().database).filter(run__run_id=run_id)
    letters.update(failure_state=state, failure_response=printable(response))
