"""Who measures the engine's own work: how much a transaction writes, and how long SQLite's write lock is held.

Nobody by default, which then costs one look at a global for each transaction.
"""

from __future__ import annotations

from typing import Protocol


class Meter(Protocol):
    """None of its methods may raise or take its time: they are called by the thread that writes."""

    def committed(self, facts: int) -> None:
        """The committer has written a batch of so many facts as one transaction."""

    def wrote(self, seconds: float) -> None:
        """A transaction of the engine on SQLite has ended, after so long with the write lock."""


_meter: Meter | None = None


def use_meter(meter: Meter | None) -> None:
    global _meter
    _meter = meter


def meter() -> Meter | None:
    return _meter
