"""The run list as a file: CSV or JSON of all runs that the list has, written while they are read.

Values are masked as on the pages. Rows are read in short queries, one after the other, by key: a long download holds no
transaction open, and works under WSGI and ASGI.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.db.models import Q
from django.http import HttpRequest, StreamingHttpResponse
from django.utils import timezone

from django_workflow.models import Run
from django_workflow.presentation import values
from django_workflow.presentation.words import first_line

if TYPE_CHECKING:
    from django_workflow.models.run import RunQuerySet

FORMATS = {"csv": "text/csv; charset=utf-8", "json": "application/json"}
BATCH = 500
COLUMNS = (
    "run_id",
    "workflow",
    "status",
    "summary",
    "labels",
    "triggered_by",
    "owner",
    "parent",
    "engine",
    "created_at",
    "started_at",
    "finished_at",
    "duration_seconds",
    "error",
    "payload",
    "result",
)
# What a spreadsheet would take for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def export(request: HttpRequest, runs: RunQuerySet, form: str) -> StreamingHttpResponse:
    """All of these runs, newest first. `form` is one of `FORMATS`."""
    chunks = _csv(runs) if form == "csv" else _json(runs)
    content: Any = _from_threads(chunks) if isinstance(request, ASGIRequest) else chunks
    name = f"runs-{timezone.localdate().isoformat()}.{form}"
    return StreamingHttpResponse(
        content,
        content_type=FORMATS[form],
        headers={"Content-Disposition": f'attachment; filename="{name}"', "X-Content-Type-Options": "nosniff"},
    )


def _batches(runs: RunQuerySet) -> Iterator[list[Run]]:
    """Newest first. A run that begins meanwhile is not among them."""
    whole = runs.defer(None).prefetch_related(None).select_related("owner", "parent")
    ordered = whole.order_by("-created_at", "-pk")
    batch = list(ordered[:BATCH])
    while batch:
        yield batch
        last = batch[-1]
        older = Q(created_at__lt=last.created_at) | Q(created_at=last.created_at, pk__lt=last.pk)
        batch = list(ordered.filter(older)[:BATCH])


def _csv(runs: RunQuerySet) -> Iterator[bytes]:
    yield _lines([list(COLUMNS)])
    for batch in _batches(runs):
        yield _lines([[_cell(value) for value in _row(run).values()] for run in batch])


def _lines(rows: list[list[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        value = ",".join(value)
    text = value if isinstance(value, str) else json.dumps(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _json(runs: RunQuerySet) -> Iterator[bytes]:
    separator = "[\n"
    for batch in _batches(runs):
        yield (separator + ",\n".join(json.dumps(_row(run), ensure_ascii=False) for run in batch)).encode()
        separator = ",\n"
    yield b"[]\n" if separator == "[\n" else b"\n]\n"


def _row(run: Run) -> dict[str, Any]:
    length = run.duration
    found = {
        "run_id": run.run_id,
        "workflow": run.workflow,
        "status": run.status,
        "summary": run.summary,
        "labels": run.label_list,
        "triggered_by": run.trigger_kind,
        "owner": None if run.owner is None else str(run.owner),
        "parent": None if run.parent is None else run.parent.run_id,
        "engine": run.engine,
        "created_at": run.created_at.isoformat(),
        "started_at": run.started_at.isoformat() if run.started_at else None,
        "finished_at": run.finished_at.isoformat() if run.finished_at else None,
        "duration_seconds": None if length is None else length.total_seconds(),
        "error": first_line(run.error),
        "payload": values.payload_of(run),
        "result": values.result_of(run),
    }
    return {name: found[name] for name in COLUMNS}


async def _from_threads(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    """The same for a server that runs an event loop, which would read a plain iterator to its end before it sends."""
    following = sync_to_async(lambda: next(chunks, None), thread_sensitive=True)
    while (chunk := await following()) is not None:
        yield chunk
