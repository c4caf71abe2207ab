"""Failed runs that nobody has dealt with, and messages that were given up: why, and what to do about them.

Above the list stand the groups of like failures ("37 x ConnectionError in charge card"), each a filter of the list.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.db.models import Count, IntegerField, Max, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import URLPattern, path
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from django_workflow.admin.base import ReadOnlyAdmin, preformatted, run_link, time_cell
from django_workflow.admin.bulk import act_on_many
from django_workflow.admin.confirm import Line
from django_workflow.admin.own_page import Crumb, admin_url
from django_workflow.admin.run_actions import MOST_AT_ONCE, act_on_run, act_on_runs, buttons
from django_workflow.admin.status import status_badge
from django_workflow.control.actions import ACTIONS
from django_workflow.models import DeadLetter, Run
from django_workflow.presentation import lookup, values
from django_workflow.presentation.words import first_line

if TYPE_CHECKING:
    from datetime import datetime

LARGEST_BODY = 64 * 1024
GROUPS_SHOWN = 6
ACTION_URL = "django_workflow_deadletter_action"
ACTIONS_OFFERED = ("resume", "restart", "retry_failure_function", "mark_handled", "delete")
GROUPED_BY = ("error_kind", "step_name", "run__workflow")


@dataclass(frozen=True, slots=True)
class Group:
    """Failures of one kind of error in one step. `url` shows them alone, or all again while it `is_chosen`."""

    kind: str
    place: str
    workflow: str
    number: int
    newest_at: datetime
    url: str
    is_chosen: bool


@admin.register(DeadLetter)
class DeadLetterAdmin(ReadOnlyAdmin[DeadLetter]):
    list_display = ("error_column", "run_cell", "failed_column", "failure_column", "resumed_column")
    list_filter = ("failure_state", "status")
    list_select_related = ("run", "message")
    date_hierarchy = "created_at"
    search_fields = ("run__run_id", "run__workflow", "step_name", "error", "destination")
    search_help_text = gettext_lazy("Run id (with or without wfr_), workflow, step, error text or destination.")
    actions = ("resume", "restart", "retry_failure_function", "mark_handled", "delete_runs")
    fields = (
        "run_column",
        "workflow_column",
        "step_name",
        "destination",
        "status",
        "full_error",
        "headers",
        "body",
        "failure_column",
        "failure_answer",
        "resumed_column",
        "created_at",
    )
    readonly_fields = fields
    change_list_template = "django_workflow/admin/dead_letters.html"
    change_form_template = "django_workflow/admin/with_buttons.html"

    # The list

    def get_queryset(self, request: HttpRequest) -> Any:
        # Of a message only its settings are read.
        letters = super().get_queryset(request).defer("message__body", "message__response_body")
        return letters.annotate(times_resumed=_times_resumed(letters.db))

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> tuple[Any, bool]:
        named = queryset.filter(run__run_id__in=lookup.run_ids(search_term.strip())) if search_term.strip() else None
        if named is not None and named.exists():
            return named, False
        return super().get_search_results(request, queryset, search_term)

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        return lookup in GROUPED_BY or super().lookup_allowed(lookup, value, request)  # type: ignore[arg-type]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        context: dict[str, Any] = {"title": _("Failed runs"), **(extra_context or {})}
        if self.has_view_permission(request):
            context["groups"] = self._groups(request)
        return super().changelist_view(request, context)

    def _groups(self, request: HttpRequest) -> list[Group]:
        """The largest groups of all dead letters, whatever the list shows of them."""
        rows = super().get_queryset(request).order_by().values_list(*GROUPED_BY)
        counted = rows.annotate(number=Count("pk"), newest_at=Max("created_at")).order_by("-number", "-newest_at")
        return [self._group(request, *row) for row in counted[:GROUPS_SHOWN]]

    def _group(
        self, request: HttpRequest, kind: str, step: str, workflow: str | None, number: int, newest_at: datetime
    ) -> Group:
        query = {"error_kind": kind, "step_name": step}
        query |= {"run__isnull": "True"} if workflow is None else {"run__workflow": workflow}
        is_chosen = all(request.GET.get(name) == value for name, value in query.items())
        return Group(
            kind=kind or _("Other"),
            place=step or workflow or _("messages"),
            workflow=workflow or "",
            number=number,
            newest_at=newest_at,
            url=admin_url(self, "deadletter_changelist", query=None if is_chosen else query),
            is_chosen=is_chosen,
        )

    @admin.display(description=gettext_lazy("error"))
    def error_column(self, letter: DeadLetter) -> SafeString | str:
        """The class of the error and the step, above what the error says."""
        line = first_line(_error(letter), 120)
        kind = letter.error_kind or _("HTTP status %d") % letter.status
        where = _("%(kind)s in %(step)s") % {"kind": kind, "step": letter.step_name} if letter.step_name else kind
        said = line.removeprefix(f"{letter.error_kind}: ") if letter.error_kind else line
        return format_html('{}<br><span class="wfa-quiet">{}</span>', where, said)

    @admin.display(description=gettext_lazy("workflow"), ordering="run__workflow")
    def workflow_column(self, letter: DeadLetter) -> str:
        return letter.destination if letter.run is None else letter.run.workflow

    @admin.display(description=gettext_lazy("run"), ordering="run__workflow")
    def run_cell(self, letter: DeadLetter) -> SafeString:
        """The workflow above the run; of a message its destination."""
        return format_html("{}<br>{}", self.workflow_column(letter), run_link(letter.run, self.admin_site) or "")

    @admin.display(description=gettext_lazy("run"), ordering="run__run_id")
    def run_column(self, letter: DeadLetter) -> SafeString | None:
        return run_link(letter.run, self.admin_site)

    @admin.display(description=gettext_lazy("failed"), ordering="created_at")
    def failed_column(self, letter: DeadLetter) -> SafeString | None:
        return time_cell(letter.created_at)

    @admin.display(description=gettext_lazy("failure function"), ordering="failure_state")
    def failure_column(self, letter: DeadLetter) -> SafeString | None:
        if letter.failure_state == DeadLetter.FailureState.NONE:
            return None
        return status_badge(letter.failure_state, letter.get_failure_state_display())

    @admin.display(description=gettext_lazy("resumed"), ordering="times_resumed")
    def resumed_column(self, letter: DeadLetter) -> int:
        return int(getattr(letter, "times_resumed", 0))

    # One of them

    @admin.display(description=gettext_lazy("error"))
    def full_error(self, letter: DeadLetter) -> SafeString | None:
        return preformatted(_error(letter))

    @admin.display(description=gettext_lazy("response headers"))
    def headers(self, letter: DeadLetter) -> SafeString | None:
        return preformatted(values.headers_text(letter.response_headers))

    @admin.display(description=gettext_lazy("response"))
    def body(self, letter: DeadLetter) -> SafeString | None:
        return preformatted(self._shown(letter, letter.response_body))

    @admin.display(description=gettext_lazy("failure function's answer"))
    def failure_answer(self, letter: DeadLetter) -> SafeString | None:
        return preformatted(self._shown(letter, letter.failure_response))

    def row_context(self, request: HttpRequest, row: DeadLetter) -> dict[str, Any]:
        if row.run is None:
            return {}
        return {
            "buttons": buttons(self, request, row.run, ACTIONS_OFFERED, "deadletter_action"),
            "title": _("Failure of %s") % row.run.workflow,
            "subtitle": row.run.run_id,
        }

    def has_delete_permission(self, request: HttpRequest, obj: DeadLetter | None = None) -> bool:
        # A run's goes when its failure is handled, which is noted in the run's history.
        return super().has_delete_permission(request, obj) and obj is not None and obj.run_id is None

    # Actions

    def get_urls(self) -> list[URLPattern]:
        view: Any = self.admin_site.admin_view(self.action_view)
        return [path("run/<uuid:run_key>/<slug:name>/", view, name=ACTION_URL), *super().get_urls()]

    def action_view(self, request: HttpRequest, run_key: Any, name: str) -> HttpResponse:
        """The page of a button: what is done to the run of a dead letter."""
        letter = super().get_queryset(request).filter(run=run_key).select_related("run").first()
        if (
            name not in ACTIONS_OFFERED
            or letter is None
            or letter.run is None
            or not self.has_view_permission(request, letter)
        ):
            raise Http404
        url = admin_url(self, "deadletter_change", letter.pk)
        return act_on_run(self, request, letter.run, name, back_url=url, crumbs=[Crumb(str(letter.run), url)])

    def _has(self, request: HttpRequest, codename: str) -> bool:
        return bool(request.user.has_perm(f"django_workflow.{codename}"))

    def has_resume_permission(self, request: HttpRequest) -> bool:
        return self._has(request, "resume_run")

    def has_restart_permission(self, request: HttpRequest) -> bool:
        return self._has(request, "restart_run")

    def has_delete_run_permission(self, request: HttpRequest) -> bool:
        return self._has(request, "delete_run")

    @admin.action(description=gettext_lazy("Resume from the failed step"), permissions=["resume"])
    def resume(self, request: HttpRequest, letters: QuerySet[DeadLetter]) -> HttpResponse | None:
        return self._act(request, letters, "resume")

    @admin.action(description=gettext_lazy("Restart"), permissions=["restart"])
    def restart(self, request: HttpRequest, letters: QuerySet[DeadLetter]) -> HttpResponse | None:
        return self._act(request, letters, "restart")

    @admin.action(description=gettext_lazy("Retry failure function"), permissions=["resume"])
    def retry_failure_function(self, request: HttpRequest, letters: QuerySet[DeadLetter]) -> HttpResponse | None:
        return self._act(request, letters, "retry_failure_function")

    @admin.action(description=gettext_lazy("Mark as handled"), permissions=["resume"])
    def mark_handled(self, request: HttpRequest, letters: QuerySet[DeadLetter]) -> HttpResponse | None:
        return self._act(request, letters, "mark_handled")

    @admin.action(description=gettext_lazy("Delete runs, with all that belongs to them"), permissions=["delete_run"])
    def delete_runs(self, request: HttpRequest, letters: QuerySet[DeadLetter]) -> HttpResponse | None:
        return self._act(request, letters, "delete")

    def _act(self, request: HttpRequest, letters: QuerySet[DeadLetter], name: str) -> HttpResponse | None:
        chosen: list[tuple[Any, str]] = list(letters.order_by().values_list("run", "destination"))
        keys = [key for key, _destination in chosen if key is not None]
        if len(keys) > MOST_AT_ONCE:  # in the background, with a page that shows the progress
            return act_on_many(
                self, request, lookup.runs().filter(pk__in=letters.order_by().values("run")), ACTIONS[name]
            )
        why = _("It is a message outside workflows: there is no run.")
        others = [Line(destination, remark=why) for key, destination in chosen if key is None]
        return act_on_runs(self, request, keys, name, others=others)

    # Values

    def _shown(self, letter: DeadLetter, text: str) -> str:
        if not text:
            return ""
        if _hides_bodies(letter):
            return values.REDACTED
        return values.laid_out(values.parsed(text))[:LARGEST_BODY]


def _hides_bodies(letter: DeadLetter) -> bool:
    if letter.message is not None:
        return values.is_redacted_message(letter.message.config)
    return letter.run is not None and values.is_redacted(letter.run)


def _error(letter: DeadLetter) -> str:
    """Why it was given up. For a message that is the text of the last answer, if there was one."""
    hidden = letter.message is not None and letter.status and _hides_bodies(letter)
    return values.REDACTED if hidden else letter.error


def _times_resumed(alias: str) -> Coalesce:
    """How often the run of the outer letter had been resumed when it failed: its place in its chain."""
    chain = Run.objects.using(alias).filter(
        first_run=OuterRef("run__first_run"), created_at__lte=OuterRef("run__created_at")
    )
    counted: QuerySet[Any] = chain.order_by().values("first_run").annotate(number=Count("pk")).values("number")
    return Coalesce(Subquery(counted, output_field=IntegerField()), 0)
