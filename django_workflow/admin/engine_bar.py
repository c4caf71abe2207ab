"""The warning above the pages of runs when nobody does the work."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Max
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from django_workflow.admin.base import url_or_blank
from django_workflow.conf import get_settings
from django_workflow.models import Delivery, Worker
from django_workflow.realtime.lengths import length_text

SILENT_FOR = timedelta(minutes=2)
MOST_COUNTED = 1000


@dataclass(frozen=True, slots=True)
class EngineBar:
    text: str
    url: str


def engine_bar(now: datetime) -> EngineBar | None:
    """None while a worker reports: one query. Else since when none does, and what is due meanwhile."""
    alias = get_settings().database
    last = Worker.objects.using(alias).aggregate(last=Max("heartbeat_at"))["last"]
    if get_settings().engine != "embedded" or (last is not None and now - last < SILENT_FOR):
        return None
    due = Delivery.objects.using(alias).due(now).unleased()[:MOST_COUNTED].count()
    if last is None and not due:
        return None  # nothing was ever started here
    silent = (
        _("No worker has reported yet")
        if last is None
        else _("No worker has reported for %s") % length_text(now - last)
    )
    waiting = ngettext("%d step is due", "%d steps are due", due) % due
    health = url_or_blank("admin:django_workflow_health") or url_or_blank("admin:django_workflow_worker_changelist")
    return EngineBar(_("%(silent)s; %(waiting)s.") % {"silent": silent, "waiting": waiting}, health)
