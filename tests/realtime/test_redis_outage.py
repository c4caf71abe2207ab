"""Redis goes away in the middle of a run and comes back: the run ends, and what people see heals itself.

The server is one of this test's own, so that it can be stopped.
"""

from __future__ import annotations

import logging
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from channels.layers import channel_layers
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from django_workflow import WorkflowContext, workflow
from django_workflow.engine.worker import Worker
from django_workflow.models import Run
from django_workflow.realtime import relay
from tests.engine.workers import eventually

pytestmark = [pytest.mark.redis, pytest.mark.django_db(transaction=True)]

STEPS = 6


class OwnRedis:
    """A Redis server that keeps nothing, on a port of its own."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("redis-server")
        if program is None:
            pytest.skip("needs redis-server on PATH")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._command = [program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        eventually(self._answers)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@pytest.fixture
def own_redis(tmp_path: Path, settings: Any) -> Iterator[OwnRedis]:
    """The cache, the channel layer and the realtime store of these tests."""
    redis = OwnRedis(tmp_path)
    redis.start()
    settings.CACHES = {
        "default": {
            "BACKEND": "django_redis.cache.RedisCache",
            "LOCATION": redis.url,
            "KEY_PREFIX": secrets.token_hex(8),
        }
    }
    settings.CHANNEL_LAYERS = {
        "default": {"BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer", "CONFIG": {"hosts": [redis.url]}}
    }
    settings.DJANGO_WORKFLOW = {"realtime_store": "redis"}
    channel_layers.backends.clear()
    yield redis
    redis.stop()
    channel_layers.backends.clear()


@pytest.fixture
def worker(own_redis: OwnRedis) -> Iterator[Worker]:
    worker = Worker(concurrency=2)
    worker.start()
    yield worker
    assert worker.drain()


class Gate:
    """Holds the workflow below up between two of its steps."""

    def __init__(self) -> None:
        self.reached, self.open = Event(), Event()


gates: dict[str, Gate] = {}


@workflow(name="outlives-redis")
def outlives_redis(ctx: WorkflowContext[str]) -> int:
    gate = gates[ctx.request_payload]

    def work(number: int) -> int:
        ctx.emit("number", number)
        ctx.progress(number + 1, STEPS)
        if number == STEPS // 2:
            gate.reached.set()
            assert gate.open.wait(60)
        return number

    return sum(ctx.run(f"step {number}", work, number) for number in range(STEPS))


@pytest.fixture
def root(client: Client) -> Client:
    client.force_login(User.objects.create(username="root", is_superuser=True))
    return client


def poll(client: Client, run_id: str, cursor: str = "0-0") -> Any:
    return client.get(reverse("django_workflow:realtime-poll"), {"channel": run_id, f"last_ack_{run_id}": cursor})


def fragment(client: Client, run_id: str) -> Any:
    return client.get(reverse("django_workflow:realtime-run", args=[run_id]))


def test_a_run_ends_while_redis_is_away_and_pages_say_so(
    own_redis: OwnRedis, worker: Worker, root: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(relay, "_store_level", logging.WARNING)
    gate = gates.setdefault("outage", Gate())
    handle = outlives_redis.trigger("outage")
    assert gate.reached.wait(30)
    eventually(lambda: "number" in {message.get("event") for message in poll(root, handle.id).json()["messages"]})

    own_redis.stop()
    # The widget is made of rows, so it is there; events are not, and the answer says when to ask again.
    shown = fragment(root, handle.id)
    assert shown.status_code == 200
    assert "step 2" in shown.content.decode()
    refused = poll(root, handle.id)
    assert (refused.status_code, refused.json()["reason"], refused["Retry-After"]) == (503, "store_unavailable", "2")

    started = time.monotonic()
    gate.open.set()
    eventually(lambda: handle.run.is_finished)
    assert time.monotonic() - started < 15  # nobody waits for Redis on the way
    run = handle.run
    assert (run.status, run.result) == (Run.Status.SUCCESS, "15")
    assert 'status="success"' in fragment(root, handle.id).content.decode()
    eventually(lambda: any("takes no events" in record.message for record in caplog.records))

    own_redis.start()
    eventually(lambda: poll(root, handle.id).status_code == 200)
    # Runs that come after are told again.
    later = gates.setdefault("later", Gate())
    later.open.set()
    second = outlives_redis.trigger("later")
    eventually(lambda: second.run.is_finished)
    eventually(lambda: _types(poll(root, second.id))[-1:] == ["runFinish"])
    assert [
        message["data"] for message in poll(root, second.id).json()["messages"] if message["event"] == "number"
    ] == [*range(STEPS)]


def _types(answer: Any) -> list[str]:
    messages = answer.json()["messages"]
    return [message["data"]["type"] for message in messages if message.get("event") == "workflow.update"]


def test_a_dead_layer_breaks_nothing(
    own_redis: OwnRedis, settings: Any, root: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Events are in the database here, and only the announcements go by Redis."""
    monkeypatch.setattr(relay, "_announcer", relay.Announcer())  # it has not yet complained of another outage
    settings.DJANGO_WORKFLOW = {}
    own_redis.stop()
    worker = Worker(concurrency=2)
    worker.start()
    try:
        gate = gates.setdefault("layer", Gate())
        gate.open.set()
        handle = outlives_redis.trigger("layer")
        eventually(lambda: handle.run.is_finished)
    finally:
        assert worker.drain()
    assert handle.run.status == Run.Status.SUCCESS
    eventually(lambda: _types(poll(root, handle.id))[-1:] == ["runFinish"])

    def said() -> list[str]:
        return [each.levelname for each in caplog.records if "does not take announcements" in each.message]

    eventually(said)  # announcements go out on a thread of their own
    assert said().count("WARNING") == 1
