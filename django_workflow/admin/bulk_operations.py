"""Past and present actions on many runs: who did what to how many, and what came of it.

The page of one is `bulk.operation_page`, where it can be stopped.
"""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from django_workflow.admin.base import ReadOnlyAdmin, time_cell
from django_workflow.admin.own_page import admin_url
from django_workflow.admin.status import status_badge
from django_workflow.control import bulk
from django_workflow.control.actions import ACTIONS, may
from django_workflow.models import BulkOperation, Run
from django_workflow.realtime.lengths import length_text

_BADGES = {
    BulkOperation.State.RUNNING: Run.Status.RUNNING,
    BulkOperation.State.DONE: Run.Status.SUCCESS,
    BulkOperation.State.ABORTED: Run.Status.CANCELED,
}


class ActionFilter(admin.SimpleListFilter):
    title = gettext_lazy("action")
    parameter_name = "action"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> list[tuple[str, Any]]:
        return [(action.name, action.title) for action in ACTIONS.values() if action.in_bulk]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        return queryset.filter(action=self.value()) if self.value() else queryset


@admin.register(BulkOperation)
class BulkOperationAdmin(ReadOnlyAdmin[BulkOperation]):
    list_display = ("state_column", "name_column", "result_column", "by_column", "started_column")
    list_display_links = None  # the name is the link: to the page that tells how far it is
    list_filter = ("state", ActionFilter)
    search_fields = ("name", "by_name", "reason")
    search_help_text = gettext_lazy("Name of the operation, who started it, or the reason.")
    ordering = ("-created_at",)
    change_list_template = "django_workflow/admin/change_list.html"

    # Rights: one's own are shown to whoever sees runs, those of others by permission. They go by retention.

    def get_queryset(self, request: HttpRequest) -> Any:
        return bulk.visible_to(request.user)

    def has_view_permission(self, request: HttpRequest, obj: BulkOperation | None = None) -> bool:
        return may(request.user, "view_bulkoperation") or may(request.user, "view_run")

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def has_delete_permission(self, request: HttpRequest, obj: BulkOperation | None = None) -> bool:
        return False

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        lead = _("Actions on many runs. What somebody did to a single run stands in its history.")
        return super().changelist_view(request, {"title": _("Bulk operations"), "lead": lead, **(extra_context or {})})

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        operation = self.get_object(request, object_id)
        if operation is None:
            return super().change_view(request, object_id, form_url, extra_context)
        return HttpResponseRedirect(self._url(operation))

    def _url(self, operation: BulkOperation) -> str:
        return admin_url(self, "run_operation", operation.pk)

    @admin.display(description=gettext_lazy("state"), ordering="state")
    def state_column(self, operation: BulkOperation) -> SafeString:
        return status_badge(_BADGES[BulkOperation.State(operation.state)], operation.get_state_display())

    @admin.display(description=gettext_lazy("operation"), ordering="name")
    def name_column(self, operation: BulkOperation) -> SafeString:
        link = format_html('<a href="{}">{}</a>', self._url(operation), operation.name)
        if not operation.reason:
            return link
        return format_html('{}<br><span class="wfa-quiet">{}</span>', link, operation.reason)

    @admin.display(description=gettext_lazy("result"), ordering="done")
    def result_column(self, operation: BulkOperation) -> SafeString:
        """What came of the runs; those that are left are not told of, once it is over."""
        words = {"tried": operation.tried, "total": operation.total}
        found = [ngettext("%d done", "%d done", operation.done) % operation.done]
        if operation.skipped:
            found.append(ngettext("%d passed over", "%d passed over", operation.skipped) % operation.skipped)
        if operation.failed:
            found.append(ngettext("%d failed", "%d failed", operation.failed) % operation.failed)
        return format_html(
            '{}<br><span class="wfa-quiet">{}</span>', ", ".join(found), _("%(tried)d of %(total)d runs") % words
        )

    @admin.display(description=gettext_lazy("started by"), ordering="by_name")
    def by_column(self, operation: BulkOperation) -> str:
        return operation.by_name or _("Code")

    @admin.display(description=gettext_lazy("started"), ordering="created_at")
    def started_column(self, operation: BulkOperation) -> SafeString:
        """When, and how long it took or has been going."""
        length = (operation.finished_at or timezone.now()) - operation.created_at
        return format_html(
            '{}<br><span class="wfa-quiet">{}</span>', time_cell(operation.created_at), length_text(length)
        )
