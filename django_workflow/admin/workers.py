"""Workers and their heartbeats: who does the work, and who fell silent."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Count
from django.http import HttpRequest
from django.utils import timezone
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from django_workflow.admin.base import ReadOnlyAdmin, time_cell
from django_workflow.admin.status import status_badge
from django_workflow.models import Worker
from django_workflow.presentation.lookup import is_alive


@admin.register(Worker)
class WorkerAdmin(ReadOnlyAdmin[Worker]):
    list_display = ("__str__", "state_column", "leases_column", "concurrency", "started_column", "heartbeat_column")
    ordering = ("-heartbeat_at",)
    search_fields = ("host",)
    fields = ("host", "pid", "state_column", "concurrency", "leases_column", "started_at", "heartbeat_at")
    readonly_fields = fields

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).annotate(leases=Count("deliveries"))

    @admin.display(description=_("state"))
    def state_column(self, worker: Worker) -> SafeString:
        if not is_alive(worker, timezone.now()):
            return status_badge("failed", str(_("Silent")))
        return (
            status_badge("paused", str(_("Draining"))) if worker.draining else status_badge("running", str(_("Alive")))
        )

    @admin.display(description=_("deliveries"), ordering="leases")
    def leases_column(self, worker: Worker) -> int:
        return int(getattr(worker, "leases", 0))

    @admin.display(description=_("started"), ordering="started_at")
    def started_column(self, worker: Worker) -> SafeString | None:
        return time_cell(worker.started_at)

    @admin.display(description=_("last heartbeat"), ordering="heartbeat_at")
    def heartbeat_column(self, worker: Worker) -> SafeString | None:
        return time_cell(worker.heartbeat_at)
