"""Schedules: what they start or publish, when they fire next; made, changed, paused, run now and made up for.

Those that code declares are changed in code: here they are paused, run and made up for. `control.schedules` acts.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path
from django.utils import formats, timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from django_workflow.admin.base import ReadOnlyAdmin, preformatted, run_link, time_cell
from django_workflow.admin.confirm import Confirmation, Line, ask, is_confirmed, reason_of
from django_workflow.admin.own_page import Crumb, admin_url, own_page
from django_workflow.admin.run_actions import Button
from django_workflow.admin.schedule_forms import BackfillForm, ScheduleForm, next_times
from django_workflow.admin.status import status_badge
from django_workflow.control import schedules as control
from django_workflow.control.history import write
from django_workflow.engine.records import decode_message_config
from django_workflow.engine.redaction import hides_body
from django_workflow.errors import EngineError, WorkflowError
from django_workflow.models import Schedule
from django_workflow.presentation import lookup, values
from django_workflow.presentation.words import first_line
from django_workflow.protocol.cron import split_timezone
from django_workflow.protocol.identifiers import new_run_id

TIMES_SHOWN = 5
ACTION_URL = "django_workflow_schedule_action"
RUN_ID = "run_id"


@admin.register(Schedule)
class ScheduleAdmin(ReadOnlyAdmin[Schedule]):
    list_display = (
        "schedule_id",
        "target_column",
        "state_column",
        "times_column",
        "next_column",
        "last_column",
    )
    list_filter = ("paused", "in_code")
    search_fields = ("schedule_id", "workflow", "destination")
    search_help_text = gettext_lazy("Schedule, workflow or destination.")
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
        "missed",
        "last_run",
        "payload_text",
        "in_code",
        "created_at",
    )
    readonly_fields = fields
    change_list_template = "django_workflow/admin/change_list.html"
    change_form_template = "django_workflow/admin/with_buttons.html"

    # Rights: made and deleted by who may add and delete; changed when it is not code that declares it.

    def has_add_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm("django_workflow.add_schedule"))

    def has_delete_permission(self, request: HttpRequest, obj: Schedule | None = None) -> bool:
        return super().has_delete_permission(request, obj) and obj is not None and not obj.in_code

    def has_pause_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm("django_workflow.pause_schedule"))

    def has_trigger_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm("django_workflow.trigger_workflow"))

    def _may_edit(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm("django_workflow.change_schedule"))

    # Columns and fields

    @admin.display(description=gettext_lazy("workflow"), ordering="workflow")
    def target_column(self, schedule: Schedule) -> str:
        return schedule.workflow or schedule.destination

    @admin.display(description=gettext_lazy("state"), ordering="paused")
    def state_column(self, schedule: Schedule) -> SafeString:
        """With the last error, which would be passed over elsewhere."""
        if schedule.paused:
            return status_badge("paused", _("Paused"))
        if not schedule.error:
            return status_badge("scheduled", _("Active"))
        line = first_line(schedule.error, 120)
        return format_html('{}<br><span class="wfa-error">{}</span>', status_badge("failed", _("Failed to fire")), line)

    @admin.display(description=gettext_lazy("cron expression"), ordering="cron")
    def cron_column(self, schedule: Schedule) -> str:
        return split_timezone(schedule.cron)[0]

    @admin.display(description=gettext_lazy("times"), ordering="cron")
    def times_column(self, schedule: Schedule) -> SafeString:
        return format_html('{}<br><span class="wfa-quiet">{}</span>', self.cron_column(schedule), schedule.timezone)

    @admin.display(description=gettext_lazy("next run"), ordering="next_at")
    def next_column(self, schedule: Schedule) -> SafeString | None:
        return None if schedule.paused else time_cell(schedule.next_at)

    @admin.display(description=gettext_lazy("last run"), ordering="last_at")
    def last_column(self, schedule: Schedule) -> SafeString | None:
        return time_cell(schedule.last_at)

    @admin.display(description=gettext_lazy("next times"))
    def next_times(self, schedule: Schedule) -> SafeString | str:
        """The next occurrences; for an expression that cannot be read, why."""
        if schedule.paused:
            return _("None while it is paused.")
        try:
            times = next_times(schedule.cron, schedule.timezone, timezone.now(), TIMES_SHOWN)
        except ValueError as error:
            return str(error)
        return format_html_join(mark_safe("<br>"), "{}", ((time_cell(instant),) for instant in times))

    @admin.display(description=gettext_lazy("missed times"))
    def missed(self, schedule: Schedule) -> str:
        return _("After a time without a worker it fires once, and goes on from then.")

    @admin.display(description=gettext_lazy("last run"))
    def last_run(self, schedule: Schedule) -> SafeString | str:
        """When it fired last, and the run that came of it, as far as that is kept."""
        run = lookup.runs().filter(run_id=schedule.last_run_id).first() if schedule.last_run_id else None
        link = run_link(run, self.admin_site) or schedule.last_run_id
        return format_html("{} {}", time_cell(schedule.last_at) or "", link).strip() or _("not by the clock yet")

    @admin.display(description=gettext_lazy("queue"))
    def queue(self, schedule: Schedule) -> str | None:
        message = decode_message_config(schedule.config)
        return message.queue if message is not None else None

    @admin.display(description=gettext_lazy("error"))
    def error_text(self, schedule: Schedule) -> SafeString | None:
        return preformatted(schedule.error)

    @admin.display(description=gettext_lazy("payload"))
    def payload_text(self, schedule: Schedule) -> SafeString | str | None:
        message = decode_message_config(schedule.config)
        if message is not None and hides_body(message.redact):
            return _("Hidden, as its publisher asked.")
        payload = values.scheduled_payload(schedule)
        return preformatted("" if payload is None else values.laid_out(payload))

    # Pages

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        lead = _("Workflows that run by the clock. Those that code declares are changed in code.")
        return super().changelist_view(request, {"title": _("Schedules"), "lead": lead, **(extra_context or {})})

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        if not self.has_add_permission(request):
            raise PermissionDenied
        return self._form_page(request, None)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        schedule = self.get_object(request, unquote(object_id))
        if schedule is None or not self.has_view_permission(request, schedule):
            return super().change_view(request, object_id, form_url, extra_context)
        if not schedule.in_code and self._may_edit(request):
            return self._form_page(request, schedule)
        context = {"buttons": self._buttons(request, schedule), "title": schedule.schedule_id, **(extra_context or {})}
        return super().change_view(request, object_id, form_url, context)

    def _form_page(self, request: HttpRequest, schedule: Schedule | None) -> HttpResponse:
        """The form of a schedule: its next times can be looked at before it is saved."""
        workflow = None if schedule is None else control.workflow_of(schedule)
        hides = schedule is not None and _hides_payload(schedule)
        form = ScheduleForm(
            request.POST if request.method == "POST" else None,
            initial=_initial(schedule, "" if workflow is None else workflow.name, hides=hides),
            schedule=schedule,
            target="" if workflow is None else workflow.name,
            hides_payload=hides,
        )
        if request.method == "POST" and form.is_valid() and "_preview" not in request.POST:
            saved = self._save(request, form, schedule, keeps_payload=hides and not form.cleaned_data["payload"])
            if saved is not None:
                return HttpResponseRedirect(admin_url(self, "schedule_change", quote(saved.pk)))
        return own_page(
            self,
            request,
            "schedule_form.html",
            _("Add schedule") if schedule is None else schedule.schedule_id,
            form=form,
            schedule=schedule,
            next_times=[time_cell(instant) for instant in self._times_of(form, schedule)],
            state=None if schedule is None else self.state_column(schedule),
            last_run=None if schedule is None else self.last_run(schedule),
            buttons=[] if schedule is None else self._buttons(request, schedule),
            history_url="" if schedule is None else admin_url(self, "schedule_history", quote(schedule.pk)),
            delete_url=admin_url(self, "schedule_delete", quote(schedule.pk))
            if schedule is not None and self.has_delete_permission(request, schedule)
            else "",
            back_url=admin_url(self, "schedule_changelist"),
            status=400 if form.errors else 200,
        )

    def _times_of(self, form: ScheduleForm, schedule: Schedule | None) -> Any:
        if form.is_bound:
            return form.next_times(TIMES_SHOWN)
        try:
            return [] if schedule is None else next_times(schedule.cron, schedule.timezone, timezone.now(), TIMES_SHOWN)
        except ValueError:
            return []

    def _save(
        self, request: HttpRequest, form: ScheduleForm, schedule: Schedule | None, *, keeps_payload: bool
    ) -> Schedule | None:
        """The row; None when the engine refuses, which the form then says."""
        data = form.cleaned_data
        payload = data["payload"].strip().encode()
        times = {"cron": data["cron"], "timezone": data["timezone"], "enabled": data["enabled"]}
        try:
            if schedule is None:
                saved = control.make(data["schedule_id"], data["workflow"], payload=payload, **times)
                said = _("Added.")
            else:
                new = None if keeps_payload else payload
                saved = control.change(schedule, payload=new, workflow=data.get("workflow"), **times)
                said = _("Changed: %s.") % (", ".join(form.changed_data) or "-")
        except (WorkflowError, ValueError) as error:
            form.add_error(None, str(error))
            return None
        write(saved, by=request.user, message=said, reason=data["reason"])
        self.message_user(request, _("Schedule %s was saved.") % saved.schedule_id, messages.SUCCESS)
        return saved

    # Buttons, each with a page that asks first

    def get_urls(self) -> list[URLPattern]:
        view: Any = self.admin_site.admin_view(self.action_view)
        return [path("<uuid:key>/do/<slug:name>/", view, name=ACTION_URL), *super().get_urls()]

    def _buttons(self, request: HttpRequest, schedule: Schedule) -> list[Button]:
        found = []
        for name, (text, is_allowed, why_not) in self._offered(request, schedule).items():
            if is_allowed:
                url = admin_url(self, "schedule_action", schedule.pk, name)
                found.append(Button(name, text, url, why_not))
        return found

    def _offered(self, request: HttpRequest, schedule: Schedule) -> dict[str, tuple[str, bool, str]]:
        """What can be done: its words, whether the user may, and why it cannot be done now."""
        pauses, triggers = self.has_pause_permission(request), self.has_trigger_permission(request)
        name, text = ("resume", _("Resume")) if schedule.paused else ("pause", _("Pause"))
        return {
            name: (text, pauses, ""),
            "run": (_("Run now"), triggers, control.why_not_now(schedule)),
            "backfill": (_("Backfill…"), triggers, control.why_no_backfill(schedule)),
        }

    def action_view(self, request: HttpRequest, key: Any, name: str) -> HttpResponse:
        schedule = self.get_object(request, str(key))
        if schedule is None or not self.has_view_permission(request, schedule):
            raise Http404
        back_url = admin_url(self, "schedule_change", quote(schedule.pk))
        offered = self._offered(request, schedule).get(name)
        if offered is None:  # a double submit: it is so already
            return HttpResponseRedirect(back_url)
        text, is_allowed, why_not = offered
        if not is_allowed:
            raise PermissionDenied
        if why_not:
            self.message_user(request, why_not, messages.ERROR)
            return HttpResponseRedirect(back_url)
        crumbs = [Crumb(schedule.schedule_id, back_url)]
        if name == "backfill":
            return self._backfill(request, schedule, crumbs)
        if not is_confirmed(request):
            confirmation = Confirmation(
                title=_("%(verb)s: %(schedule)s") % {"verb": text, "schedule": schedule.schedule_id},
                button=text,
                explanation=_explanation(name),
                affected=[self._line(schedule)],
                keep_url=back_url,
                # The page has the run's id, so sending it twice starts one run.
                hidden={RUN_ID: new_run_id()} if name == "run" else {},
            )
            return ask(self, request, confirmation, crumbs=crumbs)
        if name == "run":
            self._run_now(request, schedule)
        else:
            self._switch_all(request, [schedule], paused=name == "pause")
        return HttpResponseRedirect(back_url)

    def _run_now(self, request: HttpRequest, schedule: Schedule) -> None:
        try:
            started = control.run_now(schedule, by=request.user, run_id=request.POST.get(RUN_ID) or new_run_id())
        except WorkflowError as error:
            self.message_user(request, str(error), messages.ERROR)
            return
        if not (started.run_ids or started.messages):
            self.message_user(request, _("It was run by this page already."), messages.WARNING)
            return
        said = _("Run by hand: %s.") % (", ".join(started.run_ids) or schedule.destination)
        write(schedule, by=request.user, message=said, reason=reason_of(request))
        self.message_user(request, said, messages.SUCCESS)

    def _backfill(self, request: HttpRequest, schedule: Schedule, crumbs: list[Crumb]) -> HttpResponse:
        now = timezone.localtime()
        form = BackfillForm(
            request.POST if request.method == "POST" else None,
            initial={"since": now - timedelta(days=1), "until": now},
            schedule=schedule,
        )
        back_url = admin_url(self, "schedule_change", quote(schedule.pk))
        if not form.is_valid():
            return own_page(
                self,
                request,
                "backfill.html",
                _("Backfill: %s") % schedule.schedule_id,
                crumbs=crumbs,
                form=form,
                back_url=back_url,
                status=400 if form.errors else 200,
            )
        ids = {control.run_id_at(schedule, instant): instant for instant in form.occurrences}
        known = dict(lookup.runs().filter(run_id__in=ids).values_list("run_id", "pk"))
        new = [instant for run_id, instant in ids.items() if run_id not in known]
        if not is_confirmed(request):
            number = len(new)
            confirmation = Confirmation(
                title=ngettext("Start %(number)d run of %(name)s", "Start %(number)d runs of %(name)s", number)
                % {"number": number, "name": schedule.schedule_id},
                explanation=_("One for each time of the schedule in between, all at once."),
                affected=[Line(_instant(instant)) for instant in new],
                skipped=[
                    Line(_instant(ids[run_id]), admin_url(self, "run_change", key), _("It ran already."))
                    for run_id, key in known.items()
                ],
                keep_url=back_url,
            )
            return ask(self, request, confirmation, crumbs=crumbs)
        try:
            started = control.backfill(schedule, new, by=request.user)
        except WorkflowError as error:
            self.message_user(request, str(error), messages.ERROR)
            return HttpResponseRedirect(back_url)
        number = len(started.run_ids)
        said = (
            ngettext(
                "%d run was started for a time that had passed.",
                "%d runs were started for times that had passed.",
                number,
            )
            % number
        )
        if number:
            write(schedule, by=request.user, message=said, reason=reason_of(request))
        self.message_user(request, said, messages.SUCCESS if number else messages.WARNING)
        return HttpResponseRedirect(back_url)

    def _line(self, schedule: Schedule, remark: str = "") -> Line:
        text = f"{schedule.schedule_id}: {schedule.workflow or schedule.destination}"
        return Line(text, admin_url(self, "schedule_change", quote(schedule.pk)), remark)

    # Actions of the list

    @admin.action(description=gettext_lazy("Pause: skip their next times"), permissions=["pause"])
    def pause(self, request: HttpRequest, schedules: QuerySet[Schedule]) -> HttpResponse | None:
        title: Callable[[int], str] = lambda n: ngettext("Pause %d schedule", "Pause %d schedules", n) % n  # noqa: E731
        return self._switch(request, list(schedules), title, paused=True)

    @admin.action(description=gettext_lazy("Resume: go on with their next time"), permissions=["pause"])
    def resume(self, request: HttpRequest, schedules: QuerySet[Schedule]) -> HttpResponse | None:
        title: Callable[[int], str] = lambda n: ngettext("Resume %d schedule", "Resume %d schedules", n) % n  # noqa: E731
        return self._switch(request, list(schedules), title, paused=False)

    def _switch(
        self, request: HttpRequest, schedules: list[Schedule], title: Callable[[int], str], *, paused: bool
    ) -> HttpResponse | None:
        chosen = [schedule for schedule in schedules if schedule.paused != paused]
        if is_confirmed(request):
            self._switch_all(request, chosen, paused=paused)
            return None
        why = _("It is paused already.") if paused else _("It is not paused.")
        confirmation = Confirmation(
            title=title(len(chosen)),
            explanation=_explanation("pause" if paused else "resume"),
            affected=[self._line(schedule) for schedule in chosen],
            skipped=[self._line(schedule, why) for schedule in schedules if schedule not in chosen],
            keep_url=request.get_full_path(),
        )
        return ask(self, request, confirmation)

    def _switch_all(self, request: HttpRequest, schedules: list[Schedule], *, paused: bool) -> None:
        """Ask the engine for each; a hosted one knows nothing of the rows, which follow it."""
        done, reason = 0, reason_of(request)
        for schedule in schedules:
            try:
                control.switch(schedule, paused=paused)
            except EngineError as error:
                self.message_user(request, f"{schedule.schedule_id}: {error}", messages.ERROR)
                continue
            write(schedule, by=request.user, message=_("Paused.") if paused else _("Resumed."), reason=reason)
            done += 1
        if done:
            text = (
                ngettext("%d schedule was paused.", "%d schedules were paused.", done)
                if paused
                else ngettext("%d schedule was resumed.", "%d schedules were resumed.", done)
            )
            self.message_user(request, text % done, messages.SUCCESS)

    # Deleting: by the engine, which then forgets the row too

    def delete_model(self, request: HttpRequest, obj: Schedule) -> None:
        control.delete(obj)


def _initial(schedule: Schedule | None, workflow: str, *, hides: bool) -> dict[str, Any]:
    if schedule is None:
        return {}
    return {
        "workflow": workflow,
        "cron": split_timezone(schedule.cron)[0],
        "timezone": schedule.timezone,
        "payload": "" if hides else values.laid_out(values.parsed(schedule.payload)) if schedule.payload else "",
        "enabled": not schedule.paused,
    }


def _hides_payload(schedule: Schedule) -> bool:
    """Whether the payload is not shown to be edited: its publisher asked for it, it is no text, or has secrets."""
    message = decode_message_config(schedule.config)
    return (
        schedule.payload_is_base64
        or (message is not None and hides_body(message.redact))
        or values.scheduled_payload(schedule) != values.parsed(schedule.payload)
    )


def _explanation(name: str) -> str:
    return {
        "pause": _("Its times are skipped until it is resumed. What it has started goes on."),
        "resume": _("It goes on with its next time. Times that passed meanwhile are not made up for."),
        "run": _("It starts at once what it starts by the clock; its times stay as they are."),
    }[name]


def _instant(instant: Any) -> str:
    return formats.date_format(timezone.localtime(instant), "DATETIME_FORMAT")
