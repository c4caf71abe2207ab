"""The notes of who did what to a run and why: entries of the admin's log, shown under the object's "History"."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.utils.translation import gettext as _

from django_workflow.models import Run

if TYPE_CHECKING:
    from django_workflow.control.action import Outcome

LONGEST_REASON = 1000


def note(run: Run, *, by: Any, what: str, reason: str, outcome: Outcome, deleted: bool = False) -> None:
    """Note that somebody did something to a run. Without a user, or without the admin, there is nowhere to note it."""
    write(run, by=by, message=outcome.message, reason=reason, deleted=deleted)


def write(row: Any, *, by: Any, message: str, reason: str = "", deleted: bool = False) -> None:
    """One entry about one row, if there is a user to name and the admin is installed."""
    if by is None or by.pk is None or not apps.is_installed("django.contrib.admin"):
        return
    from django.contrib.admin.models import CHANGE, DELETION, LogEntry

    if reason:
        message = _("%(what)s Reason: %(reason)s") % {"what": message, "reason": reason[:LONGEST_REASON]}
    LogEntry.objects.log_actions(by.pk, [row], DELETION if deleted else CHANGE, message, single_object=True)
