"""Runs as text and as JSON, for `workflow_runs` and `workflow_trigger`. JSON has the names that the API has."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from math import ceil
from typing import Any

from django_workflow.models import Attempt, Run, Step
from django_workflow.presentation import values
from django_workflow.presentation.words import (
    first_line,
    instant_text,
    progress_text,
    running_time,
    why_text,
)
from django_workflow.realtime.lengths import length_text

TIMELINE_WIDTH = 30
RESULT_WIDTH = 60


def run_json(run: Run, now: datetime) -> dict[str, Any]:
    """A run of a list."""
    return {
        "run_id": run.run_id,
        "workflow": run.workflow,
        "status": run.status,
        "why": why_text(run, now),
        "summary": run.summary,
        "labels": run.label_list,
        "error": run.error,
        "error_step": run.error_step,
        "trigger_kind": run.trigger_kind,
        "step_count": step_count(run),
        "progress_done": run.progress_done,
        "progress_total": run.progress_total,
        "created_at": run.created_at,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
        "due_at": run.due_at,
        "duration_seconds": _seconds(run, now),
    }


def run_detail_json(run: Run, now: datetime) -> dict[str, Any]:
    """A run with its values and all its steps."""
    steps = list(run.steps.order_by("step_id"))
    results = values.step_results(run, steps)
    return {
        **run_json(run, now),
        "url": run.url,
        "code_version": run.code_version,
        "forgotten_at": run.forgotten_at,
        "payload": values.payload_of(run),
        "result": values.result_of(run),
        "steps": [_step_json(step, results.get(step.step_id), now) for step in steps],
    }


def _step_json(step: Step, result: Any, now: datetime) -> dict[str, Any]:
    return {
        "step_id": step.step_id,
        "name": step.name,
        "step_type": step.step_type,
        "status": step.status,
        "concurrent": step.concurrent,
        "attempts": step.attempts,
        "queued_at": step.queued_at,
        "started_at": step.started_at,
        "finished_at": step.finished_at,
        "due_at": step.due_at,
        "duration_seconds": _seconds(step, now),
        "event_id": step.event_id,
        "error": step.error,
        "result": result,
    }


def _seconds(row: Run | Step, now: datetime) -> float | None:
    length = running_time(row, now)
    return None if length is None else round(length.total_seconds(), 6)


def step_count(run: Run) -> int:
    """As `lookup.with_step_count` found it."""
    return int(getattr(run, "step_count", 0))


def to_json(value: Any) -> str:
    """Indented JSON; instants as in the API."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=_instant)


def _instant(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    raise TypeError(f"{value!r} has no JSON form")


def list_lines(runs: Iterable[Run], now: datetime) -> Iterator[str]:
    """Runs as a table."""
    rows = [
        (
            run.status,
            run.run_id,
            run.workflow,
            ",".join(run.label_list),
            progress_text(run, step_count(run)),
            instant_text(run.created_at, now),
            _length(run, now),
        )
        for run in runs
    ]
    return table(("STATUS", "RUN", "WORKFLOW", "LABELS", "PROGRESS", "CREATED", "DURATION"), rows)


def timeline_lines(run: Run, now: datetime) -> Iterator[str]:
    """A run with its steps, each with a bar where it lies in the run's time, and its failed attempts."""
    yield f"{run.run_id}  {run.workflow}  {run.status}  {_length(run, now)}".rstrip()
    yield why_text(run, now)
    if run.forgotten_at is not None:
        yield f"payload and results were erased: {instant_text(run.forgotten_at, now)}"
    if run.summary:
        yield run.summary
    if run.labels:
        yield "labels: " + ", ".join(run.label_list)
    yield from _value_lines("payload", values.payload_of(run))
    yield ""
    steps = list(run.steps.order_by("step_id"))
    results = values.step_results(run, steps, largest=4096)
    begin = run.started_at or run.created_at
    end = max(run.finished_at or now, begin)
    rows = [
        (
            str(step.step_id),
            step.name,
            step.step_type,
            step.status,
            str(step.attempts),
            _length(step, now),
            _bar(step, begin, end, now),
            first_line(step.error, RESULT_WIDTH) if step.error else _short(results.get(step.step_id, step.preview)),
        )
        for step in steps
    ]
    yield from table(("#", "STEP", "TYPE", "STATUS", "ATTEMPTS", "DURATION", "TIMELINE", "RESULT"), rows)
    attempts: list[Attempt] = list(run.attempts.order_by("started_at", "pk"))
    if attempts:
        yield ""
        failed = [
            (str(attempt.number), attempt.step_name, str(attempt.status or "-"), first_line(attempt.error, 100))
            for attempt in attempts
        ]
        yield from table(("ATTEMPT", "STEP", "STATUS", "ERROR"), failed)
    if run.result is not None:
        yield ""
        yield from _value_lines("result", values.result_of(run))
    if run.error:
        yield ""
        yield "error: " + run.error


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Columns as wide as their widest cell."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    for row in (head, *rows):
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _bar(step: Step, begin: datetime, end: datetime, now: datetime) -> str:
    """Where a step lies between the run's begin and end: `|   ####      |`."""
    if step.started_at is None:
        return ""
    whole = (end - begin).total_seconds()
    if whole <= 0:
        return f"|{'#' * TIMELINE_WIDTH}|"
    last = TIMELINE_WIDTH - 1
    begins = TIMELINE_WIDTH * (step.started_at - begin).total_seconds() / whole
    ends = TIMELINE_WIDTH * ((step.finished_at or now) - begin).total_seconds() / whole
    first_mark = min(last, max(0, int(begins)))
    last_mark = min(last, max(first_mark, ceil(ends) - 1))
    marks = "#" if step.finished_at else ">"
    return f"|{' ' * first_mark}{marks * (last_mark - first_mark + 1)}{' ' * (last - last_mark)}|"


def _length(row: Run | Step, now: datetime) -> str:
    length = running_time(row, now)
    return "" if length is None else length_text(length)


def _short(value: Any) -> str:
    if value is None:
        return ""
    return first_line(values.on_one_line(value), RESULT_WIDTH)


def _value_lines(name: str, value: Any) -> Iterator[str]:
    if value is not None:
        yield f"{name}: {values.laid_out(value)}"
