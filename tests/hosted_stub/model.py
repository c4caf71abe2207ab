"""What the service remembers: messages, runs, waits, dead letters, schedules. Times are Unix seconds (float)."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from tests.hosted_stub.network import Answer
from tests.hosted_stub.values import Cron, Flow
from tests.hosted_stub.vocabulary import CallbackConfig, Instructions


class State(StrEnum):
    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"
    CANCELED = "canceled"


class RunState(StrEnum):
    STARTED = "RUN_STARTED"
    SUCCESS = "RUN_SUCCESS"
    FAILED = "RUN_FAILED"
    CANCELED = "RUN_CANCELED"


@dataclass(frozen=True)
class Config:
    """How calls of one message, or of one run, are made."""

    forward: dict[str, str] = field(default_factory=dict)
    retries: int = 3
    retry_delay: str | None = None
    timeout: int | None = None
    flow: tuple[str, Flow] | None = None
    failure: CallbackConfig | None = None


@dataclass(eq=False)
class Message:
    """One request that the service makes until it is answered well, or too often badly.

    `call_type` is "" outside of runs. `first` is the time of the first attempt, `due` that of the next one.
    """

    id: str
    call_type: str
    destination: str
    method: str
    content_type: str | None
    body: bytes
    config: Config
    created: float
    due: float
    first: float
    run: Run | None = None
    features: frozenset[str] = frozenset()
    callback: CallbackConfig | None = None
    source: Message | None = None
    labels: tuple[str, ...] = ()
    schedule_id: str | None = None
    unknown_sdk: bool = False
    letter: DeadLetter | None = None
    state: State = State.PENDING
    attempts: int = 0
    errors: list[dict[str, Any]] = field(default_factory=list)
    failed_step: str | None = None
    in_flight: bool = False

    @property
    def attempts_left(self) -> int:
        return 1 + self.config.retries - self.attempts


@dataclass(frozen=True)
class Entry:
    """One raw step of a run's journal."""

    message: Message

    @property
    def call_type(self) -> str:
        return self.message.call_type


@dataclass
class StepRecord:
    """What became of one step. `state` is planned, started (a call, wait or invocation is out) or done."""

    id: int
    name: str
    type: str
    concurrent: int
    created: float
    group: int
    state: str = "planned"
    message: Message | None = None
    body: dict[str, Any] = field(default_factory=dict)
    call: Message | None = None
    answer: Answer | None = None
    wait: Waiter | None = None
    child: Run | None = None


@dataclass(eq=False)
class Waiter:
    """A step that waits for an event. `headers` are those of the future step message."""

    event_id: str
    run: Run
    step: dict[str, Any]
    url: str
    headers: list[tuple[str, str]]
    timeout: str
    timeout_url: str
    timeout_headers: dict[str, list[str]]
    deadline: float
    instructions: Instructions
    timeout_instructions: Instructions
    timed_out: bool | None = None


@dataclass(frozen=True)
class Invoker:
    """The step of another run that waits for this run's end."""

    run: Run
    url: str
    step: dict[str, Any]
    instructions: Instructions


@dataclass(eq=False)
class Run:
    id: str
    url: str
    created: float
    payload: bytes
    config: Config
    features: frozenset[str]
    labels: tuple[str, ...] = ()
    redact: tuple[str, ...] = ()
    content_type: str | None = None
    state: RunState = RunState.STARTED
    by_rest: bool = False
    adopted: bool = False
    journal: list[Entry] = field(default_factory=list)
    steps: dict[int, StepRecord] = field(default_factory=dict)
    groups: int = 0
    repeated: list[int] = field(default_factory=list)
    kept_events: dict[str, deque[bytes]] = field(default_factory=dict)
    invoker: Invoker | None = None
    completed: float | None = None
    response: str | None = None
    failure_call: Message | None = None
    letter: DeadLetter | None = None

    @property
    def live(self) -> bool:
        return self.state is RunState.STARTED


@dataclass(eq=False)
class DeadLetter:
    """A run or message that failed for good, with the answer to its last attempt."""

    id: str
    message: Message
    answer: Answer
    error: str
    at: float
    failure_state: str | None = None


@dataclass(eq=False)
class Schedule:
    id: str
    cron: Cron
    destination: str
    instructions: Instructions
    body: bytes
    created: float
    next: float
    paused: bool = False
    last: float | None = None
    states: dict[str, Message] = field(default_factory=dict)


@dataclass
class FlowKey:
    """Counters of a flow control key; a window opens with the first call after the one before it ended."""

    limits: Flow
    window_start: float = 0.0
    window_count: int = 0
    in_flight: int = 0
    paused: bool = False
    pinned: Flow | None = None

    @property
    def limit(self) -> Flow:
        return self.pinned or self.limits

    def ready_at(self, now: float) -> float | None:
        """When one more call may start: now, at the end of the window; None: nobody knows."""
        limit = self.limit
        if self.paused or (limit.parallelism is not None and self.in_flight >= limit.parallelism):
            return None
        if limit.rate is None or now >= self.window_start + limit.period or self.window_count < limit.rate:
            return now
        return self.window_start + limit.period

    def start(self, now: float) -> None:
        if now >= self.window_start + self.limit.period:
            self.window_start, self.window_count = now, 0
        self.window_count += 1
        self.in_flight += 1
