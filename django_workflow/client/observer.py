"""The port through which deliveries of a hosted engine are watched: `serve` tells, `mirror` keeps this site's rows.

The endpoint asks for an Observer when a delivery came over the network, and its parts tell it what they do. The
composition root says who observes; with the embedded engine nobody does, for that writes its rows itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from django_workflow.protocol.invocation import Invocation
from django_workflow.protocol.publish import Message
from django_workflow.protocol.steps import Step
from django_workflow.replay.outcome import Submission


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """A delivery as it came: `url` is the workflow's own, `headers` are looked up in any letter case."""

    workflow: str
    url: str
    headers: Mapping[str, str]
    invocation: Invocation


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An answer that is no success. `final`: the engine will not deliver again, whatever retries are left."""

    status: int
    error: str
    step_name: str | None = None
    final: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


class Observer(Protocol):
    """Told of one delivery. None of its methods may raise: no delivery depends on it."""

    @property
    def first_run_id(self) -> str:
        """The first run of the chain that a resumed run belongs to; empty for others. Known once it arrived."""

    def arrived(self) -> None:
        """The delivery was understood: a run's steps, the answer of a call, a failure callback."""

    def step_started(self, step: Step) -> None:
        """A step's function is about to run. Not told on a running event loop."""

    def submitted(self, submissions: Sequence[Submission], invoked: Sequence[Message]) -> None:
        """The engine took these; `invoked` are the messages that start the runs of invocations among them."""

    def finished(self, result: bytes | None) -> None:
        """The engine was told that the run returned."""

    def canceled(self) -> None:
        """The engine was told that the run cancels itself."""

    def failed(self, failure: Failure) -> None:
        """The delivery is answered with a failure; that of a failure callback says that its function failed."""

    def run_ended(self) -> None:
        """The engine says that the run is over."""

    def call_returned(self, step: Step | None) -> None:
        """The answer of a call came: its result was submitted, or (None) the engine calls again."""

    def failure_handled(self, *, found: bool = True, result: str | None = None) -> None:
        """The failure function has returned; or (`found` False) there is none."""

    def run_started(self, run_id: str) -> None:
        """The endpoint has started a run of itself."""


_factory: Callable[[Delivered], Observer | None] | None = None


def use_observers(factory: Callable[[Delivered], Observer | None] | None) -> None:
    """`factory` gives the observer of a delivery, or None when nobody cares."""
    global _factory
    _factory = factory


def observe(delivered: Delivered) -> Observer | None:
    return None if _factory is None else _factory(delivered)
