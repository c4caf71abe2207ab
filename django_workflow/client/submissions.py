"""What a workflow's endpoint submits for its own run, and what it is answered before anything is written.

Used where submissions are taken and written later: by the engine's session of an in-process delivery, and by `carried`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django_workflow.protocol.identifiers import message_id_of, uuid7
from django_workflow.protocol.publish import Message
from django_workflow.protocol.requests import Batch, CancelRun, EngineRequest, FinishRun, Publish, Published, Wait


def is_of_run(request: EngineRequest[Any], run_id: str) -> bool:
    """Whether the request belongs to this run and can be written with the acknowledgement of its delivery."""
    if isinstance(request, Wait):
        return _run_of(request.message) == run_id
    if isinstance(request, FinishRun | CancelRun):
        return request.run_id == run_id
    if isinstance(request, Batch):
        return all(_run_of(message) == run_id and not _starts(message) for message in request.messages)
    if isinstance(request, Publish):
        fields = request.message.workflow
        return fields is not None and (fields.invoke or (fields.run_id == run_id and not fields.init))
    return False


@dataclass(frozen=True, slots=True)
class Accepted:
    """Keys for the messages of a request, and the answer that its sender gets."""

    keys: tuple[UUID, ...]
    answer: Any

    @classmethod
    def of(cls, request: EngineRequest[Any]) -> Accepted:
        if isinstance(request, Batch):
            keys = tuple([uuid7() for _ in request.messages])
            return cls(keys, tuple([Published(message_id=message_id_of(key)) for key in keys]))
        if isinstance(request, Publish):
            key = uuid7()
            return cls((key,), Published(message_id=message_id_of(key)))
        return cls((), None)


def _run_of(message: Message) -> str | None:
    return message.workflow.run_id if message.workflow is not None else None


def _starts(message: Message) -> bool:
    return message.workflow is not None and message.workflow.init
