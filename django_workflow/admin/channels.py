"""Realtime channels: what they keep, who follows them here, and their logs. Read-only; events are emitted by code.

Reads whatever store the settings name. Channels of runs are shown to who may see runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.contrib import admin
from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from django_workflow.admin.base import ReadOnlyAdmin, time_cell
from django_workflow.admin.own_page import admin_url, own_page
from django_workflow.conf import get_settings
from django_workflow.errors import RequestRejected
from django_workflow.models import Channel, Run
from django_workflow.models.channel_event import SEQUENCE_BITS, format_position
from django_workflow.presentation import lookup, values
from django_workflow.protocol.identifiers import RUN_PREFIX
from django_workflow.realtime import feed, history
from django_workflow.realtime.messages import Message, parse_cursor
from django_workflow.realtime.stores import StoreUnavailable

CHANNELS_SHOWN = 100
EVENTS_SHOWN = 100
LARGEST_DATA = 4 * 1024


@dataclass(frozen=True, slots=True)
class Row:
    name: str
    url: str
    kept: int
    newest_id: str
    newest: SafeString | None
    subscribers: int


@dataclass(frozen=True, slots=True)
class Event:
    id: str
    event: str
    data: str
    at: SafeString | None


@admin.register(Channel)
class ChannelAdmin(ReadOnlyAdmin[Channel]):
    def has_delete_permission(self, request: HttpRequest, obj: Channel | None = None) -> bool:
        return False

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        self._check_view(request)
        search = request.GET.get("q", "").strip()
        rows: list[Row] = []
        problem = ""
        try:
            rows = self._rows(request, search)
        except StoreUnavailable as error:
            problem = str(error)
        return own_page(
            self,
            request,
            "channels.html",
            _("Realtime channels"),
            is_list=True,
            rows=rows,
            search=search,
            problem=problem,
            most=CHANNELS_SHOWN,
            store=get_settings().realtime_store,
            **(extra_context or {}),
        )

    def _rows(self, request: HttpRequest, search: str) -> list[Row]:
        followed = feed.subscribers()
        return [
            Row(
                name=info.name,
                url=admin_url(self, "channel_change", quote(info.name)),
                kept=info.kept,
                newest_id=format_position(info.newest),
                newest=_time_of(info.newest),
                subscribers=followed.get(info.name, 0),
            )
            for info in history.channels(search, CHANNELS_SHOWN)
            if self._may_see(request, info.name)
        ]

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """The log of a channel, newest first: a page at a time, down from the id that `?before=` names."""
        self._check_view(request)
        name = unquote(object_id)
        if not self._may_see(request, name):
            raise PermissionDenied
        try:
            before = parse_cursor(request.GET["before"]) if request.GET.get("before") else None
            events = history.page_before(name, before, EVENTS_SHOWN + 1)
        except RequestRejected as error:
            raise Http404(str(error)) from error
        except StoreUnavailable as error:
            return own_page(self, request, "channel.html", name, name=name, problem=str(error), events=[])
        if not events and before is None:
            raise Http404(_("The channel “%s” keeps no events.") % name)
        run = lookup.runs().filter(run_id=name).first() if name.startswith(RUN_PREFIX) else None
        shown = events[-EVENTS_SHOWN:]
        url = admin_url(self, "channel_change", quote(name))
        return own_page(
            self,
            request,
            "channel.html",
            name,
            name=name,
            events=[_event(message, run) for message in reversed(shown)],
            subscribers=feed.subscribers().get(name, 0),
            run_url=admin_url(self, "run_change", run.pk) if run is not None else "",
            older_url=f"{url}?before={shown[0].id}" if len(events) > EVENTS_SHOWN else "",
            newest_url=url if before is not None else "",
            **(extra_context or {}),
        )

    def history_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        raise Http404  # nobody changes a channel

    def _may_see(self, request: HttpRequest, channel: str) -> bool:
        return not channel.startswith(RUN_PREFIX) or bool(request.user.has_perm("django_workflow.view_run"))

    def _check_view(self, request: HttpRequest) -> None:
        if not self.has_view_permission(request):
            raise PermissionDenied


def _event(message: Message, run: Run | None) -> Event:
    data = values.event_data(message.data, redacted=run is not None and values.is_redacted(run))
    return Event(message.id, message.event, values.on_one_line(data)[:LARGEST_DATA], _time_of(message.position))


def _time_of(position: int) -> SafeString | None:
    return time_cell(datetime.fromtimestamp((position >> SEQUENCE_BITS) / 1000, UTC)) if position else None
