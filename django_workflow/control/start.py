"""Starting a run for a person: it belongs to them, says how it was triggered, and its history says why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

from django.utils.translation import gettext as _

from django_workflow.control.history import write
from django_workflow.models import Run
from django_workflow.presentation import lookup

if TYPE_CHECKING:
    from django_workflow.authoring.decorator import Workflow
    from django_workflow.authoring.options import RunOptions
    from django_workflow.client.handle import RunHandle


def start(
    workflow: Workflow[Any, Any],
    payload: Any,
    *,
    by: Any,
    kind: Run.TriggerKind,
    reason: str = "",
    **options: Unpack[RunOptions],
) -> RunHandle:
    """Start a run that belongs to the user `by`. A run id that exists already starts nothing: `handle.deduplicated`.

    Raises PayloadInvalid when the payload does not fit the workflow.
    """
    handle = workflow.using(**options).using(owner=by, trigger_kind=kind).trigger(payload)
    if kind == Run.TriggerKind.USER and not handle.deduplicated:
        run = lookup.runs().filter(run_id=handle.id).first()
        if run is not None:
            write(run, by=by, message=_("Started by hand."), reason=reason)
    return handle
