"""The edges that every scenario runs over: ways in which a site and its engine are put together.

| edge | the engine | how its calls reach the site |
|---|---|---|
| `in_process` | embedded, as a project runs it | inside the worker's process |
| `on_the_wire` | embedded | the same, each message in its wire form, signed, nothing handed over in memory |
| `apart` | an installation of this package in another process, as hosted | over HTTP |
| `stub` | a strict stub of the hosted service | through Django's test client |

A scenario is written against `Engine`, and does not ask which edge it runs over.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, ClassVar
from urllib.parse import urlsplit

from django.test import Client

from django_workflow.apps import make_transport
from django_workflow.client.transports import WireTransport, use_transport
from django_workflow.models import Delivery, FlowKey, JournalEntry, Run, Waiter
from django_workflow.testing import CallAnswer, WorkflowClock, mock_calls, run_workflows, workflow_clock
from django_workflow.testing.calls import Call, CallRecorder
from tests.selection import DATABASE

SITE = "https://testserver"


class Engine(ABC):
    """Drives the runs of one scenario. `many_steps` and `many_branches` are what a test of many may take here."""

    name: ClassVar[str]
    many_steps: ClassVar[int] = 60
    many_branches: ClassVar[int] = 40
    hosted: ClassVar[bool] = False
    clock: WorkflowClock

    @abstractmethod
    def run(self, *, skip_delays: bool = False, declare_schedules: bool = False) -> int:
        """Run everything that is due, to its end or its next wait; with `skip_delays` to its end. How many calls of
        workflows that took."""

    @abstractmethod
    def left(self) -> int:
        """How many calls the engine has still to make, now or later."""

    @abstractmethod
    def plans(self, run: Run) -> int:
        """How many branches of groups the engine was told of."""

    @abstractmethod
    def rate(self, key: str) -> int:
        """The limit of a flow control key, as the engine knows it."""

    @abstractmethod
    def calls_of_group(self, branches: int) -> int:
        """How many calls of the workflow a group of parallel steps takes, the one that goes on after it included."""

    @abstractmethod
    def site_on_network(self, settings: Any) -> AbstractContextManager[CallRecorder]:
        """Give the site an address (`base_url`), over which the engine calls it; records those calls, if it can."""

    @abstractmethod
    def visit(self, method: str, url: str, body: bytes) -> int:
        """Request a URL that a workflow handed out, as somebody else; the answer's status."""

    kept_event = Waiter.State.CONSUMED
    """The state of a wait for an event that had come before it."""

    tells_attempts_of_calls = True
    """Whether the site hears of each attempt of a call, or of the last one only."""

    sees_steps_start = True
    """Whether the site's rows tell of a step whose function is running, or has failed."""

    def finish(self, handle: Any, *, skip_delays: bool = True) -> Run:
        """Run everything to its end; the run, which must have succeeded and left nothing behind."""
        self.run(skip_delays=skip_delays)
        run: Run = handle.run
        assert run.status == Run.Status.SUCCESS, f"{run.status}: {run.error} {run.why}"
        assert self.left() == 0
        return run

    def fail(self, handle: Any) -> Run:
        """Run everything to its end; the run, which must have failed and left nothing behind."""
        self.run(skip_delays=True)
        run: Run = handle.run
        assert run.status == Run.Status.FAILED, f"{run.status}: {run.why}"
        assert self.left() == 0
        return run


class Embedded(Engine):
    """The engine in this project's database."""

    trusted: ClassVar[bool]

    def __init__(self, clock: WorkflowClock) -> None:
        self.clock = clock

    def run(self, *, skip_delays: bool = False, declare_schedules: bool = False) -> int:
        return run_workflows(skip_delays=skip_delays, declare_schedules=declare_schedules, trusted=self.trusted)

    def left(self) -> int:
        return Delivery.objects.count()

    def plans(self, run: Run) -> int:
        return JournalEntry.objects.filter(run=run, step_id=None, call_type="step").count()

    def rate(self, key: str) -> int:
        return FlowKey.objects.get(key=key).rate or 0

    def calls_of_group(self, branches: int) -> int:
        # To this project's own endpoints the engine sends one call for each branch, and one when all are done.
        return branches + 1

    @contextmanager
    def site_on_network(self, settings: Any) -> Iterator[CallRecorder]:
        settings.DJANGO_WORKFLOW = {**settings.DJANGO_WORKFLOW, "base_url": SITE}
        with mock_calls(web_process) as recorder:
            yield recorder

    def visit(self, method: str, url: str, body: bytes) -> int:
        return web_process(Call(method, url, {"Content-Type": "text/plain"}, body)).status


def web_process(call: Call) -> CallAnswer:
    """Answers what the network would bring to this site."""
    parts = urlsplit(call.url)
    assert f"{parts.scheme}://{parts.netloc}" == SITE, call.url
    response = Client(raise_request_exception=False).generic(
        call.method,
        parts.path + (f"?{parts.query}" if parts.query else ""),
        call.body,
        content_type=next((value for name, value in call.headers.items() if name.lower() == "content-type"), ""),
        headers={name: value for name, value in call.headers.items() if name.lower() != "content-type"},
        secure=True,
    )
    return CallAnswer(response.status_code, response.content, dict(response.items()))


class InProcess(Embedded):
    name = "in_process"
    # What many steps cost in statements is the same on every database.
    many_steps = 500 if DATABASE == "sqlite" else 60
    many_branches = 100 if DATABASE == "sqlite" else 40
    trusted = True


class OnTheWire(Embedded):
    name = "on_the_wire"
    trusted = False
    sees_steps_start = False  # nothing but the results comes back


@contextmanager
def embedded(edge: type[Embedded]) -> Iterator[Embedded]:
    if not edge.trusted:
        use_transport(lambda: WireTransport(make_transport()))
    try:
        with workflow_clock() as clock:
            yield edge(clock)
    finally:
        use_transport(make_transport)
