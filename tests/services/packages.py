"""Installing what a Debian machine lacks. Standard library alone: it runs before the environment exists."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from glob import glob
from pathlib import Path

# What we look for (names on PATH, or patterns), and the Debian packages that bring it.
PROGRAMS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "postgresql": (("/usr/lib/postgresql/*/bin/postgres", "postgres"), ("postgresql",)),
    "mariadb": (("mariadbd", "/usr/sbin/mariadbd"), ("mariadb-server",)),
    "redis": (("redis-server",), ("redis-server",)),
    "chromium": (("chromium", "chromium-browser", "google-chrome"), ("chromium", "fonts-dejavu-core")),
    "node": (("node",), ("nodejs",)),
    "npm": (("npm",), ("npm",)),
}

POLICY = Path("/usr/sbin/policy-rc.d")


def find(name: str) -> Path | None:
    """The path of a program of `PROGRAMS`; of several versions the newest."""
    for pattern in PROGRAMS[name][0]:
        if "/" in pattern:
            matches = sorted(glob(pattern), key=_versions)
            if matches:
                return Path(matches[-1])
        elif path := shutil.which(pattern):
            return Path(path)
    return None


def _versions(path: str) -> list[int]:
    return [int(part) for part in Path(path).parts if part.isdigit()]


def install(names: Iterable[str]) -> dict[str, str]:
    """Bring the programs that are missing. Returns the reason for each that still is."""
    missing = [name for name in names if find(name) is None]
    if not missing:
        return {}
    reason = _why_not()
    if reason is None:
        reason = apt_install([package for name in missing for package in PROGRAMS[name][1]])
    return {name: reason or "apt-get installed it without the program" for name in missing if find(name) is None}


def apt_install(packages: list[str]) -> str | None:
    """Install Debian packages; returns why that failed, or None. Services they bring are not started."""
    if reason := _why_not():
        return reason
    print(f"Installing {', '.join(packages)}", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    commands = (
        ["apt-get", "update", "-qq"],
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages],
    )
    with _no_service_starts():
        for command in commands:
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            if done.returncode:
                # A failed update may still leave lists that are good enough to install from.
                lines = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
                reason = f"{' '.join(command[:2])}: {lines[-1]}"
                if command[1] == "install":
                    return reason
                print(reason, flush=True)
    return None


def _why_not() -> str | None:
    if shutil.which("apt-get") is None:
        return "it is not installed, and this machine has no apt-get"
    if os.geteuid() != 0:
        return "it is not installed, and only root may use apt-get"
    return None


@contextmanager
def _no_service_starts() -> Iterator[None]:
    """Debian starts a service when it installs it, unless this file says no. The tests start their own."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink(missing_ok=True)
