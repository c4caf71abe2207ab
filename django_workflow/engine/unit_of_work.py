"""One transaction of the engine: runs locked and read, changes gathered in memory, written in bulk at its end.

Whoever changes runs (the committer with a batch of facts, a trigger or notify on its caller's connection) opens a
unit inside a transaction, locks its runs, folds changes into it through `runs`, `intake`, `waiters` …, and flushes.
`after` says what to do once the transaction is committed. Locks are taken in one order: runs by key, then waiters,
deliveries, channels.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connections
from django.db.models import Max
from django.dispatch import Signal

from django_workflow.conf import get_settings
from django_workflow.engine import events
from django_workflow.engine.after import After
from django_workflow.engine.journal_cache import JournalCache, journal_message
from django_workflow.engine.records import Lease, RunInfo, lease_of
from django_workflow.engine.run_state import RunState
from django_workflow.engine.short_deliveries import Room
from django_workflow.engine.sql import Change, hot_statements
from django_workflow.engine.sql.changes import Kind, Row, Table, deletes, inserts, updates
from django_workflow.models import (
    Attempt,
    ChannelEvent,
    DeadLetter,
    Delivery,
    InputRequest,
    JournalEntry,
    MessageLog,
    Run,
    Step,
    Waiter,
)
from django_workflow.models.channel_event import position_at
from django_workflow.models.delivery import HELD
from django_workflow.protocol.identifiers import message_id_of, uuid7
from django_workflow.protocol.steps import JournalMessage
from django_workflow.protocol.steps import Step as WireStep

_RUN, _STEP, _ENTRY, _DELIVERY, _EVENT, _WAITER = map(Table, (Run, Step, JournalEntry, Delivery, ChannelEvent, Waiter))
_STEP_UNIQUE = ("run_id", "step_id")
# What a step stays as first written, whoever writes it again.
_STEP_FIXED = frozenset({"name", "step_type", "concurrent"})


class UnitOfWork:
    def __init__(self, alias: str, now: datetime, cache: JournalCache, *, worker_key: UUID | None = None) -> None:
        self.alias = alias
        self.now = now
        self.cache = cache
        self.worker_key = worker_key
        self.after = After()
        self.may_continue: Callable[[Lease], bool] = lambda lease: False
        self.room = Room()
        """For the deliveries that its worker begins with at once, besides those that go on."""
        self.is_asked = False
        """What is written comes from beside the worker: nothing of it goes on, everything begins."""
        self.careful = False
        self.early: dict[UUID, list[Waiter]] = {}
        """Events of these runs that came before their waits, as far as they were read: see `waiters`."""
        self._states: dict[UUID, RunState] = {}
        self._infos: dict[UUID, RunInfo] = {}
        self._runs: list[Run] = []
        self._entries: list[Row] = []
        self._results: dict[UUID, set[int]] = {}
        self._known_results: dict[UUID, tuple[int, set[int]]] = {}
        self._open_steps: set[tuple[UUID, int]] = set()
        self._waiter_changes: dict[UUID, dict[str, Any]] = {}
        self._steps: dict[tuple[UUID, int], dict[str, Any]] = {}
        self._step_upserts: dict[tuple[UUID, int], set[str]] = {}
        self._written_steps: dict[UUID, set[int]] = {}
        self._fences: dict[UUID, tuple[int, UUID | None] | None] = {}
        self._held_changes: dict[UUID, dict[str, Any]] = {}
        self._settled: list[UUID] = []
        self._deliveries: list[Delivery] = []
        self._waiters: list[Waiter] = []
        self._input_requests: list[InputRequest] = []
        self._events: list[Row] = []
        self._attempts: list[Attempt] = []
        self._dead_letters: list[DeadLetter] = []
        self._messages: list[MessageLog] = []
        self._message_changes: dict[UUID, dict[str, Any]] = {}
        self._auto_events = get_settings().auto_events
        self._keeps_events = get_settings().realtime_store == "database"

    # Runs

    def lock(self, keys: Iterable[UUID], *, skip_locked: bool = False) -> set[UUID]:
        """Lock and read these runs' rows in the order of their keys. Returns the keys of those that it got."""
        wanted = sorted(set(keys) - self._states.keys())
        if not wanted:
            return set()
        locked = hot_statements(self.alias).lock(wanted, skip_locked=skip_locked)
        for row, newest in locked:
            self._states[row[0]] = RunState(row, newest or 0)
        return {row[0] for row, _ in locked}

    def open(self, leases: Iterable[Lease]) -> set[UUID]:
        """Lock and read the deliveries of these leases and their runs, in one statement where the database allows it.

        Returns the keys of those deliveries that it did not get: they are gone, or others hold them or their runs.
        """
        wanted = {lease.key: lease for lease in leases if lease.run_key is not None}
        if not wanted:
            return set()
        for held in hot_statements(self.alias).read(list(wanted.values())):
            self._fences[held.key] = (held.fence, held.worker_key)
            del wanted[held.key]
            key = held.run[0]
            if key not in self._states:
                self._states[key] = RunState(held.run, held.newest or 0)
        self._fences.update(dict.fromkeys(wanted))
        return set(wanted)

    def state(self, run_key: UUID) -> RunState:
        """The locked state of a run. Raises KeyError when the run was not locked or is gone."""
        return self._states[run_key]

    def has(self, run_key: UUID) -> bool:
        return run_key in self._states

    def is_paused(self, run_key: UUID | None) -> bool:
        """Whether a run that was locked is paused; its deliveries then wait until it goes on."""
        return run_key in self._states and self._states[run_key].paused

    def info(self, run_key: UUID) -> RunInfo:
        info = self._infos.get(run_key)
        if info is None:
            info = self._infos[run_key] = self.cache.info(run_key)
        return info

    def add_run(self, run: Run, info: RunInfo) -> RunState:
        self._runs.append(run)
        self._infos[run.pk] = info
        self.after.started.append(info)
        state = RunState(
            (run.pk, run.run_id, run.status, run.group_open, run.started_at, run.parent_id, run.why), newest=0
        )
        state.length = 1
        self._states[run.pk] = state
        return state

    def length(self, state: RunState) -> int:
        """How many messages the run's journal has (its payload is the first)."""
        if state.length is None:
            last = (
                JournalEntry.objects.using(self.alias)
                .filter(run_id=state.key)
                .order_by("-position")
                .values_list("position", flat=True)
                .first()
            )
            state.length = (last or 0) + 1
        return state.length

    def look_ahead(self, steps: Collection[tuple[UUID, int]]) -> None:
        """Read for these steps of locked runs at once what their results will ask for: lengths, and earlier results."""
        keys = {key for key, _ in steps}
        entries = JournalEntry.objects.using(self.alias).filter(run_id__in=keys)
        lengths = dict(entries.order_by().values_list("run_id").annotate(Max("position")))
        there = set(entries.filter(step_id__in={number for _, number in steps}).values_list("run_id", "step_id"))
        self._open_steps |= set(steps) - there
        for key in keys:
            state = self._states[key]
            if state.length is None:
                state.length = (lengths.get(key) or 0) + 1

    def discard(self) -> None:
        """Forget what was gathered but not written."""
        for rows in (
            self._runs,
            self._entries,
            self._deliveries,
            self._waiters,
            self._input_requests,
            self._events,
            self._attempts,
            self._dead_letters,
            self._messages,
        ):
            rows.clear()
        self._message_changes.clear()
        self._steps.clear()
        self._step_upserts.clear()
        self._results.clear()
        self._held_changes.clear()
        self._settled.clear()
        self._waiter_changes.clear()

    def drop_gathered(self, state: RunState) -> None:
        """Forget what would start or wait for something in a run that has just ended."""
        self._waiters = [row for row in self._waiters if row.run_id != state.key]
        self._input_requests = [row for row in self._input_requests if row.run_id != state.key]
        self._deliveries = [row for row in self._deliveries if row.run_id != state.key]
        self.after.followups = [lease for lease in self.after.followups if lease.run_key != state.key]

    # What is gathered

    def add_entry(
        self,
        state: RunState,
        key: UUID,
        body: str,
        *,
        call_type: str,
        step: WireStep | None = None,
        is_base64: bool = False,
        config: str = "",
    ) -> int:
        """Append a message to the run's journal; its position. `step` is its decoded form when it is a step, `config`
        the message itself when it is worth keeping."""
        position = self.length(state)
        state.length = position + 1
        result_of = step.step_id if step is not None and step.step_id > 0 else None
        if result_of is not None:
            self._results.setdefault(state.key, set()).add(result_of)
        self._entries.append(
            (key, state.key, position, call_type, result_of, body, is_base64, config, self.now)  # as in _ENTRY.names
        )
        message = journal_message(key, body, True, call_type) if is_base64 else None
        message = message or JournalMessage(message_id_of(key), body, call_type, step)
        self.after.remembered.append((state.key, position, message))
        return position

    def has_result(self, state: RunState, step_id: int) -> bool:
        """Whether a result of this step is journalled already (asked only when a fence cannot tell)."""
        if step_id in self._results.get(state.key, ()):
            return True
        if (state.key, step_id) in self._open_steps:
            return False
        # The steps of a group stand side by side: their results are read together.
        since, known = self._known_results.get(state.key, (step_id + 1, set()))
        if step_id < since:
            entries = JournalEntry.objects.using(self.alias).filter(run_id=state.key, step_id__gte=step_id)
            known = {number for number in entries.values_list("step_id", flat=True) if number is not None}
            self._known_results[state.key] = (step_id, known)
        return step_id in known

    def knows_step(self, state: RunState, step_id: int) -> bool:
        """Whether a step's row is written already. Asked with growing numbers: a run's later rows are read once."""
        known = self._written_steps.get(state.key)
        if known is None:
            rows = Step.objects.using(self.alias).filter(run_id=state.key, step_id__gte=step_id)
            known = self._written_steps[state.key] = set(rows.values_list("step_id", flat=True))
        return step_id in known

    def put_step(self, state: RunState, step_id: int, *, fresh: bool, **values: Any) -> None:
        """Write a step's row; `fresh` promises that there is none yet, else what `values` say may be an update."""
        row = self._steps.get((state.key, step_id))
        if row is None:
            row = self._steps[state.key, step_id] = {
                **_STEP.defaults,
                "id": uuid7(),
                "run_id": state.key,
                "step_id": step_id,
                "queued_at": self.now,
            }
            if not fresh:
                self._step_upserts[state.key, step_id] = set()
        if (said := self._step_upserts.get((state.key, step_id))) is not None:
            said |= values.keys() - _STEP_FIXED
        row.update(values)

    def add_delivery(self, delivery: Delivery) -> None:
        if self.is_paused(delivery.run_id):
            delivery.hold()
        self._deliveries.append(delivery)

    def add_waiter(self, waiter: Waiter) -> None:
        self._waiters.append(waiter)

    def change_waiter(self, key: UUID, **values: Any) -> None:
        self._waiter_changes.setdefault(key, {}).update(values)

    def add_input_request(self, request: InputRequest) -> None:
        self._input_requests.append(request)

    def add_attempt(self, attempt: Attempt) -> None:
        self._attempts.append(attempt)

    def add_dead_letter(self, letter: DeadLetter) -> None:
        self._dead_letters.append(letter)

    def add_message(self, log: MessageLog) -> None:
        self._messages.append(log)

    def change_message(self, key: UUID, **values: Any) -> None:
        """Change columns of a message outside workflows."""
        self._message_changes.setdefault(key, {}).update(values)

    def emit(self, state: RunState, event: str, data: str) -> None:
        """Append an event to the run's channel."""
        state.newest = max(position_at(self.now), state.newest + 1)
        self._events.append((state.run_id, state.newest, event, data, self.now))  # as in _EVENT.names
        self.after.channels[state.run_id] = state.newest

    def tell(self, state: RunState, kind: str, *, at: datetime | None = None, **fields: Any) -> None:
        """Append a workflow event to the run's channel, unless the project switched them off."""
        if self._auto_events:
            self.emit(state, *events.update(kind, state.run_id, at or self.now, **fields))

    def signal(self, signal: Signal, run_key: UUID, **values: Any) -> None:
        """Send a signal after the commit, if anyone listens."""
        if signal.receivers:
            self.after.signals.append((signal, {"run_key": run_key, **values}))

    def lease_at_once(self, row: Delivery) -> bool:
        """Lease a new delivery to the worker of this unit, which goes on with it right after the commit, if it can.

        A run's only delivery takes the place of the one that is settled; others need room.
        """
        if self.worker_key is None:
            return False
        lease = lease_of(row, self.worker_key)
        if (self.is_asked or not row.solo) and not self.room.take(lease):
            return False
        row.worker_id = self.worker_key
        row.fence = lease.fence = 1
        lease.claimed_at = self.now
        self.continue_with(lease)
        return True

    def continue_with(self, lease: Lease) -> None:
        """Go on with a delivery that was written leased, right after the commit."""
        self.after.followups.append(lease)

    # Deliveries that a worker holds: looked at when their facts are folded, written with everything else

    def advance(self, lease: Lease, *, release: bool, **columns: Any) -> bool:
        """Re-use a delivery's row for its run's next call, if the lease still holds. False: the lease is lost."""
        if not self.holds(lease):
            return False
        if "due_at" in columns and self.is_paused(lease.run_key):
            columns |= {"due_at": HELD, "held_due_at": columns["due_at"]}
        worker_key = None if release else lease.worker_key
        self._fences[lease.key] = (lease.fence + 1, worker_key)
        said = self._held_changes.setdefault(lease.key, {})
        said.update(columns, worker_id=worker_key, fence=lease.fence + 1)
        return True

    def finish_delivery(self, lease: Lease) -> bool:
        """Delete a settled delivery, if the lease still holds."""
        if not self.holds(lease):
            return False
        self._fences[lease.key] = None
        self._held_changes.pop(lease.key, None)
        self._settled.append(lease.key)
        return True

    def mark(self, lease: Lease, **columns: Any) -> bool:
        """Note something on a delivery without moving its fence, if the lease still holds."""
        if not self.holds(lease):
            return False
        self._held_changes.setdefault(lease.key, {}).update(columns)
        return True

    def holds(self, lease: Lease) -> bool:
        """Whether the lease still holds. Its row is locked from then on, so this stays true until the commit."""
        if lease.key not in self._fences:
            rows: Any = Delivery.objects.using(self.alias).filter(pk=lease.key)
            rows = rows.select_for_update() if self._locks_rows else rows
            self._fences[lease.key] = rows.values_list("fence", "worker_id").first()
        return self._fences[lease.key] == (lease.fence, lease.worker_key)

    @property
    def _locks_rows(self) -> bool:
        """False on SQLite, where the transaction itself is the lock."""
        return connections[self.alias].features.has_select_for_update

    # Writing

    def flush_steps(self) -> None:
        """Write the gathered steps now: statements about the steps of a run follow that must see them."""
        self._write([*self._new_runs(), *self._step_changes()])

    def flush(self) -> After:
        """Write what was gathered, and empty the unit."""
        for state in self._states.values():
            if state.in_group and state.group_open:
                self.flush_steps()
                self._show_most_urgent(state)
        if not self._keeps_events:
            self._hand_on_events()
        insert = self._insert
        insert(MessageLog, self._messages)
        for key, values in self._message_changes.items():
            MessageLog.objects.using(self.alias).filter(pk=key).update(**values)
        self._message_changes.clear()
        self._write(
            [
                *self._new_runs(),
                *self._step_changes(),
                *updates(_RUN, self._run_changes()),
                *inserts(_ENTRY, self._entries),
                *updates(_DELIVERY, self._held_changes),
                *deletes(_DELIVERY, self._settled),
                *inserts(_DELIVERY, [_DELIVERY.row(row) for row in self._deliveries]),
                *inserts(_EVENT, self._events),
                *updates(_WAITER, self._waiter_changes),
                *inserts(_WAITER, [_WAITER.row(row) for row in self._waiters]),
            ]
        )
        for rows in (self._entries, self._settled, self._deliveries, self._events, self._waiters):
            rows.clear()
        self._held_changes.clear()
        self._waiter_changes.clear()
        self._open_steps.clear()
        self._results.clear()
        self._known_results.clear()
        self.early.clear()
        insert(InputRequest, self._input_requests)
        insert(Attempt, self._attempts)
        insert(DeadLetter, self._dead_letters)
        return self.after

    def _write(self, changes: list[Change]) -> None:
        if changes:
            self.after.channels |= hot_statements(self.alias).write(changes)

    def _new_runs(self) -> list[Change]:
        for run in self._runs:
            state = self._states[run.pk]
            for name, value in state.changes.items():
                setattr(run, name, value)
            state.changes = {}
        rows = [_RUN.row(run) for run in self._runs]
        self._runs.clear()
        return inserts(_RUN, rows)

    def _step_changes(self) -> list[Change]:
        fresh: list[Row] = []
        groups: dict[tuple[str, ...], list[Row]] = {}
        for key, row in self._steps.items():
            said = self._step_upserts.get(key)
            (fresh if said is None else groups.setdefault(tuple(sorted(said)), [])).append(tuple(row.values()))
        self._steps.clear()
        self._step_upserts.clear()
        upserts = (
            Change(Kind.UPSERT, _STEP, _STEP.names, rows, unique=_STEP_UNIQUE, updates=names)
            for names, rows in groups.items()
        )
        return [*inserts(_STEP, fresh), *upserts]

    def _run_changes(self) -> dict[UUID, dict[str, Any]]:
        changes = {}
        for state in self._states.values():
            if state.changes:
                changes[state.key] = state.changes
                state.changes = {}
        return changes

    def _hand_on_events(self) -> None:
        """Events that the database does not keep go to their store after the commit, which gives them positions."""
        self.after.events += [(channel, event, data) for channel, _, event, data, _ in self._events]
        self.after.channels.clear()
        self._events.clear()

    def _show_most_urgent(self, state: RunState) -> None:
        """The status of a run with parallel branches is the most urgent of theirs."""
        steps = Step.objects.using(self.alias).filter(run_id=state.key, status__in=Step.OPEN)
        found = set(steps.values_list("status", flat=True))
        state.set(status=next((status for status in Run.URGENCY if status in found), Run.Status.RUNNING))

    def _insert(self, model: Any, rows: list[Any]) -> None:
        if rows:
            model.objects.using(self.alias).bulk_create(rows)
            rows.clear()
