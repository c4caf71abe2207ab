"""The event log of messages outside workflows: one entry for each thing that happened, the newest first."""

from __future__ import annotations

import base64
from typing import Any

import msgspec

from django_workflow.conf import get_settings
from django_workflow.engine import event_log
from django_workflow.engine.cursors import encode_cursor
from django_workflow.engine.event_log import Event, EventQuery, Place, microseconds
from django_workflow.engine.http_api.filters import Filters
from django_workflow.engine.http_api.message_form import (
    FILTERS,
    HeaderLists,
    callback_headers,
    chosen,
    common_fields,
    config_of,
    shown_error,
)
from django_workflow.engine.http_api.request import ApiRequest, Route
from django_workflow.engine.records import StoredMessage, milliseconds, raw
from django_workflow.engine.redaction import redact_body, redact_headers
from django_workflow.errors import MessageInvalid
from django_workflow.protocol.states import MessageState, matching_states

DEFAULT_COUNT, MOST_COUNT = 100, 1000
_ORDERS = {"latestFirst": False, "earliestFirst": True}


class EventInfo(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What happened to a message, with what the message is. Instants and `timeout` are milliseconds, `period` is in
    seconds, bodies are base64. Some clients read other names of the same: so both are there."""

    time: int
    message_id: str
    state: MessageState
    url: str
    method: str
    max_retries: int
    error: str | None = None
    next_delivery_time: int | None = None
    topic_name: str | None = None
    endpoint_name: str | None = None
    queue_name: str | None = None
    schedule_id: str | None = None
    header: HeaderLists = {}
    body: str | None = None
    callback: str | None = None
    callback_headers: HeaderLists = {}
    failure_callback: str | None = None
    failure_callback_headers: HeaderLists = {}
    response_status: int | None = None
    response_body: str | None = None
    response_header: HeaderLists = {}
    response_headers: HeaderLists = {}
    timeout: int | None = None
    retry_delay_expr: str | None = None
    retry_delay_expression: str | None = None
    caller_ip: str | None = msgspec.field(default=None, name="callerIP")
    label: str | None = None
    labels: tuple[str, ...] = ()
    flow_control_key: str | None = None
    parallelism: int | None = None
    rate: int | None = None
    period: int | None = None


class EventPage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The entries, under both names that clients know; the cursor is missing on the last page."""

    cursor: str | None = None
    events: list[EventInfo]
    logs: list[EventInfo]


def listing(request: ApiRequest) -> EventPage:
    filters = Filters(request, QUERY)
    order = filters.one("order") or "latestFirst"
    if order not in _ORDERS:
        raise MessageInvalid(f"order: {order[:50]!r} is neither earliestFirst nor latestFirst.", name="order")
    query = EventQuery(
        messages=chosen(filters),
        states=_states(filters),
        since=filters.instant("fromDate"),
        until=filters.until("toDate"),
        earliest_first=_ORDERS[order],
        after=_after(filters),
        count=filters.count(DEFAULT_COUNT, MOST_COUNT),
    )
    page = event_log.read(get_settings().database, query)
    entries = [_info(event) for event in page.events]
    cursor = None if page.following is None else encode_cursor(page.following)
    return EventPage(cursor=cursor, events=entries, logs=entries)


def _after(filters: Filters) -> Place | None:
    place: Place | None = filters.cursor(Place)
    try:
        return place if place is None else Place(microseconds(place.instant), place.key, place.rank)
    except OverflowError as error:
        raise MessageInvalid(f"The cursor was not made by this engine: {error}.", name="cursor") from error


def _states(filters: Filters) -> frozenset[MessageState]:
    names = filters.all("state")
    if not names:
        return frozenset(MessageState)
    try:
        return frozenset().union(*(matching_states(name.upper()) for name in names))
    except ValueError as error:
        raise MessageInvalid(f"state: {error}", name="state", value=",".join(names)) from error


def _info(event: Event) -> EventInfo:
    log = event.message
    message = config_of(log)
    return EventInfo(
        time=event.place.at // 1000,
        state=event.state,
        body=_base64(raw(log.body, log.body_is_base64), message),
        callback_headers=callback_headers(message, message.callback),
        failure_callback_headers=callback_headers(message, message.failure_callback),
        timeout=None if message.timeout is None else round(message.timeout * 1000),
        retry_delay_expr=message.retry_delay,
        retry_delay_expression=message.retry_delay,
        **common_fields(log, message),
        **_outcome(event, message),
    )


def _outcome(event: Event, message: StoredMessage) -> dict[str, Any]:
    """What only an entry of this state tells."""
    log, attempt = event.message, event.attempt
    if event.state == MessageState.CREATED:
        return {"next_delivery_time": milliseconds(log.due_at)}
    if event.state in (MessageState.DELIVERED, MessageState.FAILED, MessageState.CANCELED):
        return _answered(log, raw(log.response_body, log.response_is_base64), message) if log.response_headers else {}
    if attempt is None:
        return {}
    if event.state == MessageState.RETRY:
        return {"next_delivery_time": None if attempt.retry_at is None else milliseconds(attempt.retry_at)}
    if event.state == MessageState.ERROR:
        return _answered(attempt, attempt.response_body.encode(), message)
    return {}


def _answered(row: Any, body: bytes, message: StoredMessage) -> dict[str, Any]:
    headers: HeaderLists = redact_headers(msgspec.json.decode(row.response_headers or "{}"), message.redact)
    return {
        "error": shown_error(row.error, row.status, message.redact),
        "response_status": row.status,
        "response_body": _base64(body, message),
        "response_header": headers,
        "response_headers": headers,
    }


def _base64(body: bytes, message: StoredMessage) -> str | None:
    if not body:
        return None
    shown = redact_body(body, message.redact)
    return base64.b64encode(shown.encode() if isinstance(shown, str) else shown).decode()


QUERY = (*FILTERS, "state", "fromDate", "toDate", "order", "cursor", "count")

ROUTES: tuple[Route, ...] = tuple(
    Route("GET", path, listing, "What happened to messages outside workflows.", query=QUERY, answer=EventPage)
    for path in ("/v2/events", "/v2/logs")
)
