"""Logs of runs: grouped by run, or one entry for each thing that happened."""

from __future__ import annotations

import msgspec

from django_workflow.engine.http_api.request import Route
from django_workflow.engine.http_api.runs import ask
from django_workflow.protocol.queries import LOGS
from django_workflow.protocol.resources import RunEvent, RunLog


class Logs(msgspec.Struct, frozen=True, omit_defaults=True):
    """`runs` when they are grouped, else `events`."""

    cursor: str | None = None
    runs: tuple[RunLog, ...] = ()
    events: tuple[RunEvent, ...] = ()


_QUERY = ("groupBy", *(parameter.name for parameter in LOGS))
_SUMMARY = "What became of runs, the newest first: whole runs with groupBy=workflowRunId, else events."

ROUTES: tuple[Route, ...] = tuple(
    Route("GET", path, ask, _SUMMARY, query=_QUERY, answer=Logs)
    for path in ("/v2/workflows/logs", "/v2/workflows/events")
)
