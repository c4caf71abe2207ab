"""When runs are over, as this process learns of it.

The worker of this process tells by the signal `run_finished`; what other processes finish shows in the rows.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from threading import Condition
from typing import Any, Protocol

from tests.benchmarks.places import LONGEST_SECONDS

FEW, FEW_PAUSE, MANY_PAUSE = 1, 0.001, 0.01


class Finishes(Protocol):
    def wait(self, run_ids: Collection[str]) -> dict[str, float]:
        """Block until these runs are over; when each was, on the clock of `time.perf_counter`."""
        ...


class Told:
    """By the signal of this process's worker."""

    def __init__(self) -> None:
        self._at: dict[str, float] = {}
        self._wanted: set[str] = set()
        self._condition = Condition()

    def over(self, run: Any, **_: Any) -> None:
        with self._condition:
            self._at[run.run_id] = time.perf_counter()
            self._wanted.discard(run.run_id)
            if not self._wanted:
                self._condition.notify_all()

    def wait(self, run_ids: Collection[str]) -> dict[str, float]:
        with self._condition:
            self._wanted = set(run_ids) - self._at.keys()
            if not self._condition.wait_for(lambda: not self._wanted, LONGEST_SECONDS):
                raise TimeoutError(f"{len(self._wanted)} of {len(run_ids)} runs are not over.")
            return {run_id: self._at.pop(run_id) for run_id in run_ids}


class Seen:
    """By looking at the rows again and again."""

    def wait(self, run_ids: Collection[str]) -> dict[str, float]:
        from django_workflow.models import Run

        pause = FEW_PAUSE if len(run_ids) <= FEW else MANY_PAUSE
        deadline = time.monotonic() + LONGEST_SECONDS
        at: dict[str, float] = {}
        active = set(run_ids)
        while active:
            still = set(Run.objects.active().values_list("run_id", flat=True))
            at |= dict.fromkeys(active - still, time.perf_counter())
            active &= still
            if active:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{len(active)} of {len(run_ids)} runs are not over.")
                time.sleep(pause)
        return at


@contextmanager
def finishes(*, in_this_process: bool) -> Iterator[Finishes]:
    from django_workflow.signals import run_finished

    if not in_this_process:
        yield Seen()
        return
    told = Told()
    run_finished.connect(told.over)
    try:
        yield told
    finally:
        run_finished.disconnect(told.over)
