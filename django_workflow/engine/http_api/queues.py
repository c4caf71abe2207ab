"""Queues: made, changed, looked at, paused, deleted."""

from __future__ import annotations

import msgspec

from django_workflow.conf import get_settings
from django_workflow.engine import queues
from django_workflow.engine.http_api.request import ApiRequest, Route
from django_workflow.engine.records import milliseconds
from django_workflow.engine.writing import write
from django_workflow.models import Queue


class QueueChange(msgspec.Struct, frozen=True, rename="camel"):
    """What is None stays as it is; a new queue has parallelism 1 and is not paused."""

    queue_name: str
    parallelism: int | None = None
    paused: bool | None = None


class QueueInfo(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A queue. Instants are Unix milliseconds; `lag` counts its messages that are not finished."""

    name: str
    created_at: int
    updated_at: int
    parallelism: int
    paused: bool
    lag: int


def upsert(request: ApiRequest) -> dict[str, str]:
    change = request.json(QueueChange)
    _upsert(change.queue_name, parallelism=change.parallelism, paused=change.paused)
    return {}


def listing(request: ApiRequest) -> list[QueueInfo]:
    return _infos(list(Queue.objects.using(get_settings().database).order_by("name")))


def get(request: ApiRequest, name: str) -> QueueInfo:
    queues.check_name(name)
    return _infos([queues.find(get_settings().database, name)])[0]


def delete(request: ApiRequest, name: str) -> dict[str, str]:
    write(get_settings().database, lambda unit: queues.delete(unit, name))
    return {}


def pause(request: ApiRequest, name: str) -> dict[str, str]:
    _upsert(name, paused=True)
    return {}


def resume(request: ApiRequest, name: str) -> dict[str, str]:
    _upsert(name, paused=False)
    return {}


def _upsert(name: str, *, parallelism: int | None = None, paused: bool | None = None) -> None:
    alias = get_settings().database
    write(alias, lambda unit: queues.upsert(unit, name, parallelism=parallelism, paused=paused))


def _infos(rows: list[Queue]) -> list[QueueInfo]:
    lags = queues.lags(get_settings().database, [row.name for row in rows])
    return [
        QueueInfo(
            name=row.name,
            created_at=milliseconds(row.created_at),
            updated_at=milliseconds(row.updated_at),
            parallelism=row.parallelism,
            paused=row.paused,
            lag=lags.get(row.name, 0),
        )
        for row in rows
    ]


ROUTES: tuple[Route, ...] = (
    Route("GET", "/v2/queues", listing, "The queues.", answer=list[QueueInfo]),
    Route("POST", "/v2/queues", upsert, "Make or change a queue.", body=QueueChange),
    Route("GET", "/v2/queues/{name}", get, "One queue.", answer=QueueInfo),
    Route("DELETE", "/v2/queues/{name}", delete, "Delete a queue; its waiting messages are canceled."),
    Route("POST", "/v2/queues/{name}/pause", pause, "Hold a queue's messages."),
    Route("POST", "/v2/queues/{name}/resume", resume, "Go on with a queue's oldest message."),
)
