"""Flow-control keys: their limits, and how much of them is in use."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Count, IntegerField, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import HttpRequest
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from django_workflow.admin.base import ReadOnlyAdmin
from django_workflow.admin.status import status_badge
from django_workflow.models import Delivery, FlowKey


@admin.register(FlowKey)
class FlowKeyAdmin(ReadOnlyAdmin[FlowKey]):
    list_display = ("key", "state_column", "running_column", "waiting_column", "parallelism", "rate", "period_seconds")
    list_filter = ("paused",)
    search_fields = ("key",)
    fields = list_display
    readonly_fields = fields

    def get_queryset(self, request: HttpRequest) -> Any:
        queryset = super().get_queryset(request)
        return queryset.annotate(
            running=_count(queryset.db, Q(worker__isnull=False)), waiting=_count(queryset.db, Q(worker__isnull=True))
        )

    @admin.display(description=_("state"), ordering="paused")
    def state_column(self, key: FlowKey) -> SafeString:
        return status_badge("paused", str(_("Paused"))) if key.paused else status_badge("running", str(_("Open")))

    @admin.display(description=_("running"), ordering="running")
    def running_column(self, key: FlowKey) -> int:
        return int(getattr(key, "running", 0))

    @admin.display(description=_("waiting"), ordering="waiting")
    def waiting_column(self, key: FlowKey) -> int:
        return int(getattr(key, "waiting", 0))


def _count(alias: str, which: Q) -> Coalesce:
    """How many deliveries of the outer row's key are so."""
    deliveries: QuerySet[Any] = Delivery.objects.using(alias).filter(which, flow_key=OuterRef("key")).order_by()
    counted = deliveries.values("flow_key").annotate(number=Count("pk")).values("number")
    return Coalesce(Subquery(counted, output_field=IntegerField()), 0)
