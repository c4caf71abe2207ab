"""Facts: what a worker wants written. The committer folds whatever has gathered into one transaction.

A fact about a delivery names its lease; it counts only while that lease's fence holds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from threading import Event
from typing import Any
from uuid import UUID

from django_workflow.engine.records import Lease
from django_workflow.protocol.requests import EngineRequest


@dataclass(frozen=True, slots=True)
class Taken:
    """A request that an endpoint made during its in-process delivery, and the keys of the messages in it."""

    request: EngineRequest[Any]
    keys: tuple[UUID, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a destination answered. `status` 0: it did not; `error` says why, or names what is wrong with it."""

    status: int
    headers: dict[str, list[str]] = field(default_factory=dict)
    body: bytes = b""
    error: str = ""

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300 and not self.error

    def header(self, name: str) -> str | None:
        """First value of a header, its name in any letter case."""
        wanted = name.lower()
        return next((values[0] for key, values in self.headers.items() if key.lower() == wanted and values), None)


class Continuation:
    """An invocation that waits for the commit of its step, to go on with the next one in the same call.

    `lease` is what it holds then; None when it may not go on, because the run is over or others make its next call.
    """

    __slots__ = ("lease", "settled")

    def __init__(self) -> None:
        self.lease: Lease | None = None
        self.settled = Event()


@dataclass(frozen=True, slots=True)
class Settlement:
    """A delivery came back: what its endpoint submitted, and what it answered. With a `continuation` it came back from
    a step only, and goes on."""

    lease: Lease
    requests: tuple[Taken, ...]
    answer: Answer
    started_at: datetime
    finished_at: datetime
    continuation: Continuation | None = None


@dataclass(frozen=True, slots=True)
class StepStarted:
    """A step's function has been running for a while: worth telling before its result."""

    lease: Lease
    started_at: datetime


@dataclass(frozen=True, slots=True)
class Emitted:
    """An event of the run's channel, or (`done` set) its progress."""

    lease: Lease
    event: str
    data: str
    done: int | None = None
    total: int | None = None


Fact = Settlement | StepStarted | Emitted
