"""Logs of runs: which ones a request means, and the document of each. Nothing is written for them.

Called by the HTTP door and by `transport`. A page is read with a fixed number of queries, however long its runs are;
one whose bodies grow too large has fewer runs than asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any
from uuid import UUID

from django.db.models import Exists, OuterRef, Q, QuerySet, Sum
from django.db.models.functions import Length

from django_workflow.engine.cursors import cursor_of, page
from django_workflow.engine.failed_runs import counted, created_within, failure_result, runs_that_fit, within
from django_workflow.engine.failed_runs import shown_failure_state as failure_state
from django_workflow.engine.records import milliseconds
from django_workflow.engine.run_rows import RunRows, load
from django_workflow.engine.step_logs import STATES, groups, step_error
from django_workflow.errors import EngineError
from django_workflow.models import Delivery, JournalEntry, Run, Step
from django_workflow.protocol.identifiers import message_id_of, message_key_of
from django_workflow.protocol.requests import FetchRunLogs, LogsChosen
from django_workflow.protocol.resources import FailureFunctionLog, InvokerLog, RunLog, RunLogs
from django_workflow.protocol.states import FailureCallbackState, RunState, StepState

AT_ONCE = 10

LARGEST_PAGE = 32 * 1024 * 1024
"""Bodies of so many characters end a page early."""

RUN_STATES = {
    RunState.SUCCESS: Run.Status.SUCCESS,
    RunState.FAILED: Run.Status.FAILED,
    RunState.CANCELED: Run.Status.CANCELED,
}
_SHOWN_STATES = {status: state for state, status in RUN_STATES.items()}


def fetch(alias: str, request: FetchRunLogs) -> RunLogs:
    """A page of runs. Raises EngineError with status 400 for filters that mean nothing."""
    count = counted(request.count, AT_ONCE, AT_ONCE)
    chosen = Run.objects.using(alias).select_related("parent").filter(_fitting(alias, request))
    runs, cursor = page(chosen, count, request.cursor)
    fewer = _within_budget(alias, runs)
    if len(fewer) < len(runs):
        runs, cursor = fewer, cursor_of(fewer[-1])
    rows = load(alias, runs, request.trim_body)
    return RunLogs(runs=tuple(_document(rows[run.pk]) for run in runs), cursor=cursor)


def _within_budget(alias: str, runs: list[Run]) -> list[Run]:
    """The first of these runs whose bodies are not too much together; at least one."""
    entries = JournalEntry.objects.using(alias).filter(run__in=[run.pk for run in runs])
    sizes = dict(entries.order_by().values_list("run_id").annotate(size=Sum(Length("body"))))
    total = 0
    for number, run in enumerate(runs):
        total += len(run.payload) + len(run.result or "") + (sizes.get(run.pk) or 0)
        if number and total > LARGEST_PAGE:
            return runs[:number]
    return runs


# Which are meant


def _fitting(alias: str, request: FetchRunLogs) -> Q:
    if request.runs:
        return these_runs(request.runs)
    return (
        created_within(request)
        & logged_runs(request)
        & _in_states(alias, request.states)
        & _with_messages(alias, request.message_ids)
    )


def these_runs(pairs: Iterable[tuple[str, int]], prefix: str = "") -> Q:
    chosen = Q(pk__in=[])
    for run_id, created in pairs:
        chosen |= Q(**{f"{prefix}run_id": run_id}) & within(f"{prefix}created_at", created, created)
    return chosen


def logged_runs(request: LogsChosen[Any], prefix: str = "") -> Q:
    """The filters that both kinds of logs have, on rows that reach their run by `prefix`."""
    chosen = runs_that_fit(request, prefix)
    if request.hosts:
        chosen &= Q(**{f"{prefix}url__iregex": rf"^https?://([^/@]*@)?({_any_of(request.hosts)})(:[0-9]+)?([/?#]|$)"})
    if request.paths:
        chosen &= Q(**{f"{prefix}url__regex": rf"^https?://[^/?#]*({_any_of(request.paths)})([?#]|$)"})
    return chosen


def _any_of(texts: Iterable[str]) -> str:
    return "|".join(map(re.escape, texts))


def run_states(names: Iterable[str]) -> tuple[set[RunState], set[StepState]]:
    """What a filter's states mean. Raises EngineError with status 400 for one that is none."""
    wanted = set(names)
    runs, steps = wanted & set(RunState), wanted & set(StepState)
    for name in wanted - runs - steps:
        known = ", ".join((*RunState, *StepState))
        raise EngineError(f"state: {name[:50]!r} is none of {known}.", status=400)
    return set(map(RunState, runs)), set(map(StepState, steps))


def _in_states(alias: str, names: tuple[str, ...]) -> Q:
    """Runs in one of these states, or with a step in one of them."""
    if not names:
        return Q()
    runs, steps = run_states(names)
    chosen = Q(status__in=[RUN_STATES[state] for state in runs & RUN_STATES.keys()])
    if RunState.STARTED in runs:
        chosen |= ~Q(status__in=Run.FINAL)
    if steps:
        statuses = [status for status, state in STATES.items() if state in steps]
        chosen |= Q(Exists(Step.objects.using(alias).filter(run=OuterRef("pk"), status__in=statuses)))
    return chosen


def _with_messages(alias: str, message_ids: tuple[str, ...]) -> Q:
    if not message_ids:
        return Q()
    keys = message_keys(message_ids)
    entries: QuerySet[JournalEntry] = JournalEntry.objects.using(alias).filter(run=OuterRef("pk"), pk__in=keys)
    return Q(pk__in=keys) | Q(Exists(entries))


def message_keys(message_ids: Iterable[str]) -> list[UUID]:
    return [key for message_id in message_ids if (key := message_key_of(message_id)) is not None]


# The document


def state_of(run: Run) -> RunState:
    return _SHOWN_STATES.get(Run.Status(run.status), RunState.STARTED)


def _document(rows: RunRows) -> RunLog:
    run = rows.run
    labels = tuple(run.label_list)
    return RunLog(
        workflow_run_id=run.run_id,
        workflow_url=run.url,
        workflow_state=state_of(run),
        workflow_run_created_at=milliseconds(run.created_at),
        workflow_run_completed_at=milliseconds(run.finished_at) if run.finished_at else None,
        workflow_run_caller_ip=run.caller_ip or None,
        workflow_run_response=rows.shown.result(run.result),
        invoker=invoker_of(rows),
        failure_function=_failure_function(rows),
        dlq_id=str(rows.letter.pk) if rows.letter is not None else None,
        label=labels[0] if labels else None,
        labels=labels,
        flow_control_key=run.flow_key or None,
        steps=groups(rows),
    )


def invoker_of(rows: RunRows) -> InvokerLog | None:
    invoker, parent = rows.config.invoker, rows.run.parent
    if invoker is None:
        return None
    if parent is None:  # pruned
        return InvokerLog(workflow_run_id=invoker.run_id, workflow_url=invoker.url)
    return InvokerLog(
        workflow_run_id=parent.run_id,
        workflow_url=parent.url,
        workflow_run_created_at=milliseconds(parent.created_at),
    )


def _failure_function(rows: RunRows) -> FailureFunctionLog | None:
    letter = rows.letter
    state = failure_state(letter) if letter is not None else None
    if letter is None or state is None:
        return None
    callback = rows.config.failure_callback
    pending = next((row for row in rows.deliveries if row.kind == Delivery.Kind.FAILURE), None)
    ended = state is not FailureCallbackState.IN_PROGRESS
    return FailureFunctionLog(
        message_id=message_id_of(letter.failure_key) if letter.failure_key else "",
        url=(callback.url if callback is not None else None) or rows.run.url,
        state=state,
        fail_headers=rows.shown.answer_headers(letter.response_headers),
        fail_status=letter.status,
        fail_response=rows.shown.text(letter.response_body or letter.error) or "",
        dlq_id=str(letter.pk),
        response_body=rows.shown.text(failure_result(letter.failure_response)) if ended else None,
        response_headers=rows.shown.answer_headers(letter.failure_headers) if ended else None,
        response_status=letter.failure_status if ended else None,
        errors=tuple(
            step_error(rows.shown, attempt)
            for attempt in rows.attempts
            if attempt.kind == Delivery.Kind.FAILURE and attempt.message_key == letter.failure_key
        ),
        max_retries=pending.max_retries if pending is not None else None,
        next_delivery_time=milliseconds(pending.due_at) if pending is not None and pending.attempt else None,
    )
