"""Query parameters of `GET runs/`: each narrows the list; unknown ones and bad values are refused by name."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from django.http import QueryDict
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext as _
from rest_framework.exceptions import ValidationError

from django_workflow.api.described import INSTANT, TEXT, Query
from django_workflow.models import Run
from django_workflow.presentation import lookup

if TYPE_CHECKING:
    from django_workflow.models.run import RunQuerySet

    Filter = Callable[[RunQuerySet, list[str]], RunQuerySet]

PAGING = ("cursor", "page_size", "format")


def filter_runs(runs: RunQuerySet, parameters: QueryDict) -> RunQuerySet:
    """Runs that match every parameter. Raises ValidationError that names the parameter."""
    for name, values in parameters.lists():
        if name in PAGING:
            continue
        narrow = FILTERS.get(name)
        if narrow is None:
            known = ", ".join(sorted(FILTERS))
            raise ValidationError(
                {name: _("%(name)s is no filter; known are %(known)s.") % {"name": name, "known": known}}
            )
        try:
            runs = narrow(runs, [value for value in values if value])
        except ValueError as error:
            raise ValidationError({name: str(error)}) from error
    return runs


def _status(runs: RunQuerySet, values: list[str]) -> RunQuerySet:
    wanted: set[str] = set()
    for value in ",".join(values).split(","):
        match value:
            case "":
                continue
            case lookup.ACTIVE:
                wanted.update(set(Run.Status.values) - set(Run.FINAL))
            case lookup.FINISHED:
                wanted.update(Run.FINAL)
            case _ if value in Run.Status.values:
                wanted.add(value)
            case _:
                raise ValueError(_no_choice(value, lookup.STATUS_CHOICES))
    return runs.filter(status__in=wanted) if wanted else runs


def _no_choice(value: str, choices: tuple[str, ...]) -> str:
    return _("%(value)s is not one of %(choices)s.") % {"value": value, "choices": ", ".join(choices)}


def _workflow(runs: RunQuerySet, values: list[str]) -> RunQuerySet:
    return runs.filter(workflow__in=values) if values else runs


def _label(runs: RunQuerySet, values: list[str]) -> RunQuerySet:
    for label in values:  # all of them
        runs = runs.with_label(label)
    return runs


def _trigger_kind(runs: RunQuerySet, values: list[str]) -> RunQuerySet:
    for value in values:
        if value not in Run.TriggerKind.values:
            raise ValueError(_no_choice(value, tuple(Run.TriggerKind.values)))
    return runs.filter(trigger_kind__in=values) if values else runs


def _code_version(runs: RunQuerySet, values: list[str]) -> RunQuerySet:
    return runs.filter(code_version__in=values) if values else runs


def _has_error(runs: RunQuerySet, values: list[str]) -> RunQuerySet:
    for value in values:
        match value.lower():
            case "true" | "1":
                runs = runs.exclude(error="")
            case "false" | "0":
                runs = runs.filter(error="")
            case _:
                raise ValueError(_no_choice(value, ("true", "false")))
    return runs


def _created_after(runs: RunQuerySet, values: list[str]) -> RunQuerySet:
    return runs.filter(created_at__gte=max(map(_instant, values))) if values else runs


def _created_before(runs: RunQuerySet, values: list[str]) -> RunQuerySet:
    return runs.filter(created_at__lt=min(map(_instant, values))) if values else runs


def _instant(text: str) -> datetime:
    try:
        instant = parse_datetime(text)
        if instant is not None:
            aware = instant if timezone.is_aware(instant) else timezone.make_aware(instant)
            return aware.astimezone(UTC)
    except (ValueError, OverflowError):  # no such day, or one that no calendar has in UTC
        pass
    raise ValueError(_("%s is no instant; write it as 2030-01-31T12:00:00Z.") % text)


def _search(runs: RunQuerySet, values: list[str]) -> RunQuerySet:
    for text in values:
        runs = lookup.matching(runs, text)
    return runs


FILTERS: dict[str, Filter] = {
    "status": _status,
    "workflow": _workflow,
    "label": _label,
    "trigger_kind": _trigger_kind,
    "code_version": _code_version,
    "has_error": _has_error,
    "created_after": _created_after,
    "created_before": _created_before,
    "search": _search,
}

PARAMETERS = (
    Query(
        "status", "A status, `active` or `finished`; several separated by commas or given one by one.", TEXT, many=True
    ),
    Query("workflow", "Name of a workflow.", TEXT, many=True),
    Query("label", "A label that the run has; of several it has all.", TEXT, many=True),
    Query("trigger_kind", "What started the run.", {"type": "string", "enum": Run.TriggerKind.values}, many=True),
    Query("code_version", "The setting `code_version` as it was when the run started.", TEXT, many=True),
    Query("has_error", "Whether the run has an error.", {"type": "boolean"}),
    Query("created_after", "Created at this instant or later.", INSTANT),
    Query("created_before", "Created before this instant.", INSTANT),
    Query("search", "A run id, a label, a related object's id, or part of the summary or error.", TEXT),
)
