from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from django_workflow.engine import processes
from django_workflow.engine.processes import Process, is_gone, this_process
from django_workflow.models import Worker

pytestmark = pytest.mark.skipif(os.name != "posix", reason="processes are looked up on POSIX systems")

IDENTIFY = "from django_workflow.engine.processes import this_process as p; print(p().host, p().pid, p().started)"


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    forget()
    yield
    forget()


def forget(caches: tuple[Any, ...] = (processes._place, processes._identify)) -> None:
    for cache in caches:
        cache.cache_clear()


@pytest.fixture(params=["/proc", "ps"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Both ways to ask a system for its processes."""
    if request.param == "ps":
        if not shutil.which("ps"):
            pytest.skip("needs ps")
        monkeypatch.setattr(processes, "PROC", tmp_path)
        monkeypatch.setattr(uuid, "getnode", lambda: 0x0242AC110002)
    elif not processes.PROC.joinpath("self/stat").exists():
        pytest.skip("needs /proc")
    return str(request.param)


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that waits until it is ended."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


def identify(pid: int) -> Process:
    return processes._identify.__wrapped__(pid)


def gone(process: Process) -> bool:
    return is_gone(process.host, process.pid, process.started)


@pytest.mark.usefixtures("system")
def test_this_process_is_not_gone() -> None:
    process = this_process()
    assert (process.host, process.pid) == (socket.gethostname(), os.getpid())
    assert not gone(process)
    assert process == this_process()


@pytest.mark.usefixtures("system")
def test_the_identity_fits_its_column() -> None:
    length = Worker._meta.get_field("pid_started").max_length
    assert 12 < len(this_process().started) <= (length or 0)


def test_another_process_finds_the_same_identity() -> None:
    shown = subprocess.run([sys.executable, "-c", IDENTIFY], capture_output=True, text=True, check=True)
    host, pid, started = shown.stdout.split()
    mine = this_process()
    assert host == mine.host
    assert started.partition("-")[0] == mine.started.partition("-")[0]
    assert is_gone(host, int(pid), started)


@pytest.mark.usefixtures("system")
def test_a_killed_process_is_gone_at_once(child: subprocess.Popen[bytes]) -> None:
    process = identify(child.pid)
    assert not gone(process)
    child.kill()
    # Dead, and not reaped: its pid still exists.
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert gone(process)
    child.communicate()
    assert gone(process)


@pytest.mark.usefixtures("system")
def test_a_pid_that_was_given_out_again_is_gone(child: subprocess.Popen[bytes]) -> None:
    process = identify(child.pid)
    place, _, _ = process.started.partition("-")
    assert is_gone(process.host, process.pid, f"{place}-1")


@pytest.mark.usefixtures("system")
@pytest.mark.parametrize(
    ("host", "started"),
    [
        ("elsewhere", None),  # another machine
        (None, "0123456789-1"),  # another boot, or another container with this host's name
        (None, ""),  # written where processes cannot be told apart
        (None, "-"),
    ],
)
def test_what_cannot_be_known_is_not_gone(host: str | None, started: str | None) -> None:
    mine = this_process()
    free = subprocess.Popen([sys.executable, "-c", ""])
    free.wait()
    assert not is_gone(host or mine.host, free.pid, mine.started if started is None else started)


@pytest.mark.parametrize("pid", [0, -1])
def test_a_pid_that_means_a_group_is_never_asked_for(pid: int) -> None:
    assert not is_gone(socket.gethostname(), pid, this_process().started)


@pytest.mark.parametrize(
    ("stat", "tasks", "is_it_gone"),
    [
        ("7 (a) name) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 500 0", 1, False),
        ("7 (name) Z 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 500 0", 1, True),
        ("7 (name) Z 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 500 0", 2, False),  # its main thread ended first
        ("7 (name) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 501 0", 1, True),  # the pid is someone else's
        ("", 1, False),  # hidden
        ("7 (name) S", 1, False),  # not understood
    ],
)
def test_stat_is_read_as_linux_writes_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stat: str, tasks: int, is_it_gone: bool
) -> None:
    monkeypatch.setattr(processes, "PROC", tmp_path)
    monkeypatch.setattr(processes, "_place", lambda: "place")
    monkeypatch.setattr(os, "kill", lambda pid, signal: None)
    (tmp_path / "self").mkdir()
    (tmp_path / "self/stat").touch()
    for task in range(tasks):
        (tmp_path / f"7/task/{task}").mkdir(parents=True)
    (tmp_path / "7/stat").write_text(stat)
    assert is_gone(socket.gethostname(), 7, "place-500") is is_it_gone


def test_a_process_of_another_user_is_not_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int, signal: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    assert not gone(this_process())


def test_without_an_identity_nothing_is_gone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(processes, "PROC", tmp_path)
    monkeypatch.setattr(uuid, "getnode", lambda: 0x0142AC110002)  # made up by uuid
    assert this_process().started == ""
    assert not is_gone(socket.gethostname(), 2**22 + 1, "")
