"""One worker per SQLite file: a lock of the operating system on a file beside the database.

`supervisor` acquires it before it starts a worker; who does not get it stands by. The system frees the lock when the
process ends, however it ends. Other databases take any number of workers, and a database in memory is one process's.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
import weakref
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from django.db import connections

SUFFIX = ".workflow-worker.lock"

logger = logging.getLogger("django_workflow.worker")

_held: weakref.WeakSet[WorkerLock] = weakref.WeakSet()


class WorkerLock:
    """The right to be the worker of the database `alias`."""

    def __init__(self, alias: str) -> None:
        self.path = lock_path(alias)
        """The lock's file; None: this database needs no lock."""
        self._file: int | None = None

    def acquire(self) -> bool:
        """Take the lock without waiting; False: another worker has it.

        Raises OSError when the file cannot be opened.
        """
        if self.path is None or self._file is not None:
            return True
        file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            taken = _lock(file)
        except OSError as error:
            # A file system without locks: better a worker than none.
            logger.warning("%s cannot be locked (%s): make sure that one worker runs.", self.path, error)
            taken = True
        if not taken:
            os.close(file)
            return False
        self._file = file
        _held.add(self)
        return True

    def release(self) -> None:
        """Give the lock back, if it is held."""
        if self._file is not None:
            # Closing alone would leave it with a child that was forked a moment ago.
            with suppress(OSError):
                _unlock(self._file)
            self.forget()

    def forget(self) -> None:
        """Close the file and leave the lock to the process that this one was forked from."""
        file, self._file = self._file, None
        _held.discard(self)
        if file is not None:
            os.close(file)


def lock_path(alias: str) -> Path | None:
    """Where the lock of this database's worker is; None when any number of workers may run."""
    connection = connections[alias]
    name = str(connection.settings_dict["NAME"])
    if connection.vendor != "sqlite" or not name or connection.is_in_memory_db():  # type: ignore[attr-defined]
        return None
    if name.startswith("file:"):
        name = unquote(urlsplit(name).path)
    # Resolved, so that every way to the file leads to one lock.
    file = Path(name).resolve()
    return file.with_name(file.name + SUFFIX)


def _forget_inherited() -> None:
    """In a forked child: the lock is its parent's, and would outlive it while the child has the file open."""
    for lock in list(_held):
        lock.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_inherited)


if sys.platform == "win32":
    import msvcrt

    def _lock(file: int) -> bool:
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EDEADLK):
                return False
            raise
        return True

    def _unlock(file: int) -> None:
        msvcrt.locking(file, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _lock(file: int) -> bool:
        # flock and not lockf: it also keeps two workers of one process apart.
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_UN)
