"""What it means that a workflow's function returned or raised, given how far its steps had come.

The function may catch what must not be caught: WorkflowAbort, or the exception of a step. Neither changes what is
already decided; the texts here say so to whoever wrote the `except`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from django_workflow.errors import DOCS_ABORT, AbortSwallowed, StepError, WorkflowAbort, WorkflowError
from django_workflow.replay.outcome import Cancelled, Discarded, Failed, Finished, Outcome, Submitted
from django_workflow.replay.values import ANY, encode_result, return_decoder, return_type

Ending = Submitted | Discarded | Cancelled | Failed

# The official SDKs' words for an error in a branch.
BRANCH_ERROR = "Error submitting steps to QStash in partial parallel step execution"


def finished(function: Callable[[Any], Any], result: Any, limit: int | None) -> Outcome:
    """The function came to its end: Finished with the result as JSON, or Failed when it cannot be stored."""
    if result is None and return_type(function) in (ANY, None, type(None)):
        return Finished(None)
    try:
        return Finished(encode_result(result, return_decoder(function), "The result of the workflow", limit))
    except WorkflowError as error:
        return Failed(error)


def not_awaited(result: Any) -> Failed:
    """The function gave something to await, but was taken for a sync one: a decorator hides what it is."""
    if inspect.iscoroutine(result):
        result.close()
    return Failed(
        StepError(
            f"The workflow returned a {type(result).__name__}, which nobody awaits. A decorator around an async "
            "function has to be `async def` itself, so that the workflow is known to be async."
        )
    )


def returned_after(ending: Ending) -> Outcome:
    """The function returned although the invocation had ended: it caught what ended it."""
    if isinstance(ending, Failed):
        if ending.by_engine or ending.step_name is None:
            return ending
        error = handled(ending)
        error.__cause__ = ending.error
        return Failed(error, ending.step_name)
    what = {Submitted: "a step was submitted", Cancelled: "ctx.cancel()"}.get(type(ending), "a step was asked for")
    name = f" Step: {ending.step_name!r}." if isinstance(ending, Submitted) else ""
    return Failed(
        AbortSwallowed(f"The workflow caught the WorkflowAbort after {what}, and returned. {DOCS_ABORT}{name}")
    )


def raised(error: BaseException, ending: Ending | None, failed_branch: bool) -> Outcome:
    """The function raised: how it had ended, or a failure of its own."""
    if isinstance(ending, Failed) and ending.by_engine:
        return ending
    rest = without_aborts(error)
    if isinstance(ending, Failed):
        if rest is None or rest is ending.error:
            return _of_branch(ending) if failed_branch else ending
        return Failed(rest, ending.step_name)
    if rest is None:
        return Failed(error) if ending is None else ending
    if ending is not None:
        rest.add_note(
            "It was raised while WorkflowAbort left the workflow: `finally:` and `with` run each time a step ends the "
            "call, so clean-up belongs into a step."
        )
    return Failed(rest)


def handled(failure: Failed) -> StepError:
    """For a workflow that catches the exception of a step and goes on."""
    return StepError(
        f"Step {failure.step_name!r} failed ({type(failure.error).__name__}: {failure.error}), and the workflow caught "
        "that and went on. A step that failed is tried again by another call of the workflow, so its exception cannot "
        "be handled outside of it: catch it in the step's function and return a value, or raise NonRetryableError."
    )


def without_aborts(error: BaseException) -> BaseException | None:
    """The error without the WorkflowAborts that tasks add to an exception group; None when nothing else is in it.

    A group that holds one exception is that exception: TaskGroup wraps even a single one.
    """
    if isinstance(error, WorkflowAbort):
        return None
    if not isinstance(error, BaseExceptionGroup):
        return error
    rest = error.split(WorkflowAbort)[1]
    if rest is None:
        return None
    leaf: BaseException = rest
    while isinstance(leaf, BaseExceptionGroup) and len(leaf.exceptions) == 1:
        leaf = leaf.exceptions[0]
    return leaf


def _of_branch(ending: Failed) -> Failed:
    """The failure of a branch in the words of the protocol; our own errors and users' verdicts stay what they are."""
    cause = ending.error
    if isinstance(cause, WorkflowError):
        return ending
    error = StepError(f"{BRANCH_ERROR}: {type(cause).__name__}: {cause}")
    error.__cause__ = cause
    return Failed(error, ending.step_name)
