"""All that is stored of some runs, read with a fixed number of queries: what their logs are made of."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar
from uuid import UUID

import msgspec
from django.db.models import Model, Q

from django_workflow.engine.calls import called_step
from django_workflow.engine.records import RunConfig, StoredMessage, decode_config, decode_message_config
from django_workflow.engine.shown import Shown
from django_workflow.models import Attempt, DeadLetter, Delivery, JournalEntry, Run, Step, Waiter
from django_workflow.protocol.headers import CONTENT_TYPE, forwardable, header_lists
from django_workflow.protocol.resources import HeaderLists
from django_workflow.protocol.steps import CallType, decode_step
from django_workflow.protocol.steps import Step as WireStep

M = TypeVar("M", bound=Model)


@dataclass
class RunRows:
    """One run. What belongs to a step stands under the step's number, the newest of each kind."""

    run: Run
    config: RunConfig
    shown: Shown
    steps: list[Step] = field(default_factory=list)
    results: dict[int, JournalEntry] = field(default_factory=dict)
    """Results by their place in the journal."""
    plans: dict[int, tuple[JournalEntry, WireStep]] = field(default_factory=dict)
    calls: dict[int, tuple[JournalEntry, StoredMessage]] = field(default_factory=dict)
    answers: dict[int, JournalEntry] = field(default_factory=dict)
    last: JournalEntry | None = None
    """The last step's message that was journalled."""
    attempts: list[Attempt] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)
    waiters: dict[int, Waiter] = field(default_factory=dict)
    children: dict[int, Run] = field(default_factory=dict)
    letter: DeadLetter | None = None

    @cached_property
    def headers(self) -> HeaderLists:
        """What every call of the run's endpoint carries."""
        content_type = {CONTENT_TYPE: self.config.content_type} if self.config.content_type else {}
        return self.shown.headers(header_lists({**forwardable(self.config.headers), **content_type}))


def load(
    alias: str, runs: Sequence[Run], trim: int | None, positions: Collection[int] | None = None
) -> dict[UUID, RunRows]:
    """The rows of these runs by their key. With `positions`, only what single steps are shown with: no results at
    other places, and no lists of steps, attempts and deliveries."""
    found = {run.pk: _empty(run, trim) for run in runs}
    keys = list(found)

    def each(model: type[M], order: str, take: Callable[[RunRows, M], None], chosen: Q | None = None) -> None:
        for row in model._default_manager.using(alias).filter(chosen or Q(), run_id__in=keys).order_by(order, "pk"):
            take(found[row.run_id], row)  # type: ignore[attr-defined]

    wanted = None if positions is None else Q(position__in=positions) | Q(step_id=None)
    each(JournalEntry, "position", _take_entry, wanted)
    if positions is None:
        each(Step, "step_id", lambda rows, step: rows.steps.append(step))
        each(Attempt, "finished_at", lambda rows, attempt: rows.attempts.append(attempt))
        each(Delivery, "created_at", lambda rows, delivery: rows.deliveries.append(delivery))
    each(Waiter, "created_at", _take_waiter, ~Q(step_id=None))
    each(DeadLetter, "created_at", _take_letter)
    for child in Run.objects.using(alias).filter(parent_id__in=keys).order_by("created_at", "pk"):
        invoker = decode_config(child.config).invoker
        if invoker is not None and child.parent_id is not None:
            found[child.parent_id].children[invoker.step.step_id] = child
    return found


def _empty(run: Run, trim: int | None) -> RunRows:
    config = decode_config(run.config)
    return RunRows(run, config, Shown(config.redact, trim, config.secret))


def _take_entry(rows: RunRows, entry: JournalEntry) -> None:
    if entry.call_type == CallType.STEP:
        rows.last = entry
        if entry.step_id is not None:
            rows.results[entry.position] = entry
        elif (plan := read_step(entry.body)) is not None:
            rows.plans[plan.target_step or 0] = entry, plan
    elif message := decode_message_config(entry.config):
        number = called_step(message).step_id
        if entry.call_type == CallType.TO_CALLBACK:
            rows.calls[number] = entry, message
        else:
            rows.answers[number] = entry


def _take_waiter(rows: RunRows, waiter: Waiter) -> None:
    if waiter.step_id is not None:
        rows.waiters[waiter.step_id] = waiter


def _take_letter(rows: RunRows, letter: DeadLetter) -> None:
    rows.letter = letter


def read_step(body: str) -> WireStep | None:
    """A step out of the journal; None for what another engine's version may have written."""
    try:
        return decode_step(body)
    except msgspec.DecodeError:
        return None
