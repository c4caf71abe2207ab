"""What the engine has to do: deliveries that are due, leased or waiting for their time."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from django_workflow.admin.base import ReadOnlyAdmin, run_link, time_cell
from django_workflow.admin.status import status_badge
from django_workflow.models import Delivery


class StateFilter(admin.SimpleListFilter):
    title = _("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> list[tuple[str, Any]]:
        return [("leased", _("Leased by a worker")), ("due", _("Due")), ("later", _("Later"))]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        now = timezone.now()
        match self.value():
            case "leased":
                return queryset.filter(worker__isnull=False)
            case "due":
                return queryset.unleased().due(now)
            case "later":
                return queryset.unleased().filter(due_at__gt=now)
        return queryset


@admin.register(Delivery)
class DeliveryAdmin(ReadOnlyAdmin[Delivery]):
    """Headers and bodies stay out of sight: they may hold credentials."""

    list_display = ("state_column", "kind", "run_column", "step_name", "due_column", "tries_column", "worker_column")
    list_display_links = ("kind",)
    list_filter = (StateFilter, "kind")
    list_select_related = ("run", "worker")
    ordering = ("due_at",)
    search_fields = ("run__run_id", "step_name", "flow_key")
    search_help_text = _("Run id, step or flow-control key.")
    fields = (
        "message_id",
        "state_column",
        "kind",
        "run_column",
        "step_name",
        "destination",
        "method",
        "tries_column",
        "rescues",
        "flow_key",
        "due_at",
        "created_at",
        "worker_column",
    )
    readonly_fields = fields

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).defer("body", "config")

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        return super().changelist_view(request, {"title": _("Deliveries"), **(extra_context or {})})

    def has_delete_permission(self, request: HttpRequest, obj: Delivery | None = None) -> bool:
        # A delivery goes with its run: a run without one would hang for ever.
        return False

    @admin.display(description=_("state"))
    def state_column(self, delivery: Delivery) -> SafeString:
        if delivery.worker_id is not None:
            return status_badge("running", str(_("Leased")))
        if delivery.due_at <= timezone.now():
            return status_badge("queued", str(_("Due")))
        return (
            status_badge("retrying", str(_("Retry")))
            if delivery.attempt
            else status_badge("scheduled", str(_("Later")))
        )

    @admin.display(description=_("run"), ordering="run__run_id")
    def run_column(self, delivery: Delivery) -> SafeString | None:
        return run_link(delivery.run, self.admin_site)

    @admin.display(description=_("due"), ordering="due_at")
    def due_column(self, delivery: Delivery) -> SafeString | None:
        return time_cell(delivery.due_at)

    @admin.display(description=_("retries"), ordering="attempt")
    def tries_column(self, delivery: Delivery) -> str:
        return _("%(done)s of %(most)s") % {"done": delivery.attempt, "most": delivery.max_retries}

    @admin.display(description=_("worker"))
    def worker_column(self, delivery: Delivery) -> str | None:
        return None if delivery.worker is None else str(delivery.worker)
