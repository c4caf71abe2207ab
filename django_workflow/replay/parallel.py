"""Parallel groups: what to do when the code asks for N steps together.

A group lives through four states, told apart by the journal alone. *First*: nothing is recorded, so the N branches are
announced by plan steps, which the engine delivers one by one. *Partial*: the delivered message is such a plan, so its
branch is run. *Discard*: the delivered message is another branch's result, so there is nothing to do. *Last*: all N
results are there and the code goes on. An engine that calls only this package's endpoints leaves the discards out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django_workflow.protocol.steps import Step
from django_workflow.replay.journal import Journal
from django_workflow.replay.mismatch import count_mismatch, group_mismatch, step_mismatch
from django_workflow.replay.step_call import StepCall


@dataclass(frozen=True, slots=True)
class First:
    """Announce the branches."""


@dataclass(frozen=True, slots=True)
class Partial:
    """Run this branch (an index into the calls)."""

    branch: int


@dataclass(frozen=True, slots=True)
class Discard:
    """Wait for the other branches."""


@dataclass(frozen=True, slots=True)
class Last:
    """Go on with these results, one for each call. `is_news`: the delivery brought the group's last result."""

    steps: tuple[Step, ...]
    is_news: bool


GroupState = First | Partial | Discard | Last


def decide(journal: Journal, first: int, calls: Sequence[StepCall[Any]], run_id: str) -> GroupState:
    """The state of the group whose steps have the numbers from `first` on. Raises StepMismatch."""
    if journal.highest < first:
        return First()
    found = [journal.results[number] for number in range(first, first + len(calls)) if number in journal.results]
    state = _state(journal, first, calls, found)
    recorded = journal.plans.get(first) or journal.results.get(first)
    if recorded is None or recorded.concurrent != len(calls):
        recorded = recorded or journal.steps[-1]
        raise count_mismatch(run_id, first, type(state).__name__.lower(), recorded, calls)
    _check(state, journal, first, calls, run_id)
    return state


def _state(journal: Journal, first: int, calls: Sequence[StepCall[Any]], found: Sequence[Step]) -> GroupState:
    last = journal.last
    if len(found) == len(calls):
        return Last(tuple(found), is_news=last is not None and first <= last.step_id < first + len(calls))
    if last is not None and last.step_id == 0:
        return Partial((last.target_step or 0) - first)
    return Discard()


def _check(state: GroupState, journal: Journal, first: int, calls: Sequence[StepCall[Any]], run_id: str) -> None:
    if isinstance(state, Partial):
        number = first + state.branch
        plan = journal.plans[number]
        if not 0 <= state.branch < len(calls):
            raise count_mismatch(run_id, number, "partial", plan, calls)
        call = calls[state.branch]
        if not same_step(plan, call):
            raise step_mismatch(run_id, number, plan, call)
    elif isinstance(state, Last):
        for number, (step, call) in enumerate(zip(state.steps, calls, strict=True), first):
            if not same_step(step, call):
                reason = str(step_mismatch(run_id, number, step, call)).partition(". Run ")[0]
                raise group_mismatch(run_id, first, reason, state.steps, calls)


def same_step(step: Step, call: StepCall[Any]) -> bool:
    return step.step_name == call.name and step.step_type == call.step_type


def is_single(step: Step, call: StepCall[Any]) -> bool:
    """Whether a recorded step is the one that the code asks for, outside of any group."""
    return same_step(step, call) and step.concurrent == 1
