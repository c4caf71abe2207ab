"""The WebSocket: one connection follows any number of channels, each from the cursor that the client asks for.

Frames come in and go out in the forms of `messages`. A channel that may not be followed is reported, the others go on.
What was allowed is checked again from time to time: who lost the right gets `forbidden`, and a connection that has no
channel left is closed with 4403. Codes are only seen by browsers after the handshake was accepted, so refusals accept
first, say the reason in a message, and close then.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from contextlib import aclosing
from typing import Any

from channels.generic.websocket import AsyncWebsocketConsumer
from django.utils.translation import gettext as _

from django_workflow.errors import RequestRejected
from django_workflow.realtime import access
from django_workflow.realtime.access import AccessDenied
from django_workflow.realtime.history import in_database
from django_workflow.realtime.messages import (
    Disconnected,
    Error,
    Ping,
    Subscribe,
    check_channel,
    decode_frame,
    encode,
    parse_cursor,
)
from django_workflow.realtime.streams import follow

logger = logging.getLogger("django_workflow.realtime")

CHANNELS_PER_CONNECTION = 200
CLOSE_FORBIDDEN = 4403
CLOSE_FAILED = 1011


class RealtimeConsumer(AsyncWebsocketConsumer):  # type: ignore[misc] # channels has no types
    # No channel layer here: the feed listens to it for the whole process, and one that is down must not end sockets.
    channel_layer_alias = ""
    heartbeat_seconds = 25.0
    recheck_seconds = 60.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._streams: dict[str, asyncio.Task[None]] = {}
        self._tokens: dict[str, str] = {}
        self._duties: list[asyncio.Task[None]] = []
        self._closing = False

    async def connect(self) -> None:
        await self.accept()
        if not access.origin_allowed(self.scope.get("headers", ())):
            await self._refuse("origin", _("Pages of this origin may not connect; see ALLOWED_HOSTS."))
            return
        self._duties = [self._start(self._heartbeat()), self._start(self._recheck())]

    async def disconnect(self, code: int) -> None:
        self._closing = True
        for task in [*self._streams.values(), *self._duties]:
            task.cancel()

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if self._closing:
            return
        try:
            frame = decode_frame(text_data or "")
        except RequestRejected as error:
            await self._say(Error(code="bad_message", error=str(error)))
            return
        if isinstance(frame, Subscribe):
            await self._subscribe(frame)
        else:
            for channel in frame.channels:
                self._drop(channel)
            await self._say(Disconnected(channels=frame.channels))

    async def _subscribe(self, frame: Subscribe) -> None:
        if len(frame.channels) > CHANNELS_PER_CONNECTION:
            await self._say(Error(code="too_many_channels", error=self._limit()))
            return
        wanted: dict[str, int | None] = {}
        for channel, cursor in frame.channels.items():
            try:
                wanted[check_channel(channel)] = parse_cursor(cursor)
            except RequestRejected as error:
                await self._say(Error(code="bad_message", error=str(error), channel=channel))
        try:
            refused = await in_database(self._refusals, dict.fromkeys(wanted, frame.token))
        except Exception:
            # The client comes back, and goes on from its cursors.
            logger.exception("The access to realtime channels could not be checked.")
            await self._close(CLOSE_FAILED, "")
            return
        for channel, position in wanted.items():
            if channel in refused:
                self._drop(channel)
                await self._say_refused(refused[channel], channel)
            elif channel not in self._streams and len(self._streams) >= CHANNELS_PER_CONNECTION:
                await self._say(Error(code="too_many_channels", error=self._limit(), channel=channel))
            else:
                self._drop(channel)
                self._tokens[channel] = frame.token
                self._streams[channel] = self._start(self._stream(channel, position))

    async def _stream(self, channel: str, position: int | None) -> None:
        """Everything of one channel from a position on (None: only what is new), until canceled."""
        async with aclosing(follow(channel, position)) as pages:
            async for page in pages:
                for heard in page:
                    await self.send(text_data=heard.text)
                await asyncio.sleep(0)  # others have their turn between pages

    async def _heartbeat(self) -> None:
        while True:
            await asyncio.sleep(self.heartbeat_seconds)
            await self._say(Ping(timestamp=time.time_ns() // 1_000_000))

    async def _recheck(self) -> None:
        while True:
            await asyncio.sleep(self.recheck_seconds)
            if not self._streams:
                continue
            tokens = {channel: self._tokens[channel] for channel in self._streams}
            for channel, denied in (await in_database(self._refusals, tokens)).items():
                # It may have been subscribed anew, with another token, during the check.
                if self._tokens.get(channel) == tokens[channel]:
                    self._drop(channel)
                    await self._say_refused(denied, channel)
            if not self._streams:
                await self._close(CLOSE_FORBIDDEN, "forbidden")

    def _refusals(self, tokens: dict[str, str]) -> dict[str, AccessDenied]:
        """Which of these channels may not be followed by the connection's user or with the channel's token."""
        user = access.current_user(self.scope)
        refused = {}
        for channel, token in tokens.items():
            try:
                access.check_access(user, channel, "read", token)
            except AccessDenied as denied:
                refused[channel] = denied
        return refused

    def _limit(self) -> str:
        return _("A connection follows at most %(count)d channels.") % {"count": CHANNELS_PER_CONNECTION}

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(self._task_ended)
        return task

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        # An OSError is a client that went away; its disconnect follows.
        if error is not None and not self._closing and not isinstance(error, OSError):
            logger.error("A realtime connection failed.", exc_info=error)
            self._duties.append(asyncio.get_running_loop().create_task(self._close(CLOSE_FAILED, "")))

    def _drop(self, channel: str) -> None:
        self._tokens.pop(channel, None)
        if task := self._streams.pop(channel, None):
            task.cancel()

    async def _say(self, message: object) -> None:
        await self.send(text_data=encode(message))

    async def _say_refused(self, denied: AccessDenied, channel: str) -> None:
        await self._say(Error(code="forbidden", error=str(denied), channel=channel))

    async def _refuse(self, code: str, text: str) -> None:
        await self._say(Error(code=code, error=text))
        await self._close(CLOSE_FORBIDDEN, code)

    async def _close(self, code: int, reason: str) -> None:
        self._closing = True
        for channel in list(self._streams):
            self._drop(channel)
        await self.close(code=code, reason=reason or None)
