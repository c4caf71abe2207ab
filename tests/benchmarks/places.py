"""Where a part runs: a database of its own, and the processes that work and serve beside this one.

Each is a context manager that leaves nothing behind. Variables of the environment say the rest: BENCH_DATABASE (sqlite
or postgresql), BENCH_SERVER (granian, uvicorn, daphne, or empty: deliveries in process), BENCH_WORKERS (processes of
their own; empty: one worker inside this process).
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import django
from django.core.management import call_command
from django.db import connections

LONGEST_SECONDS = 200
POSTGRESQL = os.environ.get("BENCH_DATABASE") == "postgresql"


@contextmanager
def database() -> Iterator[None]:
    """An empty database with the app's tables, dropped at the end, also when this process is told to stop."""
    from django.conf import settings

    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    name = settings.DATABASES["default"]["NAME"]
    try:
        if POSTGRESQL:
            _on_the_server(f'CREATE DATABASE "{name}"')
        call_command("migrate", verbosity=0)
        yield
    finally:
        connections.close_all()
        if POSTGRESQL:
            _on_the_server(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


def _on_the_server(statement: str) -> None:
    import psycopg

    with psycopg.connect(os.environ["WORKFLOW_TEST_POSTGRESQL_URL"], autocommit=True) as connection:
        connection.execute(statement)


@contextmanager
def process(*command: str, **environment: str) -> Iterator[int]:
    """A process beside this one; its pid."""
    running = subprocess.Popen([sys.executable, "-m", *command], env={**os.environ, **environment})
    try:
        yield running.pid
    finally:
        running.terminate()
        try:
            running.wait(30)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


SERVERS: dict[str, Callable[[str], tuple[str, ...]]] = {
    "granian": lambda port: (
        *("granian", "--interface", "wsgi", "--host", "127.0.0.1", "--port", port, "--workers", "1"),
        *("--blocking-threads", "4", "--log-level", "warning", "tests.benchmarks.site:wsgi"),
    ),
    "uvicorn": lambda port: (
        *("uvicorn", "tests.benchmarks.site:asgi", "--port", port, "--log-level", "warning", "--no-access-log"),
        *("--timeout-graceful-shutdown", "2"),
    ),
    "daphne": lambda port: (
        *("daphne", "-b", "127.0.0.1", "-p", port, "-v", "0", "--access-log", os.devnull),
        "tests.benchmarks.site:asgi",
    ),
}


@contextmanager
def server(name: str, port: int, **environment: str) -> Iterator[int]:
    """One web process on the port; its pid."""
    with process(*SERVERS[name](str(port)), **environment) as pid:
        wait_for(lambda: _connects(port), f"{name} on port {port}")
        yield pid


def _connects(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_for(true: Callable[[], bool], what: str, pause: float = 0.05) -> None:
    deadline = time.monotonic() + LONGEST_SECONDS
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {LONGEST_SECONDS} s.")
        time.sleep(pause)


@dataclass(slots=True)
class Place:
    """What a workload finds. `worker` is the one of this process, if it has one."""

    worker: object | None = None
    pids: list[int] = field(default_factory=list)
    """The processes beside this one."""


@contextmanager
def place() -> Iterator[Place]:
    """The database, the web process and the workers that the environment asks for, up and running."""
    with ExitStack() as stack:
        found = Place()
        name = os.environ.get("BENCH_SERVER")
        port = free_port()
        if name:  # before the settings are read
            os.environ["BENCH_BASE_URL"] = f"http://127.0.0.1:{port}"
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.benchmarks.settings")
        django.setup()
        stack.enter_context(database())
        if name:
            found.pids.append(stack.enter_context(server(name, port)))
        if workers := int(os.environ.get("BENCH_WORKERS") or 0):
            found.pids += [stack.enter_context(process("django", "workflow_worker")) for _ in range(workers)]
            _wait_for_workers(workers)
        else:
            found.worker = stack.enter_context(worker())
        yield found


def _wait_for_workers(count: int) -> None:
    from django_workflow.models import Worker

    wait_for(lambda: Worker.objects.count() == count, f"{count} workers")


@contextmanager
def worker() -> Iterator[object]:
    """A worker inside this process."""
    from django_workflow.engine.worker import Worker

    running = Worker()
    running.start()
    gc.collect()
    gc.freeze()  # as `workflow_worker` does
    try:
        yield running
    finally:
        running.drain()
