"""Flow-control keys: their limits, how much of them is in use, and their pauses."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.contrib import admin, messages
from django.db.models import Count, IntegerField, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from django_workflow.admin.base import ReadOnlyAdmin, time_cell
from django_workflow.admin.confirm import Confirmation, Line, ask, is_confirmed, reason_of
from django_workflow.admin.own_page import admin_url
from django_workflow.admin.status import status_badge
from django_workflow.conf import get_settings
from django_workflow.control.history import write as note
from django_workflow.engine import flow_control
from django_workflow.engine.unit_of_work import UnitOfWork
from django_workflow.engine.writing import write
from django_workflow.models import Delivery, FlowKey
from django_workflow.realtime.lengths import length_text

Change = Callable[[UnitOfWork, str], None]


@admin.register(FlowKey)
class FlowKeyAdmin(ReadOnlyAdmin[FlowKey]):
    list_display = ("key", "state_column", "running_column", "waiting_column", "rate_column", "pins_column")
    list_filter = ("paused",)
    search_fields = ("key",)
    fields = (*list_display, "runs_column")
    readonly_fields = fields
    actions = ("pause", "resume", "reset")
    change_list_template = "django_workflow/admin/change_list.html"

    def get_queryset(self, request: HttpRequest) -> Any:
        queryset = super().get_queryset(request)
        return queryset.annotate(
            running=_count(queryset.db, Q(worker__isnull=False)), waiting=_count(queryset.db, Q(worker__isnull=True))
        )

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        context = {"title": _("Flow-control keys"), "lead": _lead(), **(extra_context or {})}
        return super().changelist_view(request, context)

    @admin.display(description=gettext_lazy("state"), ordering="paused")
    def state_column(self, key: FlowKey) -> SafeString:
        return status_badge("paused", _("Paused")) if key.paused else status_badge("running", _("Open"))

    @admin.display(description=gettext_lazy("running"), ordering="running")
    def running_column(self, key: FlowKey) -> str:
        running = int(getattr(key, "running", 0))
        if key.parallelism is None:
            return str(running)
        return _("%(running)d of %(most)d") % {"running": running, "most": key.parallelism}

    @admin.display(description=gettext_lazy("waiting"), ordering="waiting")
    def waiting_column(self, key: FlowKey) -> int:
        return int(getattr(key, "waiting", 0))

    @admin.display(description=gettext_lazy("rate"), ordering="rate")
    def rate_column(self, key: FlowKey) -> SafeString | None:
        """How much of the window is used, and when it ends."""
        if key.rate is None:
            return None
        over = flow_control.is_over(key, timezone.now())
        period = timedelta(seconds=key.period_seconds)
        used = _("%(used)d of %(most)d in %(period)s") % {
            "used": 0 if over else key.window_count,
            "most": key.rate,
            "period": length_text(period),
        }
        if over:
            return format_html("{}", used)
        return format_html(
            '{}<br><span class="wfa-quiet">{} {}</span>', used, _("until"), time_cell(key.window_ends_at)
        )

    @admin.display(description=gettext_lazy("pinned"))
    def pins_column(self, key: FlowKey) -> str | None:
        """Limits that messages do not change."""
        pins = [
            text
            for is_pinned, text in ((key.pinned_parallelism, _("parallelism")), (key.pinned_rate, _("rate")))
            if is_pinned
        ]
        return ", ".join(pins) or None

    @admin.display(description=gettext_lazy("runs"))
    def runs_column(self, key: FlowKey) -> SafeString:
        url = admin_url(self, "run_changelist", query={"flow_key__exact": key.key})
        return format_html('<a href="{}">{}</a>', url, _("Runs of this key"))

    # Actions

    def has_pause_permission(self, request: HttpRequest) -> bool:
        return not get_settings().is_hosted and bool(request.user.has_perm("django_workflow.pause_flowkey"))

    @admin.action(description=gettext_lazy("Pause: let nothing more through"), permissions=["pause"])
    def pause(self, request: HttpRequest, keys: QuerySet[FlowKey]) -> HttpResponse | None:
        return self._change(
            request,
            keys,
            flow_control.pause,
            title=lambda number: ngettext("Pause %d flow-control key", "Pause %d flow-control keys", number) % number,
            why_not=lambda key: _("It is paused already.") if key.paused else "",
            done=lambda number: ngettext("%d key was paused.", "%d keys were paused.", number) % number,
            said=_("Paused."),
            explanation=_("What is in flight goes on. Everything else of these keys waits until they are resumed."),
        )

    @admin.action(description=gettext_lazy("Resume: let through what the limits allow"), permissions=["pause"])
    def resume(self, request: HttpRequest, keys: QuerySet[FlowKey]) -> HttpResponse | None:
        return self._change(
            request,
            keys,
            flow_control.resume,
            title=lambda number: ngettext("Resume %d flow-control key", "Resume %d flow-control keys", number) % number,
            why_not=lambda key: "" if key.paused else _("It is not paused."),
            done=lambda number: ngettext("%d key was resumed.", "%d keys were resumed.", number) % number,
            said=_("Resumed."),
        )

    @admin.action(description=gettext_lazy("Reset: forget the rate's window"), permissions=["pause"])
    def reset(self, request: HttpRequest, keys: QuerySet[FlowKey]) -> HttpResponse | None:
        return self._change(
            request,
            keys,
            flow_control.reset,
            title=lambda number: ngettext("Reset %d flow-control key", "Reset %d flow-control keys", number) % number,
            why_not=lambda key: "" if key.rate is not None else _("It has no rate."),
            done=lambda number: ngettext("%d key was reset.", "%d keys were reset.", number) % number,
            said=_("The rate's window was reset."),
            explanation=_("As many may start at once as a whole period allows; the next start opens a new window."),
        )

    def _change(
        self,
        request: HttpRequest,
        keys: QuerySet[FlowKey],
        change: Change,
        *,
        title: Callable[[int], str],
        why_not: Callable[[FlowKey], str],
        done: Callable[[int], str],
        said: str,
        explanation: str = "",
    ) -> HttpResponse | None:
        """Change the keys for which there is no reason not to, after asking, and note who did it and why."""
        rows = list(keys)
        reasons = {key.pk: why_not(key) for key in rows}
        chosen = [key for key in rows if not reasons[key.pk]]
        if not is_confirmed(request):
            confirmation = Confirmation(
                title=title(len(chosen)),
                explanation=explanation,
                affected=[Line(key.key, remark=self._use(key)) for key in chosen],
                skipped=[Line(key.key, remark=reasons[key.pk]) for key in rows if reasons[key.pk]],
                keep_url=request.get_full_path(),
            )
            return ask(self, request, confirmation)
        reason = reason_of(request)
        for key in chosen:
            name = key.key
            write(get_settings().database, lambda unit, name=name: change(unit, name))  # type: ignore[misc]
            note(key, by=request.user, message=said, reason=reason)
        if chosen:
            self.message_user(request, done(len(chosen)), messages.SUCCESS)
        return None

    def _use(self, key: FlowKey) -> str:
        return _("%(running)s running, %(waiting)d waiting") % {
            "running": self.running_column(key),
            "waiting": self.waiting_column(key),
        }


def _lead() -> str:
    if get_settings().is_hosted:
        return _("The hosted engine keeps its flow-control keys itself: look at them, and change them, in its console.")
    return _("A key limits how many deliveries of its runs and messages are in flight, and how many start in a period.")


def _count(alias: str, which: Q) -> Coalesce:
    """How many deliveries of the outer row's key are so."""
    deliveries: QuerySet[Any] = Delivery.objects.using(alias).filter(which, flow_key=OuterRef("key")).order_by()
    counted = deliveries.values("flow_key").annotate(number=Count("pk")).values("number")
    return Coalesce(Subquery(counted, output_field=IntegerField()), 0)
