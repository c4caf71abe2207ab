"""The run list and the page of a run.

Everything comes from `Run`, `Step` and their neighbours in a number of queries that does not grow with the rows shown;
`run_page` gathers what the page of one run shows.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import BadRequest, PermissionDenied
from django.core.paginator import Paginator
from django.db import models
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from django_workflow.admin.base import ReadOnlyAdmin, copy_button, realtime_source, run_url, time_cell, url_or_blank
from django_workflow.admin.bulk import action_name, list_actions, operation_page
from django_workflow.admin.confirm import is_confirmed
from django_workflow.admin.engine_bar import engine_bar
from django_workflow.admin.export import FORMATS, export
from django_workflow.admin.filters import (
    CodeVersionFilter,
    EngineFilter,
    ErrorFilter,
    LabelFilter,
    RelatedTypeFilter,
    StatusFilter,
    StuckFilter,
    TriggerFilter,
    WorkflowFilter,
)
from django_workflow.admin.own_page import Crumb
from django_workflow.admin.reveal import reveal_page
from django_workflow.admin.run_actions import Button, act_on_run, buttons
from django_workflow.admin.run_forms import form_of
from django_workflow.admin.run_list import RunList, RunPaginator
from django_workflow.admin.run_page import run_as_json, run_page
from django_workflow.admin.status import badge_of
from django_workflow.conf import get_settings
from django_workflow.control.actions import ACTIONS, may
from django_workflow.control.reveal import why_not
from django_workflow.engine.pruner import delete_runs
from django_workflow.models import Run, Step
from django_workflow.presentation import lookup, values
from django_workflow.presentation.words import first_line, progress_text, running_time, short_run_id
from django_workflow.realtime.lengths import length_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from django_workflow.models.run import RunQuerySet

MOST_NEW = 1000


@admin.register(Run)
class RunAdmin(ReadOnlyAdmin[Run]):
    list_display = (
        "status_column",
        "run_column",
        "summary_column",
        "progress_column",
        "started_column",
        "trigger_column",
    )
    list_display_links = None  # the run's name is the link: a button stands beside it
    list_filter = (
        StatusFilter,
        WorkflowFilter,
        LabelFilter,
        ErrorFilter,
        StuckFilter,
        TriggerFilter,
        EngineFilter,
        CodeVersionFilter,
        RelatedTypeFilter,
    )
    list_select_related = ("owner", "parent")
    date_hierarchy = "created_at"  # its addresses; the histogram is shown in its place
    ordering = ("-created_at",)
    paginator = RunPaginator
    actions = (*list_actions(), "export_csv", "export_json")
    search_fields = ("run_id",)  # the search itself is `lookup.matching`
    search_help_text = _(
        "Run id (with or without wfr_), label, id of the related object, event, flow-control key, or text of the "
        "summary or error."
    )

    # The list

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return RunList

    def get_paginator(
        self,
        request: HttpRequest,
        queryset: Any,
        per_page: int,
        orphans: int = 0,
        allow_empty_first_page: bool = True,
    ) -> Paginator[Any]:
        if queryset.model is not Run:  # the history of a run has pages too
            return Paginator(queryset, per_page, orphans, allow_empty_first_page)
        is_search = bool(getattr(request, "_workflow_searches_text", False))
        return RunPaginator(queryset, per_page, orphans, allow_empty_first_page, is_search=is_search)

    def get_search_results(
        self, request: HttpRequest, queryset: models.QuerySet[Run], search_term: str
    ) -> tuple[models.QuerySet[Run], bool]:
        """A run id is looked up by the index; other words are searched for in the texts."""
        term = search_term.strip()
        if not term:
            return queryset, False
        runs = cast("RunQuerySet", queryset)
        named = runs.filter(run_id__in=lookup.run_ids(term))
        if named.exists():
            return named, False
        request._workflow_searches_text = True  # type: ignore[attr-defined]
        return lookup.matching(runs, term), False

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        now = timezone.now()
        shown = {
            "title": gettext("Runs"),
            "engine_bar": engine_bar(now),
            "loaded_at": now,
            "realtime_source": realtime_source(),
            "operations_url": url_or_blank("admin:django_workflow_bulkoperation_changelist"),
            "workflows_url": url_or_blank("admin:django_workflow_workflows"),
        }
        return super().changelist_view(request, {**shown, **(extra_context or {})})

    def live_view(self, request: HttpRequest) -> HttpResponse:
        """The rows that a page shows, as they are now, and how many runs are newer than it: for the list's script."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        query = request.GET.copy()
        keys = [key for key in query.pop("rows", [""])[-1].split(",") if _is_key(key)][: self.list_per_page]
        since = _instant(query.pop("since", [""])[-1])
        request.GET = query  # type: ignore[assignment]
        runs = self._filtered(request)
        newer = runs.queryset.filter(created_at__gt=since)[:MOST_NEW].count() if since else 0
        found = {str(run.pk): run for run in runs.shown(self.get_queryset(request).filter(pk__in=keys))}
        runs.formset = None
        runs.result_list = [found[key] for key in keys if key in found]
        context = {"cl": runs, "opts": self.opts, "newer": newer, "engine_bar": engine_bar(timezone.now())}
        return TemplateResponse(request, "django_workflow/admin/live_rows.html", context)

    @admin.action(description=_("Export selected runs as CSV"), permissions=["view"])
    def export_csv(self, request: HttpRequest, runs: RunQuerySet) -> HttpResponseBase:
        return export(request, runs, "csv")

    @admin.action(description=_("Export selected runs as JSON"), permissions=["view"])
    def export_json(self, request: HttpRequest, runs: RunQuerySet) -> HttpResponseBase:
        return export(request, runs, "json")

    def export_view(self, request: HttpRequest, form: str) -> HttpResponseBase:
        if not self.has_view_permission(request):
            raise PermissionDenied
        if form not in FORMATS:
            raise Http404
        return export(request, self._filtered(request).queryset, form)

    def _filtered(self, request: HttpRequest) -> RunList:
        """The list that the request's query asks for. Raises BadRequest where Django's own page would lead back."""
        try:
            return cast(RunList, self.get_changelist_instance(request))
        except IncorrectLookupParameters as error:
            raise BadRequest(f"The list has no such filter: {error}") from error

    def get_actions(self, request: HttpRequest, action_location: Any = None) -> dict[str, Any]:
        """Those that the user may do. `delete_selected` of the admin is ours: it knows which runs may go."""
        # Django says where since 6.1, and asks for it in the signature.
        where: Any = {} if action_location is None else {"action_location": action_location}
        offered = super().get_actions(request, **where)
        return {
            name: offer
            for name, offer in offered.items()
            if name != "delete_selected"
            and (action_name(name) not in ACTIONS or may(request.user, ACTIONS[action_name(name)].permission))
        }

    def operation_view(self, request: HttpRequest, key: UUID) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        return operation_page(self, request, key)

    @admin.display(description=_("status"), ordering="status")
    def status_column(self, run: Run) -> SafeString:
        return badge_of(run)

    @admin.display(description=_("run"), ordering="workflow")
    def run_column(self, run: Run) -> SafeString:
        return format_html(
            '<a class="wfa-run-name" href="{}" data-run="{}" data-channel="{}">{}</a><br>'
            '<span class="wfa-id wfa-quiet" title="{}">{}</span>{}',
            run_url(run, self.admin_site),
            run.pk,
            "" if run.is_finished else run.run_id,
            run.workflow,
            run.run_id,
            short_run_id(run.run_id),
            copy_button(run.run_id),
        )

    @admin.display(description=_("summary"), ordering="summary")
    def summary_column(self, run: Run) -> SafeString | None:
        """The author's line, else how the error begins; and the labels below."""
        error = first_line(getattr(run, "error_start", ""), 120)
        line = format_html("{}", run.summary)
        if error and not run.summary:
            line = format_html('<span class="wfa-error">{}</span>', error)
        if not run.labels:
            return line or None
        labels = format_html_join(" ", '<span class="wfa-label">{}</span>', ((label,) for label in run.label_list))
        return format_html('{}<div class="wfa-labels">{}</div>', line, labels)

    @admin.display(description=_("progress"))
    def progress_column(self, run: Run) -> SafeString | str:
        """How far it is, and how often steps of it were tried again."""
        text = progress_text(run, getattr(run, "step_count", 0), getattr(run, "open_steps", ()))
        if not (retries := getattr(run, "retry_count", 0)):
            return text
        return format_html(
            '{}<br><span class="wfa-quiet">{}</span>', text, ngettext("%d retry", "%d retries", retries) % retries
        )

    @admin.display(description=_("started"), ordering="started_at")
    def started_column(self, run: Run) -> SafeString | None:
        """When it started, and for how long it ran or has been running."""
        length = running_time(run, timezone.now())
        if length is None:
            return None
        return format_html('{}<br><span class="wfa-quiet">{}</span>', time_cell(run.started_at), length_text(length))

    @admin.display(description=_("trigger"), ordering="trigger_kind")
    def trigger_column(self, run: Run) -> SafeString:
        """What or who; and on which engine, where that is not this project's own."""
        kind: SafeString | str = run.get_trigger_kind_display()
        if run.parent is not None:
            kind = format_html('<a href="{}" title="{}">{}</a>', run_url(run.parent), run.parent.run_id, kind)
        elif run.owner is not None:
            kind = f"{kind}: {run.owner}"
        if run.engine == Run.Engine.EMBEDDED:
            return format_html("{}", kind)
        return format_html('{}<br><span class="wfa-quiet">{}</span>', kind, run.get_engine_display())

    # The page of a run

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Run | None:
        """By key, as the admin's own links have it, or by run id; with the rows that its page names."""
        runs = lookup.runs().select_related(
            "owner", "content_type", "parent", "first_run", "resumed_from", "dead_letter"
        )
        runs = runs.defer(*(f"{other}__{name}" for other in _OTHER_RUNS for name in _LONG_TEXTS), *_LETTER_TEXTS)
        if _is_key(object_id) and (run := runs.filter(pk=object_id).first()):
            return run
        return lookup.find_run(runs, object_id)

    def get_fieldsets(self, request: HttpRequest, obj: Run | None = None) -> Any:
        return ()  # the page shows the run by its own template, not as a form

    def row_context(self, request: HttpRequest, row: Run) -> dict[str, Any]:
        """What `run_page` gathers, with what this user may do."""
        offered = buttons(self, request, row, _buttons_of(row), ACTION_URL)
        return {
            **run_page(request, row, timezone.now(), self.admin_site),
            "realtime_source": realtime_source(),
            "reveal_url": "" if why_not(request.user) else reverse(f"admin:{_REVEAL_NAME}", args=[row.pk]),
            "buttons": offered,
            "fork_url": _url_of("fork", offered),
            "resume_url": _url_of("resume", offered),
            "title": gettext("Run of %s") % row.workflow,
            "subtitle": row.run_id,
        }

    def get_urls(self) -> list[URLPattern]:
        own = [
            path("operations/<uuid:key>/", self._site_view(self.operation_view), name="django_workflow_run_operation"),
            path(
                "<path:object_id>/act/<str:name>/",
                self._site_view(self.action_view),
                name=f"django_workflow_{ACTION_URL}",
            ),
            path("<path:object_id>/reveal/", self._site_view(self.reveal_view), name=_REVEAL_NAME),
            path("live/", self._site_view(self.live_view), name="django_workflow_run_live"),
            path("export.<str:form>", self._site_view(self.export_view), name="django_workflow_run_export"),
            path("<path:object_id>/values/<str:name>/", self._site_view(self.value_view), name=VALUE_URL),
            path("<path:object_id>/values/<str:name>/<int:step_id>/", self._site_view(self.value_view), name=VALUE_URL),
        ]
        return own + super().get_urls()

    def _run_at(self, request: HttpRequest, object_id: str) -> Run:
        """The run of an address. Raises Http404 where there is none, PermissionDenied for who may not see it."""
        run = self.get_object(request, object_id)
        if run is None:
            raise Http404
        if not self.has_view_permission(request, run):
            raise PermissionDenied
        return run

    def action_view(self, request: HttpRequest, object_id: str, name: str) -> HttpResponse:
        """The page that asks before an action is done to the run, and then does it."""
        run = self._run_at(request, object_id)
        action = ACTIONS.get(name)
        if action is None:
            raise Http404
        if not may(request.user, action.permission):
            raise PermissionDenied
        back = run_url(run)
        data = request.POST if is_confirmed(request) else None
        form = form_of(action, run, data, {"step": request.GET["step"]} if "step" in request.GET else None)
        return act_on_run(self, request, run, name, back_url=back, crumbs=[Crumb(str(run), back)], form=form)

    def reveal_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        run = self._run_at(request, object_id)
        return reveal_page(self, request, run, run_url(run))

    def _site_view(self, view: Callable[..., HttpResponseBase]) -> Any:
        return self.admin_site.admin_view(view)

    def value_view(self, request: HttpRequest, object_id: str, name: str, step_id: int | None = None) -> HttpResponse:
        """A payload or result as a file: what is too long for the page."""
        run = self._run_at(request, object_id)
        value = _value(run, name, step_id)
        suffix, kind = ("txt", "text/plain; charset=utf-8") if isinstance(value, str) else ("json", "application/json")
        file_name = "-".join(filter(None, [run.run_id, name, str(step_id or "")])).encode("ascii", "replace").decode()
        return HttpResponse(
            values.laid_out(value),
            content_type=kind,
            headers={
                "Content-Disposition": f'attachment; filename="{file_name}.{suffix}"',
                "X-Content-Type-Options": "nosniff",
            },
        )

    # Deleting: finished runs only, with everything that belongs to them

    def has_delete_permission(self, request: HttpRequest, obj: Run | None = None) -> bool:
        return super().has_delete_permission(request, obj) and (obj is None or obj.is_finished)

    def get_deleted_objects(
        self, objs: models.QuerySet[Run] | Sequence[Run], request: HttpRequest
    ) -> tuple[list[Any], dict[str, int], set[str], list[Any]]:
        """Runs and how many rows go with them; runs that are not over are protected."""
        runs: Iterable[Run] = objs
        finished = [run for run in runs if run.is_finished]
        active = [gettext("%s is not over: cancel it first.") % run for run in runs if not run.is_finished]
        steps = Step.objects.using(get_settings().database).filter(run__in=[run.pk for run in finished]).count()
        counts = {str(Run._meta.verbose_name_plural): len(finished), str(Step._meta.verbose_name_plural): steps}
        denied = set() if self.has_delete_permission(request) else {str(Run._meta.verbose_name)}
        return [str(run) for run in finished], counts, denied, active

    def delete_model(self, request: HttpRequest, obj: Run) -> None:
        delete_runs([obj])

    def delete_queryset(self, request: HttpRequest, queryset: models.QuerySet[Run]) -> None:
        delete_runs(list(queryset.select_related(None).prefetch_related(None).only("pk", "run_id")))


VALUE_URL = "django_workflow_run_value"
_REVEAL_NAME = "django_workflow_run_reveal"
ACTION_URL = "run_action"

_BUTTONS = (
    "cancel",
    "pause",
    "unpause",
    "retry_now",
    "resume",
    "restart",
    "fork",
    "notify",
    "start_similar",
    "mark_handled",
    "retry_failure_function",
    "delete",
)
# What only ever goes with runs in this state is not shown with others: a row of dead buttons tells nothing.
_ONLY_WITH = {
    "unpause": (Run.Status.PAUSED,),
    "retry_now": (Run.Status.RETRYING,),
    "mark_handled": (Run.Status.FAILED,),
    "retry_failure_function": (Run.Status.FAILED,),
}


def _buttons_of(run: Run) -> list[str]:
    hidden = {name for name, statuses in _ONLY_WITH.items() if run.status not in statuses}
    if run.status == Run.Status.PAUSED:
        hidden.add("pause")
    return [name for name in _BUTTONS if name not in hidden]


def _url_of(name: str, offered: Iterable[Button]) -> str:
    """Where that button leads; "" for one that is not offered, or not now."""
    return next((button.url for button in offered if button.name == name and not button.why_not), "")


_OTHER_RUNS = ("parent", "first_run", "resumed_from")
_LONG_TEXTS = ("payload", "result", "error", "config", "url", "why")
_LETTER_TEXTS = tuple(
    f"dead_letter__{name}" for name in ("response_headers", "response_body", "failure_headers", "failure_response")
)


def _value(run: Run, name: str, step_id: int | None) -> Any:
    if name == "step":
        step = run.steps.filter(step_id=step_id or 0).first()
        if step is None:
            raise Http404
        return values.step_results(run, [step]).get(step.step_id)
    if name == "run":
        return run_as_json(run)
    if name == "payload":
        return values.payload_of(run)
    if name == "result":
        return values.result_of(run)
    raise Http404


def _instant(text: str) -> datetime | None:
    """None for what is no instant with a time zone."""
    try:
        instant = parse_datetime(text)
        return None if instant is None or timezone.is_naive(instant) else instant.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _is_key(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True
