"""Starting a run for somebody: the request's body is the payload, its query the options."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.http import QueryDict
from django.utils.translation import gettext as _
from rest_framework.exceptions import ValidationError

from django_workflow.client.options import TriggerOptions
from django_workflow.control.start import start
from django_workflow.models import Run
from django_workflow.protocol.identifiers import prefixed_run_id

if TYPE_CHECKING:
    from django_workflow.authoring.decorator import Workflow
    from django_workflow.client.handle import RunHandle

OPTIONS = ("delay", "label", "run_id")


def trigger(workflow: Workflow[Any, Any], body: bytes, query: QueryDict, user: Any) -> RunHandle:
    """Start a run that belongs to the user.

    Raises PayloadInvalid when the body does not fit the workflow, ValidationError for a bad option.
    """
    options = _options(query)
    payload = workflow.decode_payload(body)
    return start(workflow, payload, by=user, kind=Run.TriggerKind.API, **options)


def _options(query: QueryDict) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for name, values in query.lists():
        if name == "format":  # DRF's own
            continue
        if name not in OPTIONS:
            known = ", ".join(OPTIONS)
            raise ValidationError(
                {name: _("%(name)s is no option; known are %(known)s.") % {"name": name, "known": known}}
            )
        options[name] = values if name == "label" else values[-1]
        try:
            checked = TriggerOptions.of(**{name: options[name]})
            if checked.run_id:
                prefixed_run_id(checked.run_id)
        except (ValueError, TypeError) as error:
            raise ValidationError({name: str(error)}) from error
    return options
