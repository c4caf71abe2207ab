"""A transport that keeps what it is sent, and answers from a script."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar, cast

from django_workflow.errors import EngineError
from django_workflow.protocol.publish import Message
from django_workflow.protocol.requests import (
    Batch,
    CancelRuns,
    EngineRequest,
    FetchRun,
    GetWaiters,
    Notify,
    Publish,
    Published,
)
from django_workflow.protocol.steps import JournalMessage, Step

R = TypeVar("R")


class RecordingTransport:
    """`sent` holds the requests in order. `refuse_with` is raised for the next request that writes."""

    def __init__(self) -> None:
        self.sent: list[EngineRequest[Any]] = []
        self.answers: dict[type, Callable[[Any], Any]] = {}
        self.journal: tuple[JournalMessage, ...] | EngineError = ()
        self.refuse_with: EngineError | None = None
        self.transactions = 0

    @property
    def messages(self) -> list[Message]:
        """Every message that was sent, in one list."""
        found: list[Message] = []
        for request in self.sent:
            if isinstance(request, Batch):
                found.extend(request.messages)
            elif isinstance(request, Publish):
                found.append(request.message)
        return found

    def send(self, request: EngineRequest[R]) -> R:
        self.sent.append(request)
        return cast(R, self._answer(request))

    async def asend(self, request: EngineRequest[R]) -> R:
        return self.send(request)

    def atomic(self) -> AbstractContextManager[None]:
        return self._atomic()

    def kept(self, run_id: str, step: Step) -> Step | None:
        return None

    @contextmanager
    def _atomic(self) -> Iterator[None]:
        self.transactions += 1
        yield

    def _answer(self, request: EngineRequest[Any]) -> object:
        if isinstance(request, FetchRun):
            if isinstance(self.journal, EngineError):
                raise self.journal
            return self.journal
        if self.refuse_with is not None:
            raise self.refuse_with
        if type(request) in self.answers:
            return self.answers[type(request)](request)
        if isinstance(request, Batch):
            return tuple(Published(message_id=f"msg_{len(self.sent)}_{i}") for i, _ in enumerate(request.messages))
        if isinstance(request, Publish):
            return Published(message_id=f"msg_{len(self.sent)}")
        if isinstance(request, Notify | GetWaiters):
            return ()
        if isinstance(request, CancelRuns):
            return len(request.run_ids)
        return None
