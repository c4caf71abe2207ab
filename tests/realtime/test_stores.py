"""What every store promises, on each of them."""

from __future__ import annotations

import secrets
import time
from datetime import timedelta
from typing import Any

import pytest

from django_workflow.errors import Misconfigured
from django_workflow.realtime.stores import History, NewEvent, Store, StoreUnavailable, current_store
from django_workflow.realtime.stores import database as database_module
from django_workflow.realtime.stores.memory import MemoryStore

EVERYTHING = History(max_length=None, expire_after=timedelta(minutes=1))


@pytest.fixture(params=["database", "memory", pytest.param("redis", marks=pytest.mark.redis)])
def store(request: pytest.FixtureRequest, settings: Any, db: None) -> Store:
    settings.DJANGO_WORKFLOW = {"realtime_store": request.param}
    if request.param == "redis":
        # A prefix of its own: several test runs may share one server.
        settings.CACHES = {"default": {**settings.CACHES["redis"], "KEY_PREFIX": secrets.token_hex(8)}}
    return current_store()


def append(store: Store, *numbers: int, channel: str = "a", keep: History = EVERYTHING) -> list[int]:
    return store.append([NewEvent(channel, "e", str(number)) for number in numbers], keep)


def numbers(messages: Any) -> list[int]:
    return [message.value for message in messages]


def test_positions_grow_and_give_the_events_back_in_order(store: Store) -> None:
    positions = append(store, 1, 2) + append(store, 3)
    assert positions == sorted(set(positions))
    assert (store.oldest("a"), store.newest("a")) == (positions[0], positions[-1])
    found = store.page_after("a", positions[0], 10)
    assert [(message.position, message.event, message.data) for message in found] == [
        (positions[1], "e", "2"),
        (positions[2], "e", "3"),
    ]


def test_an_unknown_channel_is_empty(store: Store) -> None:
    assert (store.newest("a"), store.oldest("a"), store.page_after("a", 0, 10)) == (0, 0, [])
    assert store.between("a", 0, 1 << 62, 10, newest=True) == []


def test_channels_do_not_mix_whatever_they_are_called(store: Store) -> None:
    names = ["a", "A", "a ", "a/b", "é", "日本" * 100, "wfr_1:2"]
    for number, name in enumerate(names):
        append(store, number, channel=name)
    assert [numbers(store.page_after(name, 0, 10)) for name in names] == [[number] for number in range(len(names))]


def test_pages_of_many_channels_have_no_holes(store: Store) -> None:
    for channel in ("a", "b"):
        append(store, 1, 2, 3, 4, channel=channel)
    found = store.pages_after({"a": 0, "b": 0}, 6)
    assert [(message.channel, message.value) for message in found] == [
        *(("a", number) for number in (1, 2, 3, 4)),
        *(("b", number) for number in (1, 2)),
    ]


def test_events_of_several_channels_are_kept_by_one_call(store: Store) -> None:
    events = [NewEvent("b", "e", "1"), NewEvent("a", "e", "2"), NewEvent("b", "e", "3")]
    positions = store.append(events, EVERYTHING)
    assert [message.position for message in store.page_after("b", 0, 9)] == [positions[0], positions[2]]
    assert [message.position for message in store.page_after("a", 0, 9)] == [positions[1]]


def test_a_channel_keeps_the_newest_events_of_its_length(store: Store) -> None:
    for number in range(10):
        append(store, number, keep=History(max_length=3))
    assert numbers(store.page_after("a", 0, 100)) == [7, 8, 9]


def test_the_newest_or_the_oldest_of_a_window(store: Store) -> None:
    positions = append(store, *range(6))
    window = ("a", positions[1], positions[4])
    assert numbers(store.between(*window, 2, newest=True)) == [3, 4]
    assert numbers(store.between(*window, 2, newest=False)) == [1, 2]
    assert numbers(store.between(*window, 9, newest=True)) == [1, 2, 3, 4]


@pytest.mark.parametrize("store", ["database"], indirect=True)
def test_positions_grow_when_the_clock_is_set_back(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    (first,) = append(store, 1)
    now = database_module.timezone.now()
    monkeypatch.setattr(database_module.timezone, "now", lambda: now - timedelta(hours=1))
    assert append(store, 2) == [first + 1]


def test_memory_positions_grow_when_the_clock_is_set_back() -> None:
    clock = iter([2000, 1000, 1000])
    store = MemoryStore(lambda: next(clock))
    (first,) = append(store, 1, keep=History())
    assert append(store, 2, keep=History()) == [first + 1]


def test_memory_forgets_a_channel_that_was_silent_for_too_long() -> None:
    now = [0]
    store = MemoryStore(lambda: now[0])
    keep = History(expire_after=timedelta(seconds=1))
    append(store, 1, keep=keep)
    now[0] = 1000
    append(store, 2, keep=keep)
    now[0] = 2000
    assert numbers(store.page_after("a", 0, 9)) == [1, 2]
    now[0] = 2001
    assert store.page_after("a", 0, 9) == []


@pytest.mark.redis
@pytest.mark.parametrize("store", ["redis"], indirect=True)
def test_redis_forgets_a_silent_channel_by_itself(store: Store) -> None:
    append(store, 1, keep=History(expire_after=timedelta(milliseconds=20)))
    ends = time.monotonic() + 5
    while store.newest("a"):
        assert time.monotonic() < ends


def test_a_redis_that_is_away_is_said_so(settings: Any) -> None:
    settings.CACHES = {"default": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": "redis://127.0.0.1:1/0"}}
    settings.DJANGO_WORKFLOW = {"realtime_store": "redis"}
    with pytest.raises(StoreUnavailable, match="Redis does not answer"):
        current_store().newest("a")


def test_the_redis_store_needs_a_cache_of_django_redis(settings: Any) -> None:
    settings.DJANGO_WORKFLOW = {"realtime_store": "redis"}
    with pytest.raises(Misconfigured, match="no cache of django-redis"):
        current_store()


@pytest.mark.parametrize(
    ("values", "reason"), [({"max_length": 0}, "max_length"), ({"expire_after": timedelta()}, "expire")]
)
def test_a_history_that_keeps_nothing_is_refused(values: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        History(**values)


def test_channels_are_listed_with_what_they_keep(store: Store) -> None:
    assert store.channels("", 10) == []
    first, second = append(store, 1, 2, channel="user-[4]*"), append(store, 3, channel="shop")
    found = store.channels("", 10)
    assert {info.name: (info.kept, info.newest) for info in found} == {
        "user-[4]*": (2, first[-1]),
        "shop": (1, second[-1]),
    }
    assert [info.newest for info in found] == sorted((info.newest for info in found), reverse=True)
    assert len(store.channels("", 1)) == 1
    # What is searched for is text, not a pattern.
    assert [info.name for info in store.channels("[4]*", 10)] == ["user-[4]*"]
    assert store.channels("user-4", 10) == []
