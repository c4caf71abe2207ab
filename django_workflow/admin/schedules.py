"""Schedules, and when they fire next."""

from __future__ import annotations

from django.contrib import admin
from django.utils import timezone
from django.utils.html import format_html_join
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext_lazy as _

from django_workflow.admin.base import ReadOnlyAdmin, preformatted, run_link, time_cell
from django_workflow.admin.status import status_badge
from django_workflow.models import Schedule
from django_workflow.presentation import lookup, values
from django_workflow.protocol.cron import next_occurrence

TIMES_SHOWN = 5


@admin.register(Schedule)
class ScheduleAdmin(ReadOnlyAdmin[Schedule]):
    list_display = ("schedule_id", "workflow", "state_column", "cron", "timezone", "next_column", "last_column")
    list_filter = ("paused", "in_code")
    search_fields = ("schedule_id", "workflow")
    search_help_text = _("Schedule or workflow.")
    fields = (
        "schedule_id",
        "workflow",
        "state_column",
        "cron",
        "timezone",
        "next_times",
        "last_at",
        "last_run",
        "payload_text",
        "in_code",
        "created_at",
    )
    readonly_fields = fields

    @admin.display(description=_("state"), ordering="paused")
    def state_column(self, schedule: Schedule) -> SafeString:
        return (
            status_badge("paused", str(_("Paused"))) if schedule.paused else status_badge("scheduled", str(_("Active")))
        )

    @admin.display(description=_("next run"), ordering="next_at")
    def next_column(self, schedule: Schedule) -> SafeString | None:
        return None if schedule.paused else time_cell(schedule.next_at)

    @admin.display(description=_("last run"), ordering="last_at")
    def last_column(self, schedule: Schedule) -> SafeString | None:
        return time_cell(schedule.last_at)

    @admin.display(description=_("next times"))
    def next_times(self, schedule: Schedule) -> SafeString | str:
        """The next occurrences; for an expression that cannot be read, why."""
        if schedule.paused:
            return str(_("None while it is paused."))
        times, after = [], timezone.now()
        try:
            for _number in range(TIMES_SHOWN):
                after = next_occurrence(schedule.cron, after, schedule.timezone)
                times.append((time_cell(after),))
        except ValueError as error:
            return str(error)
        return format_html_join(mark_safe("<br>"), "{}", times)

    @admin.display(description=_("last run"))
    def last_run(self, schedule: Schedule) -> SafeString | str | None:
        run = lookup.runs().filter(run_id=schedule.last_run_id).first() if schedule.last_run_id else None
        return run_link(run) or schedule.last_run_id or None

    @admin.display(description=_("payload"))
    def payload_text(self, schedule: Schedule) -> SafeString | None:
        return preformatted(values.laid_out(values.parsed(schedule.payload)) if schedule.payload else "")
