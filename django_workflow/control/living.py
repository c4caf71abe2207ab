"""What can be done to a run that is not over: cancel it, hold it up, hurry it on, tell it an event."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext, pgettext_lazy

from django_workflow.client.client import get_client
from django_workflow.conf import get_settings
from django_workflow.control.action import Action, ActionRefused, Outcome, is_over
from django_workflow.models import Run, Waiter
from django_workflow.presentation import lookup
from django_workflow.realtime import forms

if TYPE_CHECKING:
    from django_workflow.models.run import RunQuerySet


class Cancel(Action):
    name = "cancel"
    permission = "cancel_run"
    title = gettext_lazy("Cancel")
    verb = gettext_lazy("Cancel")
    past = gettext_lazy("canceled")

    def hindrance(self, run: Run) -> str:
        return is_over(run)

    def caution(self, run: Run) -> str:
        return _children_go_on(run)

    def possible(self, runs: RunQuerySet) -> RunQuerySet:
        return runs.active()

    def do(self, run: Run, *, by: Any) -> Outcome:
        if not get_client().cancel([run.run_id]):
            run.refresh_from_db(fields=["status"])
            raise ActionRefused(is_over(run) or _("The engine does not know the run any more."))
        return Outcome(run.run_id, _("Canceled."))


class Pause(Action):
    name = "pause"
    permission = "pause_run"
    title = gettext_lazy("Pause")
    verb = gettext_lazy("Pause")
    past = gettext_lazy("paused")

    def hindrance(self, run: Run) -> str:
        if why := is_over(run):
            return why
        if get_settings().is_hosted:
            return _("The hosted engine cannot pause a single run. Pause its flow-control key instead.")
        return _("The run is paused already.") if run.status == Run.Status.PAUSED else ""

    def caution(self, run: Run) -> str:
        return _children_go_on(run)

    def possible(self, runs: RunQuerySet) -> RunQuerySet:
        return runs.none() if get_settings().is_hosted else runs.active().exclude(status=Run.Status.PAUSED)

    def do(self, run: Run, *, by: Any) -> Outcome:
        get_client().pause(run.run_id)
        return Outcome(run.run_id, _("Paused."))


class Unpause(Action):
    name = "unpause"
    permission = "pause_run"
    title = gettext_lazy("Unpause")
    verb = gettext_lazy("Unpause")
    past = gettext_lazy("unpaused")

    def hindrance(self, run: Run) -> str:
        return "" if run.status == Run.Status.PAUSED else _("The run is not paused.")

    def possible(self, runs: RunQuerySet) -> RunQuerySet:
        return runs.filter(status=Run.Status.PAUSED)

    def do(self, run: Run, *, by: Any) -> Outcome:
        get_client().unpause(run.run_id)
        return Outcome(run.run_id, _("Goes on."))


class RetryNow(Action):
    """The attempt stays the number that it is: a run has no more of them by that."""

    name = "retry_now"
    permission = "resume_run"
    title = gettext_lazy("Retry now")
    verb = gettext_lazy("Retry now:")
    past = gettext_lazy("tried again now")

    def hindrance(self, run: Run) -> str:
        if why := is_over(run):
            return why
        if get_settings().is_hosted:
            return _("The hosted engine keeps to its own times of retries.")
        return "" if run.status == Run.Status.RETRYING else _("The run does not wait for a retry.")

    def possible(self, runs: RunQuerySet) -> RunQuerySet:
        return runs.none() if get_settings().is_hosted else runs.filter(status=Run.Status.RETRYING)

    def do(self, run: Run, *, by: Any) -> Outcome:
        if not get_client().retry_now(run.run_id):
            raise ActionRefused(_("The retry is under way already."))
        return Outcome(run.run_id, _("Is tried again now."))


class Notify(Action):
    """`event_id` "" is the one event that the run waits for. `data` is anything that JSON holds, or JSON as bytes."""

    name = "notify"
    permission = "notify_run"
    title = gettext_lazy("Send event")
    verb = gettext_lazy("Send an event to")
    past = pgettext_lazy("runs", "told an event")
    needs_event = True
    in_bulk = False

    def hindrance(self, run: Run) -> str:
        return is_over(run)

    def possible(self, runs: RunQuerySet) -> RunQuerySet:
        return runs.active()

    def do(self, run: Run, *, by: Any, event_id: str = "", data: Any = None) -> Outcome:
        event_id = event_id or self._only_event(run)
        form = forms.find_form(run.run_id, event_id)
        if form is not None:
            data = form.clean_plain(_plain_values(data))
            if not forms.note_answer(form, by, data):
                raise ActionRefused(_("The event “%s” was answered already.") % event_id)
        get_client().notify(event_id, data, run_id=run.run_id)
        return Outcome(run.run_id, _("Event “%s” sent.") % event_id)

    def _only_event(self, run: Run) -> str:
        waiting = Waiter.objects.using(get_settings().database).waiting().filter(run=run.pk)
        names = list(waiting.values_list("event_id", flat=True).distinct()[:2])
        if len(names) != 1:
            raise ActionRefused(
                _("The run waits for several events: name one.")
                if names
                else _("The run waits for no event: name one.")
            )
        return names[0]


def _children_go_on(run: Run) -> str:
    children = lookup.runs().active().exclude(status=Run.Status.PAUSED).filter(parent=run.pk)
    if not (number := children.count()):
        return ""
    text = ngettext(
        "It invoked %d run that is not over: that one goes on.",
        "It invoked %d runs that are not over: those go on.",
        number,
    )
    return text % number


def _plain_values(data: Any) -> dict[str, Any]:
    """The values of a form's fields. Raises ActionRefused when the data are none."""
    try:
        return msgspec.json.decode(data, type=dict[str, Any]) if isinstance(data, bytes) else dict(data or {})
    except (msgspec.MsgspecError, TypeError, ValueError) as error:
        raise ActionRefused(_("The run waits for a form: send an object with a value for each field.")) from error
