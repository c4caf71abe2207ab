"""The event log of runs: what happened to them and to their steps, one entry each, the newest first.

Nothing is written for it. Each kind of instant that rows know (a run's start and end, a step's, a failed attempt's) is
read in its order, with a limit; merged, they are a page.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, NamedTuple, cast
from uuid import UUID

from django.db.models import Exists, OuterRef, Q, QuerySet

from django_workflow.engine.cursors import decode_cursor, encode_cursor
from django_workflow.engine.failed_runs import counted, within
from django_workflow.engine.records import milliseconds
from django_workflow.engine.run_logs import (
    RUN_STATES,
    invoker_of,
    logged_runs,
    message_keys,
    run_states,
    state_of,
    these_runs,
)
from django_workflow.engine.run_rows import RunRows, load
from django_workflow.engine.step_logs import STATES, error_line, step_log
from django_workflow.errors import EngineError, MessageInvalid
from django_workflow.models import Attempt, Delivery, JournalEntry, Run, Step
from django_workflow.protocol.identifiers import message_id_of
from django_workflow.protocol.requests import FetchRunEvents
from django_workflow.protocol.resources import RunEvent, RunEvents, StepLog
from django_workflow.protocol.states import RunState, StepState

AT_ONCE = 1000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Place(NamedTuple):
    """Where an event stands in the log: Unix microseconds, its rank among those of one instant, its row."""

    at: int
    rank: int
    key: UUID


class _Mark(NamedTuple):
    place: Place
    source: _Source
    row: Any
    run_key: UUID


@dataclass(frozen=True)
class _Source:
    """One kind of instant. `rank` orders what happened at once: a run starts before its steps, and ends after them."""

    rank: int
    rows: Callable[[str], QuerySet[Any]]
    field: str
    prefix: str
    tell: Callable[[RunRows, Any], RunEvent]
    states: Callable[[set[RunState], set[StepState]], Q | None]
    """Which rows have one of these states; None when none can."""
    messages: Callable[[str, list[UUID]], Q]


def fetch(alias: str, request: FetchRunEvents) -> RunEvents:
    """A page of the log. Raises EngineError with status 400 for filters that mean nothing."""
    count = counted(request.count, AT_ONCE, AT_ONCE)
    after = _place(request.cursor)
    wanted = run_states(request.states) if request.states else (set(RunState), set(StepState))
    sources = [_marks(alias, source, request, wanted, after, count + 1) for source in _SOURCES]
    merged = heapq.merge(*sources, key=lambda mark: mark.place, reverse=True)
    marks = list(islice(merged, count + 1))
    cursor = encode_cursor(marks[count - 1].place) if len(marks) > count else None
    return RunEvents(events=tuple(_events(alias, marks[:count], request.trim_body)), cursor=cursor)


def _place(cursor: str | None) -> Place | None:
    try:
        return None if cursor is None else decode_cursor(cursor, Place)
    except MessageInvalid as error:
        raise EngineError(str(error), status=400) from error


def _marks(
    alias: str,
    source: _Source,
    request: FetchRunEvents,
    wanted: tuple[set[RunState], set[StepState]],
    after: Place | None,
    count: int,
) -> Iterator[_Mark]:
    in_states = source.states(*wanted)
    if in_states is None:
        return
    rows = source.rows(alias).filter(in_states, **{f"{source.field}__isnull": False})
    if request.runs:
        rows = rows.filter(these_runs(request.runs, source.prefix))
    else:
        dates = within(source.field, request.from_date, request.to_date)
        rows = rows.filter(dates, logged_runs(request, source.prefix))
        if request.message_ids:
            rows = rows.filter(source.messages(alias, message_keys(request.message_ids)))
    if after is not None:
        rows = rows.filter(_before(source, after))
    for row in rows.order_by(f"-{source.field}", "-pk")[:count]:
        at = (getattr(row, source.field) - _EPOCH) // _MICROSECOND
        yield _Mark(Place(at, source.rank, row.pk), source, row, row.run_id if source.prefix else row.pk)


def _before(source: _Source, after: Place) -> Q:
    """Rows whose event stands behind that place."""
    at = _EPOCH + after.at * _MICROSECOND
    earlier = Q(**{f"{source.field}__lt": at})
    if source.rank < after.rank:
        return earlier | Q(**{source.field: at})
    if source.rank == after.rank:
        return earlier | Q(**{source.field: at, "pk__lt": after.key})
    return earlier


def _events(alias: str, marks: list[_Mark], trim: int | None) -> Iterator[RunEvent]:
    keys = {mark.run_key for mark in marks}
    positions = {mark.row.position for mark in marks if isinstance(mark.row, Step) and mark.row.position is not None}
    runs = list(Run.objects.using(alias).select_related("parent").filter(pk__in=keys))
    rows = load(alias, runs, trim, positions)
    for mark in marks:
        if mark.run_key in rows:  # else pruned meanwhile
            yield mark.source.tell(rows[mark.run_key], mark.row)


# What each kind tells


def _event(rows: RunRows, at: datetime, state: str, **fields: Any) -> RunEvent:
    run = rows.run
    labels = tuple(run.label_list)
    return RunEvent(
        time=milliseconds(at),
        state=state,
        workflow_run_id=run.run_id,
        workflow_url=run.url,
        workflow_created_at=milliseconds(run.created_at),
        label=labels[0] if labels else None,
        labels=labels,
        **fields,
    )


def _run_started(rows: RunRows, run: Run) -> RunEvent:
    invoker = invoker_of(rows)
    return _event(
        rows,
        run.created_at,
        RunState.STARTED,
        headers=rows.headers,
        caller_ip=run.caller_ip or None,
        invoker_workflow_run_id=invoker.workflow_run_id if invoker else None,
        invoker_workflow_url=invoker.workflow_url if invoker else None,
        invoker_workflow_created_at=invoker.workflow_run_created_at if invoker else None,
    )


def _run_ended(rows: RunRows, run: Run) -> RunEvent:
    return _event(
        rows,
        cast(datetime, run.finished_at),
        state_of(run),
        workflow_run_response=rows.shown.result(run.result),
        error=run.error or None,
        dlq_id=str(rows.letter.pk) if rows.letter is not None else None,
    )


def _step_started(rows: RunRows, step: Step) -> RunEvent:
    log = step_log(rows, step)
    return _event(
        rows,
        cast(datetime, step.started_at),
        StepState.PROGRESS,
        step_info=StepLog(
            step_id=log.step_id,
            step_name=log.step_name,
            step_type=log.step_type,
            call_type=log.call_type,
            message_id=log.message_id,
            concurrent=log.concurrent,
            state=StepState.PROGRESS,
            retries=log.retries,
            created_at=log.created_at,
        ),
    )


def _step_ended(rows: RunRows, step: Step) -> RunEvent:
    log = step_log(rows, step)
    return _event(rows, cast(datetime, step.finished_at), log.state, step_info=log)


def _attempt_failed(rows: RunRows, attempt: Attempt) -> RunEvent:
    state = StepState.FAILED if attempt.retry_at is None else StepState.RETRY
    next_time = milliseconds(attempt.retry_at) if attempt.retry_at is not None else None
    return _event(
        rows,
        attempt.finished_at,
        state,
        error=error_line(attempt),
        response_status=attempt.status,
        response_body=rows.shown.text(attempt.response_body),
        response_headers=rows.shown.answer_headers(attempt.response_headers),
        next_delivery_time=next_time,
        step_info=StepLog(
            step_id=attempt.step_id,
            step_name=attempt.step_name or None,
            message_id=message_id_of(attempt.message_key),
            state=state,
            next_delivery_time=next_time,
        ),
    )


# The kinds


def _in(states: Iterable[Any], table: dict[Any, Any]) -> Q | None:
    values = [value for state, value in table.items() if state in states]
    return Q(status__in=values) if values else None


_STEP_ENDS = {
    state: status for status, state in STATES.items() if status in (Step.Status.SUCCESS, Step.Status.CANCELED)
}


def _attempts_in(states: set[StepState]) -> Q | None:
    if StepState.RETRY in states:
        return Q() if StepState.FAILED in states else Q(retry_at__isnull=False)
    return Q(retry_at__isnull=True) if StepState.FAILED in states else None


def _step_messages(alias: str, keys: list[UUID]) -> Q:
    entries = JournalEntry.objects.using(alias).filter(run=OuterRef("run"), position=OuterRef("position"), pk__in=keys)
    return Q(Exists(entries))


_SOURCES = (
    _Source(
        0,
        lambda alias: Run.objects.using(alias),
        "created_at",
        "",
        _run_started,
        lambda runs, steps: Q() if RunState.STARTED in runs else None,
        lambda alias, keys: Q(pk__in=keys),
    ),
    _Source(
        1,
        lambda alias: Step.objects.using(alias),
        "started_at",
        "run__",
        _step_started,
        lambda runs, steps: Q() if StepState.PROGRESS in steps else None,
        _step_messages,
    ),
    _Source(
        2,
        lambda alias: Attempt.objects.using(alias).filter(run__isnull=False).exclude(kind=Delivery.Kind.FAILURE),
        "finished_at",
        "run__",
        _attempt_failed,
        lambda runs, steps: _attempts_in(steps),
        lambda alias, keys: Q(message_key__in=keys),
    ),
    _Source(
        3,
        lambda alias: Step.objects.using(alias),
        "finished_at",
        "run__",
        _step_ended,
        lambda runs, steps: _in(steps, _STEP_ENDS),
        _step_messages,
    ),
    _Source(
        4,
        lambda alias: Run.objects.using(alias),
        "finished_at",
        "",
        _run_ended,
        lambda runs, steps: _in(runs, RUN_STATES),
        lambda alias, keys: Q(pk__in=[]),
    ),
)
