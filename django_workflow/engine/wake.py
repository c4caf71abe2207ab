"""Waking workers: a commit that made something due rings the bells of this process and tells the others.

A worker has one `Bell` per database and waits at it between two claims. Other processes are told by PostgreSQL's own
NOTIFY, or through Redis when the project's cache is django-redis; `Listeners` hears them. All of this may fail or be
missing: a worker also looks for itself, a second later at most.
"""

from __future__ import annotations

import logging
import os
import secrets
import selectors
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from threading import Condition, Event, Lock, Thread
from typing import TYPE_CHECKING
from weakref import WeakSet

from django.db import Error as DatabaseError
from django.db import connections, transaction

from django_workflow.redis_client import TIMEOUT_SECONDS, key_prefix, quick_client, redis_alias

if TYPE_CHECKING:
    import redis

CHANNEL = "django_workflow"
DUE = "due"
MISSED = "missed"
"""The reason of a ring by a listener that has just connected: it may have missed others."""

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0

logger = logging.getLogger("django_workflow.worker")

_TOKEN = secrets.token_hex(4)
_lock = Lock()
_bells: dict[str, WeakSet[Bell]] = {}


class Bell:
    """What a worker of the database `alias` waits at. Rings that nobody waited for are kept until the next wait."""

    def __init__(self, alias: str) -> None:
        self.alias = alias
        self._condition = Condition()
        self._reasons: set[str] = set()
        with _lock:
            _bells.setdefault(alias, WeakSet()).add(self)

    def ring(self, reason: str = DUE) -> None:
        with self._condition:
            self._reasons.add(reason)
            self._condition.notify_all()

    def clear(self) -> None:
        """Forget the rings so far: what they tell of is seen by the claim that follows."""
        with self._condition:
            self._reasons.clear()

    def wait(self, timeout: float | None) -> frozenset[str]:
        """Wait until it rings, at most `timeout` seconds. Returns the reasons, none when the time was up.

        They are taken before the claim that follows, so a ring during that claim is left for the next wait.
        """
        with self._condition:
            self._condition.wait_for(lambda: self._reasons, timeout)
            reasons = frozenset(self._reasons)
            self._reasons.clear()
            return reasons

    def close(self) -> None:
        """Hear no more rings of the hub."""
        with _lock:
            _bells.get(self.alias, WeakSet[Bell]()).discard(self)


def ring(alias: str, reason: str = DUE) -> None:
    """Ring the bells of this process. Only after the commit: a worker that looks before finds nothing."""
    with _lock:
        bells = list(_bells.get(alias, ()))
    for bell in bells:
        bell.ring(reason)


@dataclass(frozen=True, slots=True)
class _RingEverywhere:
    """What follows a commit."""

    using: str
    reason: str

    def __call__(self) -> None:
        ring(self.using, self.reason)
        try:
            told = notify(self.using, self.reason)
        except DatabaseError as error:  # what it tells of is committed
            logger.warning("Other processes are not woken by PostgreSQL, they poll: %s", error)
        else:
            if not told:
                publish(self.using, self.reason)


def ring_after_commit(using: str, reason: str = DUE) -> None:
    """Ring here and tell other processes, once the transaction of this connection commits; now when there is none."""
    hook = _RingEverywhere(using, reason)
    # Once per transaction. One that is there already goes only with a savepoint that this one would go with too.
    waiting = (entry[1] for entry in connections[using].run_on_commit)
    if not any(isinstance(other, _RingEverywhere) and other == hook for other in waiting):
        transaction.on_commit(hook, using=using, robust=True)


def notify(using: str, reason: str = DUE) -> bool:
    """Have PostgreSQL tell the other processes. False on other databases.

    After the commit, in a transaction of its own that is not flushed: those that notify have one lock of the whole
    server until they are on disk, so commits that did it themselves would be made one by one.
    """
    connection = connections[using]
    if connection.vendor != "postgresql":
        return False
    is_alone = connection.get_autocommit() and not connection.in_atomic_block
    unflushed = "set_config('synchronous_commit', 'off', true), " if is_alone else ""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {unflushed}pg_notify(%s, %s)", [CHANNEL, f"{_sender()} {reason}"])
    return True


def publish(using: str, reason: str = DUE) -> None:
    """Tell the other processes through Redis, from a thread of its own: a Redis that hangs holds no request up."""
    alias = redis_alias()
    if alias is not None:
        _publisher.put(alias, redis_channel(using), f"{_sender()} {reason}")


def _sender() -> str:
    # With the pid: a forked child has its parent's token.
    return f"{_TOKEN}.{os.getpid()}"


# Listening


class Listeners:
    """Hears what other processes tell of the database `alias`, and rings this process's bells."""

    def __init__(self, alias: str) -> None:
        self.alias = alias
        self._listener: Listener | None = None

    def start(self) -> None:
        """Start a listener where the project has something to listen to."""
        kind = _listener_kind(self.alias)
        if kind is not None:
            self._listener = kind(self.alias)
            self._listener.start()

    def stop(self, timeout: float = 2.0) -> bool:
        """End its thread. False when that took longer than `timeout` seconds."""
        return self._listener is None or self._listener.stop(timeout)

    @property
    def listening(self) -> bool:
        """Whether rings of other processes arrive at this moment."""
        return self._listener is not None and self._listener.connected.is_set()


class Listener:
    """A thread with a connection of its own, which it makes anew when it is lost."""

    name = ""

    def __init__(self, alias: str) -> None:
        self.alias = alias
        self.connected = Event()
        self._stopping = Event()
        self._sender = _sender()
        self._thread = Thread(target=self._run, name=f"workflow-{self.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float) -> bool:
        self._stopping.set()
        self.interrupt()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def interrupt(self) -> None:
        """Make `listen` look at `_stopping` now. Raises nothing."""
        raise NotImplementedError

    def listen(self) -> None:
        """Connect, call `established`, and `heard` for each message, until `_stopping` is set."""
        raise NotImplementedError

    def close(self) -> None:
        """The thread ends."""

    def established(self) -> None:
        self.connected.set()
        ring(self.alias, MISSED)

    def heard(self, payload: str) -> None:
        sender, _, reason = payload.partition(" ")
        if sender != self._sender:  # this process rang its bells itself
            ring(self.alias, reason or DUE)

    def _run(self) -> None:
        pause = 0.0
        try:
            while not self._stopping.wait(pause):
                try:
                    self.listen()
                except Exception as error:  # whatever the driver raises: workers poll meanwhile
                    pause = FIRST_PAUSE if self.connected.is_set() else min(pause * 2 or FIRST_PAUSE, LONGEST_PAUSE)
                    if not self._stopping.is_set():
                        logger.warning("No wake-ups by %s for %g s at least: %s", self.name, pause, error)
                finally:
                    self.connected.clear()
        finally:
            self.close()


class PostgresListener(Listener):
    name = "notify"

    def __init__(self, alias: str) -> None:
        super().__init__(alias)
        self._told, self._tell = socket.socketpair()

    def interrupt(self) -> None:
        with suppress(OSError):  # closed: the thread has ended
            self._tell.send(b".")

    def listen(self) -> None:
        import psycopg

        parameters = connections[self.alias].get_connection_params()
        for key in ("cursor_factory", "context"):  # Django's own
            parameters.pop(key, None)
        # A server that vanished is noticed within a minute, and one that is away does not hold `stop` up for long.
        probes = {"connect_timeout": 5, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
        with (
            psycopg.connect(**{**probes, **parameters, "autocommit": True}) as connection,
            selectors.DefaultSelector() as selector,
        ):
            connection.execute(f"LISTEN {CHANNEL}")
            self.established()
            selector.register(self._told, selectors.EVENT_READ)
            selector.register(connection.fileno(), selectors.EVENT_READ)
            while not self._stopping.is_set():
                for notification in connection.notifies(timeout=0):
                    self.heard(notification.payload)
                selector.select()

    def close(self) -> None:
        self._told.close()
        self._tell.close()


class RedisListener(Listener):
    name = "redis"

    def __init__(self, alias: str) -> None:
        super().__init__(alias)
        self._own_channel = f"{CHANNEL}:stop:{secrets.token_hex(8)}"

    def interrupt(self) -> None:
        if self.connected.is_set():
            with suppress(Exception):  # it looks by itself after TIMEOUT_SECONDS
                quick_client(redis_alias() or "").publish(self._own_channel, b"")

    def listen(self) -> None:
        client = quick_client(redis_alias() or "")
        channel = redis_channel(self.alias)
        try:
            with client.pubsub() as pubsub:  # type: ignore[no-untyped-call]
                pubsub.subscribe(channel, self._own_channel)
                while not self._stopping.is_set():
                    message = pubsub.get_message(timeout=TIMEOUT_SECONDS)
                    if message is None:
                        continue
                    if message["type"] == "subscribe" and _text(message["channel"]) == self._own_channel:
                        self.established()
                    elif message["type"] == "message" and _text(message["channel"]) == channel:
                        self.heard(_text(message["data"]))
        finally:
            client.close()


def _listener_kind(alias: str) -> Callable[[str], Listener] | None:
    if connections[alias].vendor == "postgresql":
        from django.db.backends.postgresql.psycopg_any import is_psycopg3

        return PostgresListener if is_psycopg3 else None
    return RedisListener if redis_alias() is not None else None


# Redis


def redis_channel(using: str) -> str:
    """Where processes of this project tell each other of that database: other projects may use the same Redis."""
    return f"{CHANNEL}:wake:{key_prefix(redis_alias() or '')}:{connections[using].settings_dict['NAME']}"


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


class _Publisher:
    """Sends messages to Redis from one thread, made when it is first needed. Equal ones that wait become one."""

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self._condition = Condition()
        self._waiting: set[tuple[str, str, str]] = set()
        self._thread: Thread | None = None

    def put(self, alias: str, channel: str, payload: str) -> None:
        with self._condition:
            self._waiting.add((alias, channel, payload))
            if self._thread is None:
                thread = Thread(target=self._run, name="workflow-publisher", daemon=True)
                with suppress(RuntimeError):  # no new thread can be made while the interpreter shuts down
                    thread.start()
                    self._thread = thread
            self._condition.notify()

    def _run(self) -> None:
        clients: dict[str, redis.Redis] = {}
        failing = False
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._waiting)
                messages, self._waiting = self._waiting, set()
            for alias, channel, payload in messages:
                try:
                    client = clients.get(alias) or clients.setdefault(alias, quick_client(alias))
                    client.publish(channel, payload)
                    failing = False
                except Exception as error:
                    if not failing:
                        logger.warning("Other processes are not woken through Redis, they poll: %s", error)
                    failing = True


_publisher = _Publisher()


def _start_over() -> None:
    """In a forked child: it has none of its parent's threads, who may have held these locks."""
    global _lock
    _lock = Lock()
    _bells.clear()
    _publisher._forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_over)
