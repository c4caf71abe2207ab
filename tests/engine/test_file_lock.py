from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest
from django.db import connection, connections

from django_workflow.engine import file_lock
from django_workflow.engine.file_lock import WorkerLock, lock_path

HOLD = """
import sys
from pathlib import Path
from django_workflow.engine import file_lock
file_lock.lock_path = lambda alias: Path(alias)
lock = file_lock.WorkerLock(sys.argv[1])
print(lock.acquire(), flush=True)
input()
"""


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lock file for any database."""
    path = tmp_path / "db.sqlite3.workflow-worker.lock"
    monkeypatch.setattr(file_lock, "lock_path", lambda alias: path)
    return path


def point_at(monkeypatch: pytest.MonkeyPatch, name: object) -> None:
    sqlite = {**connection.settings_dict, "ENGINE": "django.db.backends.sqlite3", "NAME": name, "OPTIONS": {}}
    monkeypatch.setitem(connections.settings, "other", sqlite)


def lock_of(monkeypatch: pytest.MonkeyPatch, name: object) -> Path | None:
    point_at(monkeypatch, name)
    try:
        return lock_path("other")
    finally:
        del connections["other"]


def test_the_lock_lies_beside_the_database(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    expected = tmp_path.resolve() / "shop.db.workflow-worker.lock"
    link = tmp_path / "link.db"
    link.symlink_to(tmp_path / "shop.db")
    for name in (tmp_path / "shop.db", str(tmp_path / "shop.db"), f"file:{tmp_path}/shop.db?mode=rw", link):
        assert lock_of(monkeypatch, name) == expected


@pytest.mark.parametrize("name", [":memory:", "", "file:shared?mode=memory&cache=shared"])
def test_a_database_in_memory_needs_no_lock(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    assert lock_of(monkeypatch, name) is None


@pytest.mark.postgresql
@pytest.mark.mariadb
def test_servers_need_no_lock() -> None:
    lock, other = WorkerLock("default"), WorkerLock("default")
    assert lock.path is None
    assert lock.acquire()
    assert other.acquire()
    lock.release()


def test_one_lock_at_a_time(path: Path) -> None:
    lock, other = WorkerLock("default"), WorkerLock("default")
    assert lock.acquire()
    assert lock.acquire(), "a second time changes nothing"
    assert not other.acquire()
    lock.release()
    lock.release()
    assert other.acquire()
    other.release()
    assert path.exists(), "a file that is removed and made anew would be two locks"


def test_the_system_frees_the_lock_of_a_killed_process(path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert line(holder.stdout) == b"True\n"
    lock = WorkerLock("default")
    assert not lock.acquire()
    holder.kill()
    holder.communicate()
    assert lock.acquire()
    lock.release()


def line(stream: IO[bytes] | None) -> bytes:
    assert stream is not None
    return stream.readline()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("parent", ["releases", "dies"])
def test_a_forked_child_does_not_keep_its_parents_lock(path: Path, parent: str) -> None:
    lock = WorkerLock("default")
    assert lock.acquire()
    may_end, end = os.pipe()
    runs, run = os.pipe()
    child = os.fork()
    if not child:
        os.close(end)
        os.write(run, b"+" if lock._file is None else b"-")
        os.read(may_end, 1)
        os._exit(0)
    try:
        assert os.read(runs, 1) == b"+"
        assert not WorkerLock("default").acquire(), "the parent keeps it"
        if parent == "releases":
            lock.release()
        else:
            lock.forget()  # what the system does with a dead process
        other = WorkerLock("default")
        assert other.acquire(), "though the child lives"
        other.release()
    finally:
        for pipe in (may_end, end, runs, run):
            os.close(pipe)
        os.waitpid(child, 0)


def test_programs_that_the_worker_starts_do_not_hold_its_lock(path: Path) -> None:
    lock = WorkerLock("default")
    assert lock.acquire()
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False)
    lock.release()
    other = WorkerLock("default")
    taken = other.acquire()
    other.release()
    child.communicate(b"\n")
    assert taken


def test_a_file_system_without_locks_gets_a_worker_and_a_warning(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(file: int) -> bool:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(file_lock, "_lock", refuse)
    lock = WorkerLock("default")
    assert lock.acquire()
    assert "No locks available" in caplog.text
    lock.release()


def test_a_folder_that_cannot_be_written_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(file_lock, "lock_path", lambda alias: tmp_path / "missing" / "lock")
    with pytest.raises(FileNotFoundError):
        WorkerLock("default").acquire()
