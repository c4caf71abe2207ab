from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from threading import Event, Thread
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.db import OperationalError, connection, transaction
from django.test.utils import CaptureQueriesContext

from django_workflow import redis_client
from django_workflow.engine import wake
from django_workflow.engine.wake import (
    DUE,
    MISSED,
    Bell,
    Listener,
    Listeners,
    RedisListener,
    notify,
    publish,
    redis_alias,
    redis_channel,
    ring,
    ring_after_commit,
)

SOON = 10.0
"""Seconds after which a test gives up; none takes a tenth of one."""


@pytest.fixture
def bell() -> Iterator[Bell]:
    bell = Bell("default")
    yield bell
    bell.close()


@pytest.fixture
def other_process(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Do something as another process would."""

    def run(action: Callable[[], object]) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(wake, "_sender", lambda: "other.1")
            action()

    return run


# Bells


def test_a_ring_ends_the_wait(bell: Bell) -> None:
    Thread(target=ring, args=("default",), daemon=True).start()
    assert bell.wait(SOON) == {DUE}


def test_without_a_ring_the_time_runs_out(bell: Bell) -> None:
    assert not bell.wait(0)
    assert not bell.wait(0.001)


def test_rings_are_kept_until_the_next_wait_and_told_once(bell: Bell) -> None:
    ring("default", "a")
    ring("default", "b")
    ring("default", "a")
    assert bell.wait(SOON) == {"a", "b"}
    assert not bell.wait(0)


def test_a_ring_during_a_claim_is_not_lost(bell: Bell) -> None:
    bell.clear()
    claimed: list[str] = []  # the claim looked …
    ring("default")  # … and then something became due
    assert not claimed
    assert bell.wait(SOON)


def test_what_rang_before_a_claim_is_seen_by_it(bell: Bell) -> None:
    ring("default")
    bell.clear()
    assert not bell.wait(0)


def test_every_bell_of_the_database_rings_and_no_other(bell: Bell) -> None:
    second, other = Bell("default"), Bell("other")
    ring("default")
    assert bell.wait(0)
    assert second.wait(0)
    assert not other.wait(0)
    ring("nobody")


def test_a_closed_or_forgotten_bell_rings_no_more(bell: Bell) -> None:
    bell.close()
    ring("default")
    assert not bell.wait(0)
    Bell("gone")
    gc.collect()
    assert not wake._bells["gone"]


# Commits


@pytest.mark.django_db(transaction=True)
def test_the_bell_rings_after_the_commit(bell: Bell) -> None:
    with transaction.atomic():
        ring_after_commit("default", "a")
        assert not bell.wait(0)
    assert bell.wait(0) == {"a"}


@pytest.mark.django_db(transaction=True)
def test_the_bell_does_not_ring_after_a_rollback(bell: Bell) -> None:
    with transaction.atomic():
        ring_after_commit("default")
        transaction.set_rollback(True)
    assert not bell.wait(0)


@pytest.mark.django_db(transaction=True)
def test_the_bell_rings_at_once_without_a_transaction(bell: Bell) -> None:
    ring_after_commit("default")
    assert bell.wait(0)


@pytest.mark.django_db(transaction=True)
def test_a_transaction_rings_once(bell: Bell, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(wake, "notify", lambda using, reason: told.append(reason) or True)
    with transaction.atomic():
        for _ in range(3):
            with transaction.atomic():
                ring_after_commit("default", "a")
        ring_after_commit("default", "b")
        assert told == []
    assert told == ["a", "b"]


@pytest.mark.django_db(transaction=True)
def test_a_ring_stays_when_the_savepoint_of_another_is_rolled_back(bell: Bell, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(wake, "notify", lambda using, reason: told.append(reason) or True)
    with transaction.atomic():
        with transaction.atomic():
            ring_after_commit("default", "a")
            transaction.set_rollback(True)
        ring_after_commit("default", "a")
        with transaction.atomic():
            ring_after_commit("default", "a")
            transaction.set_rollback(True)
    assert told == ["a"]


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_other_processes_are_told_after_the_commit_and_without_a_flush() -> None:
    """A transaction that notifies has a lock of the whole server until it is flushed: one commit after the other."""
    with CaptureQueriesContext(connection) as captured, transaction.atomic():
        ring_after_commit("default")
    commit, told = (query["sql"] for query in captured.captured_queries[-2:])
    assert commit == "COMMIT"
    assert "pg_notify" in told
    assert "'synchronous_commit', 'off', true" in told
    with connection.cursor() as cursor:
        cursor.execute("SHOW synchronous_commit")
        assert cursor.fetchone() != ("off",)


@pytest.mark.django_db(transaction=True)
def test_a_commit_whose_telling_fails_is_made_all_the_same(
    bell: Bell, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(using: str, reason: str) -> bool:
        raise OperationalError("server closed the connection")

    monkeypatch.setattr(wake, "notify", fail)
    with transaction.atomic():
        ring_after_commit("default", "a")
    ring_after_commit("default", "b")
    assert bell.wait(0) == {"a", "b"}
    assert "server closed the connection" in caplog.text


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_telling_leaves_somebody_elses_transaction_durable() -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        notify("default")
        cursor.execute("SHOW synchronous_commit")
        assert cursor.fetchone() != ("off",)


@pytest.mark.django_db
def test_only_postgresql_notifies() -> None:
    assert notify("default") is (connection.vendor == "postgresql")


def test_without_a_way_to_hear_there_is_no_listener(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wake, "_listener_kind", lambda alias: None)
    listeners = Listeners("default")
    listeners.start()
    assert not listeners.listening
    assert listeners.stop()


# A listener and its thread


class Scripted(Listener):
    """A listener whose connection the test plays."""

    name = "scripted"

    def __init__(self, script: Sequence[Callable[[Scripted], None]]) -> None:
        super().__init__("default")
        self.script = list(script)
        self.interrupted = Event()

    def listen(self) -> None:
        if self.script:
            self.script.pop(0)(self)
        self.interrupted.wait(SOON)

    def interrupt(self) -> None:
        self.interrupted.set()


def lose(listener: Scripted) -> None:
    raise ConnectionError("the server went away")


def test_a_lost_connection_is_made_anew_and_rings_for_what_was_missed(
    bell: Bell, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(wake, "FIRST_PAUSE", 0.001)
    listener = Scripted([lose, lose, Scripted.established])
    with caplog.at_level(logging.WARNING, "django_workflow.worker"):
        listener.start()
        assert bell.wait(SOON) == {MISSED}
    assert caplog.text.count("the server went away") == 2
    assert listener.connected.is_set()
    assert listener.stop(SOON)
    assert not listener.connected.is_set()


def test_a_listener_that_waits_for_its_next_try_ends_at_once() -> None:
    failed = Event()

    def fail(listener: Scripted) -> None:
        failed.set()
        raise ConnectionError

    listener = Scripted([fail])
    listener.start()
    assert failed.wait(SOON)
    started = time.monotonic()
    assert listener.stop(SOON)
    assert time.monotonic() - started < wake.FIRST_PAUSE / 2


def test_the_pause_grows_while_there_is_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    class Stopping:
        def wait(self, pause: float) -> bool:
            pauses.append(pause)
            return len(pauses) == 12

        def is_set(self) -> bool:
            return True

    def connect_and_lose(listener: Scripted) -> None:
        listener.established()
        lose(listener)

    listener = Scripted([lose] * 9 + [connect_and_lose, lose])
    monkeypatch.setattr(listener, "_stopping", Stopping())
    listener._run()
    assert pauses == [0, 0.5, 1, 2, 4, 8, 16, 30, 30, 30, 0.5, 1]


def test_a_message_of_this_process_does_not_ring_again(bell: Bell) -> None:
    listener = Scripted([])
    listener.heard(f"{wake._sender()} due")
    assert not bell.wait(0)
    listener.heard("other.1 due")
    assert bell.wait(0) == {DUE}
    listener.heard("")
    assert bell.wait(0) == {DUE}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_is_another_process_with_bells_of_its_own(bell: Bell) -> None:
    parent = wake._sender()
    held, let_go = Event(), Event()

    def hold() -> None:
        with wake._lock, bell._condition:
            held.set()
            let_go.wait(SOON)

    holder = Thread(target=hold, daemon=True)
    holder.start()
    assert held.wait(SOON)
    child = os.fork()
    if not child:
        signal.alarm(int(SOON))  # it must not hang
        own = Bell("default")
        ring("default")
        bell.close()
        os._exit(0 if own.wait(0) and wake._sender() != parent and wake._publisher._thread is None else 1)
    try:
        assert os.waitpid(child, 0)[1] == 0
    finally:
        let_go.set()
        holder.join(SOON)


# PostgreSQL


@pytest.fixture
def listeners(bell: Bell) -> Iterator[Listeners]:
    """Listening to the test's services, and the bell quiet."""
    listeners = Listeners("default")
    listeners.start()
    assert bell.wait(SOON) == {MISSED}
    assert listeners.listening
    yield listeners
    assert listeners.stop(SOON)
    assert not listeners.listening


Other = Callable[[Callable[[], object]], None]


@pytest.mark.postgresql
@pytest.mark.usefixtures("listeners")
@pytest.mark.django_db(transaction=True)
def test_postgresql_tells_of_the_commit(bell: Bell, other_process: Other) -> None:
    with transaction.atomic():
        other_process(lambda: notify("default", "a"))
        assert not bell.wait(0.05)
    assert bell.wait(SOON) == {"a"}


@pytest.mark.postgresql
@pytest.mark.usefixtures("listeners")
@pytest.mark.django_db(transaction=True)
def test_postgresql_does_not_tell_of_a_rollback(bell: Bell, other_process: Other) -> None:
    with transaction.atomic():
        other_process(lambda: notify("default", "lost"))
        transaction.set_rollback(True)
    other_process(lambda: notify("default", "kept"))
    assert bell.wait(SOON) == {"kept"}


@pytest.mark.postgresql
@pytest.mark.usefixtures("listeners")
@pytest.mark.django_db(transaction=True)
def test_postgresql_lost_connection_is_made_anew(
    bell: Bell, other_process: Other, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(wake, "FIRST_PAUSE", 0.001)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = %s AND datname = current_database()",
            [f"LISTEN {wake.CHANNEL}"],
        )
        assert cursor.rowcount == 1
    assert bell.wait(SOON) == {MISSED}
    assert "No wake-ups by notify" in caplog.text
    other_process(lambda: notify("default"))
    assert bell.wait(SOON) == {DUE}


@pytest.mark.postgresql
def test_postgresql_listener_ends_at_once(bell: Bell) -> None:
    listeners = Listeners("default")
    listeners.start()
    assert bell.wait(SOON)
    started = time.monotonic()
    assert listeners.stop(SOON)
    assert time.monotonic() - started < 1


# Redis


@pytest.mark.parametrize(
    ("caches", "alias"),
    [
        ({"default": "django_redis.cache.RedisCache"}, "default"),
        (
            {"default": "django_redis.cache.RedisCache", "django_workflow": "django_redis.cache.RedisCache"},
            wake.CHANNEL,
        ),
        ({"default": "django.core.cache.backends.redis.RedisCache"}, None),  # Django's own has no raw connection
        ({"default": "django_redis.cache.RedisCache", "django_workflow": "…locmem.LocMemCache"}, None),  # switched off
        ({"other": "django_redis.cache.RedisCache"}, None),
    ],
)
def test_the_cache_that_carries_wake_ups(
    monkeypatch: pytest.MonkeyPatch, caches: dict[str, str], alias: str | None
) -> None:
    monkeypatch.setattr(django_settings, "CACHES", {name: {"BACKEND": backend} for name, backend in caches.items()})
    assert redis_alias() == alias


@pytest.fixture
def redis_cache(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test server as the project's cache, on every database."""
    settings.CACHES = {"default": settings.CACHES["redis"]}
    monkeypatch.setattr(wake, "_listener_kind", lambda alias: RedisListener)
    monkeypatch.setattr(wake, "_publisher", wake._Publisher())


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("committed", [True, False])
def test_redis_is_told_after_the_commit(settings: Any, monkeypatch: pytest.MonkeyPatch, committed: bool) -> None:
    settings.CACHES = {"default": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": "redis://127.0.0.1:9/0"}}
    monkeypatch.setattr(wake, "notify", lambda using, reason: False)
    told: list[tuple[str, str, str]] = []
    monkeypatch.setattr(wake._publisher, "put", lambda *message: told.append(message))
    with transaction.atomic():
        ring_after_commit("default", "a")
        assert not told
        transaction.set_rollback(not committed)
    assert told == ([("default", redis_channel("default"), f"{wake._sender()} a")] if committed else [])


@pytest.mark.redis
def test_redis_wakes_other_processes_and_not_this_one(
    redis_cache: None, listeners: Listeners, bell: Bell, other_process: Other
) -> None:
    publish("default", "own")
    other_process(lambda: publish("default", "a"))
    assert bell.wait(SOON) == {"a"}
    assert not bell.wait(0.05)


@pytest.mark.redis
def test_redis_keeps_projects_and_databases_apart(
    redis_cache: None, listeners: Listeners, bell: Bell, settings: Any, other_process: Other
) -> None:
    own = redis_channel("default")
    wake._publisher.put("default", own + "x", "other.1 elsewhere")
    other_process(lambda: publish("default", "here"))
    assert bell.wait(SOON) == {"here"}
    settings.CACHES = {"default": {**settings.CACHES["default"], "KEY_PREFIX": "shop"}}
    assert redis_channel("default") != own


@pytest.mark.redis
def test_redis_lost_connection_is_made_anew(
    redis_cache: None, listeners: Listeners, bell: Bell, other_process: Other, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wake, "FIRST_PAUSE", 0.001)
    client = redis_client.quick_client("default")
    mine = [row["id"] for row in client.client_list(_type="pubsub") if row["sub"] == "2"]
    for client_id in mine:
        client.client_kill_filter(_id=client_id)
    client.close()
    assert mine
    assert bell.wait(SOON) == {MISSED}
    other_process(lambda: publish("default"))
    assert bell.wait(SOON) == {DUE}


@pytest.mark.redis
def test_redis_listener_ends_at_once(redis_cache: None, bell: Bell) -> None:
    listeners = Listeners("default")
    listeners.start()
    assert bell.wait(SOON)
    started = time.monotonic()
    assert listeners.stop(SOON)
    assert time.monotonic() - started < redis_client.TIMEOUT_SECONDS / 2


@pytest.mark.django_db(transaction=True)
def test_a_redis_that_hangs_holds_nobody_up(
    settings: Any, monkeypatch: pytest.MonkeyPatch, bell: Bell, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        location = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        settings.CACHES = {"default": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": location}}
        monkeypatch.setattr(wake, "notify", lambda using, reason: False)
        monkeypatch.setattr(redis_client, "TIMEOUT_SECONDS", 1.0)
        monkeypatch.setattr(wake, "_publisher", wake._Publisher())
        logged = Event()
        monkeypatch.setattr(wake.logger, "warning", lambda *args: logged.set())
        started = time.monotonic()
        for _ in range(3):
            ring_after_commit("default")
        assert bell.wait(0)
        assert time.monotonic() - started < 1
        assert logged.wait(SOON)


def test_a_publisher_that_gets_no_thread_raises_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    publisher = wake._Publisher()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        publisher.put("default", "channel", "payload")
    assert publisher._thread is None
