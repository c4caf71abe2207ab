"""Processes: who this one is, and whether another one is gone for certain.

A worker writes `this_process()` into its row; `leases` frees the deliveries of workers whose process `is_gone`
without waiting for their heartbeat to stand still. Every doubt is False: the heartbeat decides then.
"""

from __future__ import annotations

import os
import socket
import subprocess
import uuid
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2s
from pathlib import Path

PROC = Path("/proc")
_RANDOM_NODE = 1 << 40  # uuid.getnode() sets this bit when it found no hardware address and made one up


@dataclass(frozen=True, slots=True)
class Process:
    """`started` (at most 32 characters) tells the boot, the container and the moment in which `pid` was given out."""

    host: str
    pid: int
    started: str


def this_process() -> Process:
    """This process. After a fork it is the child."""
    return _identify(os.getpid())


def is_gone(host: str, pid: int, started: str) -> bool:
    """Whether that process certainly runs no more: it was on this host, in this boot and container, and its pid is
    free or someone else's. False whenever that cannot be known from here.
    """
    place, _, instant = started.partition("-")
    if host != socket.gethostname() or not place or place != _place() or pid <= 0:
        return False
    try:
        os.kill(pid, 0)  # sends nothing
    except ProcessLookupError:
        return True
    except OSError:  # it runs under another user
        pass
    now = _instant(pid)
    return bool(now and instant) and now != instant


@lru_cache(maxsize=1)
def _identify(pid: int) -> Process:
    place = _place()
    return Process(socket.gethostname(), pid, f"{place}-{_instant(pid)}" if place else "")


@lru_cache(maxsize=1)
def _place() -> str:
    """A short name of this boot and this process namespace: host names alone are shared by containers. Empty: unknown.

    Windows has none: signal 0 is Ctrl-C there, so a process cannot be asked for.
    """
    if os.name != "posix":
        return ""
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text().strip()
        text = f"{boot} {os.readlink(PROC / 'self/ns/pid')}"
    except OSError:
        node = uuid.getnode()
        text = "" if node & _RANDOM_NODE else f"{node:x}"
    return blake2s(text.encode(), digest_size=5).hexdigest() if text else ""


def _instant(pid: int) -> str:
    """When `pid` started, in the system's own terms; "ended" for a process that only waits to be reaped, "" unknown."""
    if not (PROC / "self/stat").exists():
        return _instant_by_ps(pid)
    try:
        # The name, in parentheses, may hold blanks and parentheses of its own.
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        # A zombie with threads left is a process whose main thread ended first: it still works.
        if fields[0] in "ZX" and len(os.listdir(PROC / str(pid) / "task")) <= 1:
            return "ended"
        return fields[19]
    except (OSError, IndexError):
        return ""


def _instant_by_ps(pid: int) -> str:
    """The same where there is no /proc (macOS, BSD), to the second."""
    command = ["ps", "-o", "stat=", "-o", "lstart=", "-p", str(pid)]
    try:
        shown = subprocess.run(
            command, capture_output=True, timeout=5, check=True, env={**os.environ, "LC_ALL": "C", "TZ": "UTC"}
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    state, _, instant = shown.stdout.decode("ascii", "replace").strip().partition(" ")
    if state.startswith("Z"):
        return "ended"
    return blake2s(" ".join(instant.split()).encode(), digest_size=8).hexdigest() if instant else ""
