"""Workflow events as channel events: what a run tells its watchers, written with the change that it tells of.

Forms: one event named `workflow.update`, discriminated by `type`; every one has `workflowRunId` and `timestamp` (ms).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from django_workflow.engine.records import milliseconds

UPDATE = "workflow.update"
LARGEST_RESULT = 4096

_encoder = msgspec.json.Encoder()


def update(kind: str, run_id: str, now: datetime, **fields: Any) -> tuple[str, str]:
    """Name and JSON of one workflow event; fields that are None are left out."""
    data = {"type": kind, "workflowRunId": run_id, "timestamp": milliseconds(now)}
    data.update((key, value) for key, value in fields.items() if value is not None)
    return UPDATE, _encoder.encode(data).decode()


def result_field(out: str | None, publish: bool) -> msgspec.Raw | None:
    """A step's result for its event: as it is, up to 4 KiB; None (left out) when larger or not to be published."""
    if out is None or not publish or len(out) > LARGEST_RESULT:
        return None
    return msgspec.Raw(out.encode())
