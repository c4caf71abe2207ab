"""Keeps one worker alive in this process: waits for its database and its turn, starts it, drains it at the end.

On SQLite one worker runs per database file; the supervisors of other processes stand by and take over when its file
lock is free. A process that was forked starts again in the child.
"""

from __future__ import annotations

import logging
import os
import threading
from threading import Event, Lock, Thread

from django.core.exceptions import ImproperlyConfigured
from django.db import Error as DatabaseError
from django.db import connections

from django_workflow.conf import get_settings
from django_workflow.engine.file_lock import WorkerLock
from django_workflow.engine.worker import Worker

logger = logging.getLogger("django_workflow.worker")

RETRY_SECONDS = 1.0


class Supervisor:
    def __init__(self, *, concurrency: int | None = None) -> None:
        self._concurrency = concurrency
        self._lock = Lock()
        self._pid = 0
        self._stopping = Event()
        self._ended = Event()
        self._thread: Thread | None = None
        self.worker: Worker | None = None
        self.clean = True
        self._warned = ""

    def start(self) -> None:
        """Start supervising in this process; calls after the first do nothing."""
        if self._pid == os.getpid():
            return
        if self._pid:
            self._lock = Lock()  # another thread of the parent may have held it while it forked
        with self._lock:
            if self._pid == os.getpid():
                return
            self._pid = os.getpid()
            self.worker = None  # after a fork it is the parent's
            self._stopping, self._ended = Event(), Event()
            # Not a daemon: the interpreter waits for it at its end, while pool threads still work; atexit is too late.
            self._thread = Thread(target=self._run, name="workflow-supervisor", daemon=False)
            self._thread.start()

    def stop(self, timeout: float = 30.0) -> bool:
        """Drain the worker. False when it left deliveries under way; others take them over."""
        if self._pid != os.getpid():
            return True
        self._stopping.set()
        self._ended.wait(timeout + 5)
        return self.clean

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until supervising has ended."""
        return self._ended.wait(timeout)

    @property
    def healthy(self) -> bool:
        return self.worker is None or self.worker.healthy

    def _run(self) -> None:
        lock = WorkerLock(get_settings().database)
        try:
            pause = 0.0
            while not self._told_to_stop(pause):
                pause = RETRY_SECONDS
                if self.worker is None and lock.acquire():
                    self._start_worker()
            if self.worker is not None:
                self.clean = self.worker.drain()
        except Exception:
            logger.exception("The worker of this process ended.")
            self.clean = False
        finally:
            lock.release()
            connections.close_all()
            self._ended.set()

    def _told_to_stop(self, seconds: float) -> bool:
        """Wait a while for `stop()` or the end of the main thread, whichever comes first."""
        return self._stopping.wait(seconds) or not threading.main_thread().is_alive()

    def _start_worker(self) -> None:
        worker = Worker(concurrency=self._concurrency)
        try:
            worker.start()
        except (DatabaseError, ImproperlyConfigured) as error:
            if str(error) != self._warned:
                self._warned = str(error)
                logger.warning("The worker waits for its database (%s). Missing tables? manage.py migrate", error)
            connections[worker.alias].close()
            return
        self.worker = worker
