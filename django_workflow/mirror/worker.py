"""The worker of a hosted site: it makes no deliveries, but sends, asks, schedules and prunes.

    worker = HostedWorker()
    worker.start()
    worker.stop()

The engine calls the site's web processes by itself. What is left to do here is what no request is there for: the outbox
of processes that died, runs that nobody has heard of for long, schedules of code that has changed. Any number may run.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event, Lock, Thread

from django.core.exceptions import ImproperlyConfigured
from django.db import Error as DatabaseError
from django.db import connections
from django.db.models import F

from django_workflow.client.transports import Transport, current_transport
from django_workflow.conf import HEARTBEAT_SECONDS, get_settings
from django_workflow.errors import WorkflowError
from django_workflow.mirror import backfill, outbox, schedules
from django_workflow.mirror.surroundings import surroundings
from django_workflow.mirror.transport import network_of
from django_workflow.models import Worker

logger = logging.getLogger("django_workflow.worker")

SEND_EVERY, CHORE_EVERY, CHECK_EVERY, PRUNE_EVERY, RECONCILE_AGAIN = 1.0, 1.0, 15.0, 60.0, 30.0


@dataclass(slots=True)
class Duty:
    """Something that is done every so many seconds. `once`: only until it went well."""

    name: str
    every: float
    work: Callable[[], object]
    once: bool = False
    next_at: float = field(default=0.0)


class HostedWorker:
    """Has the same life as the embedded engine's supervisor: `start` returns at once, also when it is called again."""

    def __init__(self, *, concurrency: int | None = None) -> None:
        self._lock = Lock()
        self._pid = 0
        self._stopping, self._ended = Event(), Event()
        self._thread: Thread | None = None
        self._beat: Thread | None = None
        self._row: Worker | None = None
        self._warned: dict[str, str] = {}
        self.clean = True

    def start(self) -> None:
        """Start in this process; calls after the first do nothing."""
        if self._pid == os.getpid():
            return
        if self._pid:
            self._lock = Lock()  # another thread of the parent may have held it while it forked
        with self._lock:
            if self._pid == os.getpid():
                return
            self._pid = os.getpid()
            self._stopping, self._ended, self._row = Event(), Event(), None
            # Not a daemon: a send that is under way shall be noted before the interpreter ends.
            self._thread = Thread(target=self._run, name="workflow-hosted", daemon=False)
            self._beat = Thread(target=self._keep_beating, name="workflow-heartbeat", daemon=True)
            self._thread.start()
            self._beat.start()

    def stop(self, timeout: float = 30.0) -> bool:
        """End after what is under way. False when that took longer."""
        if self._pid != os.getpid():
            return True
        self._stopping.set()
        return self._ended.wait(timeout + 5)

    def wait(self, timeout: float | None = None) -> bool:
        return self._ended.wait(timeout)

    @property
    def healthy(self) -> bool:
        return self._thread is None or self._thread.is_alive()

    # Duties

    def _run(self) -> None:
        duties = [
            Duty("the schedules", RECONCILE_AGAIN, lambda: schedules.reconcile(current_transport()), once=True),
            Duty("the outbox", SEND_EVERY, lambda: outbox.send_due(network())),
            Duty("silent runs", CHECK_EVERY, lambda: backfill.check_due(current_transport())),
            Duty("bulk operations", CHORE_EVERY, lambda: surroundings().chore()),
            Duty("old rows", PRUNE_EVERY, prune),
        ]
        duties[-1].next_at = time.monotonic() + PRUNE_EVERY
        try:
            while not self._told_to_stop(0.2):
                for duty in list(duties):
                    if duty.next_at <= time.monotonic() and self._do(duty) and duty.once:
                        duties.remove(duty)
        finally:
            connections.close_all()
            self._ended.set()

    def _do(self, duty: Duty) -> bool:
        """True when it went well. A worker goes on whatever happens; the same trouble is told once."""
        duty.next_at = time.monotonic() + duty.every
        try:
            duty.work()
        except (DatabaseError, ImproperlyConfigured, WorkflowError) as error:
            if self._warned.get(duty.name) != str(error):
                self._warned[duty.name] = str(error)
                logger.warning("The worker could not see to %s, and tries again: %s", duty.name, error)
            connections[get_settings().database].close()
            return False
        except Exception:
            logger.exception("The worker could not see to %s.", duty.name)
            return False
        self._warned.pop(duty.name, None)
        return True

    def _told_to_stop(self, seconds: float) -> bool:
        """Wait a while for `stop()` or the end of the main thread, whichever comes first."""
        return self._stopping.wait(seconds) or not threading.main_thread().is_alive()

    # Heartbeat, from a thread of its own: a request to the engine may take longer than a beat.

    def _keep_beating(self) -> None:
        alias = get_settings().database
        try:
            while not self._ended.wait(0 if self._row is None else HEARTBEAT_SECONDS):
                if not self._do(Duty("its heartbeat", 0, self._report)):
                    self._ended.wait(HEARTBEAT_SECONDS)
            if self._row is not None:
                self._do(Duty("its leaving", 0, Worker.objects.using(alias).filter(pk=self._row.pk).delete))
        finally:
            connections.close_all()

    def _report(self) -> None:
        alias, now = get_settings().database, surroundings().now()
        workers = Worker.objects.using(alias)
        if self._row is None:
            host, pid = socket.gethostname()[:255], os.getpid()
            self._row = workers.create(host=host, pid=pid, concurrency=1, started_at=now, heartbeat_at=now)
            return
        beaten = workers.filter(pk=self._row.pk).update(
            heartbeat=F("heartbeat") + 1, heartbeat_at=now, draining=self._stopping.is_set()
        )
        if not beaten:  # pruned as a dead one, say after the machine slept
            self._row.heartbeat_at = now
            self._row.save(using=alias, force_insert=True)


def network() -> Transport:
    """The way to the engine, past the outbox."""
    return network_of(current_transport())


def prune() -> None:
    """Delete some of what is no longer kept."""
    now = surroundings().now()
    surroundings().prune(now)
    outbox.prune(now)
