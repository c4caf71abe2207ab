"""A web server that the engine delivers to: it answers as a test says, and remembers what came."""

from __future__ import annotations

import base64
import json
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

WAIT_SECONDS = 30


@dataclass(frozen=True)
class Received:
    """One request. Header names are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def signature(self) -> str:
        return self.headers["upstash-signature"]


@dataclass(frozen=True)
class Answer:
    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})
    held_until: threading.Event | None = None


def decoded(text: str) -> Any:
    """A body as callbacks carry it: JSON in base64."""
    return json.loads(base64.b64decode(text))


class Destination:
    """One server for all tests; each takes a `Box` of it, which is a path of its own."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.changed = threading.Condition()
        self.received: dict[str, list[Received]] = defaultdict(list)
        self.answers: dict[str, list[Answer]] = {}

    def take(self, received: Received) -> Answer:
        """Remember a request; the next of the path's answers, of which the last one stays."""
        name = received.path.split("?")[0]
        with self.changed:
            self.received[name].append(received)
            self.changed.notify_all()
            answers = self.answers.get(name) or [Answer()]
            return answers.pop(0) if len(answers) > 1 else answers[0]


@dataclass(frozen=True)
class Box:
    destination: Destination
    path: str

    @property
    def url(self) -> str:
        return self.destination.origin + self.path

    def beside(self, name: str) -> Box:
        """Another path of the same test."""
        return Box(self.destination, f"{self.path}-{name}")

    def answers(self, *answers: Answer) -> None:
        """What to answer, one after the other; the last one from then on. Without it: 200 and `{}`."""
        self.destination.answers[self.path] = list(answers)

    @property
    def received(self) -> list[Received]:
        with self.destination.changed:
            return list(self.destination.received[self.path])

    def wait(self, count: int = 1) -> list[Received]:
        """Everything that came, as soon as it is so many requests. Fails the test when they do not come in time."""
        received = self.destination.received
        with self.destination.changed:
            if not self.destination.changed.wait_for(lambda: len(received[self.path]) >= count, WAIT_SECONDS):
                raise AssertionError(f"{self.path} got {len(received[self.path])} of {count} requests.")
            return list(received[self.path])

    def one(self) -> Received:
        return self.wait()[0]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    destination: Destination

    def _take(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = self.destination.take(Received(self.command, self.path, headers, body))
        if answer.held_until is not None:
            answer.held_until.wait(WAIT_SECONDS)
        # Who waited too long for a held answer is gone by now.
        with suppress(ConnectionError):
            self._answer(answer)

    def _answer(self, answer: Answer) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _take

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing: what came stands in the destination."""


@contextmanager
def destination_server() -> Iterator[Destination]:
    class Handler(_Handler):
        pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        Handler.destination = Destination(f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield Handler.destination
        finally:
            server.shutdown()
            thread.join()
