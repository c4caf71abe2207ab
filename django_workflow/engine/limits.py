"""What the engine refuses as too much: with status 412, which makes SDKs fail the run instead of trying again; a body
that is too large with 413."""

from __future__ import annotations

from collections.abc import Iterable

from django_workflow.errors import EngineError, MessageInvalid, QuotaExceeded
from django_workflow.protocol import headers as h
from django_workflow.protocol.publish import Message
from django_workflow.protocol.requests import Notify, Wait

MOST_RETRIES = 10_000
LONGEST_DELAY_SECONDS = 366 * 86_400
LATEST_UNIX_SECOND = 253_402_300_799
MOST_PARALLELISM = 10_000
"""Of a queue."""

MOST_QUEUES = 10_000
MOST_URL_GROUPS = 10_000
MOST_SCHEDULES = 10_000
MOST_ENDPOINTS = 1_000
"""Of a URL group: a message to it is that many."""

LONGEST_EVENT_ID = 255

LARGEST_MESSAGE_BYTES = 10 * 1024 * 1024
"""One message's body: a step of 5 MiB fits in, written as JSON inside JSON. MariaDB takes 16 MiB in one statement."""

LARGEST_BATCH_BYTES = 100 * 1024 * 1024
"""The body of a batch; what it holds is one transaction."""

LARGEST_INLINE_BYTES = 3 * 1024 * 1024
"""What a call of a step carries at most; above, an endpoint that can fetch the run's messages itself gets none of them.
Serverless platforms take bodies of 4.5 MB."""


def check(messages: Iterable[Message]) -> None:
    """Raise QuotaExceeded for a message that asks for more than the engine gives."""
    for message in messages:
        if message.retries is not None and message.retries > MOST_RETRIES:
            raise QuotaExceeded(f"{message.retries} retries were asked for; at most {MOST_RETRIES} are made.")
        if message.delay is not None and message.delay > LONGEST_DELAY_SECONDS:
            raise QuotaExceeded(
                f"A delay of {message.delay:.0f} s was asked for; the longest is {LONGEST_DELAY_SECONDS} s (366 days)."
            )
        if message.not_before is not None and message.not_before > LATEST_UNIX_SECOND:
            raise QuotaExceeded(f"Unix second {message.not_before:.0f} is after the year 9999.")
        if len(message.body) > LARGEST_MESSAGE_BYTES:
            raise EngineError(
                f"A message has a body of {len(message.body)} bytes; at most {LARGEST_MESSAGE_BYTES} are taken.",
                status=413,
            )


def check_event(request: Wait | Notify) -> None:
    """Raise QuotaExceeded for a wait that lasts too long, MessageInvalid for an id that is too long."""
    if len(request.event_id) > LONGEST_EVENT_ID:
        raise MessageInvalid(f"An event id has {LONGEST_EVENT_ID} characters at most.", name="eventId")
    if isinstance(request, Notify) and len(request.deduplication_id or "") > LONGEST_EVENT_ID:
        raise MessageInvalid(
            f"An event's deduplication id has {LONGEST_EVENT_ID} characters at most.", name=h.DEDUPLICATION_ID
        )
    if isinstance(request, Wait) and request.timeout > LONGEST_DELAY_SECONDS:
        raise QuotaExceeded(
            f"A wait of {request.timeout:.0f} s was asked for; the longest is {LONGEST_DELAY_SECONDS} s (366 days)."
        )
