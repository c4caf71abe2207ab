"""Announcing stored events: from the signal after a commit to everybody who follows the channels.

The signal comes in whatever thread committed. Feeds of this process are woken on their event loops; other processes
hear it through the channel layer, sent by one announcer thread with one persistent event loop. Nothing here blocks the
sender, and nothing depends on it: a feed that hears nothing finds the events in the store.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from django_workflow.realtime.feed import LAYER_GROUP, LAYER_MESSAGE, announce_here, shared_layer
from django_workflow.realtime.stores import RUN_HISTORY, NewEvent, StoreUnavailable, current_store
from django_workflow.signals import channel_events_committed, channel_events_stored

logger = logging.getLogger("django_workflow.realtime")

CHANNELS_PER_ANNOUNCEMENT = 500


def connect() -> None:
    """Listen to the signal; called once when Django has started."""
    channel_events_stored.connect(on_events_stored, dispatch_uid="django_workflow.realtime.relay")
    channel_events_committed.connect(on_events_committed, dispatch_uid="django_workflow.realtime.relay")


def on_events_stored(sender: object, channels: Mapping[str, int], **kwargs: Any) -> None:
    """Announce committed events. `channels`: name -> position of its newest event."""
    announce_here(channels)
    if shared_layer() is not None:
        _announcer.offer(channels)


_store_level = logging.WARNING


def on_events_committed(sender: object, events: Sequence[tuple[str, str, str]], **kwargs: Any) -> None:
    """Put committed events into a store that is not the database, and announce them.

    What a store that is away does not take is lost there: the rows of runs and steps tell the same.
    """
    global _store_level
    try:
        positions = current_store().append([NewEvent(*event) for event in events], RUN_HISTORY)
    except StoreUnavailable:
        logger.log(_store_level, "The realtime store takes no events; widgets show the rows.", exc_info=True)
        _store_level = logging.DEBUG  # one warning per outage is enough
        return
    _store_level = logging.WARNING
    newest = {event[0]: position for event, position in zip(events, positions, strict=True)}
    on_events_stored(sender, newest)


class Announcer:
    """Sends announcements to the channel layer, one after another, from a thread of its own.

    What comes while a send is under way is folded into the next one: it says "new up to there", so the newest position
    of a channel replaces an older one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending: dict[str, int] = {}
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake = asyncio.Event()

    def offer(self, newest: Mapping[str, int]) -> None:
        with self._lock:
            for channel, position in newest.items():
                self._pending[channel] = max(position, self._pending.get(channel, 0))
            # After a fork the thread exists in the parent alone.
            if self._thread is None or not self._thread.is_alive():
                self._loop = None
                self._thread = threading.Thread(target=self._run, name="django-workflow-announcer", daemon=True)
                try:
                    self._thread.start()
                except RuntimeError:  # the interpreter is shutting down
                    self._thread = None
            elif self._loop is not None:
                with suppress(RuntimeError):  # the loop was closed
                    self._loop.call_soon_threadsafe(self._wake.set)

    def _run(self) -> None:
        asyncio.run(self._send_for_ever())

    async def _send_for_ever(self) -> None:
        self._wake = asyncio.Event()
        with self._lock:
            self._loop = asyncio.get_running_loop()
        level = logging.WARNING
        while True:
            self._wake.clear()
            while batch := self._take():
                layer = shared_layer()
                try:
                    if layer is not None:
                        await layer.group_send(LAYER_GROUP, {"type": LAYER_MESSAGE, "newest": batch})
                    level = logging.WARNING
                except Exception:
                    # Dropped: who listens polls the store as well. One warning per outage is enough.
                    logger.log(level, "The channel layer does not take announcements.", exc_info=True)
                    level = logging.DEBUG
            await self._wake.wait()

    def _take(self) -> dict[str, int]:
        with self._lock:
            taken = dict(list(self._pending.items())[:CHANNELS_PER_ANNOUNCEMENT])
            for channel in taken:
                del self._pending[channel]
            return taken


_announcer = Announcer()
