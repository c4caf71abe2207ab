"""Jobs done at the same time, each in a thread with database connections of its own."""

from __future__ import annotations

from collections.abc import Callable
from threading import Barrier, Thread
from typing import Any

from django.db import connections

MOST_SECONDS = 60


def at_once(*jobs: Callable[[], Any]) -> list[Any]:
    """What the jobs gave, which all start together. Raises an ExceptionGroup of what any of them raised."""
    outcomes = outcomes_at_once(*jobs)
    if errors := [outcome for outcome in outcomes if isinstance(outcome, Exception)]:
        raise ExceptionGroup("jobs done at once", errors)
    return outcomes


def outcomes_at_once(*jobs: Callable[[], Any]) -> list[Any]:
    """What each of the jobs gave or raised."""
    barrier = Barrier(len(jobs))
    outcomes: list[Any] = [TimeoutError(f"The job was not over after {MOST_SECONDS} s.")] * len(jobs)

    def work(number: int, job: Callable[[], Any]) -> None:
        try:
            barrier.wait(timeout=10)
            outcomes[number] = job()
        except Exception as error:
            outcomes[number] = error
        finally:
            connections.close_all()

    threads = [Thread(target=work, args=pair) for pair in enumerate(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=MOST_SECONDS)
    return outcomes
