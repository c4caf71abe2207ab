"""Messages outside workflows that are not finished: looked at, and canceled one by one or many at once."""

from __future__ import annotations

import msgspec

from django_workflow.conf import get_settings
from django_workflow.engine import messages
from django_workflow.engine.clock import current_clock
from django_workflow.engine.http_api.filters import Filters
from django_workflow.engine.http_api.message_form import (
    FILTERS,
    MessageInfo,
    chosen,
    message_fields,
    message_keys,
    unfinished,
)
from django_workflow.engine.http_api.request import ApiRequest, Route
from django_workflow.errors import EngineError
from django_workflow.models import MessageLog
from django_workflow.protocol.identifiers import message_key_of

MOST_COUNT = 500
AT_ONCE = 500


class Cancelled(msgspec.Struct, frozen=True):
    cancelled: int


def get(request: ApiRequest, message_id: str) -> MessageInfo:
    log = _find(message_id)
    return MessageInfo(**message_fields(log))


def cancel(request: ApiRequest, message_id: str) -> Cancelled:
    log = _find(message_id)
    cancelled = messages.cancel(get_settings().database, [log.pk])
    if not cancelled:  # it was finished meanwhile
        raise _unknown(message_id)
    return Cancelled(cancelled)


def cancel_many(request: ApiRequest) -> Cancelled:
    """Cancel the messages named, else those that fit, else all: so many as `count` says, the oldest first."""
    alias = get_settings().database
    filters = Filters(request, CANCEL_FILTERS, with_body=True)
    if "messageIds" in filters or "messageId" in filters:
        return Cancelled(messages.cancel(alias, message_keys(filters)))
    rows = unfinished(alias).filter(chosen(filters), created_at__lte=current_clock().now())
    if (since := filters.instant("fromDate")) is not None:
        rows = rows.filter(created_at__gte=since)
    if (until := filters.until("toDate")) is not None:
        rows = rows.filter(created_at__lte=until)
    left = filters.count(MOST_COUNT, MOST_COUNT) if "count" in filters else None
    cancelled = 0
    while left is None or left > 0:
        some = AT_ONCE if left is None else min(left, AT_ONCE)
        keys = list(rows.order_by("created_at", "pk").values_list("pk", flat=True)[:some])
        ended = messages.cancel(alias, keys)
        cancelled += ended
        left = None if left is None else left - len(keys)
        if len(keys) < some or not ended:
            break
    return Cancelled(cancelled)


def _find(message_id: str) -> MessageLog:
    key = message_key_of(message_id)
    log = unfinished(get_settings().database).filter(pk=key).first() if key is not None else None
    if log is None:
        raise _unknown(message_id)
    return log  # type: ignore[no-any-return]


def _unknown(message_id: str) -> EngineError:
    return EngineError(
        f"There is no message {message_id[:100]!r}: delivered, failed and canceled ones are only in the log.",
        status=404,
    )


CANCEL_FILTERS = (*FILTERS, "fromDate", "toDate", "count")

ROUTES: tuple[Route, ...] = (
    Route("GET", "/v2/messages/{message_id}", get, "A message that is not finished.", answer=MessageInfo),
    Route("DELETE", "/v2/messages/{message_id}", cancel, "Cancel a message.", answer=Cancelled),
    Route(
        "DELETE",
        "/v2/messages",
        cancel_many,
        "Cancel the messages that are named, that fit, or all.",
        query=CANCEL_FILTERS,
        body=dict[str, str | int | list[str]],
        answer=Cancelled,
    ),
)
