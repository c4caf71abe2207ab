"""The edges whose engine is not in this project: a strict stub of the hosted service, and an engine in a process apart.

Both are used as a project uses the hosted engine: the settings say `engine = "qstash"` with its URL, token and keys.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import threading
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from wsgiref.types import StartResponse

import httpx

from django_workflow.apps import make_transport
from django_workflow.client.transports import HttpTransport, current_transport, use_transport
from django_workflow.conf import get_settings
from django_workflow.engine.clock import use_clock
from django_workflow.engine.network import HttpAnswer
from django_workflow.mirror import backfill, outbox, schedules
from django_workflow.mirror.transport import network_of
from django_workflow.models import Run, Waiter
from django_workflow.testing import WorkflowClock
from django_workflow.testing.calls import Call, CallAnswer, CallRecorder, current_network
from tests.hosted_stub import Answer, HostedStub, HttpRequest, NoAnswer
from tests.hosted_stub.wsgi import application
from tests.scenarios.edges import SITE, Engine, web_process
from tests.scenarios.http_server import OUTSIDE, Server, ThreadedServer, django_application

ROOT = Path(__file__).parents[2]


class Hosted(Engine):
    """What the two have in common: the site's own worker, which sends what its outbox holds."""

    hosted = True
    many_branches = 20
    kept_event = Waiter.State.RESOLVED  # the engine does not say since when it had the event

    def run(self, *, skip_delays: bool = False, declare_schedules: bool = False) -> int:
        if declare_schedules:
            schedules.reconcile(current_transport())
        made = 0
        while True:
            sent = self.work()
            more = self.run_engine(skip_delays=skip_delays)
            made += more
            if not sent and not more:
                return made

    def work(self) -> int:
        """What the site's own worker does: send what is due in the outbox, and ask about runs that are silent for
        long. How many messages and rows came to something."""
        transport = current_transport()
        return outbox.send_due(network_of(transport)) + backfill.check_due(transport).changed

    @abstractmethod
    def run_engine(self, *, skip_delays: bool) -> int: ...

    def calls_of_group(self, branches: int) -> int:
        return 2 * branches  # each branch, and each result; the last result goes on

    def ask(self, path: str) -> Any:
        """What the engine's API answers to a GET."""
        settings = get_settings()
        with httpx.Client(trust_env=False) as client:
            answer = client.get(settings.qstash_url + path, headers={"Authorization": f"Bearer {settings.token}"})
        return answer.raise_for_status().json()

    @contextmanager
    def site_on_network(self, settings: Any) -> Iterator[CallRecorder]:
        yield CallRecorder(CallAnswer())  # it is there already

    def visit(self, method: str, url: str, body: bytes) -> int:
        with httpx.Client(trust_env=False) as client:
            return client.request(method, url, content=body, headers={"Content-Type": "text/plain"}).status_code

    def rate(self, key: str) -> int:
        return int(self.ask(f"/v2/flowControl/{key}")["rateMax"])


def close(transport: Any) -> None:
    """Close the connections of a transport that has some."""
    network = network_of(transport)
    if isinstance(network, HttpTransport):
        network.close()


class MovedClock(WorkflowClock):
    """Tells somebody when it was moved."""

    def __init__(self, start: datetime, moved: Callable[[datetime], None]) -> None:
        super().__init__(start)
        self._moved = moved

    def advance(self, by: timedelta | float | str) -> datetime:
        self._moved(super().advance(by))
        return self._now

    def move_to(self, instant: datetime) -> datetime:
        self._moved(super().move_to(instant))
        return self._now


def settings_of(url: str, token: str, current: str, following: str, site: str) -> dict[str, Any]:
    return {
        "engine": "qstash",
        "qstash_url": url,
        "token": token,
        "current_signing_key": current,
        "next_signing_key": following,
        "base_url": site,
    }


@contextmanager
def configured(settings: Any, **values: Any) -> Iterator[None]:
    settings.DJANGO_WORKFLOW = {**settings.DJANGO_WORKFLOW, **values}
    use_transport(make_transport)
    try:
        yield
    finally:
        close(current_transport())
        use_transport(make_transport)


# The stub


class StubServer:
    """The stub behind a socket: a project's client speaks HTTP with it."""

    def __init__(self) -> None:
        self.stub: HostedStub | None = None
        self._server = ThreadedServer(self._answer)
        self.url = self._server.origin + "/qstash"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _answer(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        assert self.stub is not None
        return application(self.stub)(environ, start_response)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Stub(Hosted):
    name = "stub"

    def __init__(self, clock: WorkflowClock, url: str) -> None:
        self.clock = clock
        self.service = HostedStub(to_site, lambda: clock.now().timestamp(), url=url)

    def run_engine(self, *, skip_delays: bool) -> int:
        made = self.service.run_due()
        while skip_delays and (due := self.service.next_due_at()) is not None:
            instant = datetime.fromtimestamp(due, UTC)
            if instant.timestamp() < due:  # the service counts in smaller parts of seconds
                instant += timedelta(microseconds=1)
            self.clock.move_to(max(instant, self.clock.now()))
            made += self.service.run_due()
        return made

    def plans(self, run: Run) -> int:
        groups = self.service.state_of(run.run_id)["steps"]
        return sum(len(group["steps"]) for group in groups if group["type"] == "parallel")

    def left(self) -> int:
        return sum(message.state == "pending" for message in self.service.messages)


def to_site(request: HttpRequest, timeout: float) -> Answer:
    """The network of the stub: this site by Django's test client, everything else by the test's own answers."""
    if not request.target.startswith(SITE + "/"):
        return outside(request, timeout)
    found = web_process(Call(request.method, request.target, dict(request.headers), request.body))
    return Answer(found.status, {name: [value] for name, value in found.headers.items()}, found.body)


def outside(request: HttpRequest, timeout: float) -> Answer:
    """Raises NoAnswer when the test says that there is none."""
    found: HttpAnswer = current_network[-1].send(
        request.method, request.target, dict(request.headers), request.body, timeout, guarded=True
    )
    if not found.status:
        raise NoAnswer(found.error or found.body.decode())
    return Answer(found.status, found.headers, found.body)


@contextmanager
def stub(server: StubServer, settings: Any) -> Iterator[Stub]:
    clock = WorkflowClock()
    engine = Stub(clock, server.url)
    service = server.stub = engine.service
    keys = service.keys
    with (
        use_clock(clock),
        configured(settings, **settings_of(server.url, service.token, keys.current, keys.next, SITE)),
    ):
        yield engine
    service.check_no_faults()


# The process apart


class EngineApart:
    """`tests.scenarios.engine_process`, and the server of this site, which answers while the engine works."""

    def __init__(self, log: Path) -> None:
        self._log = log.open("ab")
        self.site = Server(self._answer)
        self._django = django_application()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.scenarios.engine_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, "WORKFLOW_TEST_DATABASE": "sqlite", "PYTHONPATH": str(ROOT)},
            cwd=ROOT,
        )
        self._selector = selectors.DefaultSelector()
        assert self._process.stdout is not None
        self._selector.register(self._process.stdout, selectors.EVENT_READ, self._read_line)
        self._selector.register(self.site, selectors.EVENT_READ, self._serve)
        self._line = b""
        self._answers: list[dict[str, Any]] = []
        self.credentials = self._wait()

    def do(self, command: str, **values: Any) -> dict[str, Any]:
        """Have the engine do something, and serve this site meanwhile. Its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": command, **values}).encode() + b"\n")
        self._process.stdin.flush()
        answer = self._wait()
        if "error" in answer:
            raise AssertionError(f"The engine's process failed to {command}:\n{answer['error']}")
        return answer

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(20)
        finally:
            self._process.stdout.close()
            self._selector.close()
            self.site.server_close()
            self._log.close()

    def _wait(self) -> dict[str, Any]:
        while not self._answers:
            for key, _ in self._selector.select():
                key.data()
        return self._answers.pop(0)

    def _read_line(self) -> None:
        assert self._process.stdout is not None
        read = os.read(self._process.stdout.fileno(), 65536)
        if not read:
            raise AssertionError(f"The engine's process has ended; see {self._log.name}.")
        *lines, self._line = (self._line + read).split(b"\n")
        self._answers += [json.loads(line) for line in lines]

    def _serve(self) -> None:
        self.site.handle_request()

    def _answer(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        url = next((value for name, value in environ["tests.headers"] if name == OUTSIDE), None)
        if url is None:
            return self._django(environ, start_response)
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        own = {"host", "content-length", "connection", "accept-encoding", OUTSIDE.lower()}
        headers = tuple((name, value) for name, value in environ["tests.headers"] if name.lower() not in own)
        try:
            found = outside(HttpRequest(environ["REQUEST_METHOD"], url, headers, body), 10)
        except NoAnswer as error:
            found = Answer(502, {OUTSIDE: [str(error)]}, str(error).encode())
        pairs = [(name, value) for name, values in found.headers.items() for value in values]
        start_response(f"{found.status} -", [*pairs, ("Content-Length", str(len(found.body)))])
        return [found.body]


class Apart(Hosted):
    name = "apart"
    tells_attempts_of_calls = False  # one callback for each call spares the site the others

    def __init__(self, clock: WorkflowClock, process: EngineApart) -> None:
        self.clock = clock
        self.process = process

    def run_engine(self, *, skip_delays: bool) -> int:
        answer = self.process.do("run", skip_delays=skip_delays)
        self.clock._now = max(self.clock.now(), datetime.fromtimestamp(answer["now"], UTC))
        return int(answer["made"])

    def plans(self, run: Run) -> int:
        return int(self.process.do("plans", run_id=run.run_id)["plans"])

    def left(self) -> int:
        return int(self.process.do("left")["left"])


@contextmanager
def apart(process: EngineApart, settings: Any) -> Iterator[Apart]:
    start = datetime.now(UTC).replace(microsecond=0)
    process.do("reset", now=start.timestamp(), site=process.site.origin)
    clock = MovedClock(start, lambda now: process.do("clock", now=now.timestamp()) and None)
    told = process.credentials
    values = settings_of(told["url"], told["token"], told["current"], told["next"], process.site.origin)
    with use_clock(clock), configured(settings, **values):
        yield Apart(clock, process)
