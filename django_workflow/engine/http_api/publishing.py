"""Messages and runs come in: publish, enqueue, batch, trigger.

A message goes to a URL, a URL group, a queue or a run; which of them is read from its headers. One call is one
transaction: all its messages are taken, or none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import msgspec

from django_workflow.conf import get_settings
from django_workflow.engine import limits
from django_workflow.engine.http_api import schedules
from django_workflow.engine.http_api.request import MESSAGE_HEADERS, ApiRequest, ApiResponse, Route, answer
from django_workflow.engine.publishing import Answers, accept_all
from django_workflow.engine.rest_starts import rest_start
from django_workflow.engine.url_groups import with_incoming
from django_workflow.engine.writing import write
from django_workflow.errors import MessageInvalid
from django_workflow.protocol import headers as h
from django_workflow.protocol.publish import BatchItem, Message, decode_message
from django_workflow.protocol.requests import Batch, Publish, Published
from django_workflow.protocol.wire import MAKE_SCHEDULE, decode_batch, decode_request, split_destination


def publish(request: ApiRequest, destination: str, queue: str = "") -> ApiResponse:
    """Take one message: 200, or 202 when it is a duplicate; one item per endpoint for a URL group.

    With `Upstash-Cron` it is an old way to make a schedule.
    """
    if _has_cron(request):
        if queue:
            raise MessageInvalid(f"A schedule names its queue in {h.QUEUE_NAME}: POST /v2/schedules/…", name=h.CRON)
        return answer(schedules.create(request, destination))
    asked = cast(Publish, decode_request(request.method, request.target, request.headers, request.body))
    message = with_incoming(get_settings().database, asked.message, request.headers)
    (taken,) = _take(request, (message,))
    return _single(taken)


def _has_cron(request: ApiRequest) -> bool:
    return bool(request.header(h.CRON)) or any(name.lower() == h.CRON.lower() for name, _ in request.query)


def batch(request: ApiRequest) -> tuple[Answers, ...]:
    asked = cast(Batch, decode_request(request.method, request.target, request.headers, request.body))
    return _take(request, asked.messages)


def trigger(request: ApiRequest, destination: str) -> ApiResponse:
    """Start a run of the workflow at `destination`, whatever SDK serves it."""
    if _has_cron(request):
        raise MessageInvalid(f"{h.CRON} makes a schedule, and this call starts a run: {MAKE_SCHEDULE}", name=h.CRON)
    url, config = split_destination(destination)
    message = decode_message(url, request.headers, request.body, config)
    (taken,) = _take(request, (rest_start(message),), by_rest=True)
    return _single(taken)


def batch_trigger(request: ApiRequest) -> ApiResponse:
    messages = tuple(map(rest_start, decode_batch(request.body)))
    return answer(_take(request, messages, by_rest=True), 201)


def _take(request: ApiRequest, messages: Sequence[Message], *, by_rest: bool = False) -> tuple[Answers, ...]:
    alias = get_settings().database
    return write(alias, lambda unit: accept_all(unit, messages, caller_ip=request.caller_ip, by_rest=by_rest))


def _single(taken: Answers) -> ApiResponse:
    first = taken if isinstance(taken, Published) else None
    return answer(taken, 202 if first is not None and first.deduplicated else 200)


class Started(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A run that was started, or (`deduplicated`) was there already."""

    workflow_run_id: str
    workflow_created_at: int
    message_id: str
    deduplicated: bool = False


TRIGGER_HEADERS = (h.WORKFLOW_RUN_ID, *MESSAGE_HEADERS)

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
    Route(
        "POST",
        "/v2/batch/trigger",
        batch_trigger,
        "Start several runs: all, or none.",
        body=list[BatchItem],
        answer=list[Started],
        largest=limits.LARGEST_BATCH_BYTES,
    ),
    Route(
        "POST",
        "/v2/trigger/{destination...}",
        trigger,
        "Start a run of the workflow at a URL; the body is its payload.",
        headers=TRIGGER_HEADERS,
        answer=Started,
    ),
)
