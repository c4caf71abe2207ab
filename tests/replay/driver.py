"""A small engine for tests: keeps one run's messages in a list and calls the workflow until the run is over.

It follows the protocol's rules (endpoint.md, sections 4.2, 7.3 and 14): messages have one total order, a delivery sees
the prefix that ends with its own message, and of a parallel group every plan and every result is delivered. Which of
the deliveries that are ready comes next is the test's choice, and must not matter.
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from django_workflow.authoring.context_base import RunDetails
from django_workflow.authoring.decorator import Workflow
from django_workflow.authoring.invocation import invoke
from django_workflow.authoring.options import WorkflowOptions
from django_workflow.errors import EngineError
from django_workflow.protocol.invoke import InvokeResult, encode_invoke_result
from django_workflow.protocol.steps import CallType, JournalMessage, Step, encode_step
from django_workflow.replay.journal import Journal
from django_workflow.replay.outcome import (
    CallSubmission,
    Cancelled,
    Failed,
    Finished,
    InvokeSubmission,
    NoStepReached,
    Outcome,
    StepSubmission,
    Submission,
    WaitSubmission,
)

Choose = Callable[[int], int]


def first(count: int) -> int:
    return 0


@dataclass
class Engine:
    """One run of `workflow` (a Workflow or a plain function).

    `events` maps event ids to what notifies them (None: a timeout), `answers` URLs to bodies of calls, `children`
    workflow names to results of invokes. `discards`: results of branches that are not the last are delivered too, as
    engines do that serve any endpoint. `steps_per_call`: how many steps one call may run. `fail_submissions`: errors
    to raise instead of taking a submission.
    """

    workflow: Any
    payload: Any = None
    events: dict[str, Any] = field(default_factory=dict)
    answers: dict[str, Any] = field(default_factory=dict)
    children: dict[str, Any] = field(default_factory=dict)
    choose: Choose = first
    discards: bool = True
    steps_per_call: int = 1
    retries: int = 0
    fail_submissions: list[EngineError] = field(default_factory=list)
    run_id: str = "wfr_1"

    messages: list[JournalMessage] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    submissions: list[Submission] = field(default_factory=list)
    started: list[str] = field(default_factory=list)
    emitted: list[tuple[str, Any]] = field(default_factory=list)
    deliveries: int = 0
    rollbacks: int = 0
    kept_results: dict[int, Step] = field(default_factory=dict)
    writes_starts: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.workflow, Workflow):
            self.workflow = Workflow(self.workflow, name="under_test", options=WorkflowOptions())
        payload = self.workflow.encode_payload(self.payload).decode()
        self.messages.append(JournalMessage("msg_0", payload))
        self._due: list[int] = [0]
        self._outside: list[tuple[Step, dict[str, Any]]] = []
        self._steps_left = 0
        self._attempts = 0

    # Driving

    def run(self) -> Any:
        """The result of the run. Raises the error of a call that has no retry left."""
        outcome = self.run_to_end()
        if isinstance(outcome, Failed):
            raise outcome.error
        assert isinstance(outcome, Finished), outcome
        return None if outcome.result is None else msgspec.json.decode(outcome.result)

    def run_to_end(self) -> Outcome:
        while True:
            outcome = self.step()
            if isinstance(outcome, Finished | Cancelled | NoStepReached):
                return outcome
            if isinstance(outcome, Failed):
                if self._attempts > self.retries:
                    return outcome
            else:
                self._attempts = 0

    def step(self) -> Outcome | None:
        """Make one delivery, or let one thing outside come to its end. None for the latter."""
        ready = len(self._due) + len(self._outside)
        assert ready, "the run waits for something that never comes"
        chosen = self.choose(ready)
        if chosen >= len(self._due):
            self._append(self._result_of(*self._outside.pop(chosen - len(self._due))))
            return None
        index = self._due.pop(chosen)
        outcome = self.deliver(index)
        if isinstance(outcome, Failed):
            self._attempts += 1
            if self._attempts <= self.retries:
                self._due.insert(0, index)
        return outcome

    def deliver(self, index: int | None = None) -> Outcome:
        """Call the workflow with the messages up to `index` (all of them)."""
        self.deliveries += 1
        self._steps_left = self.steps_per_call - 1
        prefix = self.messages if index is None else self.messages[: index + 1]
        details = RunDetails(run_id=self.run_id, url="https://here/wf", payload=self.messages[0].raw)
        outcome = invoke(self.workflow, details, Journal.from_messages(prefix), self)
        self.outcomes.append(outcome)
        return outcome

    # Port

    def step_started(self, step: Step) -> None:
        assert step.out is None
        self.started.append(step.step_name)

    def submit(self, submissions: Sequence[Submission]) -> bool:
        if self.fail_submissions:
            raise self.fail_submissions.pop(0)
        self.submissions.extend(submissions)
        goes_on = self._steps_left > 0 and all(
            isinstance(s, StepSubmission) and not s.step.is_plan and s.step.concurrent == 1 and not s.delay
            for s in submissions
        )
        for submission in submissions:
            self._take(submission, deliver=not goes_on)
        self._steps_left -= 1
        return goes_on

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        before = len(self.messages), list(self._due)
        try:
            yield
        except BaseException:
            self.rollbacks += 1
            del self.messages[before[0] :]
            self._due = before[1]
            raise

    def kept(self, step: Step) -> Step | None:
        return self.kept_results.get(step.step_id)

    def emit(self, event: str, data: object) -> None:
        self.emitted.append((event, data))

    # Inside

    def _take(self, submission: Submission, deliver: bool) -> None:
        if isinstance(submission, StepSubmission):
            self._append(submission.step, deliver=deliver)
        elif isinstance(submission, CallSubmission):
            self.messages.append(JournalMessage(self._id(), submission.body.decode(), CallType.TO_CALLBACK))
            answer = {"status": 200, "body": self.answers.get(submission.url, ""), "header": {}}
            self._outside.append((submission.step, {"out": msgspec.json.encode(answer).decode()}))
        elif isinstance(submission, WaitSubmission):
            data = self.events.get(submission.event_id)
            told: dict[str, Any] = {"wait_event_id": submission.event_id, "wait_timeout": data is None}
            if data is not None:
                told["out"] = base64.b64encode(data if isinstance(data, bytes) else msgspec.json.encode(data)).decode()
            self._outside.append((submission.step, told))
        elif isinstance(submission, InvokeSubmission):
            body = msgspec.json.encode(self.children[submission.workflow]).decode()
            result = InvokeResult(body=body, is_failed=False, is_canceled=False)
            self._outside.append((submission.step, {"out": encode_invoke_result(result)}))

    def _result_of(self, step: Step, told: dict[str, Any]) -> Step:
        return msgspec.structs.replace(step, **told)

    def _append(self, step: Step, deliver: bool = True) -> None:
        """A message of the run; it goes through its wire form."""
        self.messages.append(JournalMessage(self._id(), encode_step(step).decode()))
        if deliver and (self.discards or not self._leaves_group_open(step)):
            self._due.append(len(self.messages) - 1)

    def _leaves_group_open(self, step: Step) -> bool:
        """A branch's result while others are missing: nobody needs to hear of it."""
        if step.is_plan or step.concurrent == 1:
            return False
        steps = [message.step for message in self.messages[1:] if message.call_type == CallType.STEP]
        plan = next(index for index, s in enumerate(steps) if s.is_plan and s.target_step == step.step_id)
        start = plan  # the plans of a group stand side by side
        while start > 0 and steps[start - 1].is_plan:
            start -= 1
        first = steps[start].target_step or 0
        return not set(range(first, first + step.concurrent)) <= {s.step_id for s in steps}

    def _id(self) -> str:
        return f"msg_{len(self.messages)}"


def run(function: Any, payload: Any = None, **options: Any) -> Any:
    """The result of a run of `function`."""
    return Engine(function, payload, **options).run()
