"""What the engine shares within one process: the journals in memory, and what follows a commit."""

from __future__ import annotations

import logging
import os
from functools import cache

from django_workflow import signals
from django_workflow.engine.after import After
from django_workflow.engine.journal_cache import JournalCache
from django_workflow.models import Run

logger = logging.getLogger("django_workflow.engine")


@cache
def shared_cache(alias: str) -> JournalCache:
    """This process's journals of the database `alias`."""
    return JournalCache(alias)


if hasattr(os, "register_at_fork"):
    # A child has none of the threads that might hold a cache's lock.
    os.register_at_fork(after_in_child=shared_cache.cache_clear)


def remember(alias: str, after: After) -> None:
    """Put what was committed into the journals in memory."""
    journals = shared_cache(alias)
    for info in after.started:
        journals.start(info)
    for run_key, position, message in after.remembered:
        journals.append(run_key, position, message)
    for run_key in after.forgotten:
        journals.forget(run_key)


def announce(alias: str, after: After) -> None:
    """After a commit: remember journals, tell channels and signal receivers."""
    remember(alias, after)
    send_signals(alias, after)


def send_signals(alias: str, after: After) -> None:
    if after.events:
        _send(signals.channel_events_committed, events=after.events)
    if after.channels:
        _send(signals.channel_events_stored, channels=after.channels)
    if not after.signals:
        return
    runs = Run.objects.using(alias).in_bulk({values["run_key"] for _, values in after.signals})
    for signal, values in after.signals:
        run = runs.get(values.pop("run_key"))
        if run is None:
            continue
        if "step_id" in values:
            values["step"] = run.steps.using(alias).filter(step_id=values.pop("step_id")).first()
        _send(signal, run=run, **values)


def _send(signal: object, **values: object) -> None:
    for receiver, outcome in signal.send_robust(sender=None, **values):  # type: ignore[attr-defined]
        if isinstance(outcome, Exception):
            logger.error("Receiver %r of a workflow signal failed.", receiver, exc_info=outcome)
