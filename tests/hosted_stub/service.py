"""The service: what it remembers, its clock, and its cycle of deliveries."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from tests.hosted_stub import delivery, door, outcomes, rules
from tests.hosted_stub.messaging import append_wait_result, publish_schedule
from tests.hosted_stub.model import DeadLetter, FlowKey, Message, Run, RunState, Schedule, State, Waiter
from tests.hosted_stub.network import Answer, HttpRequest, Network, NoAnswer
from tests.hosted_stub.refusals import Fault, Refused
from tests.hosted_stub.values import Flow

# The published credentials of the local development server, as in the captured traffic.
TOKEN = "eyJVc2VySUQiOiJkZWZhdWx0VXNlciIsIlBhc3N3b3JkIjoiZGVmYXVsdFBhc3N3b3JkIn0="
USER_ID = "defaultUser"
CURRENT_SIGNING_KEY = "sig_7kYjw48mhY7kAjqNGcy6cr29RJ6r"
NEXT_SIGNING_KEY = "sig_5ZB6DVzB1wjE8S6rZ7eenA8Pdnhs"

KEYS = delivery.Keys(CURRENT_SIGNING_KEY, NEXT_SIGNING_KEY)


@dataclass(frozen=True)
class Exchange:
    """One call of the API and its answer."""

    request: HttpRequest
    answer: Answer


@dataclass(repr=False, eq=False)
class HostedStub:
    """`network` makes the deliveries; `clock` gives the service's time in Unix seconds, and only tests move it.

    `url` is what clients are told to use. Bodies of deliveries above `lazy_above` bytes are left out, for endpoints
    that fetch their steps. `most_retries` is the limit of the plan: 412 above it.
    """

    network: Network
    clock: Callable[[], float] = time.time
    url: str = "https://qstash.stub.example/engine"
    token: str = TOKEN
    user_id: str = USER_ID
    keys: delivery.Keys = KEYS
    lazy_above: int = 4 * 1024 * 1024
    most_retries: int = 100
    request_timeout: float = 900.0

    trouble: deque[Answer | NoAnswer] = field(default_factory=deque)
    """What the next calls of the API meet instead of an answer of their own: an outage, a limit."""

    faults: list[str] = field(default_factory=list)
    exchanges: list[Exchange] = field(default_factory=list)
    deliveries: list[HttpRequest] = field(default_factory=list)

    messages: list[Message] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    waiters: list[Waiter] = field(default_factory=list)
    letters: dict[str, DeadLetter] = field(default_factory=dict)
    schedules: dict[str, Schedule] = field(default_factory=dict)
    flow_keys: dict[str, FlowKey] = field(default_factory=dict)
    duplicates: dict[str, tuple[float, Message]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.lock = threading.RLock()
        self._numbers: dict[str, int] = {}

    # API

    def handle(self, method: str, url: str, headers: Iterable[tuple[str, str]], body: bytes) -> Answer:
        """Answer one call of the API; `url` as it was requested, undecoded. Raises NoAnswer when told to."""
        met = self.trouble.popleft() if self.trouble else None
        if isinstance(met, Answer):
            return met
        if met is not None and not met.taken:
            raise met
        request = HttpRequest(method, url, tuple((name, rules.utf8(value)) for name, value in headers), body)
        with self.lock:
            try:
                answer = door.answer(self, request)
            except Refused as refused:
                if isinstance(refused, Fault):
                    self.faults.append(f"{method} {url[:300]}: {refused.reason}")
                answer = door.json_answer({"error": refused.reason}, refused.status)
            self.exchanges.append(Exchange(request, answer))
        if met is not None:
            raise met
        return answer

    # Cycle

    def run_due(self) -> int:
        """Make every delivery that is due, and those that follow; how many were made."""
        made = 0
        while (message := self.next_due()) is not None:
            self.deliver(message)
            made += 1
        return made

    def next_due(self) -> Message | None:
        """The message that is delivered next; overdue waits are ended and schedules fired first."""
        with self.lock:
            now = self.clock()
            self._end_waits(now)
            self._fire_schedules(now)
            due = [message for message in self._pending() if message.due <= now and self._ready_at(message) == now]
            return min(due, key=lambda message: message.due, default=None)  # of equals the one that came first

    def next_due_at(self) -> float | None:
        """When something happens next: a delivery, the end of a wait. Schedules are not counted."""
        with self.lock:
            instants = [waiter.deadline for waiter in self.waiters]
            for message in self._pending():
                if (ready := self._ready_at(message)) is not None:
                    instants.append(max(message.due, ready))
            return min(instants, default=None)

    def deliver(self, message: Message) -> None:
        request = self.begin(message)
        try:
            answer: Answer | NoAnswer = self.network(request, message.config.timeout or self.request_timeout)
        except NoAnswer as error:
            answer = error
        self.settle(message, answer)

    def begin(self, message: Message) -> HttpRequest:
        """Start an attempt; the request that it is."""
        with self.lock:
            message.in_flight = True
            if (key := self._flow_key(message)) is not None:
                key.start(self.clock())
            number = self.number("jwt")
            request = delivery.compose(message, self.keys, time.time(), number, lazy_above=self.lazy_above)
            self.deliveries.append(request)
            return request

    def settle(self, message: Message, answer: Answer | NoAnswer) -> None:
        """End an attempt: the message is delivered, tried again later, or has failed."""
        with self.lock:
            message.in_flight = False
            if (key := self._flow_key(message)) is not None:
                key.in_flight -= 1
            outcomes.settle(self, message, answer)

    def _pending(self) -> list[Message]:
        return [message for message in self.messages if message.state is State.PENDING and not message.in_flight]

    def _ready_at(self, message: Message) -> float | None:
        key = self._flow_key(message)
        return self.clock() if key is None else key.ready_at(self.clock())

    def _flow_key(self, message: Message) -> FlowKey | None:
        return None if message.config.flow is None else self.flow_keys[message.config.flow[0]]

    def _end_waits(self, now: float) -> None:
        for waiter in sorted(self.waiters, key=lambda waiter: waiter.deadline):
            if waiter.deadline <= now:
                append_wait_result(self, waiter, None)

    def _fire_schedules(self, now: float) -> None:
        for schedule in self.schedules.values():
            if not schedule.paused and schedule.next <= now:
                publish_schedule(self, schedule, now)

    # Memory

    def number(self, kind: str) -> int:
        self._numbers[kind] = self._numbers.get(kind, 0) + 1
        return self._numbers[kind]

    def last_number(self, kind: str) -> int:
        return self._numbers.get(kind, 0)

    def set_number(self, kind: str, last: int) -> None:
        self._numbers[kind] = last

    def new_id(self, kind: str) -> str:
        return f"{kind}_{self.number(kind):04d}"

    def run(self, run_id: str) -> Run | None:
        """The newest run with this id."""
        return next((run for run in reversed(self.runs) if run.id == run_id), None)

    def run_to_append(self, run_id: str | None) -> Run:
        run = self.run(run_id or "")
        if run is None:
            raise Fault(f"There is no run {run_id!r} to append to.")
        if not run.live:
            word = {RunState.CANCELED: "canceled", RunState.FAILED: "failed"}.get(run.state, "finished")
            raise Refused(400, f"can not append to a {word} workflow: {run.id}")
        return run

    def use_flow_key(self, flow: tuple[str, Flow] | None) -> None:
        """The last message that is seen sets the limits of its key."""
        if flow is not None:
            self.flow_keys.setdefault(flow[0], FlowKey(flow[1])).limits = flow[1]

    def check_no_faults(self) -> None:
        """For the end of a test. Raises AssertionError with what is no part of the protocol, or was sent twice."""
        twice = [f"Step {number} of run {run.id} was submitted twice." for run in self.runs for number in run.repeated]
        if self.faults or twice:
            raise AssertionError("The hosted service does not allow:\n  " + "\n  ".join([*self.faults, *twice]))

    def state_of(self, run_id: str) -> dict[str, Any]:
        """A run as the logs show it. Raises KeyError."""
        from tests.hosted_stub.documents import run_document

        run = self.run(run_id)
        if run is None:
            raise KeyError(run_id)
        return run_document(self, run)
