"""Worker processes for tests: `manage.py workflow_worker` on the test's database, ended by their own pid."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from django.db import connection

ROOT = Path(__file__).parents[2]


class WorkerProcess:
    """A worker of its own. Leaving the block ends it with SIGTERM, and with SIGKILL if that takes too long."""

    def __init__(self, *arguments: str, log: Path, settings: str = "tests.settings") -> None:
        environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": settings,
            "WORKFLOW_TEST_DATABASE_NAME": str(connection.settings_dict["NAME"]),
            "PYTHONPATH": str(ROOT),
        }
        self._log = log.open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "django", "workflow_worker", *arguments],
            env=environment,
            stdout=self._log,
            stderr=self._log,
            cwd=ROOT,
        )
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self.stop()
        self._log.close()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """End it without warning."""
        self._process.kill()
        self._process.wait(10)

    def freeze(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def stop(self, timeout: float = 20) -> int:
        """Ask it to drain; its exit code."""
        self._process.terminate()
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise


def eventually(condition: Callable[[], bool], timeout: float = 30, every: float = 0.005) -> None:
    """Poll what another process writes. Fails the test when it does not come true in time."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"Not true within {timeout} s: {condition}")
        time.sleep(every)
