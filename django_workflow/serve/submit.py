"""Submissions of an invocation -> messages to the engine. This is the port that the executor talks to.

One `Submitter` lives for one invocation. Steps go to the workflow itself, calls to their targets, waits and invokes to
requests of their own; which engine takes them is the client's business. Source: endpoint.md section 8.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from django_workflow.client.client import Client, with_default_retries
from django_workflow.client.messages import FEATURE_SET, JSON, STEP_HEADERS, init_message
from django_workflow.client.observer import Observer
from django_workflow.client.options import TriggerOptions
from django_workflow.client.session import DeliverySession
from django_workflow.client.urls import workflow_url
from django_workflow.conf import get_settings
from django_workflow.protocol import headers as h
from django_workflow.protocol.identifiers import new_run_id, prefixed_run_id
from django_workflow.protocol.invoke import InvokeBody, encode_invoke
from django_workflow.protocol.publish import CALL_FEATURES, FEATURES, CallbackConfig, Message, WorkflowFields
from django_workflow.protocol.requests import EngineRequest, Publish, Wait
from django_workflow.protocol.steps import CallType, Step, encode_step
from django_workflow.replay.instruments import with_trace
from django_workflow.replay.outcome import (
    CallSubmission,
    InvokeSubmission,
    StepSubmission,
    Submission,
    WaitSubmission,
)

LONGEST_CALL = 1.0
"""Seconds after which a call of several steps runs no further one."""

logger = logging.getLogger("django_workflow.serve")


Emitter = Callable[[str, str, object], None]

_emitter: Emitter | None = None


def use_emitter(emitter: Emitter | None) -> None:
    """`emitter(run_id, event, data)` tells the watchers of a run whose deliveries come over the network."""
    global _emitter
    _emitter = emitter


class Submitter:
    """Implements `replay.port.Port` for one invocation of run `run_id` at `url`.

    `created_at` in Unix milliseconds; `invoke_count` says how many workflows have invoked one another up to this run,
    `steps_per_call` how many steps this invocation may run where its engine writes them down in between.
    """

    __slots__ = (
        "_fields",
        "_headers",
        "_steps_left",
        "_until",
        "client",
        "created_at",
        "invoke_count",
        "observer",
        "run_id",
        "session",
        "url",
    )

    def __init__(
        self,
        client: Client,
        run_id: str,
        url: str,
        *,
        session: DeliverySession | None = None,
        observer: Observer | None = None,
        created_at: int | None = None,
        invoke_count: int = 0,
        steps_per_call: int = 1,
    ) -> None:
        self.client = client
        self.run_id = run_id
        self.url = url
        self.session = session
        self.observer = observer
        self.created_at = created_at
        self.invoke_count = invoke_count
        self._steps_left = steps_per_call
        self._until = time.monotonic() + LONGEST_CALL if steps_per_call > 1 else 0.0
        self._fields = WorkflowFields(run_id=run_id, url=url, features=FEATURES, sdk_version=h.PROTOCOL_VERSION)
        self._headers = {**STEP_HEADERS, h.WORKFLOW_INVOKE_COUNT: str(invoke_count)} if invoke_count else STEP_HEADERS

    # Port

    @property
    def writes_starts(self) -> bool:
        return self.observer is not None

    def step_started(self, step: Step) -> None:
        if self.session is not None:
            self.session.step_started(step)
        elif self.observer is not None:
            self.observer.step_started(step)

    def submit(self, submissions: Sequence[Submission]) -> bool:
        if logger.isEnabledFor(logging.DEBUG):
            for submission in submissions:
                logger.debug(
                    "run %s submits step %r", self.run_id, submission.step.step_name, extra={"run_id": self.run_id}
                )
        messages, invoked = [], []
        requests: list[EngineRequest[Any]] = []
        for submission in submissions:
            if isinstance(submission, StepSubmission):
                messages.append(self._step(submission))
            elif isinstance(submission, CallSubmission):
                messages.append(self._call(submission))
            elif isinstance(submission, WaitSubmission):
                requests.append(self._wait(submission))
            else:
                invoked.append(self._invoke(submission))
                requests.append(Publish(message=invoked[-1]))
        self.client.batch(messages)
        for request in requests:
            self.client.transport.send(request)
        if self.observer is not None:
            self.observer.submitted(submissions, invoked)
        return self._goes_on(submissions)

    def _goes_on(self, submissions: Sequence[Submission]) -> bool:
        """Whether this was the result of a single step, is committed, and another step may run in the same call."""
        self._steps_left -= 1
        if self.session is None or self._steps_left <= 0 or len(submissions) != 1:
            return False
        (only,) = submissions
        if not isinstance(only, StepSubmission) or only.delay or only.not_before:
            return False
        if only.step.is_plan or only.step.concurrent > 1 or time.monotonic() > self._until:
            return False
        return self.session.go_on()

    def transaction(self) -> AbstractContextManager[None]:
        return self.client.transport.atomic()

    def kept(self, step: Step) -> Step | None:
        return self.client.transport.kept(self.run_id, step)

    def emit(self, event: str, data: object) -> None:
        # A session knows the transaction that the event belongs to; without one it goes on its own.
        emit = getattr(self.session, "emit", None)
        if emit is not None:
            emit(event, data)
        elif _emitter is not None:
            _emitter(self.run_id, event, data)

    # What the handler sends when the function has ended, and for callbacks of calls

    def finish(self, result: bytes | None) -> None:
        self.client.finish(self.run_id, result)
        if self.observer is not None:
            self.observer.finished(result)

    def cancel(self) -> None:
        self.client.cancel_run(self.run_id)
        if self.observer is not None:
            self.observer.canceled()

    def publish_step(self, step: Step) -> None:
        """A step that did not come out of the function: the result of a call, brought by its callback."""
        self.client.publish(self._step(StepSubmission(step)))
        if self.observer is not None:
            self.observer.call_returned(step)

    # Messages

    def _step(self, submission: StepSubmission) -> Message:
        return Message(
            destination=self.url,
            body=encode_step(submission.step),
            content_type=JSON,
            headers=self._headers,
            delay=submission.delay,
            not_before=submission.not_before,
            workflow=self._fields,
        )

    def _call(self, call: CallSubmission) -> Message:
        content_type = next(
            (value for name, value in call.headers.items() if name.lower() == h.CONTENT_TYPE.lower()), JSON
        )
        # The target must not see the SDK version: a target that is a workflow would take the call for one of its steps.
        headers = with_trace(call.headers)
        callback = {
            h.WORKFLOW_RUN_ID: self.run_id,
            h.WORKFLOW_CALL_TYPE: CallType.FROM_CALLBACK.value,
            h.WORKFLOW_INIT: "false",
            h.WORKFLOW_URL: self.url,
            h.FEATURE_SET: FEATURE_SET,
            # Said, because callbacks have the retries of their call otherwise, which are none by default: the run
            # would be lost when this site is away for a moment. Source: engine protocol, "Callbacks".
            h.RETRIES: str(get_settings().retries),
            h.FORWARD_PREFIX + h.WORKFLOW_CALLBACK: "true",
            h.FORWARD_PREFIX + h.WORKFLOW_STEP_ID: str(call.step.step_id),
            h.FORWARD_PREFIX + h.WORKFLOW_STEP_NAME: call.step.step_name,
            h.FORWARD_PREFIX + h.WORKFLOW_STEP_TYPE: call.step.step_type,
            h.FORWARD_PREFIX + h.WORKFLOW_CONCURRENT: str(call.step.concurrent),
            h.FORWARD_PREFIX + h.WORKFLOW_CONTENT_TYPE: content_type,
        }
        if self.invoke_count:
            headers[h.WORKFLOW_INVOKE_COUNT] = str(self.invoke_count)
            callback[h.FORWARD_PREFIX + h.WORKFLOW_INVOKE_COUNT] = str(self.invoke_count)
        return Message(
            destination=call.url,
            body=call.body,
            method=call.method,
            content_type=content_type,
            headers=headers,
            retries=call.retries,
            retry_delay=call.retry_delay,
            timeout=call.timeout,
            flow_control=call.flow_control,
            callback=CallbackConfig(url=self.url, headers=callback),
            workflow=WorkflowFields(
                run_id=self.run_id,
                url=self.url,
                call_type=CallType.TO_CALLBACK.value,
                features=CALL_FEATURES,
                sdk_version=h.PROTOCOL_VERSION,
            ),
        )

    def _wait(self, wait: WaitSubmission) -> Wait:
        return Wait(
            event_id=wait.event_id,
            message=Message(destination=self.url, content_type=JSON, headers=self._headers, workflow=self._fields),
            step=wait.step,
            timeout=wait.timeout,
            prompt=wait.message,
            form=wait.form,
        )

    def _invoke(self, invoke: InvokeSubmission) -> Message:
        options = with_default_retries(
            TriggerOptions(
                retries=invoke.retries,
                retry_delay=invoke.retry_delay,
                flow_control=invoke.flow_control,
                labels=invoke.labels,
                secret=invoke.secret,
                headers=with_trace(invoke.headers, invoke.workflow),
            )
        )
        return init_message(
            run_id=prefixed_run_id(invoke.run_id) if invoke.run_id else new_run_id(),
            url=workflow_url(invoke.workflow),
            body=encode_invoke(self._invoke_body(invoke)),
            options=options,
            invoke=True,
            invoke_count=self.invoke_count + 1,
        )

    def _invoke_body(self, invoke: InvokeSubmission) -> InvokeBody:
        """The payload of the new run, and how to go on with this one when that is over."""
        return InvokeBody(
            body=None if invoke.body is None else invoke.body.decode(),
            headers={
                h.WORKFLOW_INIT: ["false"],
                h.WORKFLOW_RUN_ID: [self.run_id],
                h.WORKFLOW_URL: [self.url],
                h.FEATURE_SET: [FEATURE_SET],
                h.WORKFLOW_SDK_VERSION: [h.PROTOCOL_VERSION],
                h.CONTENT_TYPE: [JSON],
                **{h.FORWARD_PREFIX + name: [value] for name, value in self._headers.items()},
            },
            workflow_run_id=self.run_id,
            workflow_run_created_at=self.created_at or 0,
            workflow_url=self.url,
            step=invoke.step,
        )
