"""When a worker looks for waits that end and schedules that fire: each look is two queries, so not with every claim."""

from __future__ import annotations

import time
from datetime import datetime

from django_workflow.engine import cycle
from django_workflow.engine.after import After

LOOK_SECONDS = 0.25
"""How old a look may be. A wait that begins after it is seen by the next one, well before its time is up."""


class Timers:
    def __init__(self, alias: str) -> None:
        self._alias = alias
        self._looked_at: float | None = None
        self.next_at: datetime | None = None
        """When the next wait ends or schedule fires, by the last look."""
        self.again_in: float | None = None
        """Seconds until the next look is owed; None after one: until something rings, there is nothing to see."""

    def keep(self, now: datetime) -> list[After]:
        """End waits and fire schedules that are due; what follows the commits."""
        age = None if self._looked_at is None else time.monotonic() - self._looked_at
        if age is not None and age < LOOK_SECONDS and (self.next_at is None or self.next_at > now):
            self.again_in = LOOK_SECONDS - age
            return []
        self.again_in = None
        self.next_at = cycle.next_timer(self._alias)
        done: list[After] = []
        if self.next_at is not None and self.next_at <= now:
            changes = (cycle.end_overdue_waits(self._alias, now), cycle.fire_schedules(self._alias, now))
            done = [after for after in changes if after is not None]
            self.next_at = cycle.next_timer(self._alias)
        self._looked_at = time.monotonic()
        return done
