"""Would live runs go on with this code? Each is replayed as far as it has come; what breaks is found, not run into.

Comes from `workflow_check` with what `recorded_runs` found; a Break goes back for each run that would not go on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from django_workflow.authoring.decorator import Workflow
from django_workflow.authoring.registry import registry
from django_workflow.authoring.rehearsal import Rehearsed, rehearse
from django_workflow.control.recorded_runs import RecordedRun
from django_workflow.errors import PayloadInvalid, StepMismatch
from django_workflow.protocol.callbacks import CallResult, encode_call_result
from django_workflow.protocol.invoke import InvokeResult, encode_invoke_result
from django_workflow.protocol.steps import Step, StepType
from django_workflow.replay.journal import Journal
from django_workflow.replay.outcome import Failed, NoStepReached

HIDDEN_VALUES = "Its secrets are hidden in the file, which may be why; check it in the database to be sure."


@dataclass(frozen=True, slots=True, kw_only=True)
class Break:
    """A run that would not go on. `step` is the number of the step at which it breaks, None when it is none's fault.

    `recorded` and `asked` describe what the run has there and what the code asks for, "" when it is not about that.
    Not `is_certain`: a value does not fit that was hidden in the file, and may be quite another in the run.
    """

    run_id: str
    workflow: str
    step: int | None
    recorded: str
    asked: str
    problem: str
    remedy: str
    is_certain: bool = True


def check(run: RecordedRun) -> Break | None:
    """Why a run of this project would not go on with its workflow's code; None when it would."""
    workflow = registry.find(run.workflow)
    if workflow is None:
        return _unknown(run)
    try:
        workflow.decode_payload(run.details().payload)
    except PayloadInvalid as error:
        return _break(run, problem=str(error), remedy="Give new fields of the payload's type defaults.")
    for journal in _journals(run):
        found = _breaks(run, workflow, journal)
        if found is not None:
            return found
    return None


def _journals(run: RecordedRun) -> Iterator[Journal]:
    """What the run's next calls may find recorded: everything and, while a group is open, each branch's turn.

    A step that the engine does (a wait, a call) is answered the way that needs no answer: as timed out, or failed.
    """
    everything = Journal((*run.steps, *map(_unanswered, run.pending)))
    yield everything
    group = _open_group(everything)
    before = [step for step in run.steps if (step.step_id or step.target_step or 0) < group.start]
    plans = [_plan(step, number) for number in group if (step := everything.entry(number)) is not None]
    for plan in plans:
        yield Journal((*before, *(other for other in plans if other is not plan), plan))


def _open_group(journal: Journal) -> range:
    """The numbers of the parallel steps that do not have all their results yet; empty when there are none."""
    number = 1
    while number <= journal.highest:
        step = journal.entry(number)
        size = step.concurrent if step is not None else 1
        group = range(number, number + size)
        if any(branch not in journal.results for branch in group):
            return group
        number += size
    return range(0)


def _plan(step: Step, number: int) -> Step:
    """The announcement of a branch, whether or not it is done."""
    return Step(
        step_id=0,
        step_name=step.step_name,
        step_type=step.step_type,
        concurrent=step.concurrent,
        target_step=number,
    )


def _unanswered(step: Step) -> Step:
    out = None
    if step.step_type == StepType.CALL:
        out = encode_call_result(CallResult(status=0, header={}, body=b""))
    elif step.step_type == StepType.INVOKE:
        out = encode_invoke_result(InvokeResult(body=None, is_canceled=False, is_failed=True))
    return msgspec.structs.replace(step, out=out, wait_timeout=True if out is None else None)


def _breaks(run: RecordedRun, workflow: Workflow[Any, Any], journal: Journal) -> Break | None:
    rehearsed = rehearse(workflow, run.details(), journal)
    outcome = rehearsed.outcome
    if isinstance(outcome, NoStepReached) and journal.steps:
        return _break(
            run,
            problem=f"The code returns before its first step, but the run has {journal.highest} recorded.",
            remedy="Let runs that have begun go on: turn away only what has no step yet.",
        )
    if not isinstance(outcome, Failed):
        return None
    error = outcome.error
    if isinstance(error, StepMismatch):
        return _mismatch(run, journal, error)
    if _is_made_up(run, rehearsed):
        return None
    return _break(
        run,
        step=rehearsed.asked or None,
        problem=f"{type(error).__name__}: {error}",
        remedy="Make the code between its steps accept the results that the run has.",
    )


def _is_made_up(run: RecordedRun, rehearsed: Rehearsed) -> bool:
    """Whether the code had an answer by then that the run does not have: what follows from it says nothing."""
    return any(step.step_id <= rehearsed.asked for step in run.pending)


def _mismatch(run: RecordedRun, journal: Journal, error: StepMismatch) -> Break:
    recorded = journal.entry(error.index)
    name = recorded.step_name if recorded is not None else ""
    remedy = (
        f"If the step was renamed, give it its old name {name!r} back. Else put the change behind "
        'ctx.patched("…"), or deploy it as a new workflow.'
    )
    return _break(
        run,
        step=error.index,
        recorded=error.recorded,
        asked=error.asked,
        problem=str(error).partition(". Run ")[0],
        remedy=remedy,
    )


def _unknown(run: RecordedRun) -> Break:
    return _break(
        run,
        problem=f"There is no workflow {run.workflow!r} any more.",
        remedy=f"If it was renamed, keep the old name: @workflow(aliases=[{run.workflow!r}]).",
    )


def _break(
    run: RecordedRun, *, problem: str, remedy: str, step: int | None = None, recorded: str = "", asked: str = ""
) -> Break:
    return Break(
        run_id=run.run_id,
        workflow=run.workflow,
        step=step,
        recorded=recorded,
        asked=asked,
        problem=problem,
        remedy=f"{remedy} {HIDDEN_VALUES}" if run.hidden else remedy,
        is_certain=bool(recorded) or not run.hidden,
    )
