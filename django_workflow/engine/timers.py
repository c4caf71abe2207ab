"""When a worker looks for waits that end and schedules that fire: each look is two queries, so not with every claim."""

from __future__ import annotations

import time
from datetime import datetime

from django_workflow.engine import cycle
from django_workflow.engine.after import After

LOOK_SECONDS = 0.25
"""How old a look may be: less than the shortest time-out (1 s), so that no wait that begins meanwhile ends late."""


class Timers:
    def __init__(self, alias: str) -> None:
        self._alias = alias
        self._looked_at: float | None = None
        self.next_at: datetime | None = None
        """When the next wait ends or schedule fires, by the last look."""

    def keep(self, now: datetime) -> list[After]:
        """End waits and fire schedules that are due; what follows the commits."""
        if not self._must_look(now):
            return []
        self.next_at = cycle.next_timer(self._alias)
        done: list[After] = []
        if self.next_at is not None and self.next_at <= now:
            changes = (cycle.end_overdue_waits(self._alias, now), cycle.fire_schedules(self._alias, now))
            done = [after for after in changes if after is not None]
            self.next_at = cycle.next_timer(self._alias)
        self._looked_at = time.monotonic()
        return done

    def _must_look(self, now: datetime) -> bool:
        if self._looked_at is None or time.monotonic() - self._looked_at >= LOOK_SECONDS:
            return True
        return self.next_at is not None and self.next_at <= now
