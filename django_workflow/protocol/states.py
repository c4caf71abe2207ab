"""States of runs, steps and messages, named as in the logs of the hosted engine.

Clients map them into enums, so the spelling counts: one L in `CANCELED`, and nothing that is not listed here.
"""

from __future__ import annotations

from enum import StrEnum


class RunState(StrEnum):
    STARTED = "RUN_STARTED"
    SUCCESS = "RUN_SUCCESS"
    FAILED = "RUN_FAILED"
    CANCELED = "RUN_CANCELED"


class StepState(StrEnum):
    PROGRESS = "STEP_PROGRESS"
    SUCCESS = "STEP_SUCCESS"
    RETRY = "STEP_RETRY"
    FAILED = "STEP_FAILED"
    CANCELED = "STEP_CANCELED"


class FailureCallbackState(StrEnum):
    """How the delivery of a run's failure callback stands."""

    IN_PROGRESS = "CALLBACK_INPROGRESS"
    SUCCESS = "CALLBACK_SUCCESS"
    FAIL = "CALLBACK_FAIL"
    CANCELED = "CALLBACK_CANCELED"


class MessageState(StrEnum):
    """One entry of a message's log: CREATED, (ACTIVE, ERROR, RETRY)*, ACTIVE, DELIVERED or FAILED.

    A cancelled one ends with CANCEL_REQUESTED, CANCELED.
    """

    CREATED = "CREATED"
    ACTIVE = "ACTIVE"
    RETRY = "RETRY"
    ERROR = "ERROR"
    DELIVERED = "DELIVERED"
    FAILED = "FAILED"
    CANCEL_REQUESTED = "CANCEL_REQUESTED"
    CANCELED = "CANCELED"


IN_PROGRESS_FILTER = "IN_PROGRESS"
"""A filter's name for the states of `IN_PROGRESS`; no entry has it as its state."""

IN_PROGRESS = frozenset({MessageState.ACTIVE, MessageState.RETRY, MessageState.ERROR})


def matching_states(name: str) -> frozenset[MessageState]:
    """The message states that a filter's `state` means. Raises ValueError for an unknown name.

    `CANCELLED`, as the documentation spells it, is understood too.
    """
    if name == IN_PROGRESS_FILTER:
        return IN_PROGRESS
    if name == "CANCELLED":
        return frozenset({MessageState.CANCELED})
    try:
        return frozenset({MessageState(name)})
    except ValueError:
        known = ", ".join([*MessageState, IN_PROGRESS_FILTER])
        raise ValueError(f"{name!r} is no message state: {known}.") from None
