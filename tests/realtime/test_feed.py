from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connections

from django_workflow.realtime import feed as feed_module
from django_workflow.realtime import history
from django_workflow.realtime.feed import Feed, Subscription, announce_here, current_feed
from tests.realtime.helpers import CHANNEL, announce, position, store, store_many

pytestmark = pytest.mark.usefixtures("database_thread")

astore = sync_to_async(store)
astore_many = sync_to_async(store_many)


@pytest.fixture
def no_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of announcements: nothing else brings events within the test."""
    monkeypatch.setattr(feed_module, "POLL_SECONDS", 60)
    monkeypatch.setattr(feed_module, "POLL_SECONDS_WHILE_EVENTS_FLOW", 60)


async def in_another_thread(work: Callable[[], object]) -> None:
    """As a worker does: not in the thread that reads for the feed."""

    def call() -> None:
        try:
            work()
        finally:
            connections.close_all()

    await sync_to_async(call, thread_sensitive=False)()


async def positions(subscription: Subscription, count: int, timeout: float = 3) -> list[int]:
    found: list[int] = []
    async with asyncio.timeout(timeout):
        while len(found) < count:
            found += [message.position for message in await subscription.next_page()]
    return found


async def nothing_comes(subscription: Subscription) -> bool:
    try:
        async with asyncio.timeout(0.15):
            await subscription.next_page()
    except TimeoutError:
        return True
    return False


async def test_stored_events_come_first_and_live_ones_follow(no_polls: None) -> None:
    await astore_many(range(1, 4))
    subscription = current_feed().subscribe(CHANNEL, position(3), 0)
    assert await positions(subscription, 3) == [position(n) for n in (1, 2, 3)]
    await astore(4)
    announce(4)
    assert await positions(subscription, 1) == [position(4)]
    assert await nothing_comes(subscription)
    subscription.close()


async def test_only_what_is_new_comes_without_a_position(no_polls: None) -> None:
    await astore_many(range(1, 4))
    subscription = current_feed().subscribe(CHANNEL, position(3))
    assert await nothing_comes(subscription)
    await astore(4)
    announce(4)
    assert await positions(subscription, 1) == [position(4)]
    subscription.close()


async def test_an_event_between_reading_and_subscribing_comes_once(no_polls: None) -> None:
    await astore(1)
    newest = await sync_to_async(history.newest)(CHANNEL)
    await astore(2)
    announce(2)  # nobody follows yet: it is not heard
    subscription = current_feed().subscribe(CHANNEL, newest, 0)
    assert await positions(subscription, 2) == [position(1), position(2)]
    assert await nothing_comes(subscription)
    subscription.close()


async def test_an_event_during_the_read_of_the_store_is_not_forgotten(
    no_polls: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = history.pages_after
    reading, go_on = threading.Event(), threading.Event()

    def slow(*args: Any) -> Any:
        found = read(*args)
        reading.set()
        go_on.wait(3)
        return found

    monkeypatch.setattr(history, "pages_after", slow)
    subscription = current_feed().subscribe(CHANNEL, 0, 0)
    await asyncio.to_thread(reading.wait, 3)
    await in_another_thread(lambda: store(1))
    announce(1)
    await asyncio.sleep(0.01)
    go_on.set()
    # Either its own page or the read after it brings the event, once.
    assert await positions(subscription, 1) == [position(1)]
    assert await nothing_comes(subscription)
    subscription.close()


async def test_a_lost_announcement_only_delays() -> None:
    subscription = current_feed().subscribe(CHANNEL, 0, 0)
    assert await nothing_comes(subscription)
    await astore(1)
    assert await positions(subscription, 1) == [position(1)]
    subscription.close()


async def test_announcements_that_repeat_or_come_too_early_bring_nothing_twice(no_polls: None) -> None:
    subscription = current_feed().subscribe(CHANNEL, 0, 0)
    announce(5)
    await astore(5)
    for _ in range(3):
        announce(5)
    assert await positions(subscription, 1) == [position(5)]
    announce(5)
    assert await nothing_comes(subscription)
    subscription.close()


async def test_an_announcement_from_another_thread_arrives_at_once(no_polls: None) -> None:
    subscription = current_feed().subscribe(CHANNEL, 0, 0)
    assert await nothing_comes(subscription)
    committed: list[float] = []

    def commit() -> None:
        store(1)
        committed.append(time.monotonic())
        announce(1)

    await in_another_thread(commit)
    assert await positions(subscription, 1) == [position(1)]
    assert time.monotonic() - committed[0] < 0.1
    subscription.close()


async def test_two_subscribers_share_one_read_of_the_store(no_polls: None, monkeypatch: pytest.MonkeyPatch) -> None:
    feed = current_feed()
    first, second = feed.subscribe(CHANNEL, 0, 0), feed.subscribe(CHANNEL, 0, 0)
    assert await nothing_comes(first)
    reads: list[Any] = []
    read = history.pages_after

    def counted(*args: Any) -> Any:
        reads.append(args)
        return read(*args)

    monkeypatch.setattr(history, "pages_after", counted)
    await astore(1)
    announce(1)
    assert await positions(first, 1) == await positions(second, 1)
    assert len(reads) == 1
    first.close()
    second.close()


async def test_who_is_far_behind_reads_the_store_in_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "KEPT_IN_MEMORY", 5)
    await astore_many(range(1, 1201))
    late = current_feed().subscribe(CHANNEL, position(1200), 0)
    first = await late.next_page()
    assert len(first) == history.PAGE
    for number in range(1201, 1230):
        await astore(number)
        announce(number)
    await asyncio.sleep(0.1)  # the feed has let go of the first of these
    assert await positions(late, 729) == [position(n) for n in range(501, 1230)]
    assert await nothing_comes(late)
    late.close()


async def test_a_cursor_whose_events_were_trimmed_goes_on_with_what_is_new(no_polls: None) -> None:
    subscription = current_feed().subscribe(CHANNEL, position(9), position(1))
    assert await nothing_comes(subscription)
    await astore(10)
    announce(10)
    assert await positions(subscription, 1) == [position(10)]
    subscription.close()


async def test_a_store_that_fails_is_read_again(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    monkeypatch.setattr(feed_module, "RETRY_SECONDS", 0.05)
    read = history.pages_after
    failures = iter([OSError("gone"), OSError("gone")])

    def failing(*args: Any) -> Any:
        for error in failures:
            raise error
        return read(*args)

    monkeypatch.setattr(history, "pages_after", failing)
    subscription = current_feed().subscribe(CHANNEL, 0, 0)
    await astore(1)
    assert await positions(subscription, 1) == [position(1)]
    assert "cannot be read" in caplog.text
    subscription.close()


async def test_a_feed_without_subscribers_rests() -> None:
    feed = current_feed()
    first, second = feed.subscribe(CHANNEL, 0), feed.subscribe("b", 0)
    tasks = list(feed._tasks)
    first.close()
    assert current_feed() is feed
    second.close()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert all(task.cancelled() for task in tasks)
    assert current_feed() is not feed


def test_the_feed_of_a_closed_loop_is_forgotten() -> None:
    async def leave_open() -> Feed:
        feed = current_feed()
        feed.subscribe(CHANNEL, 0)
        return feed

    feed = asyncio.run(leave_open())
    announce_here({CHANNEL: 1})
    assert feed in feed_module._feeds.values()
    asyncio.run(asyncio.sleep(0))

    async def another() -> Feed:
        return current_feed()

    assert asyncio.run(another()) is not feed
    assert feed not in feed_module._feeds.values()
    feed_module._feeds.clear()
