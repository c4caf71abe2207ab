"""W4: 500 WebSockets that follow one run, in one server process: `python -m tests.benchmarks.sockets`.

The run emits events by and by, each with the instant of its emission; measured is when the last socket has it. With
the layer in memory the worker runs in the server's process, with Redis pub/sub in this one, beside the sockets.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import django
import websockets
from asgiref.sync import sync_to_async

from tests.benchmarks.workloads import database, percentile, row, spread, worker

LAYER = os.environ.get("BENCH_LAYER", "memory")
SOCKETS, EVENTS, WARM_UP = 500, 40, 5
OPENED_AT_ONCE = 25
LONGEST_SECONDS = 120


@contextmanager
def server() -> Iterator[tuple[int, int]]:
    """One uvicorn process; its port and its pid."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "tests.asgi:application", "--port", str(port), "--log-level", "warning"]
    environment = {**os.environ, "BENCH_WORKER": "1" if LAYER == "memory" else ""}
    process = subprocess.Popen([*command, "--timeout-graceful-shutdown", "2"], env=environment)
    try:
        _wait_for(port, process)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait(30)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError("The server did not start.")


def memory(pid: int) -> int:
    """Resident memory of a process, in KiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS:")).split()[1])


class Arrivals:
    """How long after its emission each event came, by its number: one entry for each socket."""

    def __init__(self) -> None:
        self.ages: dict[int, list[float]] = defaultdict(list)
        self.complete = asyncio.Event()

    def note(self, data: dict[str, Any]) -> None:
        ages = self.ages[data["n"]]
        ages.append(time.monotonic() - data["at"])
        if data["n"] == EVENTS - 1 and len(ages) == SOCKETS:
            self.complete.set()


async def follow(url: str, run_id: str, token: str, arrivals: Arrivals, ready: asyncio.Semaphore) -> None:
    async with ready:
        connection = await websockets.connect(url, compression=None, open_timeout=60, ping_interval=None)
        await connection.send(json.dumps({"type": "subscribe", "channels": {run_id: "$"}, "token": token}))
        assert json.loads(await connection.recv())["type"] == "connected"
    followers.append(asyncio.create_task(_hear(connection, arrivals)))


followers: list[asyncio.Task[None]] = []


async def _hear(connection: Any, arrivals: Arrivals) -> None:
    async for text in connection:
        message = json.loads(text)
        if message.get("event") == "tick":
            arrivals.note(message["data"])


async def w4(port: int, pid: int) -> None:
    from django_workflow import get_client
    from django_workflow.realtime.access import make_token
    from tests.benchmarks.workflows import ticks

    handle = await ticks.atrigger(EVENTS)
    url = f"ws://127.0.0.1:{port}/workflows/realtime/ws/"
    arrivals, ready = Arrivals(), asyncio.Semaphore(OPENED_AT_ONCE)
    token = make_token([handle.id])
    # What the first connection makes the server import is not the sockets'.
    async with await websockets.connect(url, compression=None) as first:
        await first.send(json.dumps({"type": "subscribe", "channels": {handle.id: "$"}, "token": token}))
        await first.recv()
    before, started = memory(pid), time.monotonic()
    await asyncio.gather(*(follow(url, handle.id, token, arrivals, ready) for _ in range(SOCKETS)))
    row("W4 opening 500 sockets", time.monotonic() - started, "s")
    row("W4 memory per socket", (memory(pid) - before) / SOCKETS, "KiB")
    while not await sync_to_async(get_client().waiters)("bench-go"):
        await asyncio.sleep(0.05)
    await sync_to_async(get_client().notify)("bench-go", True)
    async with asyncio.timeout(LONGEST_SECONDS):
        await arrivals.complete.wait()
    counted = [arrivals.ages[number] for number in range(WARM_UP, EVENTS)]
    assert all(len(ages) == SOCKETS for ages in counted)
    last = [max(ages) * 1000 for ages in counted]
    first_ms = [min(ages) * 1000 for ages in counted]
    row("W4 emit to the first of 500 sockets, p50", percentile(first_ms, 0.5), "ms", spread=spread(first_ms))
    row("W4 emit to the last of 500 sockets, p50", percentile(last, 0.5), "ms", spread=spread(last))
    row("W4 emit to the last of 500 sockets, p95", percentile(last, 0.95), "ms")
    for task in followers:
        task.cancel()


def main() -> None:
    django.setup()
    with database(), server() as (port, pid), nullcontext() if LAYER == "memory" else worker():
        asyncio.run(w4(port, pid))


if __name__ == "__main__":
    main()
