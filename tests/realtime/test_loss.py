"""Nothing is lost and nothing comes twice, however often the connection breaks: on each transport, with each store.

A follower that is cut off at random places goes on from the cursor of the last event that it handled, as browsers do.
"""

from __future__ import annotations

import asyncio
import json
import random
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.test import AsyncClient
from django.urls import reverse

from django_workflow.realtime import feed as feed_module
from django_workflow.realtime.messages import BEGINNING
from django_workflow.realtime.stores import RUN_HISTORY, NewEvent, current_store
from django_workflow.signals import channel_events_stored
from tests.realtime.helpers import connection

CHANNEL = "wfr_loss"
EVENTS_PER_CUT = 10
BURST = 20

pytestmark = pytest.mark.usefixtures("database_thread")

Frames = AsyncIterator[list[Any]]
Open = Callable[[User, str], Any]


@asynccontextmanager
async def by_socket(user: User, cursor: str) -> AsyncIterator[Frames]:
    socket = connection(user)
    assert (await socket.connect())[0]
    await socket.send_json_to({"type": "subscribe", "channels": {CHANNEL: cursor}})

    async def frames() -> Frames:
        while True:
            yield [await socket.receive_json_from(timeout=10)]

    try:
        async with aclosing(frames()) as heard:  # type: ignore[type-var]
            yield heard
    finally:
        await socket.disconnect()


@asynccontextmanager
async def by_stream(user: User, cursor: str) -> AsyncIterator[Frames]:
    client = AsyncClient()
    client.cookies = _cookies[user.pk].copy()
    response: Any = await client.get(
        reverse("django_workflow:realtime-sse"), {"channel": CHANNEL, f"last_ack_{CHANNEL}": cursor}
    )
    chunks = aiter(response.streaming_content)

    async def frames() -> Frames:
        async for chunk in chunks:
            yield [json.loads(line[6:]) for line in chunk.decode().split("\n") if line.startswith("data: ")]

    try:
        async with aclosing(frames()) as heard:  # type: ignore[type-var]
            yield heard
    finally:
        await chunks.aclose()


@asynccontextmanager
async def by_polls(user: User, cursor: str) -> AsyncIterator[Frames]:
    client = AsyncClient()
    client.cookies = _cookies[user.pk].copy()

    async def frames() -> Frames:
        at = cursor
        while True:
            query = {"channel": CHANNEL, f"last_ack_{CHANNEL}": at, "limit": "37"}
            answer: Any = (await client.get(reverse("django_workflow:realtime-poll"), query)).json()
            at = answer["cursors"][CHANNEL]
            yield answer["messages"]

    async with aclosing(frames()) as heard:  # type: ignore[type-var]
        yield heard


_cookies: dict[int, Any] = {}


async def emit_all(events: int) -> None:
    """All events in bursts, announced as they are committed; some announcements are lost, some come twice."""
    chance = random.Random(1)

    def emit(first: int) -> None:
        burst = [NewEvent(CHANNEL, "e", str(number)) for number in range(first, first + BURST)]
        newest = current_store().append(burst, RUN_HISTORY)[-1]
        for _ in range(chance.choice((0, 1, 1, 1, 2))):
            channel_events_stored.send(sender="test", channels={CHANNEL: newest})

    for first in range(0, events, BURST):
        await sync_to_async(emit)(first)


async def follow_with_cuts(user: User, opened: Open, wanted_cuts: int) -> list[int]:
    """What a follower handled that was cut off so many times, at any place between two events."""
    chance = random.Random(2)
    handled: list[int] = []
    events = wanted_cuts * EVENTS_PER_CUT
    cursor, cuts = BEGINNING, 0
    while len(handled) < events:
        left = chance.randrange(0, EVENTS_PER_CUT + 4) if cuts < wanted_cuts else events
        cuts += 1
        async with opened(user, cursor) as frames:
            async for messages in frames:
                for message in messages:
                    if "event" not in message:
                        assert message["type"] in ("connected", "ping"), message
                        continue
                    if left < 0:
                        break
                    left -= 1
                    handled.append(message["data"])
                    cursor = message["id"]
                if left < 0 or len(handled) == events:
                    break
    assert cuts >= wanted_cuts
    return handled


@pytest.mark.parametrize("store", ["database", "memory", pytest.param("redis", marks=pytest.mark.redis)])
@pytest.mark.parametrize("cuts", [100, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("opened", [by_socket, by_stream, by_polls], ids=["socket", "stream", "polls"])
async def test_breaks_lose_and_repeat_nothing(
    store: str, opened: Open, cuts: int, superuser: User, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.DJANGO_WORKFLOW = {"realtime_store": store}
    if store == "redis":
        settings.CACHES = {"default": {**settings.CACHES["redis"], "KEY_PREFIX": secrets.token_hex(8)}}
    # What no announcement tells is found by looking; often, for this test's sake.
    monkeypatch.setattr(feed_module, "POLL_SECONDS", 0.05)
    client = AsyncClient()
    await client.aforce_login(superuser)
    _cookies[superuser.pk] = client.cookies
    async with asyncio.timeout(900):
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(emit_all(cuts * EVENTS_PER_CUT))
            handled = tasks.create_task(follow_with_cuts(superuser, opened, cuts))
    assert handled.result() == list(range(cuts * EVENTS_PER_CUT))
