"""What a change of a hosted run's rows has gathered, and how it is written: once, at the end of its transaction.

`change` says what happens to the run. Here stand the rows that it read and touched, the events and the signals that
follow; watchers and receivers hear of them after the commit.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import msgspec
from django.db import transaction
from django.dispatch import Signal

from django_workflow import signals
from django_workflow.conf import get_settings
from django_workflow.mirror.run_rows import CHECK_AFTER
from django_workflow.models import ChannelEvent, JournalEntry, Run, Step
from django_workflow.models.channel_event import position_at
from django_workflow.protocol.publish import Message
from django_workflow.protocol.steps import CallType, encode_step
from django_workflow.protocol.steps import Step as WireStep
from django_workflow.protocol.updates import update

logger = logging.getLogger("django_workflow.mirror")

LONGEST_CHECK = timedelta(hours=6)
"""How late at most a run that sleeps or waits is asked after: it may have been canceled elsewhere."""

STEPS_PER_STATEMENT = 500


class RunDraft:
    """A run's row, locked, and what changes with it. `is_new`: it was made in this transaction."""

    def __init__(self, alias: str, run: Run, now: datetime, *, is_new: bool = False) -> None:
        self.alias = alias
        self.run = run
        self.now = now
        self.is_new = is_new
        self._before = {field: getattr(run, field) for field in _RUN_FIELDS}
        self._steps: dict[int, Step | None] = {}
        self._touched: dict[int, Step] = {}
        self._entries: list[JournalEntry] = []
        self._events: list[tuple[str, str]] = []
        self._signals: list[tuple[Signal, dict[str, Any]]] = []
        self._explained: tuple[str, str, datetime | None] | None = None
        self._moves = False

    # What is known

    @property
    def alive(self) -> bool:
        return not self.run.is_finished

    @property
    def config(self) -> Message | None:
        """The run's options as its trigger said them; None when somebody else has started it."""
        return read_config(self.run)

    @property
    def has_news(self) -> bool:
        """Whether a step or an event changes."""
        return bool(self._touched or self._events)

    def known_results(self) -> set[int]:
        """Numbers of the steps that have a result here."""
        rows = JournalEntry.objects.using(self.alias).filter(run=self.run, step_id__isnull=False)
        known = {step_id for step_id in rows.values_list("step_id", flat=True) if step_id is not None}
        return known | {entry.step_id for entry in self._entries if entry.step_id is not None}

    def read_steps(self, step_ids: Iterable[int]) -> None:
        """Read the rows of many steps together."""
        wanted = sorted(set(step_ids) - self._steps.keys())
        self._steps.update(dict.fromkeys(wanted))
        for start in range(0, len(wanted), STEPS_PER_STATEMENT):
            some = wanted[start : start + STEPS_PER_STATEMENT]
            rows = Step.objects.using(self.alias).filter(run=self.run, step_id__in=some)
            self._steps.update((row.step_id, row) for row in rows)

    def step(self, step_id: int) -> Step | None:
        self.read_steps((step_id,))
        return self._steps[step_id]

    # Beside the steps

    def emit(self, event: str, data: str) -> None:
        """Append an event to the run's channel."""
        self._events.append((event, data))

    def tell(self, kind: str, *, at: datetime | None = None, **fields: Any) -> None:
        """Append a workflow event to the run's channel, unless the project switched them off."""
        if get_settings().auto_events:
            self._events.append(update(kind, self.run.run_id, at or self.now, **fields))

    def show_progress(self, done: int, total: int | None) -> None:
        self.run.progress_done, self.run.progress_total = done, total
        share = min(done / total, 1.0) if total else None
        self.tell("progress", done=done, total=total, progress=share)

    # Writing

    def write(self) -> None:
        """Write what has changed; watchers and receivers hear of it after the commit."""
        self._write_steps()
        if self._entries:
            JournalEntry.objects.using(self.alias).bulk_create(self._entries, ignore_conflicts=True)
        if self.alive:
            self._show_status()
        changed = [field for field in _RUN_FIELDS if getattr(self.run, field) != self._before[field]]
        if changed:
            self.run.save(using=self.alias, update_fields=changed)
        channels = self._write_events() if get_settings().realtime_store == "database" else {}
        events = [] if channels else [(self.run.run_id, name, data) for name, data in self._events]
        if channels or events or self._signals:
            told = _Told(channels, events, self._signals, self.run)
            transaction.on_commit(told.tell, using=self.alias, robust=True)

    def _write_steps(self) -> None:
        fresh = [row for row in self._touched.values() if row._state.adding]
        changed = [row for row in self._touched.values() if not row._state.adding]
        if fresh:
            Step.objects.using(self.alias).bulk_create(fresh)
        for row in changed:
            row.save(using=self.alias)

    def _show_status(self) -> None:
        """The run's status follows from its open steps: the most urgent of theirs."""
        run = self.run
        if self._touched or self._moves:
            steps = Step.objects.using(self.alias).filter(run=run, status__in=Step.OPEN)
            found = list(steps.values_list("status", "due_at"))
            statuses = {status for status, _ in found}
            if self._explained is not None and self._explained[0] == Run.Status.RETRYING:
                statuses.add(Run.Status.RETRYING)
            if run.started_at is not None or found:
                run.status = next((status for status in Run.URGENCY if status in statuses), Run.Status.RUNNING)
                run.why, run.due_at = "", None
                if self._explained is not None and self._explained[0] == run.status and len(found) < 2:
                    _, run.why, run.due_at = self._explained
                elif run.status in (Run.Status.SLEEPING, Run.Status.WAITING):
                    run.due_at = min((due for _, due in found if due), default=None)
        run.check_at = min(max(run.due_at or self.now, self.now) + CHECK_AFTER, self.now + LONGEST_CHECK)

    def _write_events(self) -> dict[str, int]:
        """Positions are taken under the run's lock, which is held to the commit."""
        if not self._events:
            return {}
        position = ChannelEvent.objects.using(self.alias).newest_position(self.run.run_id)
        rows = []
        for name, data in self._events:
            position = max(position_at(self.now), position + 1)
            rows.append(
                ChannelEvent(channel=self.run.run_id, position=position, event=name, data=data, created_at=self.now)
            )
        ChannelEvent.objects.using(self.alias).bulk_create(rows)
        return {self.run.run_id: position}

    # Gathering

    def _row(self, step: WireStep) -> Step:
        row = self.step(step.step_id)
        if row is None:
            row = self._steps[step.step_id] = Step(
                run=self.run,
                step_id=step.step_id,
                name=step.step_name[:255],
                step_type=step.step_type,
                concurrent=step.concurrent,
                status=Step.Status.QUEUED,
                queued_at=self.now,
            )
        return row

    def _put(self, row: Step, **values: Any) -> None:
        for name, value in values.items():
            setattr(row, name, value)
        self._touched[row.step_id] = row

    def _entry(self, step: WireStep) -> JournalEntry:
        # The engine alone knows the order of a run's messages; here each result stands at its step's number.
        return JournalEntry(
            run=self.run,
            position=step.step_id,
            call_type=CallType.STEP,
            step_id=step.step_id,
            body=encode_step(step).decode(),
            created_at=self.now,
        )

    def _explain(self, status: str, why: str, due: datetime | None) -> None:
        self._explained = (status, why, due)

    def _tell_step(self, kind: str, step: WireStep, *, at: datetime | None = None, **fields: Any) -> None:
        common = {"stepName": step.step_name, "stepId": step.step_id, "stepType": step.step_type}
        self.tell(kind, at=at, **common, **fields)

    def _signal(self, signal: Signal, **values: Any) -> None:
        if signal.receivers:
            self._signals.append((signal, values))


class _Told:
    """What follows the commit."""

    def __init__(
        self,
        channels: dict[str, int],
        events: Iterable[tuple[str, str, str]],
        found: list[tuple[Signal, dict[str, Any]]],
        run: Run,
    ) -> None:
        self.channels, self.events, self.signals, self.run = channels, list(events), found, run

    def tell(self) -> None:
        if self.events:
            _send(signals.channel_events_committed, events=self.events)
        if self.channels:
            _send(signals.channel_events_stored, channels=self.channels)
        for signal, values in self.signals:
            _send(signal, run=self.run, **values)


def _send(signal: Signal, **values: object) -> None:
    for receiver, outcome in signal.send_robust(sender=None, **values):
        if isinstance(outcome, Exception):
            logger.error("Receiver %r of a workflow signal failed.", receiver, exc_info=outcome)


_config_decoder = msgspec.json.Decoder(Message)


def read_config(run: Run) -> Message | None:
    """A run's options as its trigger said them; None when somebody else has started it."""
    try:
        return _config_decoder.decode(run.config)
    except msgspec.MsgspecError:
        return None


_RUN_FIELDS = (
    "status",
    "why",
    "error",
    "error_step",
    "result",
    "payload",
    "payload_is_base64",
    "labels",
    "trigger_kind",
    "parent_id",
    "resumed_from_id",
    "first_run_id",
    "progress_done",
    "progress_total",
    "started_at",
    "finished_at",
    "due_at",
    "check_at",
)
