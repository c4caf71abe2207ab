"""The forms of the schedules' pages: a schedule itself, and the stretch of time that is filled in afterwards."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from django import forms
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from django_workflow.authoring.registry import registry
from django_workflow.conf import get_settings
from django_workflow.errors import PayloadInvalid
from django_workflow.models import Schedule
from django_workflow.protocol.cron import check_cron, next_occurrence

MOST_FILLED_IN = 100
"""Occurrences that one request starts runs for."""


class ScheduleForm(forms.Form):
    """A schedule that people make. `schedule` is the one that is edited; None: a new one."""

    schedule_id = forms.RegexField(
        r"^[A-Za-z0-9._-]{1,255}$",
        label=gettext_lazy("Name"),
        help_text=gettext_lazy("Letters, digits, hyphens, underscores and periods. It cannot be changed later."),
    )
    workflow = forms.ChoiceField(label=gettext_lazy("Workflow"))
    cron = forms.CharField(
        label=gettext_lazy("Cron expression"),
        max_length=500,
        help_text=gettext_lazy(
            "Minute, hour, day, month, weekday: 0 3 * * 1-5. Or @hourly, @daily, @weekly, @monthly."
        ),
    )
    timezone = forms.CharField(
        label=gettext_lazy("Time zone"),
        max_length=64,
        initial="UTC",
        help_text=gettext_lazy("A name such as Europe/Berlin; the expression is read in it, in summer and winter."),
    )
    payload = forms.CharField(
        label=gettext_lazy("Payload as JSON"),
        required=False,
        widget=forms.Textarea(attrs={"rows": 6, "class": "wfa-json", "spellcheck": "false"}),
    )
    enabled = forms.BooleanField(label=gettext_lazy("Enabled"), required=False, initial=True)
    reason = forms.CharField(
        label=gettext_lazy("Reason"),
        required=False,
        max_length=1000,
        help_text=gettext_lazy("Optional. It is noted in the history, with your name."),
    )

    def __init__(self, *args: Any, schedule: Schedule | None, target: str, hides_payload: bool, **kwargs: Any) -> None:
        """`target` is the name of the workflow that the schedule starts, or "" when it publishes a message."""
        super().__init__(*args, **kwargs)
        self.schedule = schedule
        if schedule is not None:
            del self.fields["schedule_id"]
        if schedule is None or target:
            self.fields["workflow"] = forms.ChoiceField(
                label=_("Workflow"), choices=[(name, name) for name in registry.names()]
            )
        else:
            del self.fields["workflow"]
            self.fields["payload"].label = _("Body")
        if hides_payload:
            self.fields["payload"].help_text = _("Hidden, as its publisher asked. What you write here replaces it.")

    def clean_schedule_id(self) -> str:
        name = str(self.cleaned_data["schedule_id"])
        taken = Schedule.objects.using(get_settings().database).filter(schedule_id=name).exists()
        if taken or registry.find(name) is not None:
            raise forms.ValidationError(_("There is a schedule or a workflow of this name already."))
        return name

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        if "cron" in data and "timezone" in data:
            try:
                check_cron(data["cron"], data["timezone"])
            except ValueError as error:
                # A bad zone is told apart by the expression being well in another one.
                self.add_error("timezone" if _is_cron(data["cron"]) else "cron", str(error))
        workflow = registry.find(data.get("workflow", ""))
        payload = data.get("payload", "").strip()
        if workflow is not None and (payload or self.schedule is None):
            try:
                if payload:
                    json.loads(payload)
                workflow.decode_payload(payload.encode())
            except PayloadInvalid as error:
                self.add_error("payload", str(error))
            except (ValueError, RecursionError) as error:
                self.add_error("payload", _("This is no JSON: %s.") % error)
        return data

    def next_times(self, number: int) -> list[datetime]:
        """The next occurrences of what the form says; none while it is wrong."""
        if not self.is_bound or "cron" in self.errors or "timezone" in self.errors:
            return []
        return next_times(self.cleaned_data["cron"], self.cleaned_data["timezone"], timezone.now(), number)


class BackfillForm(forms.Form):
    """From when to when occurrences are made up for."""

    since = forms.DateTimeField(
        label=gettext_lazy("From"),
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M"),
        help_text=gettext_lazy("In your time zone, both ends included."),
    )
    until = forms.DateTimeField(
        label=gettext_lazy("To"),
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M"),
    )

    def __init__(self, *args: Any, schedule: Schedule, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.schedule = schedule
        self.occurrences: list[datetime] = []

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        since, until = data.get("since"), data.get("until")
        if since is None or until is None:
            return data
        if until > timezone.now():
            self.add_error("until", _("Only times that have passed are made up for."))
        elif since > until:
            self.add_error("until", _("The end is before the beginning."))
        else:
            found = list(islice(_between(self.schedule, since, until), MOST_FILLED_IN + 1))
            if len(found) > MOST_FILLED_IN:
                self.add_error(
                    None, _("There are more than %d times in between: take a shorter stretch.") % MOST_FILLED_IN
                )
            elif not found:
                self.add_error(None, _("The schedule has no time in between."))
            self.occurrences = found
        return data


def next_times(cron: str, zone: str, after: datetime, number: int) -> list[datetime]:
    """The occurrences after an instant. Raises ValueError for an expression that cannot be read."""
    found = []
    for _number in range(number):
        after = next_occurrence(cron, after, zone)
        found.append(after)
    return found


def _between(schedule: Schedule, since: datetime, until: datetime) -> Iterator[datetime]:
    instant = since - timedelta(microseconds=1)
    while True:
        try:
            instant = next_occurrence(schedule.cron, instant, schedule.timezone)
        except ValueError:
            return
        if instant > until:
            return
        yield instant


def _is_cron(expression: str) -> bool:
    try:
        check_cron(expression)
    except ValueError:
        return False
    return True
