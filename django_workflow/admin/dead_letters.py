"""Dead letters: runs and messages outside workflows that were given up, why, and what the failure function did."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from django_workflow.admin.base import ReadOnlyAdmin, preformatted, run_link, time_cell
from django_workflow.admin.status import status_badge
from django_workflow.models import DeadLetter
from django_workflow.presentation import lookup, values
from django_workflow.presentation.words import first_line

LARGEST_BODY = 64 * 1024


@admin.register(DeadLetter)
class DeadLetterAdmin(ReadOnlyAdmin[DeadLetter]):
    list_display = (
        "error_column",
        "workflow_column",
        "run_column",
        "step_name",
        "status",
        "failure_column",
        "failed_column",
    )
    list_filter = ("failure_state", "status")
    list_select_related = ("run", "message")
    date_hierarchy = "created_at"
    search_fields = ("run__run_id", "run__workflow", "step_name", "error", "destination")
    search_help_text = _("Run id (with or without wfr_), workflow, step, error text or destination.")
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
        "created_at",
    )
    readonly_fields = fields

    def get_queryset(self, request: HttpRequest) -> Any:
        # Of a message only its settings are read.
        return super().get_queryset(request).defer("message__body", "message__response_body")

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> tuple[Any, bool]:
        named = queryset.filter(run__run_id__in=lookup.run_ids(search_term.strip())) if search_term.strip() else None
        if named is not None and named.exists():
            return named, False
        return super().get_search_results(request, queryset, search_term)

    @admin.display(description=_("error"))
    def error_column(self, letter: DeadLetter) -> str:
        return first_line(_error(letter), 120) or str(_("HTTP status %d") % letter.status)

    @admin.display(description=_("workflow"), ordering="run__workflow")
    def workflow_column(self, letter: DeadLetter) -> str:
        return letter.destination if letter.run is None else letter.run.workflow

    @admin.display(description=_("run"), ordering="run__run_id")
    def run_column(self, letter: DeadLetter) -> SafeString | None:
        return run_link(letter.run)

    @admin.display(description=_("failed"), ordering="created_at")
    def failed_column(self, letter: DeadLetter) -> SafeString | None:
        return time_cell(letter.created_at)

    @admin.display(description=_("failure function"), ordering="failure_state")
    def failure_column(self, letter: DeadLetter) -> SafeString:
        return status_badge(letter.failure_state, letter.get_failure_state_display())

    @admin.display(description=_("error"))
    def full_error(self, letter: DeadLetter) -> SafeString | None:
        return preformatted(_error(letter))

    @admin.display(description=_("response headers"))
    def headers(self, letter: DeadLetter) -> SafeString | None:
        return preformatted(values.headers_text(letter.response_headers))

    @admin.display(description=_("response"))
    def body(self, letter: DeadLetter) -> SafeString | None:
        return preformatted(self._shown(letter, letter.response_body))

    @admin.display(description=_("failure function's answer"))
    def failure_answer(self, letter: DeadLetter) -> SafeString | None:
        return preformatted(self._shown(letter, letter.failure_response))

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
