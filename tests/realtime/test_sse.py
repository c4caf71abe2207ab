from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import Permission, User
from django.test import AsyncClient, Client
from django.urls import reverse

from django_workflow.realtime import access
from django_workflow.realtime import sse as sse_module
from django_workflow.realtime.sse import format_event_id, parse_event_id
from tests.realtime.helpers import CHANNEL, announce, event_id, make_run, store, store_many

pytestmark = pytest.mark.usefixtures("database_thread")


class Frame:
    def __init__(self, text: str) -> None:
        fields = [line.partition(": ") for line in text.strip().split("\n")]
        self.values = {name: value for name, _, value in fields}
        self.id = self.values.get("id", "")
        self.data: Any = json.loads(self.values["data"]) if "data" in self.values else None


class Events:
    """A response's frames, one after the other."""

    def __init__(self, response: Any) -> None:
        self.response = response
        self._chunks = aiter(response.streaming_content)
        self._ready: list[Frame] = []

    async def frame(self) -> Frame:
        async with asyncio.timeout(5):
            while not self._ready:
                self._ready += [Frame(part) for part in (await anext(self._chunks)).decode().split("\n\n") if part]
        return self._ready.pop(0)

    async def data(self) -> Any:
        """The next message; comments and `retry` are passed over."""
        while (frame := await self.frame()).data is None:
            pass
        return frame.data


@asynccontextmanager
async def opened(client: AsyncClient, *channels: str, headers: Any = None, **query: Any) -> AsyncIterator[Events]:
    query["channel"] = list(channels or (CHANNEL,))
    response = await client.get(reverse("django_workflow:realtime-sse"), query, headers=headers)
    assert response.status_code == 200, response.content
    events = Events(response)
    try:
        yield events
    finally:
        await events._chunks.aclose()


@pytest.fixture
async def root(superuser: User) -> AsyncClient:
    client = AsyncClient()
    await client.aforce_login(superuser)
    return client


async def test_a_stream_gives_what_is_stored_and_then_what_is_new(root: AsyncClient) -> None:
    await sync_to_async(store_many)(range(1, 4))
    async with opened(root, **{f"last_ack_{CHANNEL}": event_id(1)}) as events:
        assert (await events.frame()).values == {"retry": "1000"}
        assert await events.data() == {"type": "connected", "channel": CHANNEL, "cursor": event_id(3)}
        assert [(await events.data())["id"] for _ in range(2)] == [event_id(2), event_id(3)]
        await sync_to_async(store)(4)
        announce(4)
        frame = await events.frame()
        assert frame.data == {"data": {}, "event": "workflow.update", "channel": CHANNEL, "id": event_id(4)}
        assert frame.id == f"{CHANNEL}={event_id(4)}"


async def test_its_headers_let_nobody_hold_it_back(root: AsyncClient) -> None:
    async with opened(root) as events:
        headers = events.response.headers
        assert headers["Content-Type"] == "text/event-stream"
        assert headers["Cache-Control"] == "no-cache, no-transform, private"
        assert headers["X-Accel-Buffering"] == "no"
        assert headers["Content-Encoding"] == "identity"  # what django.middleware.gzip leaves alone


async def test_a_stream_without_cursors_starts_now(root: AsyncClient) -> None:
    await sync_to_async(store)(1)
    async with opened(root) as events:
        assert (await events.data())["cursor"] == event_id(1)
        await sync_to_async(store)(2)
        announce(2)
        assert (await events.data())["id"] == event_id(2)


async def test_a_browser_that_comes_back_goes_on_in_every_channel(root: AsyncClient) -> None:
    names = ["wfr_a", "wfr_b;=%", "wfr_日本"]
    for name in names:
        await sync_to_async(store_many)(range(1, 3), name)
    first = {f"last_ack_{name}": "0-0" for name in names}
    async with opened(root, *names, **first) as events:
        frames = [await events.frame() for _ in range(1 + len(names) * 3)]
    last = [frame.id for frame in frames if frame.id][-1]
    assert parse_event_id(last) == {name: event_id(2) for name in names}
    for name in names:
        await sync_to_async(store)(3, name)
    # The URL is the old one, as an EventSource opens it again.
    async with opened(root, *names, headers={"Last-Event-ID": last}, **first) as events:
        heard = [await events.data() for _ in range(2 * len(names))]
    assert {(data["channel"], data["id"]) for data in heard if "event" in data} == {
        (name, event_id(3)) for name in names
    }


async def test_trimmed_events_are_told_as_a_gap(root: AsyncClient) -> None:
    await sync_to_async(store_many)(range(5, 7))
    async with opened(root, **{f"last_ack_{CHANNEL}": event_id(2)}) as events:
        await events.data()
        assert await events.data() == {"type": "gap", "channel": CHANNEL, "oldest": event_id(5), "cursor": event_id(6)}


async def test_a_thousand_stored_events_come_in_their_order(root: AsyncClient) -> None:
    await sync_to_async(store_many)(range(1, 1001))
    async with opened(root, **{f"last_ack_{CHANNEL}": "0-0"}) as events:
        await events.data()
        assert [(await events.data())["data"]["n"] for _ in range(1000)] == list(range(1, 1001))


async def test_who_may_read_nothing_gets_403_with_the_reason(somebody: User) -> None:
    client = AsyncClient()
    await client.aforce_login(somebody)
    response = await client.get(reverse("django_workflow:realtime-sse"), {"channel": CHANNEL})
    assert (response.status_code, response.json()["reason"]) == (403, "forbidden")


async def test_refused_channels_are_told_and_the_others_go_on(somebody: User) -> None:
    client = AsyncClient()
    await client.aforce_login(somebody)
    await sync_to_async(make_run)("wfr_own", owner=somebody)
    async with opened(client, "wfr_own", "wfr_other") as events:
        heard = [await events.data() for _ in range(2)]
    assert [(data["type"], data["channel"]) for data in heard] == [("error", "wfr_other"), ("connected", "wfr_own")]


async def test_a_token_admits_to_its_channel_alone() -> None:
    token = access.make_token(["wfr_a"])
    async with opened(AsyncClient(), "wfr_a", token=token) as events:
        assert (await events.data())["type"] == "connected"
    url = reverse("django_workflow:realtime-sse")
    answer = await AsyncClient().get(url, {"channel": "wfr_b", "token": token})
    assert answer.status_code == 403
    answer = await AsyncClient().get(url, {"channel": "wfr_a", "token": token + "x"})
    assert (answer.status_code, answer.json()["reason"]) == (403, "token_invalid")


async def test_a_right_that_is_withdrawn_ends_the_stream(somebody: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse_module, "RECHECK_SECONDS", 0.05)
    permission = await Permission.objects.aget(codename="view_run")
    await somebody.user_permissions.aadd(permission)
    client = AsyncClient()
    await client.aforce_login(somebody)
    async with opened(client) as events:
        assert (await events.data())["type"] == "connected"
        await somebody.user_permissions.aclear()
        assert (await events.data())["code"] == "forbidden"
        with pytest.raises(StopAsyncIteration):
            await events.frame()


async def test_it_gives_signs_of_life(root: AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse_module, "HEARTBEAT_SECONDS", 0.02)
    async with opened(root) as events:
        await events.data()
        assert [(await events.data())["type"] for _ in range(2)] == ["ping", "ping"]


async def test_its_end_says_to_come_back(root: AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse_module, "LIFETIME_SECONDS", 0.05)
    async with opened(root) as events:
        await events.data()
        assert (await events.data())["type"] == "reconnect"
        with pytest.raises(StopAsyncIteration):
            await events.frame()


async def test_a_stream_whose_store_fails_ends(root: AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(channel: str) -> int:
        raise RuntimeError("broken")

    monkeypatch.setattr("django_workflow.realtime.history.newest", broken)
    async with opened(root) as events:
        await events.frame()
        with pytest.raises(StopAsyncIteration):
            await events.frame()


@pytest.mark.parametrize(
    "query",
    [{}, {"channel": ""}, {"channel": "a", "last_ack_a": "yesterday"}, {"channel": [str(n) for n in range(51)]}],
)
async def test_what_cannot_be_read_is_a_400(root: AsyncClient, query: Any) -> None:
    response = await root.get(reverse("django_workflow:realtime-sse"), query)
    assert (response.status_code, response.json()["reason"]) == (400, "bad_request")


def test_under_wsgi_the_answer_is_to_poll(client: Client, superuser: User) -> None:
    client.force_login(superuser)
    response = client.get(reverse("django_workflow:realtime-sse"), {"channel": CHANNEL})
    assert (response.status_code, response.json()["reason"]) == (503, "needs_asgi")
    assert response["Retry-After"]


def test_event_ids_hold_any_name() -> None:
    cursors = {"a;b=c%": (5 << 20) + 1, "日本": 7 << 20}
    assert parse_event_id(format_event_id(cursors)) == {"a;b=c%": "5-1", "日本": "7-0"}
    assert parse_event_id("somebody else's") == {}
