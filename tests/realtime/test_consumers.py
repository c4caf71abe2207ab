from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from channels.testing import WebsocketCommunicator
from django.contrib.auth.models import User

from django_workflow.realtime import access, consumers, history
from django_workflow.realtime.consumers import RealtimeConsumer
from tests.realtime.helpers import (
    CHANNEL,
    announce,
    connection,
    event_id,
    make_run,
    position,
    store,
    store_many,
    subscribed,
)

pytestmark = pytest.mark.usefixtures("database_thread")

astore = sync_to_async(store)
astore_many = sync_to_async(store_many)
amake_run = sync_to_async(make_run)


async def ids(socket: WebsocketCommunicator, count: int) -> list[str]:
    return [(await socket.receive_json_from())["id"] for _ in range(count)]


async def closed(socket: WebsocketCommunicator) -> int:
    answer = await socket.receive_output()
    assert answer["type"] == "websocket.close"
    return int(answer["code"])


# Following a channel


async def test_what_is_stored_is_replayed_and_what_is_new_follows(superuser: User) -> None:
    await astore(1, type="runStart")
    await astore(2, type="stepStart", stepName="a")
    socket = connection(superuser)
    assert await socket.connect() == (True, None)
    await socket.send_json_to({"type": "subscribe", "channels": {CHANNEL: "0-0"}})
    assert await socket.receive_json_from() == {"type": "connected", "channel": CHANNEL, "cursor": event_id(2)}
    assert await socket.receive_json_from() == {
        "data": {"type": "runStart"},
        "event": "workflow.update",
        "channel": CHANNEL,
        "id": event_id(1),
    }
    assert await ids(socket, 1) == [event_id(2)]
    await astore(3)
    announce(3)
    assert await ids(socket, 1) == [event_id(3)]
    assert await socket.receive_nothing()
    await socket.disconnect()


async def test_an_empty_channel_says_so(superuser: User) -> None:
    socket = connection(superuser)
    await socket.connect()
    await socket.send_json_to({"type": "subscribe", "channels": {CHANNEL: "0-0"}})
    assert (await socket.receive_json_from())["cursor"] == "0-0"
    await socket.disconnect()


async def test_a_cursor_resumes_after_its_event(superuser: User) -> None:
    await astore_many(range(1, 5))
    socket = await subscribed(superuser, event_id(3))
    assert await ids(socket, 1) == [event_id(4)]
    assert await socket.receive_nothing()
    await socket.disconnect()


async def test_dollar_asks_for_what_is_new(superuser: User) -> None:
    await astore_many(range(1, 5))
    socket = await subscribed(superuser, "$")
    assert await socket.receive_nothing()
    await astore(5)
    announce(5)
    assert await ids(socket, 1) == [event_id(5)]
    await socket.disconnect()


async def test_a_thousand_stored_events_arrive_in_order_and_once(superuser: User) -> None:
    await astore_many(range(1, 1101))
    socket = await subscribed(superuser)
    for number in range(1101, 1111):  # while the replay goes on
        await astore(number)
        announce(number)
    assert await ids(socket, 1110) == [event_id(n) for n in range(1, 1111)]
    assert await socket.receive_nothing()
    await socket.disconnect()


async def test_an_event_between_the_read_and_the_live_start_arrives_once(
    superuser: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    await astore(1)
    read = history.newest

    def newest_and_then_another(channel: str) -> int:
        found = read(channel)
        if found == position(1):
            store(2)
            announce(2)
        return found

    monkeypatch.setattr(history, "newest", newest_and_then_another)
    socket = await subscribed(superuser)
    assert await ids(socket, 2) == [event_id(1), event_id(2)]
    assert await socket.receive_nothing(timeout=0.4)
    await socket.disconnect()


async def test_channels_are_added_without_disturbing_others(superuser: User) -> None:
    socket = await subscribed(superuser)
    await socket.send_json_to({"type": "subscribe", "channels": {"wfr_2": "0-0"}})
    assert (await socket.receive_json_from())["channel"] == "wfr_2"
    await astore(1)
    await astore(1, "wfr_2")
    announce(1)
    announce(1, "wfr_2")
    assert {(await socket.receive_json_from())["channel"] for _ in range(2)} == {CHANNEL, "wfr_2"}
    await socket.disconnect()


async def test_subscribing_again_starts_from_the_new_cursor(superuser: User) -> None:
    await astore_many(range(1, 4))
    socket = await subscribed(superuser)
    assert await ids(socket, 3) == [event_id(n) for n in (1, 2, 3)]
    await socket.send_json_to({"type": "subscribe", "channels": {CHANNEL: event_id(2)}})
    assert (await socket.receive_json_from())["type"] == "connected"
    assert await ids(socket, 1) == [event_id(3)]
    assert await socket.receive_nothing()
    await socket.disconnect()


async def test_nothing_comes_after_unsubscribing(superuser: User) -> None:
    socket = await subscribed(superuser)
    await socket.send_json_to({"type": "unsubscribe", "channels": [CHANNEL, "never-followed"]})
    assert await socket.receive_json_from() == {"type": "disconnected", "channels": [CHANNEL, "never-followed"]}
    await astore(1)
    announce(1)
    assert await socket.receive_nothing()
    await socket.disconnect()


async def test_every_connection_gets_every_event(superuser: User) -> None:
    sockets = [await subscribed(superuser) for _ in range(5)]
    await astore(1)
    announce(1)
    assert [await ids(socket, 1) for socket in sockets] == [[event_id(1)]] * 5
    for socket in sockets:
        await socket.disconnect()


async def test_names_of_channels_are_free(superuser: User, settings: Any) -> None:
    settings.DJANGO_WORKFLOW = {"realtime_authorize": f"{__name__}.everybody"}
    for name in ("with spaces", "a/b?c=d&e", "日本 ✓", "x" * 255):
        await astore(1, name)
        socket = await subscribed(superuser, "0-0", name)
        assert (await socket.receive_json_from())["channel"] == name
        await socket.disconnect()


def everybody(user: User, channel: str, scope: str) -> bool:
    return True


# Gaps


async def test_trimmed_history_is_told_as_a_gap(superuser: User) -> None:
    await astore_many(range(5, 8))
    socket = await subscribed(superuser, event_id(2))
    assert await socket.receive_json_from() == {
        "type": "gap",
        "channel": CHANNEL,
        "oldest": event_id(5),
        "cursor": event_id(7),
    }
    assert await ids(socket, 3) == [event_id(n) for n in (5, 6, 7)]
    await socket.disconnect()


async def test_a_channel_that_lost_everything_is_a_gap(superuser: User) -> None:
    socket = await subscribed(superuser, event_id(2))
    assert await socket.receive_json_from() == {"type": "gap", "channel": CHANNEL, "oldest": "0-0", "cursor": "0-0"}
    await socket.disconnect()


# Access


async def test_a_refused_channel_is_told_and_others_go_on(somebody: User) -> None:
    await amake_run(owner=somebody)
    await amake_run("wfr_other")
    await astore(1)
    socket = connection(somebody)
    await socket.connect()
    await socket.send_json_to({"type": "subscribe", "channels": {"wfr_other": "0-0", CHANNEL: "0-0"}})
    refusal = await socket.receive_json_from()
    assert (refusal["type"], refusal["code"], refusal["channel"]) == ("error", "forbidden", "wfr_other")
    assert (await socket.receive_json_from())["type"] == "connected"
    assert await ids(socket, 1) == [event_id(1)]
    await socket.disconnect()


async def test_a_token_admits_nobody_in_particular(db: None) -> None:
    await astore(1)
    socket = connection()
    await socket.connect()
    await socket.send_json_to(
        {"type": "subscribe", "channels": {CHANNEL: "0-0"}, "token": access.make_token([CHANNEL])}
    )
    assert (await socket.receive_json_from())["type"] == "connected"
    assert await ids(socket, 1) == [event_id(1)]
    await socket.disconnect()


@pytest.mark.parametrize(
    "token",
    [
        "",
        "forged:token:x",
        access.make_token(["wfr_other"]),
        access.make_token([CHANNEL], lifetime=timedelta(seconds=-1)),
    ],
    ids=["none", "forged", "of another run", "expired"],
)
async def test_a_bad_token_is_refused(db: None, token: str) -> None:
    socket = connection()
    await socket.connect()
    await socket.send_json_to({"type": "subscribe", "channels": {CHANNEL: "0-0"}, "token": token})
    refusal = await socket.receive_json_from()
    assert (refusal["code"], refusal["channel"]) == ("forbidden", CHANNEL)
    assert await socket.receive_nothing()
    await socket.disconnect()


async def test_a_page_of_another_site_is_told_and_closed(superuser: User) -> None:
    socket = connection(superuser, origin="https://evil.example")
    assert await socket.connect() == (True, None)  # browsers see no code before this
    assert (await socket.receive_json_from())["code"] == "origin"
    assert await closed(socket) == 4403
    await socket.send_json_to({"type": "subscribe", "channels": {CHANNEL: "0-0"}})
    assert await socket.receive_nothing()
    await socket.disconnect()


async def test_who_lost_the_right_is_told_and_closed(somebody: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RealtimeConsumer, "recheck_seconds", 0.05)
    run = await amake_run(owner=somebody)
    socket = await subscribed(somebody)
    await asyncio.sleep(0.15)  # checked several times, and allowed
    run.owner = None
    await run.asave()
    refusal = await socket.receive_json_from()
    assert (refusal["code"], refusal["channel"]) == ("forbidden", CHANNEL)
    assert await closed(socket) == 4403
    await astore(1)
    announce(1)
    assert await socket.receive_nothing()
    await socket.disconnect()


async def test_a_token_that_expires_ends_its_channel_alone(somebody: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RealtimeConsumer, "recheck_seconds", 0.05)
    await amake_run(owner=somebody)
    socket = await subscribed(somebody)
    token = access.make_token(["wfr_2"], lifetime=timedelta(seconds=2))
    await socket.send_json_to({"type": "subscribe", "channels": {"wfr_2": "0-0"}, "token": token})
    assert (await socket.receive_json_from())["type"] == "connected"
    monkeypatch.setattr("time.time", lambda: 1e12)
    assert (await socket.receive_json_from())["channel"] == "wfr_2"
    await astore(1)
    announce(1)
    assert await ids(socket, 1) == [event_id(1)]
    await socket.disconnect()


# Frames and faults


@pytest.mark.parametrize(
    "frame",
    ["nonsense", '{"type":"shout"}', '{"type":"subscribe","channels":{"wfr_1":"yesterday"}}', "[" * 40_000],
)
async def test_a_bad_frame_is_told_and_the_connection_stays(superuser: User, frame: str) -> None:
    socket = await subscribed(superuser)
    await socket.send_to(text_data=frame)
    assert (await socket.receive_json_from())["code"] == "bad_message"
    await astore(1)
    announce(1)
    assert await ids(socket, 1) == [event_id(1)]
    await socket.disconnect()


async def test_binary_frames_are_not_understood(superuser: User) -> None:
    socket = await subscribed(superuser)
    await socket.send_to(bytes_data=b"\xff")
    assert (await socket.receive_json_from())["code"] == "bad_message"
    await socket.disconnect()


async def test_a_connection_follows_a_limited_number_of_channels(
    superuser: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumers, "CHANNELS_PER_CONNECTION", 1)
    socket = await subscribed(superuser)
    await socket.send_json_to({"type": "subscribe", "channels": {"wfr_2": "0-0"}})
    refusal = await socket.receive_json_from()
    assert (refusal["code"], refusal["channel"]) == ("too_many_channels", "wfr_2")
    await socket.send_json_to({"type": "subscribe", "channels": {"wfr_2": "0-0", "wfr_3": "0-0"}})
    assert (await socket.receive_json_from())["code"] == "too_many_channels"
    await socket.disconnect()


async def test_signs_of_life_are_sent(superuser: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RealtimeConsumer, "heartbeat_seconds", 0.05)
    socket = await subscribed(superuser)
    ping = await socket.receive_json_from()
    assert ping["type"] == "ping"
    assert isinstance(ping["timestamp"], int)
    await socket.disconnect()


async def test_a_store_that_cannot_be_read_closes_the_connection(
    superuser: User, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(channel: str) -> int:
        raise RuntimeError("the database is gone")

    monkeypatch.setattr(history, "newest", broken)
    socket = connection(superuser)
    await socket.connect()
    await socket.send_json_to({"type": "subscribe", "channels": {CHANNEL: "0-0"}})
    assert await closed(socket) == 1011
    assert "A realtime connection failed" in caplog.text
    await socket.disconnect()


async def test_a_channel_layer_that_is_down_changes_nothing(superuser: User, settings: Any) -> None:
    settings.CHANNEL_LAYERS = {
        "default": {
            "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
            "CONFIG": {"hosts": ["redis://127.0.0.1:1/0"]},
        }
    }
    socket = await subscribed(superuser)
    await astore(1)
    announce(1)
    assert await ids(socket, 1) == [event_id(1)]
    await socket.disconnect()


async def test_hostile_data_stays_data(superuser: User) -> None:
    await astore(1, stepName="</script><img src=x onerror=alert(1)>\u2028")
    socket = await subscribed(superuser)
    message = json.loads(await socket.receive_from())
    assert message["data"]["stepName"] == "</script><img src=x onerror=alert(1)>\u2028"
    await socket.disconnect()
