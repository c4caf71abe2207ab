"""The rows of hosted runs, kept from what this site's endpoint sees: deliveries, what they submit, how they end.

`serve` tells a Recorder what happens in one delivery; each telling is one `changing` of the run's rows. What comes
twice or in another order changes nothing, what is never seen is repaired by `backfill`. Nothing here raises: a delivery
goes on, whatever becomes of its rows.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Concatenate, ParamSpec
from uuid import UUID

import msgspec
from django.db import Error as DatabaseError

from django_workflow.client.observer import Delivered, Failure
from django_workflow.client.urls import workflow_name
from django_workflow.conf import get_settings
from django_workflow.errors import StepError
from django_workflow.mirror.change import RunChange, changing
from django_workflow.mirror.failures import note_dead_letter, note_failure_function
from django_workflow.mirror.run_rows import discovered_run, due_at, run_of_message
from django_workflow.mirror.schedules import note_run
from django_workflow.mirror.surroundings import surroundings
from django_workflow.models import DeadLetter, Delivery, Run
from django_workflow.protocol import headers as h
from django_workflow.protocol.bodies import printable, stored
from django_workflow.protocol.callbacks import decode_error
from django_workflow.protocol.headers import any_case, header_lists
from django_workflow.protocol.invocation import Kind
from django_workflow.protocol.invoke import decode_invoke
from django_workflow.protocol.publish import Message
from django_workflow.protocol.steps import Step
from django_workflow.replay.journal import Journal
from django_workflow.replay.outcome import CallSubmission, StepSubmission, Submission, WaitSubmission
from django_workflow.replay.port import PROGRESS_EVENT

logger = logging.getLogger("django_workflow.mirror")

ENGINE_RETRIES = 3
"""Retries of a run that says nothing of them. Source: engine protocol, "Publish header vocabulary"."""

P = ParamSpec("P")


def harmless(method: Callable[Concatenate[Recorder, P], None]) -> Callable[Concatenate[Recorder, P], None]:
    """A method whose failure is logged, and hurts nobody."""

    @functools.wraps(method)
    def tell(self: Recorder, /, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            method(self, *args, **kwargs)
        except Exception:
            logger.exception(
                "The rows of run %s could not be brought up to date (%s); the run goes on, and `manage.py "
                "workflow_sync` repairs them.",
                self.run_id or "?",
                method.__name__,
            )

    return tell


class Recorder:
    """Implements `client.observer.Observer` for one delivery."""

    def __init__(self, delivered: Delivered) -> None:
        self.delivered = delivered
        self.invocation = delivered.invocation
        self.run_id = delivered.invocation.run_id
        self.first_run_id = ""
        self._running: Step | None = None
        self._started_at: datetime | None = None
        self._arrived_at = surroundings().now()

    @property
    def _attempt(self) -> int:
        return self.invocation.retried + 1

    # Observer

    @harmless
    def arrived(self) -> None:
        with changing(self.run_id, create=self._discovered) as change:
            if change is None:
                return
            if change.run.first_run is not None:
                self.first_run_id = change.run.first_run.run_id
            if self.invocation.kind is Kind.FAILURE_CALLBACK:
                self._run_failed(change)
            elif change.alive:
                self._bring_up_to_date(change)

    @harmless
    def step_started(self, step: Step) -> None:
        self._running, self._started_at = step, surroundings().now()
        with changing(self.run_id) as change:
            if change is not None and change.alive:
                change.start_step(step, attempt=self._attempt, at=self._started_at)

    @harmless
    def submitted(self, submissions: Sequence[Submission], invoked: Sequence[Message]) -> None:
        children = list(invoked)
        with changing(self.run_id, create=self._discovered) as change:
            if change is None:
                return
            change.reopen()
            if not change.alive:
                return
            change.begin(self._arrived_at)
            change.read_steps(submission.step.step_id or submission.step.target_step or 0 for submission in submissions)
            for submission in submissions:
                self._note_submission(change, submission, children)
            parent_key = change.run.pk
        for message in invoked:
            self._note_child(message, parent_key)

    @harmless
    def finished(self, result: bytes | None) -> None:
        with changing(self.run_id, create=self._discovered) as change:
            if change is not None:
                change.reopen()
                change.begin(self._arrived_at)
                text = None if result is None else stored(result)[0]
                change.finish(Run.Status.SUCCESS, result=text)

    @harmless
    def canceled(self) -> None:
        with changing(self.run_id, create=self._discovered) as change:
            if change is not None:
                change.reopen()
                change.begin(self._arrived_at)
                change.finish(Run.Status.CANCELED)

    @harmless
    def failed(self, failure: Failure) -> None:
        if self.invocation.kind is Kind.FAILURE_CALLBACK:
            self._failure_function_failed(failure)
        elif self.invocation.kind in (Kind.STEPS, Kind.CALL_CALLBACK):
            with changing(self.run_id, create=self._discovered) as change:
                if change is not None and change.alive:
                    self._note_failure(change, failure)

    @harmless
    def run_ended(self) -> None:
        """How it ended is not known here: the engine is asked soon."""
        runs = Run.objects.using(get_settings().database).active()
        runs.filter(run_id=self.run_id).update(check_at=surroundings().now())

    @harmless
    def call_returned(self, step: Step | None) -> None:
        returned = self.invocation.call
        assert returned is not None
        answer = returned.body
        assert answer is not None
        of_call = step or Step(
            step_id=returned.step_id,
            step_name=returned.step_name,
            step_type=returned.step_type,
            concurrent=returned.concurrent,
        )
        with changing(self.run_id, create=self._discovered) as change:
            if change is None or not change.alive:
                return
            change.begin(self._arrived_at)
            if step is not None:
                row = change.step(step.step_id)
                if row is not None:
                    row.attempts = max(row.attempts, answer.retried + 1)
                change.record_result(step)
                return
            error = f"HTTP status {answer.status}" if answer.status else "No answer."
            change.fail_step(
                error,
                step=of_call,
                step_name=returned.step_name,
                attempt=answer.retried + 1,
                most=answer.max_retries + 1,
                final=False,
                retry_at=None,
            )

    @harmless
    def failure_handled(self, *, found: bool = True, result: str | None = None) -> None:
        state = DeadLetter.FailureState.SUCCESS if found else DeadLetter.FailureState.NONE
        note_failure_function(self.run_id, state, result or "")

    @harmless
    def run_started(self, run_id: str) -> None:
        """The endpoint has started this run of itself: for a schedule, or for somebody who posts to it."""
        self.run_id = run_id
        schedule = any_case(self.delivered.headers).get(h.SCHEDULE_ID)
        kind = Run.TriggerKind.SCHEDULE if schedule else Run.TriggerKind.API
        with changing(run_id, create=self._discovered) as change:
            if change is not None and change.run.trigger_kind == Run.TriggerKind.CODE:
                change.run.trigger_kind = kind
        if schedule:
            note_run(schedule, run_id)

    # What a delivery says

    def _discovered(self) -> Run:
        """The row of a run that this site did not start itself, or whose row is gone."""
        invocation = self.invocation
        return discovered_run(
            self.run_id,
            self.delivered.url,
            surroundings().now(),
            created_ms=invocation.created_at,
            payload=invocation.payload,
            labels=invocation.labels,
            headers=self.delivered.headers,
        )

    def _bring_up_to_date(self, change: RunChange) -> None:
        """The delivered journal: results that the engine made (waits, invocations), and what was missed."""
        steps = self.invocation.steps
        try:
            journal = Journal.from_messages(steps.messages) if steps else Journal()
        except StepError:  # the endpoint answers with it
            return
        change.begin(self._arrived_at)
        missing = journal.results.keys() - change.known_results()
        change.read_steps({*missing, *journal.plans})
        for number in sorted(missing):
            change.record_result(journal.results[number])
        for number, step in journal.plans.items():
            if number not in journal.results:
                change.plan(step, change.now)
        change.goes_on(journal.last)

    def _note_submission(self, change: RunChange, submission: Submission, children: list[Message]) -> None:
        step = submission.step
        if isinstance(submission, StepSubmission):
            due = due_at(submission.delay, submission.not_before, change.now)
            if step.is_plan:
                change.plan(step, due)
            else:
                runs = self._running is not None and self._running.step_id == step.step_id
                began = self._started_at if runs else self._arrived_at
                change.record_result(step, started_at=began, attempt=self._attempt, due=due)
        elif isinstance(submission, CallSubmission):
            change.call(step, submission.method, submission.url)
        elif isinstance(submission, WaitSubmission):
            deadline = change.now + timedelta(seconds=submission.timeout)
            change.wait(step, submission.event_id, deadline, prompt=submission.message)
            if submission.form is not None:
                change.ask(step, submission.event_id, submission.form)
        else:
            message = children.pop(0)
            assert message.workflow is not None
            change.invoke(step, workflow_name(message.destination), message.workflow.run_id)

    def _note_child(self, message: Message, parent_key: UUID) -> None:
        """The row of a run that this one invokes."""
        fields, body = message.workflow, decode_invoke(message.body)
        assert fields is not None

        def made() -> Run:
            payload = (body.body or "").encode()
            return run_of_message(
                message, surroundings().now(), kind=Run.TriggerKind.PARENT, payload=payload, parent_key=parent_key
            )

        with changing(fields.run_id, create=made):
            pass

    # Failures

    def _note_failure(self, change: RunChange, failure: Failure) -> None:
        retries = self._retries(change)
        final = failure.final or (retries is not None and self.invocation.retried >= retries)
        retry_at = None
        if not final:
            expression = change.config.retry_delay if change.config else None
            delay = surroundings().retry_delay(
                self.invocation.retried, expression, header_lists(failure.headers), change.now
            )
            retry_at = change.now + delay if delay else None
        step, name = self._running, failure.step_name or ""
        if step is not None and not name:
            step = None  # the code after a step failed
        change.begin(self._arrived_at)
        change.fail_step(
            printable(failure.error),
            step=step,
            step_name=name,
            attempt=self._attempt,
            most=None if retries is None else retries + 1,
            final=final,
            retry_at=retry_at,
            started_at=self._started_at,
        )
        change.note_attempt(
            self.invocation.message_id or self.run_id,
            kind=Delivery.Kind.STEP if self.invocation.kind is Kind.STEPS else Delivery.Kind.CALLBACK,
            step_id=step.step_id if step else None,
            step_name=name[:255],
            number=self._attempt,
            status=failure.status,
            error=printable(failure.error),
            response_headers=msgspec.json.encode(header_lists(failure.headers)).decode(),
            response_body=printable(failure.body.decode("utf-8", "replace")),
            started_at=self._arrived_at,
            finished_at=change.now,
            retry_at=retry_at,
        )
        if final:
            change.finish(Run.Status.FAILED, error=printable(failure.error), error_step=name, certain=failure.final)

    def _retries(self, change: RunChange) -> int | None:
        """How often the engine tries this run's calls again; None when somebody else has started it."""
        config = change.config
        if config is None:
            return None
        return ENGINE_RETRIES if config.retries is None else config.retries

    def _run_failed(self, change: RunChange) -> None:
        """The engine calls the failure function: the run has failed for good."""
        failure = self.invocation.failure
        assert failure is not None
        error = decode_error(failure.body)
        text = printable(f"{error.error}: {error.message}" if error.error else error.message)
        change.begin(self._arrived_at)
        name = any_case({key: values[0] for key, values in failure.header.items() if values}).get(h.ERROR_STEP_NAME)
        change.finish(Run.Status.FAILED, error=text, error_step=h.utf8_value(name or ""))
        note_dead_letter(change, failure, text)

    def _failure_function_failed(self, failure: Failure) -> None:
        state = DeadLetter.FailureState.FAILED
        with changing(self.run_id) as change:
            retries = None if change is None else self._retries(change)
        if not failure.final and (retries is None or self.invocation.retried < retries):
            state = DeadLetter.FailureState.IN_PROGRESS
        note_failure_function(self.run_id, state, printable(failure.error))


def emit(run_id: str, event: str, data: object) -> None:
    """Append an event (or progress) of a hosted run. Runs that are over take none; a broken mirror breaks no step."""
    try:
        with changing(run_id) as change:
            if change is None or not change.alive:
                return
            if event == PROGRESS_EVENT and isinstance(data, dict):
                change.show_progress(data["done"], data["total"])
            else:
                change.emit(event, msgspec.json.encode(data).decode())
    except DatabaseError:
        logger.exception("Event %r of run %s was not kept.", event, run_id)


def emit_from_outside(run_id: str, event: str, data: object) -> None:
    """Append an event to a run's channel for somebody else than the run, also when it is over."""
    with changing(run_id) as change:
        if change is not None:
            change.emit(event, msgspec.json.encode(data).decode())


def ask_soon(run_ids: Iterable[str]) -> None:
    """Have the backfill ask the engine about these runs."""
    runs = Run.objects.using(get_settings().database).active()
    runs.filter(run_id__in=list(run_ids)).update(check_at=surroundings().now())
