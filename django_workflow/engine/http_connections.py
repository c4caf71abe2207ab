"""Connections of `network` that are kept between calls.

Those of httpcore itself, without its pool, which looks at every connection (with a call of the system each) twice for
every request. Here a call takes the newest that goes where it wants, and looks at that one alone.
"""

from __future__ import annotations

import ssl
import time
from threading import Lock

import httpcore

KEEPALIVE_SECONDS = 4.0
"""Below the 5 s after which many servers (Node.js, uvicorn) close an idle connection."""


class IdleConnections:
    """At most `most` idle connections, to any origins. Safe to use from several threads."""

    def __init__(self, tls: ssl.SSLContext, backend: httpcore.NetworkBackend, most: int) -> None:
        self._tls = tls
        self._backend = backend
        self._most = most
        self._lock = Lock()
        self._idle: list[tuple[httpcore.HTTPConnection, httpcore.Origin, float]] = []  # the newest last
        self._is_closed = False

    def take(self, origin: httpcore.Origin) -> httpcore.HTTPConnection:
        """A connection to this origin, for the caller alone until it gives it back; a new one opens at its request."""
        while (kept := self._newest(origin)) is not None:
            if not kept.has_expired():
                return kept
            kept.close()
        return httpcore.HTTPConnection(origin, ssl_context=self._tls, network_backend=self._backend)

    def give_back(self, connection: httpcore.HTTPConnection, origin: httpcore.Origin) -> None:
        """Keep it, unless its call failed or its peer closes it."""
        if connection.is_closed() or not connection.is_idle():
            connection.close()
            return
        now = time.monotonic()
        with self._lock:
            self._idle.append((connection, origin, now))
            fresh = [] if self._is_closed else [kept for kept in self._idle if now - kept[2] < KEEPALIVE_SECONDS]
            fresh = fresh[-self._most :]
            dropped = self._idle[: len(self._idle) - len(fresh)]
            self._idle = fresh
        for old, _, _ in dropped:
            old.close()

    def close(self) -> None:
        """Close all, and those that come back later."""
        with self._lock:
            self._is_closed = True
            dropped, self._idle = self._idle, []
        for connection, _, _ in dropped:
            connection.close()

    def _newest(self, origin: httpcore.Origin) -> httpcore.HTTPConnection | None:
        since = time.monotonic() - KEEPALIVE_SECONDS
        with self._lock:
            for index in range(len(self._idle) - 1, -1, -1):
                connection, kept_origin, at = self._idle[index]
                if at < since:
                    return None  # so are all before it; whoever gives one back closes them
                if kept_origin == origin:
                    del self._idle[index]
                    return connection
        return None
