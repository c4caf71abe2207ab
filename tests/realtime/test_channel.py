from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from threading import Event, Thread
from typing import Any, TypedDict

import pytest
from asgiref.sync import sync_to_async
from django.db import connections, transaction
from rest_framework import serializers

from django_workflow.errors import RequestRejected, WorkflowError
from django_workflow.models import ChannelEvent, Run
from django_workflow.realtime import feed as feed_module
from django_workflow.realtime.channel import CursorUnavailable, Realtime
from django_workflow.realtime.messages import Message
from django_workflow.realtime.schema import EventInvalid
from django_workflow.realtime.stores import History
from tests.realtime.helpers import make_run


@dataclass
class Alert:
    text: str
    level: int = 1


class Place(TypedDict):
    x: float


class Note(serializers.Serializer[Any]):
    title = serializers.CharField(max_length=5)


def doubled(value: Any) -> int:
    if not isinstance(value, int):
        raise ValueError("no number")
    return value * 2


SCHEMA = {"notification": {"alert": Alert, "note": Note}, "place": Place, "double": doubled, "plain": int}


@contextmanager
def rolled_back() -> Iterator[None]:
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


def values(messages: list[Message]) -> list[Any]:
    return [message.value for message in messages]


@pytest.mark.django_db
class TestSchema:
    @pytest.mark.parametrize(
        ("event", "data", "stored"),
        [
            ("notification.alert", Alert("hi"), {"text": "hi", "level": 1}),
            ("notification.alert", {"text": "hi"}, {"text": "hi", "level": 1}),  # the validated value is stored
            ("notification.note", {"title": "a", "more": 1}, {"title": "a"}),
            ("place", {"x": 1}, {"x": 1.0}),
            ("double", 4, 8),
            ("plain", 4, 4),
        ],
    )
    def test_the_validated_value_is_stored(self, event: str, data: Any, stored: Any) -> None:
        channel = Realtime(SCHEMA).channel("a")
        channel.emit(event, data)
        assert values(channel.history()) == [stored]

    @pytest.mark.parametrize(
        ("event", "data", "reason"),
        [
            ("notification.alert", {"level": 2}, r"do not fit event 'notification.alert'.*text"),
            ("notification.note", {"title": "much too long"}, "5 characters"),
            ("place", {"x": "far"}, "float"),
            ("double", "4", "no number"),
            ("unknown", 1, "no event 'unknown' in the schema; known are double, notification.alert"),
            ("", 1, "1 to 255 characters"),
            ("plain", float("nan"), "event 'plain'"),
        ],
    )
    def test_what_does_not_fit_is_refused_and_not_stored(self, event: str, data: Any, reason: str) -> None:
        with pytest.raises(EventInvalid, match=reason):
            Realtime(SCHEMA).channel("a").emit(event, data)
        assert not ChannelEvent.objects.exists()

    def test_unknown_events_pass_where_the_schema_is_not_strict(self) -> None:
        realtime = Realtime(SCHEMA, strict=False)
        realtime.emit("unknown", {"a": 1})
        assert values(realtime.history()) == [{"a": 1}]

    def test_without_a_schema_every_event_passes(self) -> None:
        realtime = Realtime()
        realtime.emit("anything")
        (message,) = realtime.history()
        assert (message.channel, message.event, message.value) == ("default", "anything", None)

    def test_a_channel_needs_a_name(self) -> None:
        with pytest.raises(RequestRejected, match="cannot be a channel"):
            Realtime().channel("")


@pytest.mark.django_db
class TestHistory:
    def test_the_newest_events_are_given_oldest_first(self) -> None:
        channel = Realtime().channel("a")
        for number in range(5):
            channel.emit("e", number)
        assert values(channel.history(limit=2)) == [3, 4]
        assert values(channel.history(limit=2, newest=False)) == [0, 1]

    def test_instants_bound_it_inclusively(self) -> None:
        channel = Realtime().channel("a")
        first = datetime(2026, 1, 1, tzinfo=UTC)
        milliseconds = int(first.timestamp() * 1000)
        for number in range(3):
            ChannelEvent.objects.create(
                channel="a", position=(milliseconds + number) << 20, event="e", data=str(number), created_at=first
            )
        assert values(channel.history(start=first + timedelta(milliseconds=1))) == [1, 2]
        assert values(channel.history(start=milliseconds, end=milliseconds + 1)) == [0, 1]

    def test_a_naive_instant_is_refused(self) -> None:
        with pytest.raises(ValueError, match="no time zone"):
            Realtime().channel("a").history(start=datetime(2026, 1, 1))

    def test_a_channel_is_trimmed_to_its_length(self) -> None:
        channel = Realtime(history=History(max_length=2)).channel("a")
        for number in range(4):
            channel.emit("e", number)
        assert values(channel.history()) == [2, 3]


@pytest.mark.django_db(transaction=True)
class TestTransactions:
    def test_a_rollback_leaves_nothing_and_tells_nobody(self, announced: list[Any]) -> None:
        channel = Realtime().channel("a")
        with rolled_back():
            assert channel.emit("e", 1) is not None
        assert channel.history() == []
        assert announced == []

    def test_an_event_is_announced_with_the_commit(self, announced: list[Any]) -> None:
        channel = Realtime().channel("a")
        with transaction.atomic():
            channel.emit("e", 1)
            assert announced == []
        (message,) = channel.history()
        assert announced == [{"a": message.position}]

    def test_a_store_outside_the_database_takes_it_after_the_commit(self, settings: Any, announced: list[Any]) -> None:
        settings.DJANGO_WORKFLOW = {"realtime_store": "memory"}
        channel = Realtime().channel("a")
        with transaction.atomic():
            assert channel.emit("e", 1) is None
            assert channel.history() == []
        assert values(channel.history()) == [1]
        with rolled_back():
            channel.emit("e", 2)
        assert values(channel.history()) == [1]

    @pytest.mark.postgresql
    def test_immediate_events_do_not_wait_for_the_transaction(self) -> None:
        channel = Realtime().channel("a")
        with rolled_back():
            channel.emit("e", 1, immediate=True)
        assert values(channel.history()) == [1]

    @pytest.mark.sqlite
    def test_immediate_events_are_refused_inside_a_transaction_of_sqlite(self) -> None:
        channel = Realtime().channel("a")
        with transaction.atomic(), pytest.raises(WorkflowError, match="SQLite has one writer"):
            channel.emit("e", 1, immediate=True)
        channel.emit("e", 2, immediate=True)
        assert values(channel.history()) == [2]

    def test_the_event_of_a_run_is_written_under_the_runs_lock(self) -> None:
        make_run("wfr_mine", status=Run.Status.RUNNING)
        channel = Realtime().channel("wfr_mine")
        channel.emit("note", {"a": 1})
        (message,) = channel.history()
        assert (message.channel, message.event, message.value) == ("wfr_mine", "note", {"a": 1})

    @pytest.mark.postgresql
    def test_no_reader_misses_the_event_whose_transaction_is_the_later_one(self) -> None:
        """Two emitters: the one that came second waits, so its position is above what was committed before it."""
        channel = Realtime().channel("a")
        emitted, commit = Event(), Event()

        def slowly() -> None:
            with transaction.atomic():
                channel.emit("e", "slow")
                emitted.set()
                commit.wait(10)
            connections.close_all()

        first = Thread(target=slowly)
        first.start()
        assert emitted.wait(10)
        second = Thread(target=lambda: (channel.emit("e", "quick"), connections.close_all()))
        second.start()
        seen = channel.history()
        commit.set()
        first.join(10)
        second.join(10)
        assert (values(seen), values(channel.history())) == ([], ["slow", "quick"])


@pytest.mark.usefixtures("database_thread")
class TestSubscribe:
    async def test_events_after_a_cursor_and_new_ones_come_once_and_in_order(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(feed_module, "POLL_SECONDS", 60)  # announcements alone
        channel = Realtime().channel("a")
        first = await channel.aemit("e", 0)
        for number in (1, 2):
            await channel.aemit("e", number)
        seen = []
        async with asyncio.timeout(5), aclosing(channel.subscribe(after=first)) as messages:
            async for message in messages:
                seen.append(message.value)
                if len(seen) == 2:
                    await channel.aemit("e", 3)
                if len(seen) == 3:
                    break
        assert seen == [1, 2, 3]

    async def test_only_the_events_that_were_asked_for(self) -> None:
        channel = Realtime().channel("a")
        for name in ("a", "b", "a"):
            await channel.aemit(name, name)
        async with asyncio.timeout(5), aclosing(channel.subscribe(["b"], after="0-0")) as messages:
            assert (await anext(messages)).event == "b"

    async def test_a_cursor_below_what_is_kept_is_unavailable(self) -> None:
        channel = Realtime(history=History(max_length=2)).channel("a")
        first = await channel.aemit("e", 0)
        for number in range(3):
            await channel.aemit("e", number)
        async with aclosing(channel.subscribe(after=first)) as messages:
            with pytest.raises(CursorUnavailable, match="may have been trimmed"):
                await anext(messages)

    async def test_history_is_read_without_blocking(self) -> None:
        channel = Realtime().channel("a")
        await sync_to_async(channel.emit)("e", 1)
        assert values(await channel.ahistory()) == [1]


@pytest.fixture
def announced(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    from django_workflow import signals

    heard: list[Any] = []

    def hear(sender: object, channels: Any, **kwargs: Any) -> None:
        heard.append(dict(channels))

    monkeypatch.setattr(signals.channel_events_stored, "receivers", [])
    signals.channel_events_stored.connect(hear, weak=False)
    return heard
