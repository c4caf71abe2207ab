"""Realtime without a socket: polling for events, and a run's widget as a piece of HTML.

Both answer for the request's user or for the holder of a signed token (header `X-Workflow-Token`, or `?token=`), and
are never kept by shared caches.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps
from typing import Any, cast

import msgspec
from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils import timezone
from django.utils.cache import patch_cache_control, patch_vary_headers
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET

from django_workflow.errors import RequestRejected
from django_workflow.models.channel_event import format_position
from django_workflow.realtime import access, history, widget
from django_workflow.realtime.access import AccessDenied
from django_workflow.realtime.messages import (
    BEGINNING,
    ONLY_NEW,
    Error,
    check_channel,
    encode,
    gap_message,
    parse_cursor,
)
from django_workflow.realtime.stores import StoreUnavailable

logger = logging.getLogger("django_workflow.realtime")

POLL_AGAIN_MS = 2000
CHANNELS_PER_POLL = 50

View = Callable[..., Any]


def realtime_view(view: View) -> View:
    """A GET view that decides itself who may read, and says errors as JSON: `{"error", "reason"}`."""

    @wraps(view)
    def answer(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        try:
            return _private(view(request, *args, **kwargs))
        except Exception as error:
            return _private(_refusal(error))

    return cast(View, login_not_required(require_GET(answer)))


def _refusal(error: Exception) -> HttpResponse:
    """The answer to a request that cannot be served; what is no such error is raised on."""
    if isinstance(error, AccessDenied):
        return _json({"error": str(error), "reason": error.reason}, error.status_code)
    if isinstance(error, StoreUnavailable):
        logger.warning("A realtime request cannot be answered: %s", error)
        response = _json({"error": _("Events cannot be read at the moment."), "reason": "store_unavailable"}, 503)
        response["Retry-After"] = "2"
        return response
    if isinstance(error, RequestRejected):
        return _json({"error": str(error), "reason": "bad_request"}, error.status_code)
    raise error


def _private(response: HttpResponseBase) -> HttpResponseBase:
    if not response.streaming:
        patch_cache_control(response, private=True, no_store=True)
    patch_vary_headers(response, ["Cookie", access.TOKEN_HEADER])
    return response


@realtime_view
def poll(request: HttpRequest) -> HttpResponse:
    """Events after the given cursors: `?channel=a&channel=b&last_ack_a=<id>&limit=100`.

    Without `last_ack_<channel>` only what is new from now on. The answer is `{"messages", "cursors", "more",
    "retryAfterMs"}`: ask again with the cursors, at once when there is `more`. A channel that may not be read, or that
    lost events, is told by a message with a `type`, as on the other transports; when none may be read it is 403.
    """
    channels = [check_channel(name) for name in dict.fromkeys(request.GET.getlist("channel"))]
    if not 1 <= len(channels) <= CHANNELS_PER_POLL:
        raise RequestRejected(f"Ask for 1 to {CHANNELS_PER_POLL} channels by ?channel=, not {len(channels)}.")
    room = _limit(request.GET.get("limit", ""))
    token, user = access.token_of(request), getattr(request, "user", None)

    messages: list[msgspec.Raw] = []
    cursors: dict[str, str] = {}
    more = False
    denied: AccessDenied | None = None
    for channel in channels:
        asked = parse_cursor(request.GET.get(f"last_ack_{channel}", ONLY_NEW))
        try:
            access.check_access(user, channel, "read", token)
        except AccessDenied as refusal:
            denied = refusal
            messages.append(_raw(encode(Error(code="forbidden", error=str(refusal), channel=channel))))
            continue
        if asked is None:
            cursors[channel] = format_position(history.newest(channel))
            continue
        cursors[channel] = format_position(asked)
        if room == 0:
            more = True
            continue
        if asked and history.has_gap(channel, asked):
            oldest, newest = history.oldest(channel), history.newest(channel)
            messages.append(_raw(encode(gap_message(channel, oldest, newest))))
            cursors[channel] = BEGINNING
        # One event above the page tells whether there is more.
        page = history.page_after(channel, asked, room + 1)
        more = more or len(page) > room
        page = page[:room]
        room -= len(page)
        messages += [_raw(message.text) for message in page]
        if page:
            cursors[channel] = page[-1].id
    if denied is not None and not cursors:
        raise denied
    answer = {"messages": messages, "cursors": cursors, "more": more, "retryAfterMs": 0 if more else POLL_AGAIN_MS}
    return _json(answer)


@realtime_view
def run_fragment(request: HttpRequest, run_id: str) -> HttpResponse:
    """A run's widget, as `{% workflow_progress %}` renders it: `?view=steps&respond=1&max-steps=100`.

    For a reload of the state by the browser. A token that was good for the run is replaced by a fresh one. 403 and 404
    carry the widget too, with the words for it.
    """
    view = request.GET.get("view") or "steps"
    if view not in widget.VIEWS:
        raise RequestRejected(f"view is {view[:40]!r}, but must be one of {', '.join(widget.VIEWS)}.")
    token = access.token_of(request)
    user = getattr(request, "user", None)
    options = widget.Options(
        view=view,
        can_respond=request.GET.get("respond") == "1",
        grant_read=_granted(token, run_id, "read"),
        grant_respond=_granted(token, run_id, "respond"),
        max_steps=_number(request.GET.get("max-steps", ""), widget.MAX_STEPS, largest=1000),
    )
    shown = widget.make_widget(run_id, user, options, timezone.now())
    status = {widget.FORBIDDEN: 403, widget.GONE: 404}.get(shown.status, 200)
    return HttpResponse(widget.render_widget(shown, request), status=status)


def _granted(token: str, run_id: str, scope: access.Scope) -> bool:
    try:
        return bool(token) and access.read_token(token).covers(run_id, scope)
    except AccessDenied:
        return False


def _limit(text: str) -> int:
    return _number(text, history.PAGE, largest=history.PAGE)


def _number(text: str, default: int, *, largest: int) -> int:
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= largest:
        raise RequestRejected(f"{text[:20]!r} is not a number from 1 to {largest}.")
    return int(text)


def _json(value: object, status: int = 200) -> HttpResponse:
    return HttpResponse(encode(value), content_type="application/json", status=status)


def _raw(text: str) -> msgspec.Raw:
    return msgspec.Raw(text.encode())
