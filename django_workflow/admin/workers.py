"""The health page: whether workers live and keep up, the outbox, the signing keys, realtime; with the list of workers.

Realtime is tried out by a button: the server keeps an event, reads it back and sends a message round the channel layer;
a browser with JavaScript also tells by which transports it heard of the event, and how soon.
"""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Count
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.urls import URLPattern, path
from django.utils import formats, timezone
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_POST

from django_workflow.admin.base import ReadOnlyAdmin, time_cell
from django_workflow.admin.own_page import admin_url
from django_workflow.admin.status import status_badge
from django_workflow.models import Worker
from django_workflow.models.channel_event import format_position
from django_workflow.presentation.health import read_health
from django_workflow.presentation.lookup import is_alive
from django_workflow.realtime import access, probe
from django_workflow.realtime.widget import source_url

PROBE_URL = "django_workflow_worker_probe"


@admin.register(Worker)
class WorkerAdmin(ReadOnlyAdmin[Worker]):
    list_display = ("__str__", "state_column", "leases_column", "concurrency", "started_column", "heartbeat_column")
    ordering = ("-heartbeat_at",)
    search_fields = ("host",)
    fields = ("host", "pid", "state_column", "concurrency", "leases_column", "started_at", "heartbeat_at")
    readonly_fields = fields
    change_list_template = "django_workflow/admin/health.html"

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).annotate(leases=Count("deliveries"))

    @admin.display(description=gettext_lazy("state"))
    def state_column(self, worker: Worker) -> SafeString:
        if not is_alive(worker, timezone.now()):
            return status_badge("failed", _("Silent"))
        return status_badge("paused", _("Draining")) if worker.draining else status_badge("running", _("Alive"))

    @admin.display(description=gettext_lazy("deliveries"), ordering="leases")
    def leases_column(self, worker: Worker) -> int:
        return int(getattr(worker, "leases", 0))

    @admin.display(description=gettext_lazy("started"), ordering="started_at")
    def started_column(self, worker: Worker) -> SafeString | None:
        return time_cell(worker.started_at)

    @admin.display(description=gettext_lazy("last heartbeat"), ordering="heartbeat_at")
    def heartbeat_column(self, worker: Worker) -> SafeString | None:
        return time_cell(worker.heartbeat_at)

    # The page

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        context: dict[str, Any] = {"title": _("Health"), **(extra_context or {})}
        if self.has_view_permission(request):
            context |= {"health": read_health(timezone.now()), "badges": _badges(), "probe": self._probe_context()}
        return super().changelist_view(request, context)

    def _probe_context(self) -> dict[str, str]:
        """What the browser needs to follow the test channel."""
        return {
            "url": admin_url(self, "worker_probe"),
            "source": source_url(),
            "channel": probe.CHANNEL,
            "cursor": format_position(probe.newest_cursor()),
            "token": access.make_token([probe.CHANNEL]),
        }

    def get_urls(self) -> list[URLPattern]:
        view: Any = self.admin_site.admin_view(require_POST(self.probe_view))
        return [path("probe/", view, name=PROBE_URL), *super().get_urls()]

    def probe_view(self, request: HttpRequest) -> HttpResponse:
        """Try realtime out. A script gets the figures as JSON, a browser by itself a message on the page."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        found = probe.probe(request.user.get_username())
        if "application/json" in request.headers.get("Accept", ""):
            return JsonResponse(
                {"id": found.event_id, "store": found.store_ms, "layer": found.layer_ms, "error": found.error}
            )
        if found.error:
            self.message_user(request, _("Realtime does not work: %s") % found.error, messages.ERROR)
        else:
            self.message_user(request, _probe_text(found), messages.SUCCESS)
        return HttpResponseRedirect(admin_url(self, "worker_changelist"))


def _badges() -> dict[str, SafeString]:
    return {
        "well": status_badge("success", _("All is well")),
        "warning": status_badge("waiting", _("Warning")),
        "error": status_badge("failed", _("Problem")),
    }


def _probe_text(found: probe.Probe) -> str:
    parts = [_("A test event was kept and read back in %s ms.") % formats.number_format(found.store_ms or 0)]
    if found.layer_ms is None:
        parts.append(
            _("There is no channel layer: browsers hear of events when the store is looked at, once a second.")
        )
    else:
        parts.append(_("The channel layer took %s ms.") % formats.number_format(found.layer_ms))
    return " ".join(parts)
