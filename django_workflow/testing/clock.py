"""Time moved by hand: sleeps, retries, deadlines and schedules see it instead of the system's clock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from django_workflow.engine.clock import use_clock
from django_workflow.protocol.durations import parse_duration


class WorkflowClock:
    """Stands still until it is told to move."""

    def __init__(self, start: datetime | None = None) -> None:
        self._now = start or datetime.now(UTC).replace(microsecond=0)

    def now(self) -> datetime:
        return self._now

    def advance(self, by: timedelta | float | str) -> datetime:
        """Move forward by a timedelta, seconds or a duration such as "3d"; the new time."""
        self._now += parse_duration(by)
        return self._now

    def move_to(self, instant: datetime) -> datetime:
        """Move to an aware instant, forwards only. Raises ValueError."""
        if instant < self._now:
            raise ValueError(f"The clock stands at {self._now}; it does not go back to {instant}.")
        self._now = instant
        return self._now


@contextmanager
def workflow_clock(start: datetime | None = None) -> Iterator[WorkflowClock]:
    """Freeze the engine's time: `with workflow_clock() as clock: … clock.advance("2d")`."""
    clock = WorkflowClock(start)
    with use_clock(clock):
        yield clock
