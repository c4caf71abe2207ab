"""Runs on the admin pages of a project's own objects: an inline with an object's runs, and a column with their status.

    @admin.register(Order)
    class OrderAdmin(WorkflowStatusMixin, admin.ModelAdmin):
        list_display = ("number", "workflow_status")
        inlines = [WorkflowRunsInline]

Both show what users with `view_run` may see, and change nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.contenttypes.admin import GenericTabularInline
from django.contrib.contenttypes.forms import BaseGenericInlineFormSet
from django.contrib.contenttypes.models import ContentType
from django.db import models
from django.db.models import F, Window
from django.db.models.functions import RowNumber
from django.http import HttpRequest
from django.urls import reverse
from django.utils.functional import cached_property
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from django_workflow.admin.base import run_link, run_url, time_cell
from django_workflow.admin.status import badge_of
from django_workflow.conf import get_settings
from django_workflow.models import Run

if TYPE_CHECKING:
    from collections.abc import Iterable

    _Mixin = admin.ModelAdmin[Any]
    _FormSet = BaseGenericInlineFormSet[Any, Any]
    _Inline = GenericTabularInline
else:
    _Mixin, _FormSet, _Inline = object, BaseGenericInlineFormSet, GenericTabularInline

SHOWN = 20


class NewestRuns(_FormSet):
    """The newest runs of an object; how many there are is counted when there are more than are shown."""

    def get_queryset(self) -> Any:
        if not hasattr(self, "_newest"):
            self._newest = list(super().get_queryset()[: SHOWN + 1])
        return self._newest[:SHOWN]

    @cached_property
    def total(self) -> int:
        """How many runs the object has; 0 when all of them are shown."""
        self.get_queryset()
        return super().get_queryset().count() if len(self._newest) > SHOWN else 0

    @property
    def list_url(self) -> str:
        """The list of runs, searched for this object."""
        return f"{reverse('admin:django_workflow_run_changelist')}?{urlencode({'q': self.instance.pk})}"


class WorkflowRunsInline(_Inline):
    """The newest 20 runs that are for an object, with links to their pages."""

    model = Run
    ct_field = "content_type"
    ct_fk_field = "object_id"
    formset = NewestRuns  # type: ignore[assignment] # the stubs take no formset of generic relations
    template = "django_workflow/admin/runs_inline.html"
    fields = readonly_fields = ("status_column", "run_column", "workflow", "why", "created_column")
    ordering = ("-created_at",)
    extra = max_num = 0
    can_delete = False
    verbose_name = _("workflow run")
    verbose_name_plural = _("workflow runs")

    class Media:
        css = {"all": ["django_workflow/admin.css"]}

    def get_queryset(self, request: HttpRequest) -> Any:
        runs = super().get_queryset(request).using(get_settings().database)
        return runs.defer("payload", "result", "config", "error")

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    @admin.display(description=_("status"))
    def status_column(self, run: Run) -> SafeString:
        return badge_of(run)

    @admin.display(description=_("run"))
    def run_column(self, run: Run) -> SafeString | None:
        return run_link(run)

    @admin.display(description=_("created"))
    def created_column(self, run: Run) -> SafeString | None:
        return time_cell(run.created_at)


class WorkflowStatusMixin(_Mixin):
    """Gives a ModelAdmin `workflow_status` for `list_display`: how the newest run of each object stands.

    One query for a page of the list, whatever its length.
    """

    class Media:
        css = {"all": ["django_workflow/admin.css"]}

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        changelist = super().get_changelist_instance(request)
        if "workflow_status" in changelist.list_display:
            _attach(changelist.result_list, visible=request.user.has_perm("django_workflow.view_run"))
        return changelist

    @admin.display(description=_("workflow"))
    def workflow_status(self, found: models.Model) -> SafeString | None:
        run: Run | None = getattr(found, "_newest_run", None)
        return None if run is None else format_html('<a href="{}">{}</a>', run_url(run), badge_of(run))


def _attach(objects: Iterable[models.Model], *, visible: bool) -> None:
    """Give each object its newest run, where the user may see it."""
    rows = {str(found.pk): found for found in objects}
    if not rows or not visible:
        return
    using = get_settings().database
    kind = ContentType.objects.db_manager(using).get_for_model(next(iter(rows.values())))
    newest = Window(RowNumber(), partition_by="object_id", order_by=F("created_at").desc())
    runs = Run.objects.using(using).filter(content_type=kind.pk, object_id__in=rows).annotate(place=newest)
    for run in runs.filter(place=1).only("status", "object_id", "run_id"):
        rows[run.object_id]._newest_run = run  # type: ignore[attr-defined]
