"""The official realtime client, `@upstash/realtime`, against our server-sent events."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import uvicorn
from django.core.asgi import get_asgi_application

from django_workflow.realtime import sse
from django_workflow.realtime.channel import Realtime
from tests.interop.processes import Child
from tests.services import clients

pytestmark = pytest.mark.django_db(transaction=True)

CHANNELS = ("room", "Küche & Bad/1")


def everybody(user: Any, channel: str, scope: str) -> bool:
    """The rule of these tests."""
    return scope == "read"


@pytest.fixture
def origin(settings: Any) -> Iterator[str]:
    settings.DJANGO_WORKFLOW = {"realtime_authorize": f"{__name__}.everybody"}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(
            get_asgi_application(), lifespan="off", log_config=None, ws="none", timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(20)


@pytest.fixture
def follow(folder: Path, origin: str) -> Any:
    @contextmanager
    def follow() -> Iterator[Child]:
        environment = {
            "REALTIME_URL": f"{origin}/workflows/realtime/sse/",
            "REALTIME_CHANNELS": ",".join(CHANNELS),
        }
        command = [str(clients.node()), folder / "realtime.mjs"]
        with Child(command, log=folder / "realtime.log", environment=environment) as child:
            yield child

    return follow


def read_until(child: Child, key: str) -> tuple[Any, list[Any]]:
    """The next line of that kind, and what came before it."""
    before: list[Any] = []
    while key not in (line := child.read_line(20)):
        before.append(line)
    return line[key], before


def test_it_hears_events_of_several_channels(follow: Any) -> None:
    with follow() as child:
        read_until(child, "status")
        for channel in CHANNELS:
            Realtime().channel(channel).emit("notification.alert", {"text": "ä\n<b>"})
            heard, _ = read_until(child, "heard")
            assert heard == {"event": "notification.alert", "data": {"text": "ä\n<b>"}, "channel": channel}


def test_it_goes_on_where_it_was_when_a_stream_ends(follow: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "LIFETIME_SECONDS", 0.5)
    events = 60
    heard: list[int] = []
    opened: list[str] = []
    with follow() as child:
        url, _ = read_until(child, "opened")
        assert parse_qs(urlsplit(url).query)["channel"] == list(CHANNELS)
        read_until(child, "status")
        for number in range(events):
            Realtime().channel(CHANNELS[number % 2]).emit("number", number)
            time.sleep(0.03)  # streams shall end in between
        while len(heard) < events:
            event, before = read_until(child, "heard")
            heard.append(event["data"])
            opened += [line["opened"] for line in before if "opened" in line]
    # Order holds within a channel.
    assert sorted(heard) == list(range(events))
    assert [number for number in heard if number % 2] == list(range(1, events, 2))
    assert len(opened) >= 2
    (acknowledged,) = parse_qs(urlsplit(opened[-1]).query)["last_ack_room"]
    assert "-" in acknowledged  # an event's id, not the time
