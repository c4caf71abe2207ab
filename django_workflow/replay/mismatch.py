"""Telling that code and journal disagree: which run, which step, both names, and what to do.

Each text opens with the words of the official SDKs, so that people who know those find what they search for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django_workflow.errors import StepMismatch
from django_workflow.protocol.steps import Step
from django_workflow.replay.step_call import StepCall

REMEDY = (
    "Steps keep their order while runs are in flight: put the change behind ctx.patched(), deploy it under a new "
    "workflow name, or restart the run from the DLQ."
)


def step_mismatch(run_id: str, index: int, step: Step, call: StepCall[Any]) -> StepMismatch:
    """The recorded step has another name, another type, or belongs to a parallel group."""
    if step.step_name != call.name:
        said = f"Incompatible step name. Expected '{call.name}', got '{step.step_name}' from the request"
    elif step.step_type != call.step_type:
        said = f"Incompatible step type. Expected '{call.step_type}', got '{step.step_type}' from the request"
    else:
        said = f"Incompatible number of parallel steps. Expected 1, got {step.concurrent} from the request"
    return _mismatch(said, run_id, index, _described([step]), _described([call]))


def count_mismatch(run_id: str, index: int, state: str, recorded: Step, calls: Sequence[StepCall[Any]]) -> StepMismatch:
    """The recorded group has another size."""
    said = (
        f"Incompatible number of parallel steps when call state was '{state}'. "
        f"Expected {len(calls)}, got {recorded.concurrent} from the request"
    )
    what = "1 step" if recorded.concurrent == 1 else f"{recorded.concurrent} parallel steps"
    return _mismatch(said, run_id, index, f"{what} starting with {recorded.step_name!r}", _described(calls))


def group_mismatch(
    run_id: str, index: int, reason: str, steps: Sequence[Step], calls: Sequence[StepCall[Any]]
) -> StepMismatch:
    """The recorded group has other steps."""
    said = (
        f"Incompatible steps detected in parallel execution: {reason}\n"
        f"  > Step Names from the request: {_json_list(step.step_name for step in steps)}\n"
        f"    Step Types from the request: {_json_list(step.step_type for step in steps)}\n"
        f"  > Step Names expected: {_json_list(call.name for call in calls)}\n"
        f"    Step Types expected: {_json_list(call.step_type for call in calls)}\n"
    )
    return _mismatch(said, run_id, index, _described(steps), _described(calls), join="")


def _mismatch(said: str, run_id: str, index: int, recorded: str, asked: str, join: str = ". ") -> StepMismatch:
    return StepMismatch(
        f"{said}{join}Run {run_id} recorded step {index} as {recorded}, but the code now asks for {asked}. {REMEDY}",
        run_id=run_id,
        index=index,
        recorded=recorded,
        asked=asked,
    )


def _described(steps: Sequence[Step | StepCall[Any]]) -> str:
    names = [f"{(s.step_name if isinstance(s, Step) else s.name)!r} ({s.step_type})" for s in steps[:5]]
    if len(steps) > 5:
        names.append(f"{len(steps) - 5} more")
    return ", ".join(names)


def _json_list(texts: Any) -> str:
    return "[" + ",".join(f'"{text}"' for text in texts) + "]"
