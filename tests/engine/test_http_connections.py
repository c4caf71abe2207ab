"""Which connections are kept between calls, which is taken, and which are closed."""

from __future__ import annotations

import ssl
from typing import Any

import httpcore
import pytest

from django_workflow.engine import http_connections as module
from django_workflow.engine.http_connections import KEEPALIVE_SECONDS, IdleConnections

HERE, THERE = httpcore.Origin(b"http", b"here", 80), httpcore.Origin(b"http", b"there", 80)


class Connection:
    """An idle one, as far as can be told."""

    def __init__(self, *, idle: bool = True, closed: bool = False) -> None:
        self.idle = idle
        self.closed = closed
        self.is_left_by_peer = False

    def is_idle(self) -> bool:
        return self.idle

    def is_closed(self) -> bool:
        return self.closed

    def has_expired(self) -> bool:
        return self.is_left_by_peer

    def close(self) -> None:
        self.closed = True


class Time:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time()
    monkeypatch.setattr(module, "time", time)
    return time


@pytest.fixture
def kept() -> Any:
    return IdleConnections(ssl.create_default_context(), httpcore.MockBackend([]), 3)


def test_the_newest_connection_to_the_origin_is_taken_and_by_one_only(kept: Any) -> None:
    old, new, other = Connection(), Connection(), Connection()
    for connection, origin in ((old, HERE), (new, HERE), (other, THERE)):
        kept.give_back(connection, origin)
    assert kept.take(HERE) is new
    assert kept.take(HERE) is old
    assert isinstance(kept.take(HERE), httpcore.HTTPConnection)
    assert kept.take(THERE) is other
    assert not any(connection.closed for connection in (old, new, other))


def test_one_that_its_peer_has_left_is_closed_and_the_next_is_taken(kept: Any) -> None:
    old, new = Connection(), Connection()
    kept.give_back(old, HERE)
    kept.give_back(new, HERE)
    new.is_left_by_peer = True
    assert kept.take(HERE) is old
    assert new.closed


@pytest.mark.parametrize("broken", [Connection(idle=False), Connection(closed=True)], ids=["in a call", "closed"])
def test_one_whose_call_failed_is_not_kept(kept: Any, broken: Connection) -> None:
    kept.give_back(broken, HERE)
    assert broken.closed
    assert kept.take(HERE) is not broken


def test_the_oldest_go_when_there_are_more_than_are_kept(kept: Any) -> None:
    given = [Connection() for _ in range(5)]
    for connection in given:
        kept.give_back(connection, HERE)
    assert [connection.closed for connection in given] == [True, True, False, False, False]


def test_one_that_was_idle_for_long_is_not_taken_and_is_closed_by_the_next_call(kept: Any, time: Time) -> None:
    idle, busy = Connection(), Connection()
    kept.give_back(idle, THERE)
    time.now += KEEPALIVE_SECONDS + 0.1
    assert kept.take(THERE) is not idle
    kept.give_back(busy, HERE)
    assert idle.closed
    assert kept.take(HERE) is busy


def test_nothing_is_kept_after_the_end(kept: Any) -> None:
    idle, late = Connection(), Connection()
    kept.give_back(idle, HERE)
    kept.close()
    kept.give_back(late, HERE)
    assert idle.closed
    assert late.closed
