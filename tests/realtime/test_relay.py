from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from channels.layers import InMemoryChannelLayer, channel_layers
from django.contrib.auth.models import User
from django.db import transaction

from django_workflow import WorkflowContext, workflow
from django_workflow.engine.transport import emit_from_outside
from django_workflow.engine.worker import Worker
from django_workflow.models import ChannelEvent, Run
from django_workflow.realtime import feed as feed_module
from django_workflow.realtime import history, relay
from django_workflow.realtime.feed import LAYER_GROUP, current_feed
from django_workflow.realtime.relay import Announcer
from django_workflow.realtime.stores import StoreUnavailable
from django_workflow.realtime.stores.memory import MemoryStore
from tests.engine.workers import eventually
from tests.realtime.helpers import CHANNEL, announce, event_id, make_run, position, store, subscribed


class RecordingLayer:
    """Stands for a layer that reaches other processes."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Any]] = []
        self.threads: set[str] = set()
        self.loops: set[asyncio.AbstractEventLoop] = set()
        self.failures = 0
        self.delay = 0.0

    async def group_send(self, group: str, message: Any) -> None:
        self.threads.add(threading.current_thread().name)
        self.loops.add(asyncio.get_running_loop())
        if self.failures:
            self.failures -= 1
            raise OSError("The layer is down.")
        await asyncio.sleep(self.delay)
        self.sent.append((group, message["newest"]))


@pytest.fixture
def layer(monkeypatch: pytest.MonkeyPatch) -> RecordingLayer:
    recording = RecordingLayer()
    monkeypatch.setattr(relay, "shared_layer", lambda: recording)
    monkeypatch.setattr(relay, "_announcer", Announcer())
    return recording


def wait_until(condition: Any) -> None:
    deadline = time.monotonic() + 3
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert condition()


def test_other_processes_hear_by_the_layer(layer: RecordingLayer) -> None:
    announce(1)
    wait_until(lambda: layer.sent)
    assert layer.sent == [(LAYER_GROUP, {CHANNEL: position(1)})]


def test_one_thread_with_one_loop_sends_everything(layer: RecordingLayer) -> None:
    for number in range(20):
        announce(number, f"wfr_{number}")
        time.sleep(0.002)
    wait_until(lambda: sum(len(newest) for _group, newest in layer.sent) == 20)
    assert layer.threads == {"django-workflow-announcer"}
    assert len(layer.loops) == 1


def test_announcements_are_folded_while_one_is_sent(layer: RecordingLayer) -> None:
    layer.delay = 0.1
    announce(0)
    wait_until(lambda: layer.threads)
    for number in (1, 3, 2):
        announce(number)
    wait_until(lambda: len(layer.sent) == 2)
    assert layer.sent[1] == (LAYER_GROUP, {CHANNEL: position(3)})


def test_the_sender_is_not_kept_waiting(layer: RecordingLayer) -> None:
    layer.delay = 0.5
    started = time.monotonic()
    for number in range(100):
        announce(number)
    assert time.monotonic() - started < 0.2
    wait_until(lambda: layer.sent and layer.sent[-1][1] == {CHANNEL: position(99)})


def test_a_layer_that_fails_is_tried_with_the_next_announcement(
    layer: RecordingLayer, caplog: pytest.LogCaptureFixture
) -> None:
    layer.failures = 1
    announce(1)
    wait_until(lambda: not layer.failures)
    announce(2)
    wait_until(lambda: layer.sent)
    assert layer.sent == [(LAYER_GROUP, {CHANNEL: position(2)})]
    assert "does not take announcements" in caplog.text


def test_the_memory_layer_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(channel_layers.backends, "default", InMemoryChannelLayer())
    fresh = Announcer()
    monkeypatch.setattr(relay, "_announcer", fresh)
    announce(1)
    assert fresh._thread is None


@pytest.mark.usefixtures("database_thread")
async def test_what_other_processes_announce_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "POLL_SECONDS", 60)
    layer = InMemoryChannelLayer()  # on one loop it does what a shared one does
    monkeypatch.setattr(feed_module, "shared_layer", lambda: layer)
    subscription = current_feed().subscribe(CHANNEL, 0, 0)
    await asyncio.sleep(0.1)
    await sync_to_async(store)(1)
    await layer.group_send(LAYER_GROUP, {"type": feed_module.LAYER_MESSAGE, "newest": {CHANNEL: position(1)}})
    async with asyncio.timeout(2):
        assert [message.position for message in await subscription.next_page()] == [position(1)]
    subscription.close()


@pytest.mark.redis
@pytest.mark.usefixtures("database_thread")
async def test_redis_connects_processes(superuser: User, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "POLL_SECONDS", 60)
    monkeypatch.setattr(feed_module, "announce_here", lambda newest: None)
    monkeypatch.setattr(relay, "announce_here", lambda newest: None)  # as if from another process
    settings.CHANNEL_LAYERS = {
        "default": {
            "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
            "CONFIG": {"hosts": [settings.CACHES["redis"]["LOCATION"]]},
        }
    }
    socket = await subscribed(superuser)
    await asyncio.sleep(0.3)
    await sync_to_async(store)(1)
    announce(1)
    assert (await socket.receive_json_from())["id"] == event_id(1)
    await socket.disconnect()


# Events of runs, for a store outside the database


@pytest.fixture
def memory(settings: Any) -> None:
    settings.DJANGO_WORKFLOW = {"realtime_store": "memory"}


@pytest.mark.django_db(transaction=True)
def test_events_of_runs_reach_a_store_outside_the_database_after_the_commit(memory: None) -> None:
    make_run(status=Run.Status.RUNNING)
    with transaction.atomic():
        emit_from_outside(CHANNEL, "note", {"n": 1})
        assert history.newest(CHANNEL) == 0
    (message,) = history.page_after(CHANNEL, 0)
    assert (message.event, message.value) == ("note", {"n": 1})
    assert not ChannelEvent.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_events_that_the_store_does_not_take_end_nothing(
    memory: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run(status=Run.Status.RUNNING)

    def away(*args: Any) -> Any:
        raise StoreUnavailable("gone")

    monkeypatch.setattr(MemoryStore, "append", away)
    monkeypatch.setattr(relay, "_store_level", logging.WARNING)
    for _ in range(2):
        emit_from_outside(run.run_id, "note", {})
    assert [record.levelname for record in caplog.records if "takes no events" in record.message] == ["WARNING"]


@workflow(name="counts-aloud")
def counts_aloud(ctx: WorkflowContext[None]) -> None:
    def count() -> None:
        for number in range(20):
            ctx.emit("number", number)

    ctx.run("count", count)


@pytest.mark.django_db(transaction=True)
def test_a_worker_hands_every_event_to_a_store_outside_the_database(memory: None) -> None:
    worker = Worker(concurrency=1)
    worker.start()
    try:
        handle = counts_aloud.trigger()
        eventually(lambda: handle.run.is_finished)
    finally:
        assert worker.drain()
    messages = history.page_after(handle.id, 0, 100)
    assert [message.value for message in messages if message.event == "number"] == list(range(20))
    assert [message.value["type"] for message in messages if message.event != "number"] == [
        "runStart",
        "stepStart",
        "stepFinish",
        "runFinish",
    ]
