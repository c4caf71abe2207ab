"""500 WebSockets that follow one run, in one server process: `python -m tests.benchmarks.sockets`.

The run emits events by and by, each with the instant of its emission; measured is when the last socket has it. With
the layer in memory the worker runs in the server's process, with Redis pub/sub in this one, beside the sockets.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import defaultdict
from contextlib import nullcontext
from typing import Any

import django
import websockets
from asgiref.sync import sync_to_async

from tests.benchmarks.figures import memory, percentile, row, spread
from tests.benchmarks.places import database, free_port, server, worker

LAYER = os.environ.get("BENCH_LAYER", "memory")
SOCKETS, EVENTS, WARM_UP = 500, 40, 5
OPENED_AT_ONCE = 25
LONGEST_SECONDS = 120


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


async def fan_out(port: int, pid: int) -> None:
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
    row("Opening 500 sockets", time.monotonic() - started, "s")
    row("Memory per socket", (memory(pid) - before) / SOCKETS, "KiB")
    while not await sync_to_async(get_client().waiters)("bench-go"):
        await asyncio.sleep(0.05)
    await sync_to_async(get_client().notify)("bench-go", True)
    async with asyncio.timeout(LONGEST_SECONDS):
        await arrivals.complete.wait()
    counted = [arrivals.ages[number] for number in range(WARM_UP, EVENTS)]
    assert all(len(ages) == SOCKETS for ages in counted)
    last = [max(ages) * 1000 for ages in counted]
    first_ms = [min(ages) * 1000 for ages in counted]
    row("Emit to the first of 500 sockets, p50", percentile(first_ms, 0.5), "ms", spread=spread(first_ms))
    row("Emit to the last of 500 sockets, p50", percentile(last, 0.5), "ms", spread=spread(last))
    row("Emit to the last of 500 sockets, p95", percentile(last, 0.95), "ms")
    for task in followers:
        task.cancel()


def main() -> None:
    django.setup()
    port, in_server = free_port(), LAYER == "memory"
    with (
        database(),
        server("uvicorn", port, BENCH_WORKER="1" if in_server else "") as pid,
        nullcontext() if in_server else worker(),
    ):
        asyncio.run(fan_out(port, pid))


if __name__ == "__main__":
    main()
