"""Filters of the run list. Their choices come from code and from the newest runs: none reads the whole table.

Counts beside the choices are one query per filter. Django's own way counts by a subquery per choice, which large tables
do not bear.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.contenttypes.models import ContentType
from django.db.models import Count, Q
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from django_workflow.authoring.registry import registry
from django_workflow.models import Run
from django_workflow.presentation import lookup

if TYPE_CHECKING:
    from django_workflow.presentation.lookup import RecentValues

    Choices = list[tuple[str, Any]]


class ConditionFilter(admin.SimpleListFilter):
    """A filter whose choices are conditions on a run. What is no choice narrows nothing."""

    template = "django_workflow/admin/filter.html"

    def condition(self, value: str, queryset: Any) -> Q:
        """Which runs a choice stands for."""
        raise NotImplementedError

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        value = self.value()
        if value is None or value not in {str(choice) for choice, _title in self.lookup_choices}:
            return queryset
        return queryset.filter(self.condition(value, queryset))

    def get_facet_counts(self, pk_attname: str, filtered_qs: Any) -> dict[str, Any]:
        return {
            f"{index}__c": Count("status", filter=self.condition(str(choice), filtered_qs))
            for index, (choice, _title) in enumerate(self.lookup_choices)
        }


class ColumnFilter(ConditionFilter):
    """A filter whose choices are values of one column: they are counted by groups."""

    column = ""

    def condition(self, value: str, queryset: Any) -> Q:
        return Q(**{self.column: value})

    def get_facet_queryset(self, changelist: Any) -> dict[str, int]:
        runs = changelist.get_queryset(self.request, exclude_parameters=self.expected_parameters())
        grouped = runs.order_by().values(self.column).annotate(number=Count("*"))
        numbers = {str(row[self.column]): row["number"] for row in grouped}
        return {
            f"{index}__c": self.count(str(choice), numbers)
            for index, (choice, _title) in enumerate(self.lookup_choices)
        }

    def count(self, choice: str, numbers: dict[str, int]) -> int:
        return numbers.get(choice, 0)


class StatusFilter(ColumnFilter):
    """Each group of statuses before those that belong to it."""

    title = _("status")
    parameter_name = column = "status"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> Choices:
        active = [choice for choice in Run.Status.choices if choice[0] not in Run.FINAL]
        final = [choice for choice in Run.Status.choices if choice[0] in Run.FINAL]
        return [(lookup.ACTIVE, _("Active")), *active, (lookup.FINISHED, _("Finished")), *final]

    def condition(self, value: str, queryset: Any) -> Q:
        return Q(status__in=_statuses(value))

    def count(self, choice: str, numbers: dict[str, int]) -> int:
        return sum(numbers.get(status, 0) for status in _statuses(choice))

    def choices(self, changelist: Any) -> Iterator[Any]:
        """With `is_member`: whether a choice belongs to a group."""
        names = [None, *(name for name, _title in self.lookup_choices)]
        for name, choice in zip(names, super().choices(changelist), strict=True):
            yield choice | {"is_member": name in Run.Status.values}


class WorkflowFilter(ColumnFilter):
    title = _("workflow")
    parameter_name = column = "workflow"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> Choices:
        names = {*registry.names(), *_recent(request).workflows}
        return _with_chosen(names, self.value())


class LabelFilter(ConditionFilter):
    title = _("label")
    parameter_name = "label"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> Choices:
        return _with_chosen(_recent(request).labels, self.value())

    def condition(self, value: str, queryset: Any) -> Q:
        return Q(labels__contains=f",{value},")


class TriggerFilter(ColumnFilter):
    title = _("triggered by")
    parameter_name = column = "trigger_kind"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> Choices:
        return list(Run.TriggerKind.choices)


class EngineFilter(ColumnFilter):
    title = _("engine")
    parameter_name = column = "engine"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> Choices:
        return list(Run.Engine.choices)


class CodeVersionFilter(ColumnFilter):
    title = _("code version")
    parameter_name = column = "code_version"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> Choices:
        return _with_chosen(_recent(request).code_versions, self.value())


class RelatedTypeFilter(ColumnFilter):
    """By the model of the object that runs are about."""

    title = _("related object")
    parameter_name = "about"
    column = "content_type_id"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> Choices:
        chosen = self.value() or ""
        keys = {*_recent(request).related_types, *([int(chosen)] if chosen.isascii() and chosen.isdigit() else [])}
        # One at a time, from Django's cache.
        known = [ContentType.objects.get_for_id(key) for key in keys if _exists(key)]
        return sorted(((str(each.pk), each.name) for each in known), key=lambda choice: choice[1])


class ErrorFilter(ConditionFilter):
    title = _("error")
    parameter_name = "has_error"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> Choices:
        return [("1", _("With an error")), ("0", _("Without"))]

    def condition(self, value: str, queryset: Any) -> Q:
        return ~Q(error="") if value == "1" else Q(error="")


class StuckFilter(ConditionFilter):
    title = _("progress")
    parameter_name = "stuck"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> Choices:
        return [("1", _("Stuck for over 1 h"))]

    def condition(self, value: str, queryset: Any) -> Q:
        return lookup.stuck(queryset, timezone.now())


def _statuses(choice: str) -> list[str]:
    """The statuses of a group, or the one status that it is."""
    if choice == lookup.ACTIVE:
        return [status for status in Run.Status.values if status not in Run.FINAL]
    return list(Run.FINAL) if choice == lookup.FINISHED else [choice]


def _exists(content_type: int) -> bool:
    """Whether there is such a content type: an address may name any number."""
    try:
        ContentType.objects.get_for_id(content_type)
    except ContentType.DoesNotExist:
        return False
    return True


def _with_chosen(values: Iterable[str], chosen: str | None) -> Choices:
    """Choices in order, with the one that the address asks for even when nothing recent has it."""
    return [(value, value) for value in sorted({*values, *filter(None, [chosen])})]


def _recent(request: HttpRequest) -> RecentValues:
    """Values of the newest runs, asked for once per request."""
    found: RecentValues | None = getattr(request, "_workflow_recent_values", None)
    if found is None:
        found = lookup.recent_values(lookup.runs())
        request._workflow_recent_values = found  # type: ignore[attr-defined]
    return found
