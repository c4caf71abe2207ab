"""The engine as a few dictionaries: what its rows must say after each thing that happens to runs of `scripted`.

A script is a list of steps: `Work`, `Sleep`, `Wait`, or a list of those, which run side by side. The model knows no
workers: a delivery that is made for nothing (its worker died, its lease was lost) changes nothing here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

RETRIES, RETRY_SECONDS = 1, 1


@dataclass(frozen=True)
class Work:
    letter: str
    """Its function fails while this letter is broken."""
    atomic: bool = False


@dataclass(frozen=True)
class Sleep:
    seconds: int


@dataclass(frozen=True)
class Wait:
    event: str
    seconds: int


Op = Work | Sleep | Wait
Script = tuple[Op | tuple[Op, ...], ...]


@dataclass(eq=False)
class Call:
    """A delivery that is due at some time. `branch` is the step that it runs; None: whatever comes next."""

    branch: int | None
    due_at: datetime
    attempt: int = 0


@dataclass(frozen=True)
class Outcome:
    """What making a call came to, before it is written."""

    kind: str
    """`result`, `failure`, `plan`, `wait` or `end`."""
    number: int = 0


@dataclass(eq=False)
class ModelRun:
    run_id: str
    script: Script
    calls: list[Call] = field(default_factory=list)
    results: dict[int, Any] = field(default_factory=dict)
    waits: dict[int, tuple[str, datetime]] = field(default_factory=dict)
    early: list[tuple[str, Any]] = field(default_factory=list)
    wakes: dict[int, datetime] = field(default_factory=dict)
    """When sleeps end that have begun and are not over."""
    group: tuple[int, ...] = ()
    status: str = ""
    """`success`, `failed`, `canceled`; empty while it goes on."""
    follower: ModelRun | None = None
    begun: bool = False
    delayed: bool = False

    @property
    def alive(self) -> bool:
        return not self.status

    def steps(self) -> Iterator[tuple[Op | tuple[Op, ...], tuple[int, ...]]]:
        """The script's steps with their numbers."""
        number = 1
        for op in self.script:
            size = len(op) if isinstance(op, tuple) else 1
            yield op, tuple(range(number, number + size))
            number += size

    def op(self, number: int) -> Op:
        for op, numbers in self.steps():
            if number in numbers:
                return op[numbers.index(number)] if isinstance(op, tuple) else op
        raise KeyError(number)

    def output(self) -> list[Any]:
        found = []
        for op, numbers in self.steps():
            values = [self.results[number] for number in numbers]
            found.append(values if isinstance(op, tuple) else values[0])
        return found

    def shown(self) -> str:
        """The status that people see."""
        if self.status:
            return self.status
        if any(call.attempt for call in self.calls):
            return "retrying"
        if self.group:
            if any(not isinstance(self.op(call.branch or 0), Sleep) for call in self.calls):
                return "queued"
            return "waiting" if self.waits else "sleeping"
        if self.waits:
            return "waiting"
        if not self.begun:
            return "scheduled" if self.delayed else "queued"
        last = max(self.results, default=0)
        return "sleeping" if last and not self._in_group(last) and last in self.wakes else "running"

    # What a call comes to

    def make(self, call: Call, broken: set[str]) -> Outcome:
        if call.branch is not None:
            return self._perform(call.branch, self.op(call.branch), broken)
        for op, numbers in self.steps():
            if all(number in self.results for number in numbers):
                continue
            if isinstance(op, tuple):
                return Outcome("plan", numbers[0])
            return self._perform(numbers[0], op, broken)
        return Outcome("end")

    def _perform(self, number: int, op: Op, broken: set[str]) -> Outcome:
        if isinstance(op, Work) and op.letter in broken:
            return Outcome("failure", number)
        return Outcome("wait" if isinstance(op, Wait) else "result", number)

    # What is written

    def settle(self, call: Call, outcome: Outcome, now: datetime) -> None:
        if not self.alive or call not in self.calls:
            return
        self.begun = True
        if call.branch is None:
            self.wakes.clear()
        if outcome.kind == "failure":
            self._fail(call, now)
            return
        self.calls.remove(call)
        if outcome.kind == "end":
            self.end("success")
        elif outcome.kind == "plan":
            self._open_group(outcome.number, now)
        elif outcome.kind == "wait":
            self._wait(outcome.number, now)
        else:
            op = self.op(outcome.number)
            self.take(outcome.number, op.letter if isinstance(op, Work) else None, now)

    def take(self, number: int, value: Any, now: datetime) -> None:
        """Note a result, and what follows."""
        self.results[number] = value
        self.waits.pop(number, None)
        self.group = tuple(other for other in self.group if other != number)
        if self.group:
            return
        op, due = self.op(number), now
        if isinstance(op, Sleep) and not self._in_group(number):
            due = self.wakes[number] = now + timedelta(seconds=op.seconds)
        self.calls.append(Call(None, due))

    def _in_group(self, number: int) -> bool:
        return any(number in numbers and isinstance(op, tuple) for op, numbers in self.steps())

    def _fail(self, call: Call, now: datetime) -> None:
        if call.attempt >= RETRIES:
            self.end("failed")
            return
        call.attempt += 1
        call.due_at = now + timedelta(seconds=RETRY_SECONDS)

    def _open_group(self, first: int, now: datetime) -> None:
        op, numbers = next(pair for pair in self.steps() if pair[1][0] == first)
        assert isinstance(op, tuple)
        self.group = numbers
        for number, branch in zip(numbers, op, strict=True):
            due = now
            if isinstance(branch, Sleep):
                due = self.wakes[number] = now + timedelta(seconds=branch.seconds)
            self.calls.append(Call(number, due))

    def _wait(self, number: int, now: datetime) -> None:
        op = self.op(number)
        assert isinstance(op, Wait)
        for event, data in self.early:
            if event == op.event:
                self.early.remove((event, data))
                self.take(number, [data, False], now)
                return
        self.waits[number] = op.event, now + timedelta(seconds=op.seconds)

    def end(self, status: str) -> None:
        self.status = status
        self.calls.clear()
        self.waits.clear()

    # What comes from outside

    def notify(self, event: str, data: Any, now: datetime) -> int:
        """Give an event to the waits for it; how many there were."""
        found = [number for number, (name, _) in self.waits.items() if name == event]
        for number in found:
            self.take(number, [data, False], now)
        return len(found)

    def time_out(self, now: datetime) -> None:
        for number in [number for number, (_, deadline) in self.waits.items() if deadline <= now]:
            self.take(number, [None, True], now)

    def resume(self, run_id: str, now: datetime) -> ModelRun:
        """The run that goes on where this one failed."""
        run = self.follower = ModelRun(run_id, self.script, early=list(self.early))
        run.results, run.wakes = dict(self.results), dict(self.wakes)
        opened = [numbers for op, numbers in self.steps() if isinstance(op, tuple) and set(numbers) & set(self.group)]
        if opened:
            run.group = self.group
            run.calls = [Call(number, max(now, self.wakes.get(number, now))) for number in self.group]
        else:
            last = max(self.results, default=0)
            asleep = self.wakes.get(last, now) if last and not self._in_group(last) else now
            run.calls = [Call(None, max(now, asleep))]
        return run

    def restart(self, run_id: str, now: datetime) -> ModelRun:
        run = self.follower = ModelRun(run_id, self.script)
        run.calls = [Call(None, now)]
        return run
