"""What a worker tells after its commits: channels that have new events, and signals.

Told on a thread of its own. What comes within a few milliseconds is told together: else a busy worker would go from
thread to thread for each commit, and so would all that listen.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import Event

from django_workflow.engine.after import After

GATHER_SECONDS = 0.02
"""Pause between two tellings. Signals do not wait for its end."""


class Announcements:
    """`tell` gets what has gathered; it raises nothing."""

    def __init__(self, tell: Callable[[After], None]) -> None:
        self._tell = tell
        self._waiting: deque[After] = deque()
        self._some = Event()
        self._urgent = Event()
        self._stopping = False

    def put(self, after: After) -> None:
        """Have this told soon."""
        self._waiting.append(after)
        self._some.set()
        if after.signals or after.events:
            self._urgent.set()

    def stop(self) -> None:
        """Tell what is left, then end."""
        self._stopping = True
        self._some.set()
        self._urgent.set()

    def run(self) -> None:
        """Tell what comes, until `stop`."""
        while True:
            self._some.wait()
            stopping = self._stopping  # before the last look: what was put before `stop` is told
            self._some.clear()
            self._urgent.clear()
            if self._waiting:
                self._tell(self._gathered())
            if stopping:
                return
            self._urgent.wait(GATHER_SECONDS)

    def _gathered(self) -> After:
        gathered = After()
        while self._waiting:
            gathered.add(self._waiting.popleft())
        return gathered
