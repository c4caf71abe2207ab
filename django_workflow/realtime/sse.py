"""Server-sent events: what the WebSocket says, for browsers and proxies that let no WebSocket through.

The URL is that of polling, `?channel=a&channel=b&last_ack_a=<id>`. Every event's `id:` line holds the cursors of all
channels of the stream, so a browser that reconnects by itself goes on from there on each of them. Streams live a few
minutes, and their end says `reconnect`. They need ASGI: under WSGI each would hold a thread, and the answer is 503.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any
from urllib.parse import quote, unquote

from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.utils.translation import gettext as _

from django_workflow.errors import RequestRejected
from django_workflow.models.channel_event import format_position
from django_workflow.realtime import access
from django_workflow.realtime.access import AccessDenied
from django_workflow.realtime.history import in_database
from django_workflow.realtime.messages import (
    ONLY_NEW,
    Error,
    Ping,
    Reconnect,
    check_channel,
    encode,
    parse_cursor,
)
from django_workflow.realtime.streams import Heard, follow
from django_workflow.realtime.views import CHANNELS_PER_POLL, realtime_view

logger = logging.getLogger("django_workflow.realtime")

HEARTBEAT_SECONDS = 25.0
RECHECK_SECONDS = 60.0
LIFETIME_SECONDS = 300.0
RETRY_MS = 1000
# A reader that is slow holds up its own stream: no more than this is read ahead for it.
READ_AHEAD = 64

_FAILED: tuple[str, list[Heard]] = ("", [])


@realtime_view
def sse(request: HttpRequest) -> HttpResponseBase:
    """A stream of the messages of these channels. 403 when none may be read; others are told of in the stream."""
    if not isinstance(request, ASGIRequest):
        answer = HttpResponse(
            encode({"error": _("Server-sent events need ASGI; poll instead."), "reason": "needs_asgi"}),
            content_type="application/json",
            status=503,
        )
        answer["Retry-After"] = "300"
        return answer
    scope = {"user": getattr(request, "user", None), "session": getattr(request, "session", None)}
    stream = Stream(scope, access.token_of(request), _asked(request))
    stream.open()
    response = StreamingHttpResponse(stream.frames(), content_type="text/event-stream")
    response["Cache-Control"] = "no-cache, no-transform, private"
    response["X-Accel-Buffering"] = "no"
    response["Content-Encoding"] = "identity"  # compressing middleware would hold events back
    return response


def _asked(request: HttpRequest) -> dict[str, int | None]:
    """Channels and where each goes on. `Last-Event-ID` is younger than the URL that a browser opens again."""
    channels = [check_channel(name) for name in dict.fromkeys(request.GET.getlist("channel"))]
    if not 1 <= len(channels) <= CHANNELS_PER_POLL:
        raise RequestRejected(f"Ask for 1 to {CHANNELS_PER_POLL} channels by ?channel=, not {len(channels)}.")
    latest = parse_event_id(request.headers.get("Last-Event-ID", ""))
    return {
        channel: parse_cursor(latest.get(channel) or request.GET.get(f"last_ack_{channel}", ONLY_NEW))
        for channel in channels
    }


def format_event_id(cursors: Mapping[str, int]) -> str:
    """`wfr_1=176-0;user%2042=176-3`: where each channel of a stream is."""
    return ";".join(f"{quote(name, safe='')}={format_position(at)}" for name, at in cursors.items())


def parse_event_id(text: str) -> dict[str, str]:
    """Cursors by channel; empty for an id that is not ours."""
    pairs = (part.partition("=") for part in text.split(";"))
    return {unquote(name): cursor for name, separator, cursor in pairs if separator and name and cursor}


class Stream:
    """One open response. `open()` decides who may read, `frames()` is its body."""

    def __init__(self, scope: dict[str, Any], token: str, asked: Mapping[str, int | None]) -> None:
        self._scope = scope
        self._token = token
        self._asked = dict(asked)
        self._cursors = {channel: at for channel, at in asked.items() if at is not None}
        self._refused: dict[str, AccessDenied] = {}
        self._queue: asyncio.Queue[tuple[str, list[Heard]]] = asyncio.Queue(READ_AHEAD)
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def open(self) -> None:
        """Raises AccessDenied when none of the channels may be read."""
        self._refused = self._refusals(list(self._asked))
        if len(self._refused) == len(self._asked):
            raise next(iter(self._refused.values()))

    def _refusals(self, channels: list[str]) -> dict[str, AccessDenied]:
        user = access.current_user(self._scope)
        refused = {}
        for channel in channels:
            try:
                access.check_access(user, channel, "read", self._token)
            except AccessDenied as denied:
                refused[channel] = denied
        return refused

    async def frames(self) -> AsyncGenerator[bytes]:
        yield f"retry: {RETRY_MS}\n\n".encode()
        for channel, denied in self._refused.items():
            yield _frame(encode(Error(code="forbidden", error=str(denied), channel=channel)))
        for channel in self._asked.keys() - self._refused.keys():
            self._tasks[channel] = asyncio.create_task(self._follow(channel))
        try:
            async with aclosing(self._live()) as live:
                async for frame in live:
                    yield frame
        finally:
            for task in self._tasks.values():
                task.cancel()

    async def _follow(self, channel: str) -> None:
        try:
            async with aclosing(follow(channel, self._asked[channel])) as pages:
                async for page in pages:
                    await self._queue.put((channel, page))
        except Exception:
            # The browser comes back, and goes on from its cursors.
            logger.exception("A realtime stream failed.")
            await self._queue.put(_FAILED)

    async def _live(self) -> AsyncGenerator[bytes]:
        """What comes, signs of life, and refusals; until the stream's time is over or nothing is left to follow."""
        clock = asyncio.get_running_loop().time
        # Streams that were opened together must not all come back together.
        ends = clock() + LIFETIME_SECONDS * random.uniform(0.9, 1.0)
        beat, recheck = clock() + HEARTBEAT_SECONDS, clock() + RECHECK_SECONDS
        while self._tasks and clock() < ends:
            try:
                async with asyncio.timeout_at(min(ends, beat, recheck)):
                    channel, page = await self._queue.get()
            except TimeoutError:
                if clock() >= beat:
                    beat = clock() + HEARTBEAT_SECONDS
                    yield b": \n" + _frame(encode(Ping(timestamp=_now_ms())))
                if clock() >= recheck:
                    recheck = clock() + RECHECK_SECONDS
                    async for frame in self._recheck():
                        yield frame
                continue
            if not page:
                return
            if channel in self._tasks:
                yield b"".join(self._frames_of(channel, page))
        if self._tasks:
            yield _frame(encode(Reconnect(timestamp=_now_ms())))

    def _frames_of(self, channel: str, page: list[Heard]) -> list[bytes]:
        frames = []
        for heard in page:
            if heard.position is None:
                frames.append(_frame(heard.text))
            else:
                self._cursors[channel] = heard.position
                frames.append(_frame(heard.text, format_event_id(self._cursors)))
        return frames

    async def _recheck(self) -> AsyncIterator[bytes]:
        for channel, denied in (await in_database(self._refusals, list(self._tasks))).items():
            self._tasks.pop(channel).cancel()
            self._cursors.pop(channel, None)
            yield _frame(encode(Error(code="forbidden", error=str(denied), channel=channel)))


def _frame(text: str, event_id: str = "") -> bytes:
    head = f"id: {event_id}\n" if event_id else ""
    return f"{head}data: {text}\n\n".encode()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
