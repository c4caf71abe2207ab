"""What is asked for in a worker's own process (start runs, tell events): its committer writes it with all the rest.

`transport` asks here; who asks goes on when the transaction is committed. A second writer beside the committer would
cost a commit of its own and, on SQLite, its turn at the write lock; and calls that the worker writes itself are leased
to it at once. Whatever is not as usual (a transaction of the caller's, limits, a refusal) goes the caller's own way.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from threading import Event
from typing import Any, Protocol

from asgiref.sync import SyncToAsync, sync_to_async
from django.db import connections

from django_workflow.protocol import headers as h
from django_workflow.protocol.identifiers import LONGEST_RUN_ID
from django_workflow.protocol.publish import Message
from django_workflow.protocol.requests import Batch, EngineRequest, Notify

LOOK_AGAIN = 1.0
"""Seconds after which somebody who waits looks whether the committer still lives."""


class Asked:
    """A request on its way to a committer and back. `answer` None: nothing was written, and who asked has to do it."""

    def __init__(self, request: Batch | Notify) -> None:
        self.request = request
        self.answer: Any = None
        self._settled = Event()
        self._told: asyncio.Future[None] | None = None

    @property
    def is_settled(self) -> bool:
        return self._settled.is_set()

    def hand_back(self) -> None:
        """Nothing of it was written."""
        self.answer = None
        settle_all([self])

    def wait(self, is_alive: Callable[[], bool]) -> Any:
        while not self._settled.wait(LOOK_AGAIN):
            if not is_alive():
                return None  # nobody knows what became of it
        return self.answer

    async def await_(self, is_alive: Callable[[], bool]) -> Any:
        """The same without a thread that waits."""
        self._told = told = asyncio.get_running_loop().create_future()
        while not self._settled.is_set():
            await asyncio.wait((told,), timeout=LOOK_AGAIN)
            if not told.done() and not is_alive():
                return None
        return self.answer


def settle_all(asked: Iterable[Asked]) -> None:
    """What their answers say is committed. A loop is told of all at once: each time may cost this thread its turn."""
    told: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
    for one in asked:
        one._settled.set()
        if one._told is not None:
            told.setdefault(one._told.get_loop(), []).append(one._told)
    for loop, futures in told.items():
        with suppress(RuntimeError):  # it is closed: whoever asked was cancelled
            loop.call_soon_threadsafe(_tell, futures)


def _tell(futures: list[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)


class Writer(Protocol):
    """A worker that writes for others of its process."""

    def accept(self, asked: Asked) -> bool:
        """Take a request over; False when it cannot just now."""

    @property
    def accepts(self) -> bool:
        """Whether what it has accepted is going to be settled."""


_writers: dict[str, Writer] = {}

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_writers.clear)  # a child has none of its parent's workers


def offer(alias: str, writer: Writer) -> None:
    _writers[alias] = writer


def withdraw(alias: str, writer: Writer) -> None:
    if _writers.get(alias) is writer:
        del _writers[alias]


def is_offered(alias: str) -> bool:
    """Whether a worker of this process writes for others."""
    return alias in _writers


def ask(alias: str, request: EngineRequest[Any]) -> tuple[Asked, Callable[[], bool]] | None:
    """Have this process's worker do this; what to wait for, and whether that can still come. None: nobody takes it.

    A request that is repeated does no harm: run ids are in use then, and waits have their event.
    """
    writer = _writers.get(alias)
    if writer is None or not isinstance(request, Batch | Notify) or not _is_usual(request):
        return None
    connection = connections[alias]
    if connection.in_atomic_block or (connection.connection is not None and not connection.get_autocommit()):
        return None
    asked = Asked(request)
    return (asked, lambda: writer.accepts) if writer.accept(asked) else None


class _Gathered:
    """Requests of one event loop that are put to a worker together."""

    def __init__(self, alias: str) -> None:
        self.alias = alias
        self.requests: list[EngineRequest[Any]] = []
        self.task: asyncio.Task[list[tuple[Asked, Callable[[], bool]] | None]] | None = None

    def ask(self) -> list[tuple[Asked, Callable[[], bool]] | None]:
        return [ask(self.alias, request) for request in self.requests]


_gathered: dict[tuple[str, asyncio.AbstractEventLoop, object], _Gathered] = {}


async def aask(alias: str, request: EngineRequest[Any]) -> Any:
    """Have this process's worker do this; the answer when it is committed. None: nothing was written.

    Whether it belongs to a transaction only the thread can tell that asgiref gives this context. The way there costs
    more than the rest, so all that a loop asks for in one turn goes together.
    """
    loop = asyncio.get_running_loop()
    key = (alias, loop, SyncToAsync.thread_sensitive_context.get(None))
    group = _gathered.get(key) or _gathered.setdefault(key, _Gathered(alias))
    place = len(group.requests)
    group.requests.append(request)
    if group.task is None:
        group.task = loop.create_task(_ask_together(key))
    found = (await asyncio.shield(group.task))[place]  # one that is cancelled takes no other with it
    return None if found is None else await found[0].await_(found[1])


async def _ask_together(
    key: tuple[str, asyncio.AbstractEventLoop, object],
) -> list[tuple[Asked, Callable[[], bool]] | None]:
    return await sync_to_async(_gathered.pop(key).ask)()


def _is_usual(request: Batch | Notify) -> bool:
    if isinstance(request, Notify):
        return request.run_id is None and request.deduplication_id is None
    return starts_runs(request)


def starts_runs(request: Batch) -> bool:
    """Whether all that it asks for is to start runs, without limits or anything else that has to be looked at."""
    return all(map(_starts_a_run, request.messages))


def _starts_a_run(message: Message) -> bool:
    fields = message.workflow
    return (
        fields is not None
        and fields.init
        and not fields.invoke
        and not fields.trigger_by_sdk
        and message.flow_control is None
        and len(fields.run_id) <= LONGEST_RUN_ID
        and h.SCHEDULE_ID not in message.headers
    )
