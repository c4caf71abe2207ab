"""The session of one in-process delivery: its journal by reference, and what its endpoint submits.

`dispatch` makes it and puts it into the request; `transport` finds it while the workflow runs and takes submissions
into it; the worker then writes them together with the acknowledgement.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec

from django_workflow.client.submissions import Accepted, is_of_run
from django_workflow.engine.after import After
from django_workflow.engine.facts import Answer, Continuation, Emitted, Fact, Settlement, StepStarted, Taken
from django_workflow.engine.journal_cache import JournalCache
from django_workflow.engine.records import Lease, RunInfo
from django_workflow.protocol import headers as names
from django_workflow.protocol.requests import EngineRequest
from django_workflow.protocol.steps import JournalMessage, Step
from django_workflow.replay.journal import Journal
from django_workflow.replay.port import PROGRESS_EVENT

_encoder = msgspec.json.Encoder()

ACCEPTED = Answer(status=200, headers={names.WORKFLOW_SDK_VERSION: [names.PROTOCOL_VERSION]})
"""The answer of an endpoint that has submitted something, as far as it is known before it comes."""


class Session:
    """Implements `client.session.DeliverySession`; `journal` ends with the delivered message."""

    def __init__(
        self,
        lease: Lease,
        info: RunInfo,
        journal: list[JournalMessage],
        cache: JournalCache,
        now: Callable[[], datetime],
        report: Callable[[Fact], None],
        write: Callable[[Settlement], bool] | None = None,
    ) -> None:
        self.lease = lease
        self.info = info
        self.run_id = info.run_id
        self.first_run_id = info.first_run_id
        self.journal = journal
        self.requests: list[Taken] = []
        self.written: After | None = None
        self.step_started_at = now()
        self.atomic = False
        self.start_told = False
        self._cache = cache
        self._now = now
        self._report = report
        self._write = write
        self._held_back: list[Fact] = []

    def replay(self) -> Journal | None:
        return self._cache.replay(self.info.key, len(self.journal)) if self.lease.solo else None

    def step_started(self, step: Step) -> None:
        """A step's function starts. Told to the watchers only when it takes a while, or with its result."""
        self.lease.running = step
        self.step_started_at = self._now()

    def emit(self, event: str, data: Any) -> None:
        """Append an event to the run's channel: soon, or with the transaction of an atomic step."""
        if event == PROGRESS_EVENT:
            fact = Emitted(self.lease, event, "", done=data["done"], total=data["total"])
        else:
            fact = Emitted(self.lease, event, _encoder.encode(data).decode())
        # Code inside a transaction never waits for the committer, which may wait for that transaction.
        if self.atomic:
            self._held_back.append(fact)
        else:
            self._report(fact)

    def go_on(self) -> bool:
        lease = self.lease
        # What a step is told of its attempt was told to the whole call: one that was tried before goes on no further.
        if self._write is None or self.atomic or len(self.requests) != 1 or lease.attempt or lease.rescues:
            return False
        continuation = Continuation()
        requests = tuple(self.requests)
        settlement = Settlement(lease, requests, ACCEPTED, self.step_started_at, self._now(), continuation)
        if not self._write(settlement):
            return False
        self.requests.clear()
        if continuation.lease is None:
            return False
        lease.go_on_as(continuation.lease, self._now())
        self.start_told = False
        return True

    def start_fact(self) -> StepStarted:
        return StepStarted(self.lease, self.step_started_at)

    def held_back(self) -> list[Fact]:
        facts, self._held_back = self._held_back, []
        return facts

    def takes(self, request: EngineRequest[Any]) -> bool:
        """Whether the request belongs to this delivery's run and can be written with its acknowledgement."""
        return is_of_run(request, self.run_id)

    def take(self, request: EngineRequest[Any]) -> tuple[Taken, Any]:
        """Ids for the request's messages, and the answer that its sender gets before anything is written."""
        accepted = Accepted.of(request)
        return Taken(request, accepted.keys), accepted.answer
