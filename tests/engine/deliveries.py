"""Runs and settlements made by hand, without an endpoint."""

from __future__ import annotations

from typing import Any

from django_workflow.engine.after import After
from django_workflow.engine.committer import Writer
from django_workflow.engine.facts import Answer, Settlement, Taken
from django_workflow.engine.leases import claim
from django_workflow.engine.records import Lease
from django_workflow.engine.shared import remember, shared_cache
from django_workflow.engine.transport import EngineTransport
from django_workflow.models import Run
from django_workflow.protocol.identifiers import new_run_id, uuid7
from django_workflow.protocol.publish import FEATURES, Message, WorkflowFields
from django_workflow.protocol.requests import Batch, FinishRun
from django_workflow.protocol.steps import Step, encode_step
from django_workflow.testing import WorkflowClock

ALIAS = "default"
URL = "https://workflow.internal/workflows/serve/by-hand/"
OK = Answer(status=200, headers={"Upstash-Workflow-Sdk-Version": ["1"]})


def message(run_id: str, body: bytes = b"", *, init: bool = False, url: str = URL, **values: Any) -> Message:
    fields = WorkflowFields(run_id=run_id, url=url, init=init, features=FEATURES, sdk_version="1")
    return Message(destination=url, body=body, workflow=fields, **values)


def start(run_id: str | None = None, **values: Any) -> Run:
    """Trigger a run through the engine's door."""
    run_id = run_id or new_run_id()
    EngineTransport().send(Batch(messages=(message(run_id, b'{"n":1}', init=True, **values),)))
    return Run.objects.get(run_id=run_id)


def step(number: int, out: str | None = "1", **values: Any) -> Step:
    fields = {"step_name": f"step {number}", "step_type": "Run", "concurrent": 1, **values}
    return Step(step_id=number, out=out, **fields)


class Hand:
    """A worker that is driven by hand: claims, and settles what it is told that endpoints submitted."""

    def __init__(self, clock: WorkflowClock) -> None:
        self.clock = clock
        self.key = uuid7()
        self.goes_on = True
        self.writer = Writer(ALIAS, self.key, shared_cache(ALIAS), clock.now, lambda lease: self.goes_on)

    def claim(self, limit: int = 10) -> list[Lease]:
        return claim(ALIAS, self.key, self.clock.now(), limit).leases

    def settle(self, lease: Lease, *requests: Any, answer: Answer = OK) -> After:
        """Write one settlement; what follows its commit."""
        return self.write(self.settlement(lease, *requests, answer=answer))

    def write(self, *facts: Any) -> After:
        written = self.writer.write(facts)
        assert not written.busy
        remember(ALIAS, written.after)
        return written.after

    def settlement(self, lease: Lease, *requests: Any, answer: Answer = OK) -> Settlement:
        now = self.clock.now()
        return Settlement(lease, tuple(self.taken(request) for request in requests), answer, now, now)

    @staticmethod
    def taken(request: Any) -> Taken:
        count = len(request.messages) if isinstance(request, Batch) else 0
        return Taken(request, tuple(uuid7() for _ in range(count)))


def result(run: Run, *steps: Step, **values: Any) -> Batch:
    """What an endpoint submits for steps that it ran or planned."""
    return Batch(messages=tuple(message(run.run_id, encode_step(item), **values) for item in steps))


def finish(run: Run, value: bytes | None = b"1") -> FinishRun:
    return FinishRun(run_id=run.run_id, result=value)
