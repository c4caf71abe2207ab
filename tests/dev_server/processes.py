"""Development servers for tests: processes of their own, and a server for what they deliver."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Condition, Event, Thread
from types import TracebackType
from typing import Any, Self

import httpx

ROOT = Path(__file__).parents[2]
MODULE = [sys.executable, "-m", "django_workflow.dev_server"]
READY = re.compile(r"runn+ing( at|\.)", re.IGNORECASE)
"""What SDKs look for. Source: qstash-js, src/dev-server/process.ts."""


class DevServerProcess:
    """A development server. Leaving the block ends it with SIGTERM, and kills it if that takes too long.

    `temporary` is its folder for temporary files. A test's own environment does not reach it.
    """

    def __init__(
        self,
        *arguments: str,
        temporary: Path,
        command: Sequence[str] = MODULE,
        environment: dict[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("QSTASH_", "DJANGO_", "WORKFLOW_TEST_"))
        }
        self._process = subprocess.Popen(
            [*command, *arguments],
            env={**inherited, "PYTHONPATH": str(ROOT), "TMPDIR": str(temporary), **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            bufsize=1,
            cwd=cwd or temporary,
            start_new_session=True,  # its process group is named by its pid
        )
        self.pid = self._process.pid
        self.lines: list[str] = []
        self._changed = Condition()
        self._ended = False
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._process.poll() is None:
                self.end()
        finally:
            self._reader.join(5)
            if self._process.stdout is not None:
                self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def line(self, pattern: str | re.Pattern[str], timeout: float = 30) -> str:
        """The first line of its output that has the pattern, as soon as it is there."""

        def find() -> str | None:
            return next((line for line in self.lines if re.search(pattern, line)), None)

        with self._changed:
            self._changed.wait_for(lambda: find() is not None or self._ended, timeout)
            found = find()
        assert found is not None, f"No line has {pattern!r} in:\n{self.output}"
        return found

    def ready(self) -> Self:
        """Wait until it is up."""
        self.line(READY)
        self.line("^Stop")
        return self

    @property
    def variables(self) -> dict[str, str]:
        """The lines NAME=value of its output."""
        return dict(re.findall(r"^(QSTASH_\w+)=(\S+)$", self.output, re.MULTILINE))

    @property
    def url(self) -> str:
        return self.variables["QSTASH_URL"]

    @property
    def port(self) -> int:
        return httpx.URL(self.url).port or 0

    def call(self, method: str, path: str, **options: Any) -> httpx.Response:
        """A call of its API with the token that it printed."""
        headers = {"Authorization": f"Bearer {self.variables['QSTASH_TOKEN']}", **options.pop("headers", {})}
        # Not httpx's URL of a joined string: a destination stands raw in the path.
        return httpx.request(method, self.url + path, headers=headers, timeout=30, **options)

    def end(self, number: int = signal.SIGTERM, timeout: float = 10) -> int:
        """Send it a signal; its exit code."""
        self._process.send_signal(number)
        return self.wait(timeout)

    def wait(self, timeout: float = 30) -> int:
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
            raise
        self._reader.join(5)
        return code

    @property
    def left_behind(self) -> bool:
        """Whether a process of its group still runs."""
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            return False
        return True


@dataclass(frozen=True)
class Received:
    """A delivery as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Destination(ThreadingHTTPServer):
    """Takes deliveries: `received` gives the next one. Answers 200, or what `statuses` has left; waits for `open`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.statuses: list[int] = []
        self.open = Event()
        self.open.set()
        self._deliveries: queue.SimpleQueue[Received] = queue.SimpleQueue()

    def received(self, timeout: float = 30) -> Received:
        return self._deliveries.get(timeout=timeout)

    def take(self, delivery: Received) -> int:
        self._deliveries.put(delivery)
        self.open.wait(30)
        return self.statuses.pop(0) if self.statuses else 200


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        assert isinstance(self.server, Destination)
        status = self.server.take(Received(self.command, self.path, dict(self.headers), body))
        try:
            self.send_response(status)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")
        except OSError:  # the server has gone meanwhile
            self.close_connection = True

    do_GET = do_POST = do_PUT = _answer

    def log_message(self, *args: Any) -> None:
        """Nothing: tests look at what was received."""


@contextmanager
def destination_server() -> Iterator[Destination]:
    with Destination() as server:
        thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.open.set()
            server.shutdown()
            thread.join(5)
