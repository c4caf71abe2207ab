"""The engine's clock. Drivers and transports ask it; nothing below them reads the system's time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    def now(self) -> datetime:
        """The present, aware UTC."""


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)


_current: Clock = SystemClock()


def current_clock() -> Clock:
    return _current


@contextmanager
def use_clock(clock: Clock) -> Iterator[None]:
    """Put another clock in force, for tests."""
    global _current
    before, _current = _current, clock
    try:
        yield
    finally:
        _current = before
