"""Limits as a destination sees them: real workers, real HTTP, dozens of messages."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Condition, Thread

import pytest
from django.utils import timezone

from django_workflow.engine import flow_control, queues
from django_workflow.engine.publishing import accept_all
from django_workflow.engine.writing import write
from django_workflow.models import Delivery, FlowKey, MessageLog, Worker
from django_workflow.protocol.publish import FlowControl, Message
from tests.engine.workers import WorkerProcess, eventually

ALIAS = "default"
PATIENCE = 60.0
CLOSE = 0.75
"""Seconds. Starts of one window of a second may arrive late on a busy machine, those of the next one do not so soon."""

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.heavy]

Behaviour = Callable[["Destination", str], int]
"""What the destination does with a request to a path: it may wait, and gives the answer's status."""


class Destination:
    """A server that counts what is in flight and notes when each request came."""

    def __init__(self, port: int) -> None:
        self.origin = f"http://127.0.0.1:{port}"
        self.changed = Condition()
        self.in_flight = 0
        self.most_in_flight = 0
        self.arrivals: list[tuple[float, str]] = []
        self.behaviour: Behaviour = lambda destination, path: 200

    def answer(self, path: str) -> int:
        with self.changed:
            self.arrivals.append((time.monotonic(), path))
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
            self.changed.notify_all()
        try:
            return self.behaviour(self, path)
        finally:
            with self.changed:
                self.in_flight -= 1
                self.changed.notify_all()

    def wait_for(self, condition: Callable[[Destination], bool], timeout: float = PATIENCE) -> bool:
        with self.changed:
            return self.changed.wait_for(lambda: condition(self), timeout)

    def starts(self, path: str) -> list[float]:
        """When the requests came whose path begins so."""
        with self.changed:
            return [at for at, found in self.arrivals if found.startswith(path)]

    def paths(self) -> list[str]:
        with self.changed:
            return [path for _, path in self.arrivals]


@pytest.fixture
def destination() -> Iterator[Destination]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(found.answer(self.path))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Not to the test's output."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

    with Server(("127.0.0.1", 0), Handler) as server:
        found = Destination(server.server_port)
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def workers(number: int, folder: Path, concurrency: int = 16) -> Iterator[None]:
    """Worker processes, all of them at work."""
    with ExitStack() as stack:
        for index in range(number):
            stack.enter_context(
                WorkerProcess(
                    f"--concurrency={concurrency}",
                    log=folder / f"worker-{index}.log",
                    settings="tests.engine.loopback_settings",
                )
            )
        eventually(lambda: Worker.objects.count() == number, PATIENCE)
        yield


def warm_up(destination: Destination, number: int) -> None:
    """Have each thread of the pools make a delivery at the same time, so that it has its connections."""
    before = destination.behaviour

    def hold(destination: Destination, path: str) -> int:
        destination.wait_for(lambda it: it.most_in_flight >= number)
        return 200

    destination.behaviour = hold
    # Twice as many: a worker may claim so many for its threads, and must leave as many for the other.
    publish([Message(destination=f"{destination.origin}/warm") for _ in range(number * 2)])
    eventually(all_are_delivered, PATIENCE)
    destination.behaviour = before
    with destination.changed:
        destination.arrivals.clear()
        destination.most_in_flight = 0


def publish(messages: Sequence[Message]) -> None:
    """All at once: they are due at the same instant."""
    write(ALIAS, lambda unit: accept_all(unit, messages))


def all_are_delivered() -> bool:
    return not MessageLog.objects.exclude(state=MessageLog.State.DELIVERED).exists()


def most_within(instants: Sequence[float], seconds: float) -> int:
    """The largest number of these instants in any stretch of time of that length."""
    ordered = sorted(instants)
    return max(sum(first <= at < first + seconds for at in ordered) for first in ordered)


def counts_of_windows(instants: Sequence[datetime], period: timedelta) -> list[int]:
    """How many instants each window has; the next one opens with the first instant after the last one ended."""
    counts: list[int] = []
    opened: datetime | None = None
    for at in sorted(instants):
        if opened is None or at >= opened + period:
            opened = at
            counts.append(0)
        counts[-1] += 1
    return counts


PROCESSES = [1, pytest.param(2, marks=pytest.mark.postgresql)]


@pytest.mark.parametrize("processes", PROCESSES)
def test_no_more_are_in_flight_than_the_parallelism_and_all_slots_are_used(
    destination: Destination, tmp_path: Path, processes: int
) -> None:
    def hold(destination: Destination, path: str) -> int:
        # Until all slots are used; then for long enough that one too many would be seen.
        destination.wait_for(lambda it: it.most_in_flight >= 5)
        destination.wait_for(lambda it: it.in_flight > 5, timeout=0.02)
        return 200

    destination.behaviour = hold
    limits = FlowControl(key="shop", parallelism=5)
    with workers(processes, tmp_path):
        publish([Message(destination=f"{destination.origin}/{n}", flow_control=limits) for n in range(100)])
        eventually(all_are_delivered, PATIENCE)
    assert destination.most_in_flight == 5
    assert sorted(destination.paths()) == sorted(f"/{n}" for n in range(100))
    assert flow_control.in_flight(ALIAS) == {}


@pytest.mark.parametrize("processes", PROCESSES)
def test_no_more_start_in_a_period_than_the_rate(destination: Destination, tmp_path: Path, processes: int) -> None:
    limits = FlowControl(key="shop", rate=10, period=1)
    with workers(processes, tmp_path):
        warm_up(destination, processes * 16)
        publish([Message(destination=f"{destination.origin}/{n}", flow_control=limits) for n in range(25)])
        eventually(all_are_delivered, PATIENCE)
    recorded = [log.active_at for log in MessageLog.objects.filter(flow_key="shop") if log.active_at is not None]
    assert max(counts_of_windows(recorded, timedelta(seconds=1))) == 10
    starts = destination.starts("/")
    assert len(starts) == 25
    assert most_within(starts, CLOSE) <= 10


def test_starts_that_a_busy_pool_makes_late_do_not_meet_those_of_the_next_period(
    destination: Destination, tmp_path: Path
) -> None:
    """A worker claims more than its threads can start at once; what waits behind them was counted in its window."""
    released = Condition()
    free = False

    def hold(destination: Destination, path: str) -> int:
        if path.startswith("/slow"):
            with released:
                released.wait_for(lambda: free, PATIENCE)
        return 200

    destination.behaviour = hold
    with workers(1, tmp_path, concurrency=4):
        publish([Message(destination=f"{destination.origin}/slow/{n}") for n in range(4)])
        assert destination.wait_for(lambda it: it.in_flight == 4)
        limits = FlowControl(key="shop", rate=5, period=1)
        publish([Message(destination=f"{destination.origin}/fast/{n}", flow_control=limits) for n in range(12)])
        late = timedelta(seconds=0.7)
        eventually(lambda: FlowKey.objects.filter(window_started_at__lte=timezone.now() - late).exists(), PATIENCE)
        with released:
            free = True
            released.notify_all()
        eventually(all_are_delivered, PATIENCE)
    starts = destination.starts("/fast")
    assert len(starts) == 12
    assert most_within(starts, CLOSE) <= 5


@pytest.mark.parametrize("processes", PROCESSES)
def test_a_queue_keeps_its_order_while_messages_fail_and_are_tried_again(
    destination: Destination, tmp_path: Path, processes: int
) -> None:
    def fail_some(destination: Destination, path: str) -> int:
        times = len([found for found in destination.paths() if found == path])
        return 500 if times <= int(path.rpartition("/")[2]) % 3 else 200

    destination.behaviour = fail_some
    with workers(processes, tmp_path):
        publish([Message(destination=f"{destination.origin}/{n}", queue="orders", retry_delay="20") for n in range(15)])
        eventually(all_are_delivered, PATIENCE)
    assert destination.paths() == [f"/{n}" for n in range(15) for _ in range(n % 3 + 1)]
    assert destination.most_in_flight == 1


def test_a_queue_starts_in_order_and_keeps_to_its_parallelism(destination: Destination, tmp_path: Path) -> None:
    def hold(destination: Destination, path: str) -> int:
        destination.wait_for(lambda it: it.most_in_flight >= 3)
        destination.wait_for(lambda it: it.in_flight > 3, timeout=0.02)
        return 200

    destination.behaviour = hold
    write(ALIAS, lambda unit: queues.upsert(unit, "orders", parallelism=3))
    with workers(1, tmp_path):
        publish([Message(destination=f"{destination.origin}/{n}", queue="orders") for n in range(60)])
        eventually(all_are_delivered, PATIENCE)
    assert destination.most_in_flight == 3
    numbers = [int(path[1:]) for path in destination.paths()]
    assert sorted(numbers) == list(range(60))
    # Those that start together may come in any order, and no others may come before them.
    assert all(abs(number - place) < 3 for place, number in enumerate(numbers))


def test_a_pause_strands_nothing_and_its_end_wakes_the_worker(destination: Destination, tmp_path: Path) -> None:
    limits = FlowControl(key="shop", parallelism=2)
    write(ALIAS, lambda unit: flow_control.pause(unit, "shop"))
    publish([Message(destination=f"{destination.origin}/{n}", flow_control=limits) for n in range(20)])
    with workers(1, tmp_path):
        publish([Message(destination=f"{destination.origin}/free")])
        assert destination.wait_for(lambda it: len(it.arrivals) == 1)
        assert Delivery.objects.filter(flow_key="shop", worker=None).count() == 20
        write(ALIAS, lambda unit: flow_control.resume(unit, "shop"))
        eventually(all_are_delivered, PATIENCE)
    assert destination.paths()[0] == "/free"
    assert len(destination.paths()) == 21
