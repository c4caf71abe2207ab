"""Schedules: what they start or publish, when they fire next, and their pauses."""

from __future__ import annotations

from collections.abc import Callable

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from django_workflow.admin.base import ReadOnlyAdmin, preformatted, run_link, time_cell
from django_workflow.admin.status import status_badge
from django_workflow.client.client import get_client
from django_workflow.engine.records import decode_message_config
from django_workflow.engine.redaction import hides_body
from django_workflow.errors import EngineError
from django_workflow.models import Schedule
from django_workflow.presentation import lookup, values
from django_workflow.presentation.words import first_line
from django_workflow.protocol.cron import next_occurrence, split_timezone

TIMES_SHOWN = 5


@admin.register(Schedule)
class ScheduleAdmin(ReadOnlyAdmin[Schedule]):
    list_display = (
        "schedule_id",
        "target_column",
        "state_column",
        "cron_column",
        "timezone",
        "next_column",
        "last_column",
    )
    list_filter = ("paused", "in_code")
    search_fields = ("schedule_id", "workflow", "destination")
    search_help_text = _("Schedule, workflow or destination.")
    actions = ("pause", "resume")
    fields = (
        "schedule_id",
        "workflow",
        "destination",
        "queue",
        "state_column",
        "error_text",
        "cron_column",
        "timezone",
        "next_times",
        "last_at",
        "last_run",
        "payload_text",
        "in_code",
        "created_at",
    )
    readonly_fields = fields

    @admin.display(description=_("workflow or destination"), ordering="workflow")
    def target_column(self, schedule: Schedule) -> str:
        return schedule.workflow or schedule.destination

    @admin.display(description=_("state"), ordering="paused")
    def state_column(self, schedule: Schedule) -> SafeString:
        """With the last error, which would be passed over elsewhere."""
        if schedule.paused:
            return status_badge("paused", str(_("Paused")))
        if not schedule.error:
            return status_badge("scheduled", str(_("Active")))
        line = first_line(schedule.error, 120)
        return format_html(
            '{}<br><span class="wfa-error">{}</span>', status_badge("failed", str(_("Failed to fire"))), line
        )

    @admin.display(description=_("cron expression"), ordering="cron")
    def cron_column(self, schedule: Schedule) -> str:
        return split_timezone(schedule.cron)[0]

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

    @admin.display(description=_("queue"))
    def queue(self, schedule: Schedule) -> str | None:
        message = decode_message_config(schedule.config)
        return message.queue if message is not None else None

    @admin.display(description=_("error"))
    def error_text(self, schedule: Schedule) -> SafeString | None:
        return preformatted(schedule.error)

    @admin.display(description=_("payload"))
    def payload_text(self, schedule: Schedule) -> SafeString | str | None:
        message = decode_message_config(schedule.config)
        if message is not None and hides_body(message.redact):
            return str(_("Hidden, as its publisher asked."))
        if not schedule.payload or schedule.payload_is_base64:
            return preformatted(schedule.payload)
        return preformatted(values.laid_out(values.parsed(schedule.payload)))

    # Actions

    def has_pause_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm("django_workflow.pause_schedule"))

    @admin.action(description=_("Pause: skip their next times"), permissions=["pause"])
    def pause(self, request: HttpRequest, schedules: QuerySet[Schedule]) -> None:
        self._switch(request, schedules, get_client().pause_schedule, paused=True)

    @admin.action(description=_("Resume: go on with their next time"), permissions=["pause"])
    def resume(self, request: HttpRequest, schedules: QuerySet[Schedule]) -> None:
        self._switch(request, schedules, get_client().resume_schedule, paused=False)

    def _switch(
        self, request: HttpRequest, schedules: QuerySet[Schedule], switch: Callable[[str], None], *, paused: bool
    ) -> None:
        """Ask the engine for each; a hosted one knows nothing of the rows, which follow it."""
        done = 0
        for schedule in schedules:
            try:
                switch(schedule.schedule_id)
            except EngineError as error:
                self.message_user(request, f"{schedule.schedule_id}: {error}", messages.ERROR)
                continue
            schedules.model.objects.using(schedules.db).filter(pk=schedule.pk).update(paused=paused)
            done += 1
        if done:
            text = (
                ngettext("%d schedule was paused.", "%d schedules were paused.", done)
                if paused
                else ngettext("%d schedule was resumed.", "%d schedules were resumed.", done)
            )
            self.message_user(request, text % done, messages.SUCCESS)
