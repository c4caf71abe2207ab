"""Assertions about what a run did. `run` is a Run, a handle or a run id."""

from __future__ import annotations

from typing import Any

import msgspec

from django_workflow.models import JournalEntry, Run, Step
from django_workflow.protocol.steps import decode_step

ANY = object()


def assert_step_ran(run: Any, name: str, *, result: Any = ANY, times: int | None = None) -> Step:
    """The run has a finished step of that name (with that result, that often). Returns its first row."""
    row = _run(run)
    steps = list(row.steps.filter(name=name, status=Step.Status.SUCCESS).order_by("step_id"))
    if not steps:
        names = ", ".join(repr(step.name) for step in row.steps.order_by("step_id")) or "none"
        raise AssertionError(f"Run {row.run_id} ({row.status}) did not finish a step {name!r}; its steps: {names}.")
    if times is not None and len(steps) != times:
        raise AssertionError(f"Run {row.run_id} finished step {name!r} {len(steps)} times, not {times}.")
    if result is not ANY and (found := step_result(steps[0])) != result:
        raise AssertionError(f"Step {name!r} of run {row.run_id} gave {found!r}, not {result!r}.")
    return steps[0]


def assert_step_not_run(run: Any, name: str) -> None:
    """The run has not started a step of that name."""
    row = _run(run)
    if row.steps.filter(name=name).exists():
        raise AssertionError(f"Run {row.run_id} has a step {name!r}.")


def step_result(step: Step) -> Any:
    """A step's result as plain JSON values."""
    entry = JournalEntry.objects.get(run_id=step.run_id, step_id=step.step_id)
    out = decode_step(entry.body).out
    return None if out is None else msgspec.json.decode(out)


def _run(run: Any) -> Run:
    if isinstance(run, Run):
        run.refresh_from_db()
        return run
    return Run.objects.get(run_id=getattr(run, "id", run))
