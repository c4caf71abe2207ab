"""One change of a hosted run's rows: locked, written and told in one transaction.

    with changing(run_id) as change:
        if change is not None:
            change.record_result(step)

The recorder, the backfill and the outbox call it. Every method may be called again with what is known already, and
then does nothing: deliveries come twice, late, and in another order. Rows, events and signals are those that the
embedded engine writes, so that whoever shows a run need not know who keeps it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

import msgspec
from django.db import IntegrityError, transaction

from django_workflow import signals
from django_workflow.conf import get_settings
from django_workflow.mirror.draft import RunDraft, read_config
from django_workflow.mirror.run_rows import CHECK_AFTER
from django_workflow.mirror.surroundings import surroundings
from django_workflow.models import Attempt, InputRequest, Run, Step, Waiter
from django_workflow.models.step import PREVIEW_CHARACTERS
from django_workflow.protocol.bodies import printable
from django_workflow.protocol.secrets import RESULT, shown_out, within
from django_workflow.protocol.steps import Step as WireStep
from django_workflow.protocol.steps import StepType, decode_step, encode_step
from django_workflow.protocol.updates import step_result
from django_workflow.protocol.waits import FormPrompt, encode_prompt

SLEEPS = (StepType.SLEEP_FOR, StepType.SLEEP_UNTIL)
WAITS = (StepType.WAIT, StepType.WAIT_FOR_WEBHOOK)
# Their rows were written when they began, before a delivery of their own.
ANNOUNCED = (*WAITS, StepType.CALL, StepType.INVOKE)


@contextmanager
def changing(run_id: str, *, create: Callable[[], Run] | None = None) -> Iterator[RunChange | None]:
    """A transaction that holds a run's row and writes what the block changes.

    None: there is no such run. `create` makes the row of one that is not known yet.
    """
    alias = get_settings().database
    with surroundings().atomic(alias):
        run, is_new = _locked(alias, run_id), False
        if run is None and create is not None:
            run, is_new = _created(alias, create())
        if run is None:
            yield None
            return
        change = RunChange(alias, run, surroundings().now(), is_new=is_new)
        yield change
        change.write()


def _locked(alias: str, run_id: str) -> Run | None:
    key = Run.objects.using(alias).filter(run_id=run_id).values_list("pk", flat=True).first()
    return None if key is None else Run.objects.using(alias).locked([key]).first()


def _created(alias: str, run: Run) -> tuple[Run | None, bool]:
    try:
        with transaction.atomic(using=alias):
            run.save(using=alias, force_insert=True)
    except IntegrityError:  # another process heard of it at the same moment
        return _locked(alias, run.run_id), False
    return run, True


class RunChange(RunDraft):
    """What happens to a run, put into its rows, its events and the project's signals."""

    # The run begins and goes on

    def begin(self, at: datetime | None = None) -> None:
        """Its first call was made."""
        run = self.run
        if run.started_at is not None:
            return
        run.started_at = at or self.now
        self._moves = True
        self.tell("runStart", at=run.started_at)
        self._signal(signals.run_started)

    def goes_on(self, last: WireStep | None) -> None:
        """A delivery came whose newest message is this step (None: the payload): what it slept for is over."""
        self.begin()
        self._moves = True
        if last is None or last.is_plan or last.step_type not in SLEEPS:
            return
        row = self.step(last.step_id)
        if row is not None and row.status == Step.Status.SLEEPING:
            self._put(row, status=Step.Status.SUCCESS, finished_at=self.now)

    def reopen(self) -> None:
        """The engine took something of a run that was thought to have failed: it goes on."""
        run = self.run
        if run.status != Run.Status.FAILED:
            return
        run.status, run.finished_at, run.error, run.error_step = Run.Status.RUNNING, None, "", ""
        self._moves = True

    # Steps

    def start_step(self, step: WireStep, *, attempt: int, at: datetime) -> None:
        """A step's function is about to run."""
        row = self._row(step)
        if row.position is not None or (row.status == Step.Status.RUNNING and row.attempts == attempt):
            return
        self._put(row, status=Step.Status.RUNNING, attempts=attempt, started_at=at, due_at=None)
        self._tell_step("stepStart", step, at=at, attempt=attempt)

    def plan(self, step: WireStep, due: datetime) -> None:
        """A branch of a parallel group was announced."""
        branch = msgspec.structs.replace(step, step_id=step.target_step or 0, target_step=None)
        if self.step(branch.step_id) is not None:
            return
        asleep = step.step_type in SLEEPS and due > self.now
        status = Step.Status.SLEEPING if asleep else Step.Status.QUEUED
        self._put(self._row(branch), status=status, due_at=due if asleep else None)
        if asleep:
            self._explain(Run.Status.SLEEPING, _sleeping(due), due)

    def ask(self, step: WireStep, event_id: str, form: FormPrompt) -> None:
        """Keep the form that a step waits for."""
        values = {"event_id": event_id, "prompt": printable(encode_prompt(form)), "created_at": self.now}
        InputRequest.objects.using(self.alias).get_or_create(run=self.run, step_id=step.step_id, defaults=values)

    def wait(self, step: WireStep, event_id: str, deadline: datetime | None, *, prompt: str | None = None) -> None:
        """The run waits for an event."""
        row = self._row(step)
        if row.position is not None or row.status == Step.Status.WAITING:
            return
        self._put(row, status=Step.Status.WAITING, started_at=self.now, due_at=deadline, event_id=event_id[:255])
        Waiter.objects.using(self.alias).create(
            run=self.run,
            event_id=event_id,
            step=encode_step(step).decode(),
            step_id=step.step_id,
            step_name=row.name,
            step_type=step.step_type,
            prompt=printable(prompt or ""),
            url=self.run.url,
            created_at=self.now,
            deadline_at=deadline,
        )
        self._tell_step("stepStart", step)
        message = printable(prompt or step.step_name)
        self._tell_step("waitingForInput", step, eventId=event_id, message=message)
        until = f" until {deadline:%Y-%m-%d %H:%M:%S} UTC" if deadline else ""
        self._explain(Run.Status.WAITING, f"Waiting for event `{event_id}`{until}.", deadline)

    def call(self, step: WireStep, method: str, url: str) -> None:
        """The engine makes a call for the run."""
        row = self._row(step)
        if row.position is not None or row.status in (Step.Status.RUNNING, Step.Status.RETRYING):
            return
        self._put(row, status=Step.Status.RUNNING, started_at=self.now)
        self._tell_step("stepStart", step)
        self._explain(Run.Status.RUNNING, f"Calling {method} {url}.", None)

    def invoke(self, step: WireStep, workflow: str, child_id: str) -> None:
        """The run waits for another one."""
        row = self._row(step)
        if row.position is not None or row.status == Step.Status.WAITING:
            return
        self._put(row, status=Step.Status.WAITING, started_at=self.now, event_id=child_id[:255])
        self._tell_step("stepStart", step)
        self._explain(Run.Status.WAITING, f"Waiting for {workflow}, run {child_id}.", None)

    def record_result(
        self,
        step: WireStep,
        *,
        started_at: datetime | None = None,
        attempt: int = 1,
        due: datetime | None = None,
        at: datetime | None = None,
    ) -> bool:
        """A step has its result; `due` says until when it sleeps. False when that is known: the first one counts."""
        row = self._row(step)
        if row.position is not None:
            return False
        step = self._with_secrets(step, row)
        ended, announced = at or self.now, step.step_type in ANNOUNCED
        began = started_at or row.started_at or ended
        asleep = step.step_type in SLEEPS and due is not None and due > self.now
        was_told = row.status in (Step.Status.RUNNING, Step.Status.RETRYING, Step.Status.WAITING)
        if not announced:
            row.attempts = max(attempt, row.attempts)
        self._put(
            row,
            status=Step.Status.SLEEPING if asleep else Step.Status.SUCCESS,
            started_at=began,
            finished_at=None if asleep else ended,
            due_at=due if asleep else None,
            position=step.step_id,
            preview=(shown_out(step, hide=self._hides_bodies) or "")[:PREVIEW_CHARACTERS].replace("\0", ""),
            error="",
            event_id=(step.wait_event_id or row.event_id)[:255],
        )
        self._entries.append(self._entry(step))
        if step.step_type in WAITS:
            self._end_wait(step)
        elif not was_told:
            self._tell_step("stepStart", step, at=began, attempt=row.attempts)
        self._tell_finish(step, row.attempts, began, ended)
        self._signal(signals.step_completed, step=row)
        if asleep and due is not None:
            self._explain(Run.Status.SLEEPING, _sleeping(due), due)
        return True

    def fail_step(
        self,
        error: str,
        *,
        step: WireStep | None,
        step_name: str,
        attempt: int,
        most: int | None,
        final: bool,
        retry_at: datetime | None,
        started_at: datetime | None = None,
    ) -> None:
        """An attempt failed: of a step, or of the code around (`step` None). `most`: how many there may be."""
        if step is not None:
            row = self._row(step)
            status = Step.Status.FAILED if final else Step.Status.RETRYING
            if row.position is not None or (row.status == status and row.attempts >= attempt):
                return
            self._put(
                row,
                status=status,
                attempts=attempt,
                started_at=started_at or row.started_at,
                finished_at=self.now if final else None,
                due_at=retry_at,
                error=error,
            )
        self._moves = True
        self.tell(
            "stepFail",
            stepName=step_name or None,
            stepId=step.step_id if step else None,
            error=error[:2000],
            attempt=attempt,
            maxAttempts=most,
            willRetry=not final,
            nextRetryAt=int(retry_at.timestamp() * 1000) if retry_at else None,
        )
        self._signal(signals.step_failed, step_name=step_name, error=error, will_retry=not final)
        if not final:
            counted = f"Retry {attempt} of {most - 1}" if most else f"Retry {attempt}"
            when = f" at {retry_at:%H:%M:%S} UTC" if retry_at else ""
            self._explain(Run.Status.RETRYING, f"{counted}{when} after {error[:200]}", retry_at)

    def note_attempt(self, message_id: str, **values: Any) -> bool:
        """Keep a failed attempt with what was answered. False when it is known. `values` are columns of Attempt."""
        key = message_key(message_id)
        attempts = Attempt.objects.using(self.alias)
        if attempts.filter(run=self.run, message_key=key, number=values["number"]).exists():
            return False
        attempts.create(run=self.run, message_key=key, **values)
        return True

    # Its end

    def finish(
        self,
        status: Run.Status,
        *,
        result: str | None = None,
        error: str = "",
        error_step: str = "",
        certain: bool = True,
        at: datetime | None = None,
    ) -> bool:
        """The run is over. False when it was already. `certain` False: the engine is asked whether it really is."""
        run = self.run
        if certain:
            run.check_at = None
        if not self.alive:
            return False
        run.status, run.finished_at = status, at or self.now
        run.why, run.due_at = "", None
        run.result = result if result is not None else run.result
        run.error = error or run.error
        run.error_step = error_step[:255] or run.error_step
        if not certain:
            run.check_at = self.now + CHECK_AFTER
        self._close_open(status)
        told = "success" if status == Run.Status.SUCCESS else "failed"
        self.tell(
            "runFinish",
            at=run.finished_at,
            status=told,
            error="canceled" if status == Run.Status.CANCELED else error or None,
        )
        self._signal(signals.run_finished)
        return True

    # Inside

    def _with_secrets(self, step: WireStep, row: Step) -> WireStep:
        """The step with what it said of secrets when it began: the hosted engine makes the results of such steps
        itself, and knows nothing of them."""
        secret: tuple[str, ...] = ()
        if step.step_type in WAITS and not step.secret:
            waiter = Waiter.objects.using(self.alias).filter(run=self.run, step_id=step.step_id).first()
            secret = decode_step(waiter.step).secret if waiter is not None and waiter.step else ()
        elif step.step_type == StepType.INVOKE and not step.secret and row.event_id:
            child = Run.objects.using(self.alias).filter(run_id=row.event_id).only("config").first()
            config = read_config(child) if child is not None else None
            secret = within(RESULT, config.secret) if config is not None else ()
        return msgspec.structs.replace(step, secret=secret) if secret else step

    @property
    def _hides_bodies(self) -> bool:
        return self.config is not None and "body" in self.config.redact

    def _tell_finish(self, step: WireStep, attempt: int, began: datetime, ended: datetime) -> None:
        self._tell_step(
            "stepFinish",
            step,
            at=ended,
            attempt=attempt,
            durationMs=max(round((ended - began).total_seconds() * 1000), 0),
            result=step_result(step, get_settings().publish_results, hide=self._hides_bodies),
        )

    def _end_wait(self, step: WireStep) -> None:
        state = Waiter.State.TIMED_OUT if step.wait_timeout else Waiter.State.RESOLVED
        self._waiting().filter(step_id=step.step_id).update(state=state, resolved_at=self.now)
        self._tell_step("inputResolved", step, eventId=step.wait_event_id)

    def _close_open(self, status: Run.Status) -> None:
        self._waiting().update(state=Waiter.State.CANCELED, resolved_at=self.now)
        if status == Run.Status.SUCCESS:
            return
        rows = {row.step_id: row for row in Step.objects.using(self.alias).filter(run=self.run, status__in=Step.OPEN)}
        for row in {**rows, **self._touched}.values():
            if row.status in Step.OPEN:
                failed = status == Run.Status.FAILED and row.status == Step.Status.RETRYING
                self._put(row, status=Step.Status.FAILED if failed else Step.Status.CANCELED, finished_at=self.now)

    def _waiting(self) -> Any:
        return Waiter.objects.using(self.alias).filter(run=self.run, state=Waiter.State.WAITING)


def message_key(message_id: str) -> UUID:
    """The key that stands for a message of the hosted engine, whose ids are no UUIDs."""
    return uuid5(NAMESPACE_URL, message_id)


def _sleeping(due: datetime) -> str:
    return f"Sleeping until {due:%Y-%m-%d %H:%M:%S} UTC."
