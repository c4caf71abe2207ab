"""Workflow events as channel events: what a run tells its watchers, whoever keeps the run.

Forms: one event named `workflow.update`, discriminated by `type`; every one has `workflowRunId` and `timestamp` (ms).
The embedded engine and the mirror of the hosted one write them with the change that they tell of.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from django_workflow.protocol.secrets import shown_out
from django_workflow.protocol.steps import Step, StepType

UPDATE = "workflow.update"
LARGEST_RESULT = 4096

_WAITS = (StepType.WAIT, StepType.WAIT_FOR_WEBHOOK)
_encoder = msgspec.json.Encoder()


def update(kind: str, run_id: str, now: datetime, **fields: Any) -> tuple[str, str]:
    """Name and JSON of one workflow event; fields that are None are left out."""
    data = {"type": kind, "workflowRunId": run_id, "timestamp": int(now.timestamp() * 1000)}
    data.update((key, value) for key, value in fields.items() if value is not None)
    return UPDATE, _encoder.encode(data).decode()


def result_field(out: str | None, publish: bool) -> msgspec.Raw | None:
    """A step's result for its event: as it is, up to 4 KiB; None (left out) when larger or not to be published."""
    if out is None or not publish or len(out) > LARGEST_RESULT:
        return None
    return msgspec.Raw(out.encode())


def step_result(step: Step, publish: bool, *, hide: bool = False) -> object | None:
    """What the `stepFinish` of a step says of its result, secrets hidden. `hide`: the run's bodies are not shown.

    Of waits only whether the time was up: data is not shown.
    """
    if step.step_type in _WAITS:
        return {"timeout": True} if step.wait_timeout else None
    out = shown_out(step, hide=hide)
    raw = result_field(out, publish)
    if raw is None:
        return None
    try:
        msgspec.json.decode(raw)
    except msgspec.DecodeError:  # other SDKs may write text that is no JSON
        return out
    return raw
