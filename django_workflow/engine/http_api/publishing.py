"""Messages and runs come in: publish, enqueue, batch.

A message goes to a URL, a URL group, a queue or a run; which of them is read from its headers. One call is one
transaction: all its messages are taken, or none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from django_workflow.conf import get_settings
from django_workflow.engine import limits
from django_workflow.engine.http_api.request import MESSAGE_HEADERS, ApiRequest, ApiResponse, Route, answer
from django_workflow.engine.publishing import Answers, accept_all
from django_workflow.engine.writing import write
from django_workflow.protocol.publish import BatchItem, Message
from django_workflow.protocol.requests import Batch, Publish, Published
from django_workflow.protocol.wire import decode_request


def publish(request: ApiRequest, destination: str, queue: str = "") -> ApiResponse:
    """Take one message: 200, or 202 when it is a duplicate; one item per endpoint for a URL group."""
    asked = cast(Publish, decode_request(request.method, request.target, request.headers, request.body))
    (taken,) = _take(request, (asked.message,))
    return _single(taken)


def batch(request: ApiRequest) -> tuple[Answers, ...]:
    asked = cast(Batch, decode_request(request.method, request.target, request.headers, request.body))
    return _take(request, asked.messages)


def _take(request: ApiRequest, messages: Sequence[Message]) -> tuple[Answers, ...]:
    alias = get_settings().database
    return write(alias, lambda unit: accept_all(unit, messages, caller_ip=request.caller_ip))


def _single(taken: Answers) -> ApiResponse:
    first = taken if isinstance(taken, Published) else None
    return answer(taken, 202 if first is not None and first.deduplicated else 200)


ROUTES: tuple[Route, ...] = (
    Route(
        "*",
        "/v2/publish/{destination...}",
        publish,
        "Publish a message to a URL or to a URL group.",
        headers=MESSAGE_HEADERS,
        answer=Published | list[Published],
    ),
    Route(
        "*",
        "/v2/enqueue/{queue}/{destination...}",
        publish,
        "Publish a message through a queue, which is made when there is none.",
        headers=MESSAGE_HEADERS,
        answer=Published | list[Published],
    ),
    Route(
        "POST",
        "/v2/batch",
        batch,
        "Publish several messages: all, or none.",
        body=list[BatchItem],
        answer=list[Published | list[Published]],
        largest=limits.LARGEST_BATCH_BYTES,
    ),
)
