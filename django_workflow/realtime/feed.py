"""One feed per event loop (a server process has one): new events of the subscribed channels, read once for everybody.

Who follows a channel takes a `Subscription` and pulls pages from it. It is registered first and reads the store after,
so nothing falls between; its cursor alone decides what comes next, so nothing comes twice. What was read lately stays
in memory and serves all subscribers of the channel; who is behind reads the store.

The feed learns of new events from three sides: the relay of this process, the channel layer (other processes), and its
own look at the store, which misses nothing and needs neither of the others.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from bisect import bisect_right
from collections.abc import Mapping
from contextvars import Context
from typing import Any

from channels.layers import InMemoryChannelLayer, get_channel_layer

from django_workflow.realtime import history
from django_workflow.realtime.history import in_database
from django_workflow.realtime.messages import Message

logger = logging.getLogger("django_workflow.realtime")

POLL_SECONDS = 1.0
POLL_SECONDS_WHILE_EVENTS_FLOW = 0.25
EVENTS_FLOW_SECONDS = 5.0
RETRY_SECONDS = 2.0
KEPT_IN_MEMORY = 200

LAYER_GROUP = "django_workflow.events"
LAYER_MESSAGE = "django_workflow.announce"
# A channel layer may forget the members of a group, or lose its connection: the feed joins anew from time to time.
REJOIN_SECONDS = 3600.0


class Subscription:
    """One listener of one channel. `next_page()` waits for events above its cursor; `close()` ends it."""

    def __init__(self, feed: Feed, topic: _Topic, position: int) -> None:
        self._feed = feed
        self._topic = topic
        self._position = position
        self.woken = asyncio.Event()

    async def next_page(self) -> list[Message]:
        """The next events, oldest first, at most `history.PAGE`; waits until there are some."""
        topic = self._topic
        while True:
            self.woken.clear()
            floor = topic.floor
            if self._position >= floor:
                page = topic.newer_than(self._position)
            else:
                page = await in_database(history.page_after, topic.channel, self._position)
            if page:
                self._position = page[-1].position
                return page
            if self._position < floor:
                self._position = floor  # what was between is no longer kept
            else:
                await self.woken.wait()

    def close(self) -> None:
        self._topic.subscriptions.discard(self)
        self._feed.forget_if_unused(self._topic)


class _Topic:
    """A channel that somebody follows: its events between `floor` (exclusive) and `position` are in memory."""

    def __init__(self, channel: str) -> None:
        self.channel = channel
        self.subscriptions: set[Subscription] = set()
        self.floor = 0
        self.position = 0
        self.announced = 0
        self._recent: list[Message] = []

    def newer_than(self, position: int) -> list[Message]:
        return self._recent[bisect_right(self._recent, position, key=_position_of) :]

    def add(self, messages: list[Message]) -> None:
        """Take what was read after `position`, and wake the subscribers."""
        self._recent += messages
        self.position = messages[-1].position
        if len(self._recent) > KEPT_IN_MEMORY * 2:
            cut = len(self._recent) - KEPT_IN_MEMORY
            self.floor = self._recent[cut - 1].position
            del self._recent[:cut]
        for subscription in self.subscriptions:
            subscription.woken.set()


def _position_of(message: Message) -> int:
    return message.position


class Feed:
    """See the module. Everything but `announce_from_thread` belongs to the feed's event loop."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._topics: dict[str, _Topic] = {}
        self._woken = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def subscribe(self, channel: str, newest: int, position: int | None = None) -> Subscription:
        """Follow a channel from a position, or from its newest event on.

        `newest` is the position of an event of the channel as read before the call: what the feed starts from when
        nobody else follows the channel.
        """
        topic = self._topics.get(channel)
        if topic is None:
            topic = self._topics[channel] = _Topic(channel)
            topic.floor = topic.position = newest
        subscription = Subscription(self, topic, newest if position is None else position)
        topic.subscriptions.add(subscription)
        # The store may have moved on since `newest` was read: look at once, and not at the next poll.
        topic.announced = max(topic.announced, topic.position + 1)
        self._woken.set()
        if not self._tasks:
            # In a context of their own: the first subscriber's ends with its connection.
            watches = (self._watch_store(), self._watch_layer())
            self._tasks = [self.loop.create_task(watch, context=Context()) for watch in watches]
        return subscription

    def forget_if_unused(self, topic: _Topic) -> None:
        if topic.subscriptions or self._topics.get(topic.channel) is not topic:
            return
        del self._topics[topic.channel]
        if not self._topics:
            for task in self._tasks:
                task.cancel()
            self._tasks = []
            _forget(self)

    def announce(self, newest: Mapping[str, int]) -> None:
        """Channels have events up to these positions: read those that somebody follows."""
        for channel, position in newest.items():
            topic = self._topics.get(channel)
            if topic is not None and position > topic.position:
                topic.announced = max(topic.announced, position)
                self._woken.set()

    def subscribers(self) -> dict[str, int]:
        """How many follow each channel. From any thread: a count that is about right."""
        return {channel: len(topic.subscriptions) for channel, topic in list(self._topics.items())}

    def announce_from_thread(self, newest: Mapping[str, int]) -> None:
        """`announce` from any thread. The loop is woken only when somebody follows one of the channels."""
        if any(channel in self._topics for channel in newest):
            try:
                self.loop.call_soon_threadsafe(self.announce, newest)
            except RuntimeError:  # the loop was closed
                logger.debug("The event loop of a feed is closed; its announcement is dropped.")

    async def _watch_store(self) -> None:
        """Read what was announced at once, and everything that is followed from time to time."""
        time = self.loop.time
        next_poll = time() + POLL_SECONDS
        last_event = float("-inf")
        while True:
            try:
                async with asyncio.timeout_at(next_poll):
                    await self._woken.wait()
            except TimeoutError:
                pass
            self._woken.clear()
            due = time() >= next_poll
            topics = [topic for topic in self._topics.values() if due or topic.announced > topic.position]
            try:
                if await self._read(topics):
                    last_event = time()
            except Exception:
                # A lost database comes back; the subscribers keep their cursors.
                logger.exception("The realtime store cannot be read; trying again in %g s.", RETRY_SECONDS)
                await asyncio.sleep(RETRY_SECONDS)
                continue
            flowing = time() - last_event < EVENTS_FLOW_SECONDS
            interval = POLL_SECONDS_WHILE_EVENTS_FLOW if flowing else POLL_SECONDS
            next_poll = time() + interval if due else min(next_poll, time() + interval)

    async def _read(self, topics: list[_Topic]) -> bool:
        """Read the store for these topics until there is nothing more. Whether there was anything."""
        any_found = False
        while topics:
            positions = {topic.channel: topic.position for topic in topics}
            announced = {topic.channel: topic.announced for topic in topics}
            page = await in_database(history.pages_after, positions)
            any_found = any_found or bool(page)
            by_channel: dict[str, list[Message]] = {}
            for message in page:
                by_channel.setdefault(message.channel, []).append(message)
            complete = len(page) < history.PAGE
            for topic in topics:
                if messages := by_channel.get(topic.channel):
                    topic.add(messages)
                # What was announced during the read may not be in it.
                if complete and topic.announced == announced[topic.channel]:
                    topic.announced = topic.position
            if complete:
                break
        return any_found

    async def _watch_layer(self) -> None:
        """Hear what other processes announce, where a channel layer connects them."""
        layer = shared_layer()
        level = logging.WARNING
        while layer is not None:
            limit = asyncio.timeout(REJOIN_SECONDS)
            try:
                name = await layer.new_channel()
                await layer.group_add(LAYER_GROUP, name)
                async with limit:
                    while True:
                        message = await layer.receive(name)
                        self.announce(message["newest"])
                        level = logging.WARNING
            except Exception:
                if not limit.expired():
                    # The reads of the store go on: a layer only shortens the wait. One warning per outage is enough.
                    logger.log(level, "The channel layer cannot be heard; trying again.", exc_info=True)
                    level = logging.DEBUG
                    await asyncio.sleep(RETRY_SECONDS)


_feeds: dict[asyncio.AbstractEventLoop, Feed] = {}
_feeds_lock = threading.Lock()


def current_feed() -> Feed:
    """The feed of the running event loop. Subscribe at once: a feed without subscribers is forgotten."""
    loop = asyncio.get_running_loop()
    with _feeds_lock:
        for closed in [other for other in _feeds if other.is_closed()]:
            del _feeds[closed]
        feed = _feeds.get(loop)
        if feed is None:
            feed = _feeds[loop] = Feed()
        return feed


def _forget(feed: Feed) -> None:
    with _feeds_lock:
        if _feeds.get(feed.loop) is feed:
            del _feeds[feed.loop]


def subscribers() -> dict[str, int]:
    """How many follow each channel in this process; other processes have feeds of their own."""
    with _feeds_lock:
        feeds = list(_feeds.values())
    found: dict[str, int] = {}
    for feed in feeds:
        for channel, number in feed.subscribers().items():
            found[channel] = found.get(channel, 0) + number
    return found


def announce_here(newest: Mapping[str, int]) -> None:
    """Tell the feeds of this process, from any thread, that channels have events up to these positions."""
    with _feeds_lock:
        feeds = list(_feeds.values())
    for feed in feeds:
        feed.announce_from_thread(newest)


def shared_layer() -> Any | None:
    """The channel layer when it reaches other processes; None without one. The in-memory layer never does."""
    layer = get_channel_layer()
    return None if layer is None or isinstance(layer, InMemoryChannelLayer) else layer
