"""Where the development server keeps its data: a file that somebody named, or one that goes with the server.

"In memory" is a file in a folder of its own that is deleted at the end. SQLite's real memory is of no use to many
threads: one shared by its cache refuses whoever comes while another reads or writes ("table is locked"), and one
behind `vfs=memdb` lets nobody read while somebody writes.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from django_workflow.dev_server.errors import CannotStart

PREFIX = "django-workflow-dev-"
APPLICATION_ID = 0x64776466
"""Written into the header of files that are ours: we migrate them and make a user with a public password."""


@contextmanager
def database_file(named: Path | None) -> Iterator[Path]:
    """The SQLite file to use. Raises CannotStart when the named one is not ours, or cannot be made."""
    if named is not None:
        yield _ours(named)
        return
    _sweep()
    # Its name is known before it exists: a signal right after its making finds it all the same.
    folder = Path(tempfile.gettempdir(), PREFIX + secrets.token_hex(16))
    try:
        folder.mkdir(mode=0o700)
        with _held(folder):
            yield _ours(folder / "runs.sqlite3")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _ours(file: Path) -> Path:
    file = file.absolute()
    try:
        with closing(sqlite3.connect(file)) as connection:
            (application,) = connection.execute("PRAGMA application_id").fetchone()
            (objects,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if application != APPLICATION_ID and objects:
                raise CannotStart(
                    f"{file} holds a database that the development server did not make, so it is left alone. "
                    "Name a new file, or one of an earlier start."
                )
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    except sqlite3.Error as error:
        raise CannotStart(
            f"{file} cannot be used as a database ({error}). Name a file in a folder that exists."
        ) from error
    return file


# Folders of servers that were killed. Whoever lives holds a lock that the system frees when it ends, however it ends.

if sys.platform == "win32":

    @contextmanager
    def _held(folder: Path) -> Iterator[None]:
        yield

    def _sweep() -> None:
        """Windows has no such locks; its own cleaning of temporary files takes the folders."""

else:
    import fcntl

    @contextmanager
    def _held(folder: Path) -> Iterator[None]:
        made = folder / "new"
        with made.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            made.rename(folder / "lock")  # never seen without its lock
            yield

    def _sweep() -> None:
        for lock in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/lock"):
            folder = lock.parent
            with suppress(OSError):  # somebody else's, or gone meanwhile
                if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                    continue
                with lock.open("r+") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder, ignore_errors=True)
