"""Database connections of threads that make or answer deliveries all day: kept open, and tried when in doubt."""

from __future__ import annotations

import threading
import time

from django.db import connections

IDLE_SECONDS = 10.0
"""A connection that sat idle for so long is tried before it is used."""


class KeptConnections:
    """What Django does between requests, for threads that have none: its connections persist here, whatever
    CONN_MAX_AGE says. One object serves several threads."""

    def __init__(self) -> None:
        self._thread = threading.local()

    def drop_broken(self) -> None:
        """Close this thread's connections that failed, or sat idle and do not answer any more."""
        idle = time.monotonic() - getattr(self._thread, "used_at", 0.0) > IDLE_SECONDS
        for connection in connections.all(initialized_only=True):
            # One that is closed is opened by its next query; MySQL's backend cannot be asked whether it is usable.
            if connection.in_atomic_block or connection.connection is None:
                continue
            if (connection.errors_occurred or idle) and not connection.is_usable():
                connection.close()
            connection.errors_occurred = False
        self._thread.used_at = time.monotonic()
