"""Filters of the run list. Their choices come from code and from the newest runs: none reads the whole table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from django_workflow.authoring.registry import registry
from django_workflow.models import Run
from django_workflow.presentation import lookup

if TYPE_CHECKING:
    Choices = list[tuple[str, Any]]


class StatusFilter(admin.SimpleListFilter):
    title = _("status")
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> Choices:
        return [(lookup.ACTIVE, _("Active")), (lookup.FINISHED, _("Finished")), *Run.Status.choices]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        status = self.value()
        return lookup.with_status(queryset, status) if status in lookup.STATUS_CHOICES else queryset


class WorkflowFilter(admin.SimpleListFilter):
    title = _("workflow")
    parameter_name = "workflow"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> Choices:
        names = set(registry.names()) | set(_recent(request)[0])
        return _with_chosen(names, self.value())

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        return queryset.filter(workflow=self.value()) if self.value() else queryset


class LabelFilter(admin.SimpleListFilter):
    title = _("label")
    parameter_name = "label"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> Choices:
        return _with_chosen(_recent(request)[1], self.value())

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        label = self.value()
        return queryset.with_label(label) if label else queryset


class ErrorFilter(admin.SimpleListFilter):
    title = _("error")
    parameter_name = "has_error"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> Choices:
        return [("1", _("With an error")), ("0", _("Without"))]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        if self.value() == "1":
            return queryset.exclude(error="")
        return queryset.filter(error="") if self.value() == "0" else queryset


def _with_chosen(values: Iterable[str], chosen: str | None) -> Choices:
    """Choices in order, with the one that the address asks for even when nothing recent has it."""
    return [(value, value) for value in sorted({*values, *filter(None, [chosen])})]


def _recent(request: HttpRequest) -> tuple[list[str], list[str]]:
    """Workflows and labels of the newest runs, asked for once per request."""
    found: tuple[list[str], list[str]] | None = getattr(request, "_workflow_recent_values", None)
    if found is None:
        found = lookup.recent_values(lookup.runs())
        request._workflow_recent_values = found  # type: ignore[attr-defined]
    return found
