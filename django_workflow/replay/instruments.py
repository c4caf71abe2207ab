"""Who looks on while a run is worked on: which run this thread or task is at, and tracers.

`current_run` is what log lines take their fields from. An Instrument puts spans around calls of a workflow and around
its steps, and lets a run carry its trace on. There is none by default, which then costs one look at a global.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol

from django_workflow.replay.outcome import Outcome


@dataclass(frozen=True, slots=True)
class RunningCall:
    """One call of a workflow: of which run, and how often this call was tried before. `headers` are the delivery's."""

    workflow: str
    run_id: str
    retried: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)


current_run: ContextVar[RunningCall | None] = ContextVar("django_workflow_run", default=None)
"""Set while a workflow's function runs, and in the tasks that it starts."""


class Instrument(Protocol):
    """None of its methods may raise: no run depends on being watched."""

    def call(self, call: RunningCall) -> AbstractContextManager[Callable[[Outcome], None]]:
        """Around one call of a workflow; what it gives is told how that ended."""

    def step(self, name: str, step_id: int) -> AbstractContextManager[Any]:
        """Around the function of a step. Sees the exception that leaves it."""

    def headers(self, workflow: str) -> dict[str, str]:
        """What a message that starts a run, or that a run sends, carries on of the trace that it is sent in.

        `workflow` is the one that is started; "" for a call that a run makes.
        """


_instrument: Instrument | None = None


def use_instrument(instrument: Instrument | None) -> None:
    global _instrument
    _instrument = instrument


def instrument() -> Instrument | None:
    return _instrument


def with_trace(headers: Mapping[str, str], workflow: str = "") -> dict[str, str]:
    """Headers of an outgoing message, with those of the trace; what the caller set himself stays."""
    if _instrument is None:
        return dict(headers)
    given = {name.lower() for name in headers}
    traced = _instrument.headers(workflow)
    return {**headers, **{name: value for name, value in traced.items() if name.lower() not in given}}
