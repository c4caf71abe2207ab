"""What is told after commits: all of it, in order, and together when it comes together."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Event, Thread

import pytest

from django_workflow.engine import announcements as module
from django_workflow.engine.after import After
from django_workflow.engine.announcements import Announcements
from django_workflow.protocol.identifiers import uuid7
from django_workflow.signals import run_finished

SECONDS = 10.0


class Listener:
    """Hears what is told, and can hold the telling up."""

    def __init__(self) -> None:
        self.heard: list[After] = []
        self.hears = Event()
        self.may_go_on = Event()
        self.may_go_on.set()

    def __call__(self, after: After) -> None:
        self.heard.append(after)
        self.hears.set()
        assert self.may_go_on.wait(SECONDS)


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def announcements(listener: Listener) -> Iterator[Announcements]:
    found = Announcements(listener)
    thread = Thread(target=found.run)
    thread.start()
    yield found
    listener.may_go_on.set()
    found.stop()
    thread.join(SECONDS)
    assert not thread.is_alive()


def test_the_first_is_told_at_once(announcements: Announcements, listener: Listener) -> None:
    announcements.put(After(channels={"a": 1}))
    assert listener.hears.wait(SECONDS)
    assert listener.heard[0].channels == {"a": 1}


def test_what_comes_meanwhile_is_told_together(announcements: Announcements, listener: Listener) -> None:
    listener.may_go_on.clear()
    announcements.put(After(channels={"a": 1}))
    assert listener.hears.wait(SECONDS)
    listener.hears.clear()
    key = uuid7()
    announcements.put(After(channels={"a": 2, "b": 1}, events=[("a", "x", "1")]))
    announcements.put(After(channels={"a": 3}, events=[("a", "x", "2")], signals=[(run_finished, {"run_key": key})]))
    listener.may_go_on.set()
    assert listener.hears.wait(SECONDS)
    (_, together) = listener.heard
    assert together.channels == {"a": 3, "b": 1}
    assert together.events == [("a", "x", "1"), ("a", "x", "2")]
    assert together.signals == [(run_finished, {"run_key": key})]


def test_signals_do_not_wait_for_others_to_gather(
    announcements: Announcements, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GATHER_SECONDS", 3600.0)
    announcements.put(After(channels={"a": 1}))
    assert listener.hears.wait(SECONDS)
    listener.hears.clear()
    announcements.put(After(signals=[(run_finished, {"run_key": uuid7()})]))
    assert listener.hears.wait(SECONDS)


def test_what_is_left_is_told_before_the_end(listener: Listener) -> None:
    announcements = Announcements(listener)
    announcements.put(After(channels={"a": 1}))
    announcements.stop()
    announcements.run()
    assert [after.channels for after in listener.heard] == [{"a": 1}]
