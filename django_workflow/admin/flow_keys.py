"""Flow-control keys: their limits, how much of them is in use, and their pauses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Count, IntegerField, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from django_workflow.admin.base import ReadOnlyAdmin, time_cell
from django_workflow.admin.confirm import Confirmation, Line, ask, is_confirmed, reason_of
from django_workflow.admin.own_page import admin_url
from django_workflow.admin.run_actions import Button
from django_workflow.admin.status import status_badge
from django_workflow.conf import get_settings
from django_workflow.control.history import write as note
from django_workflow.engine import flow_control
from django_workflow.engine.unit_of_work import UnitOfWork
from django_workflow.engine.writing import write
from django_workflow.models import Delivery, FlowKey
from django_workflow.realtime.lengths import length_text

if TYPE_CHECKING:
    from django.utils.functional import Promise

ACTION_URL = "django_workflow_flowkey_action"


@dataclass(frozen=True, slots=True)
class Change:
    """Something that is done to keys: the button's `text`, the doing of it, and what is said before and after.

    `why_not` says why it cannot be done to a key; "": it can. `said` stands in the key's history.
    """

    text: str | Promise
    make: Callable[[UnitOfWork, str], None]
    why_not: Callable[[FlowKey], str]
    title: Callable[[int], str]
    done: Callable[[int], str]
    said: str | Promise
    explanation: str | Promise = ""


_CHANGES = {
    "pause": Change(
        text=gettext_lazy("Pause"),
        make=flow_control.pause,
        why_not=lambda key: _("It is paused already.") if key.paused else "",
        title=lambda number: ngettext("Pause %d flow-control key", "Pause %d flow-control keys", number) % number,
        done=lambda number: ngettext("%d key was paused.", "%d keys were paused.", number) % number,
        said=gettext_lazy("Paused."),
        explanation=gettext_lazy(
            "What is in flight goes on. Everything else of these keys waits until they are resumed."
        ),
    ),
    "resume": Change(
        text=gettext_lazy("Resume"),
        make=flow_control.resume,
        why_not=lambda key: "" if key.paused else _("It is not paused."),
        title=lambda number: ngettext("Resume %d flow-control key", "Resume %d flow-control keys", number) % number,
        done=lambda number: ngettext("%d key was resumed.", "%d keys were resumed.", number) % number,
        said=gettext_lazy("Resumed."),
    ),
    "reset": Change(
        text=gettext_lazy("Reset"),
        make=flow_control.reset,
        why_not=lambda key: "" if key.rate is not None else _("It has no rate."),
        title=lambda number: ngettext("Reset %d flow-control key", "Reset %d flow-control keys", number) % number,
        done=lambda number: ngettext("%d key was reset.", "%d keys were reset.", number) % number,
        said=gettext_lazy("The rate's window was reset."),
        explanation=gettext_lazy(
            "As many may start at once as a whole period allows; the next start opens a new window."
        ),
    ),
}


@admin.register(FlowKey)
class FlowKeyAdmin(ReadOnlyAdmin[FlowKey]):
    list_display = ("key", "state_column", "running_column", "waiting_column", "rate_column", "pins_column")
    list_filter = ("paused",)
    search_fields = ("key",)
    fields = (*list_display, "runs_column")
    readonly_fields = fields
    actions = ("pause", "resume", "reset")
    change_list_template = "django_workflow/admin/change_list.html"
    change_form_template = "django_workflow/admin/with_buttons.html"

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

    # Actions: of the list, and by the buttons of a key

    def has_pause_permission(self, request: HttpRequest) -> bool:
        return not get_settings().is_hosted and bool(request.user.has_perm("django_workflow.pause_flowkey"))

    @admin.action(description=gettext_lazy("Pause: let nothing more through"), permissions=["pause"])
    def pause(self, request: HttpRequest, keys: QuerySet[FlowKey]) -> HttpResponse | None:
        return self._change(request, keys, _CHANGES["pause"], request.get_full_path())

    @admin.action(description=gettext_lazy("Resume: let through what the limits allow"), permissions=["pause"])
    def resume(self, request: HttpRequest, keys: QuerySet[FlowKey]) -> HttpResponse | None:
        return self._change(request, keys, _CHANGES["resume"], request.get_full_path())

    @admin.action(description=gettext_lazy("Reset: forget the rate's window"), permissions=["pause"])
    def reset(self, request: HttpRequest, keys: QuerySet[FlowKey]) -> HttpResponse | None:
        return self._change(request, keys, _CHANGES["reset"], request.get_full_path())

    def get_urls(self) -> list[URLPattern]:
        view: Any = self.admin_site.admin_view(self.action_view)
        return [path("<uuid:key>/do/<slug:name>/", view, name=ACTION_URL), *super().get_urls()]

    def action_view(self, request: HttpRequest, key: UUID, name: str) -> HttpResponse:
        """The page that asks before a key is changed by its button, and then does it."""
        found = self.get_queryset(request).filter(pk=key)
        if name not in _CHANGES or not self.has_view_permission(request) or not found.exists():
            raise Http404
        if not self.has_pause_permission(request):
            raise PermissionDenied
        back = admin_url(self, "flowkey_change", key)
        return self._change(request, found, _CHANGES[name], back) or HttpResponseRedirect(back)

    def row_context(self, request: HttpRequest, row: FlowKey) -> dict[str, Any]:
        return {"title": _("Flow-control key"), "buttons": self._buttons(request, row)}

    def _buttons(self, request: HttpRequest, key: FlowKey) -> list[Button]:
        if not self.has_pause_permission(request):
            return []
        names = ("resume" if key.paused else "pause", "reset")
        return [
            Button(
                name,
                str(_CHANGES[name].text),
                admin_url(self, "flowkey_action", key.pk, name),
                _CHANGES[name].why_not(key),
            )
            for name in names
        ]

    def _change(
        self, request: HttpRequest, keys: QuerySet[FlowKey], change: Change, back_url: str
    ) -> HttpResponse | None:
        """Change the keys for which there is no reason not to, after asking, and note who did it and why."""
        rows = list(keys)
        reasons = {key.pk: change.why_not(key) for key in rows}
        chosen = [key for key in rows if not reasons[key.pk]]
        if not is_confirmed(request):
            confirmation = Confirmation(
                title=change.title(len(chosen)),
                explanation=str(change.explanation),
                affected=[Line(key.key, remark=self._use(key)) for key in chosen],
                skipped=[Line(key.key, remark=reasons[key.pk]) for key in rows if reasons[key.pk]],
                keep_url=back_url,
            )
            return ask(self, request, confirmation)
        reason = reason_of(request)
        for key in chosen:
            name = key.key
            write(get_settings().database, lambda unit, name=name: change.make(unit, name))  # type: ignore[misc]
            note(key, by=request.user, message=str(change.said), reason=reason)
        if chosen:
            self.message_user(request, change.done(len(chosen)), messages.SUCCESS)
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
