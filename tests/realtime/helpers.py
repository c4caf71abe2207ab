"""Rows and connections that the tests of realtime and of the widget start from."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from channels.routing import URLRouter
from channels.testing import WebsocketCommunicator
from django.contrib.auth.models import AnonymousUser, User

from django_workflow.models import ChannelEvent, Run
from django_workflow.models.channel_event import SEQUENCE_BITS
from django_workflow.realtime.routing import websocket_urlpatterns
from django_workflow.signals import channel_events_stored

CHANNEL = "wfr_1"
FIRST_MS = 1_760_000_000_000
NOW = datetime.fromtimestamp(FIRST_MS / 1000, tz=UTC)


def position(number: int) -> int:
    """The position of a channel's event number `number`, one a millisecond."""
    return (FIRST_MS + number) << SEQUENCE_BITS


def event_id(number: int) -> str:
    return f"{FIRST_MS + number}-0"


def store(number: int, channel: str = CHANNEL, event: str = "workflow.update", **data: Any) -> ChannelEvent:
    """Store an event without announcing it."""
    return ChannelEvent.objects.create(
        channel=channel, position=position(number), event=event, data=json.dumps(data), created_at=NOW
    )


def store_many(numbers: range, channel: str = CHANNEL) -> None:
    ChannelEvent.objects.bulk_create(
        ChannelEvent(channel=channel, position=position(n), event="e", data=f'{{"n": {n}}}', created_at=NOW)
        for n in numbers
    )


def announce(number: int, channel: str = CHANNEL) -> None:
    """Tell that events were committed, as the engine does."""
    channel_events_stored.send(sender="test", channels={channel: position(number)})


def make_run(run_id: str = CHANNEL, **values: Any) -> Run:
    columns = {"workflow": "fulfil_order", "url": "https://workflow.internal/", "created_at": NOW, **values}
    return Run.objects.create(run_id=run_id, **columns)


def connection(
    user: Any = None, *, origin: str | None = "http://testserver", session: Any = None
) -> WebsocketCommunicator:
    """A WebSocket of this user; `connect()` it."""
    headers = [(b"origin", origin.encode())] if origin else []
    socket = WebsocketCommunicator(URLRouter(websocket_urlpatterns), "/workflows/realtime/ws/", headers)
    socket.scope["user"] = user or AnonymousUser()
    if session is not None:
        socket.scope["session"] = session
    return socket


async def subscribed(user: User, cursor: str = "0-0", channel: str = CHANNEL) -> WebsocketCommunicator:
    """A connection that follows the channel and has heard so."""
    socket = connection(user)
    assert (await socket.connect())[0]
    await socket.send_json_to({"type": "subscribe", "channels": {channel: cursor}})
    assert (await socket.receive_json_from())["type"] == "connected"
    return socket
