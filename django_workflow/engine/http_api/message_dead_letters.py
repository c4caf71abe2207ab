"""Messages outside workflows that were given up: looked at, delivered once more, forgotten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from django.db.models import QuerySet
from django.db.models.functions import Length

from django_workflow.conf import get_settings
from django_workflow.engine import dead_messages
from django_workflow.engine.cursors import cursor_of, page
from django_workflow.engine.http_api.filters import Filters
from django_workflow.engine.http_api.message_form import (
    FILTERS,
    LARGEST_PAGE,
    HeaderLists,
    MessageInfo,
    chosen,
    config_of,
    message_fields,
    shown_body,
    shown_error,
)
from django_workflow.engine.http_api.request import MESSAGE_HEADERS, ApiRequest, ApiResponse, Route, answer
from django_workflow.engine.records import raw
from django_workflow.engine.redaction import redact_headers
from django_workflow.engine.writing import write
from django_workflow.errors import MessageInvalid
from django_workflow.models import DeadLetter
from django_workflow.protocol import headers as h
from django_workflow.protocol.requests import Published
from django_workflow.protocol.resources import Deleted

MOST_COUNT = 100


class DeadMessage(MessageInfo, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A message that was given up, and the last answer. `response_status` 0: there was none; `error` says why."""

    dlq_id: str
    response_status: int
    error: str | None = None
    response_header: HeaderLists = {}
    response_body: str | None = None
    response_body_base64: str | None = msgspec.field(default=None, name="responseBodyBase64")


class DeadMessages(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The newest first; the cursor is missing on the last page."""

    cursor: str | None = None
    messages: list[DeadMessage]


class Retried(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The new messages, in the order of their dead letters. With a cursor there may be more."""

    cursor: str | None = None
    responses: list[Published]


def listing(request: ApiRequest) -> DeadMessages:
    kept, cursor = _page(Filters(request, QUERY))
    letters = _letters().select_related("message").in_bulk([row.pk for row in kept])
    return DeadMessages(cursor=cursor, messages=[_info(letters[row.pk]) for row in kept if row.pk in letters])


def get(request: ApiRequest, dlq_id: str) -> DeadMessage:
    return _info(dead_messages.find(get_settings().database, [dlq_id])[0])


def delete(request: ApiRequest, dlq_id: str) -> Deleted:
    alias = get_settings().database
    deleted = dead_messages.delete(alias, dead_messages.keys_of([dlq_id]))
    if not deleted:
        raise dead_messages.unknown([dlq_id])
    return Deleted(deleted=deleted)


def delete_many(request: ApiRequest) -> Deleted:
    """Forget the dead letters named, else those that fit, else all; with `count` so many of them, the newest first."""
    alias = get_settings().database
    filters = Filters(request, QUERY, with_body=True)
    if "dlqIds" in filters:
        return Deleted(deleted=dead_messages.delete(alias, dead_messages.keys_of(filters.ids("dlqIds"))))
    deleted, cursor = 0, filters.one("cursor")
    most = filters.count(MOST_COUNT, MOST_COUNT) if "count" in filters else None
    while True:
        found, cursor = page(_chosen(filters).only("pk", "created_at"), most or MOST_COUNT, cursor)
        deleted += dead_messages.delete(alias, [row.pk for row in found])
        if cursor is None or most is not None:
            return Deleted(deleted=deleted, cursor=cursor)


def retry(request: ApiRequest, dlq_id: str) -> ApiResponse:
    """Publish one once more, as a new message; the request's `Upstash-*` headers go before its own."""
    return answer(_retry([dlq_id], request.headers)[0], 201)


def retry_many(request: ApiRequest) -> ApiResponse:
    """Publish those named once more (404 when one is unknown: then none is), else those that fit; at most 100, and no
    more than a page holds of those that fit."""
    filters = Filters(request, QUERY, with_body=True)
    ids, cursor = list(dict.fromkeys(filters.ids("dlqIds"))), None
    if "dlqIds" not in filters:
        found, cursor = _page(filters)
        ids = [str(row.pk) for row in found]
    if len(ids) > MOST_COUNT:
        raise MessageInvalid(f"{len(ids)} messages are named; at most {MOST_COUNT} are retried at once.", name="dlqIds")
    return answer(Retried(cursor=cursor, responses=_retry(ids, request.headers) if ids else []), 201)


def _retry(ids: Sequence[str], headers: Mapping[str, str]) -> list[Published]:
    overrides = {name: value for name, value in headers.items() if name.lower().startswith(h.PREFIX.lower())}
    return write(get_settings().database, lambda unit: dead_messages.retry(unit, ids, overrides))


# Which are meant, and how they are shown


def _letters() -> QuerySet[DeadLetter]:
    return DeadLetter.objects.using(get_settings().database).filter(message__isnull=False)


def _chosen(filters: Filters) -> QuerySet[DeadLetter]:
    source = filters.one("source")
    if source not in (None, "message", "qstash"):
        raise MessageInvalid(f"source: there is no {source[:50]!r}, but workflow.", name="source", value=source)
    rows = _letters().filter(chosen(filters, "message__"))
    if "dlqIds" in filters:
        rows = rows.filter(pk__in=dead_messages.keys_of(filters.ids("dlqIds")))
    if "responseStatus" in filters:
        rows = rows.filter(status__in=[_status(text) for text in filters.all("responseStatus")])
    if (since := filters.instant("fromDate")) is not None:
        rows = rows.filter(created_at__gte=since)
    if (until := filters.until("toDate")) is not None:
        rows = rows.filter(created_at__lte=until)
    return rows


def _status(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 5):
        raise MessageInvalid(f"responseStatus: {text[:50]!r} is no HTTP status.", name="responseStatus", value=text)
    return int(text)


def _page(filters: Filters) -> tuple[Sequence[Any], str | None]:
    """Keys of the dead letters that fit, as many as a page may hold, and the cursor for those that follow."""
    rows = _chosen(filters).annotate(size=Length("message__body") + Length("message__response_body"))
    found, cursor = page(rows.only("pk", "created_at"), filters.count(MOST_COUNT, MOST_COUNT), filters.one("cursor"))
    kept = _within_budget(found)
    return kept, cursor if len(kept) == len(found) else cursor_of(kept[-1])


def _within_budget(found: Sequence[Any]) -> Sequence[Any]:
    """As many of these as a page may hold: one at least."""
    total = 0
    for index, row in enumerate(found):
        total += row.size
        if total > LARGEST_PAGE and index:
            return found[:index]
    return found


def _info(letter: DeadLetter) -> DeadMessage:
    log = letter.message
    assert log is not None
    redact = config_of(log).redact
    body, body_base64 = shown_body(raw(log.response_body, log.response_is_base64), redact)
    headers: dict[str, Any] = msgspec.json.decode(letter.response_headers or "{}")
    return DeadMessage(
        **message_fields(log),
        dlq_id=str(letter.pk),
        response_status=letter.status,
        error=shown_error(letter.error, letter.status, redact),
        response_header=redact_headers(headers, redact),
        response_body=body,
        response_body_base64=body_base64,
    )


QUERY = (*FILTERS, "source", "dlqIds", "responseStatus", "fromDate", "toDate", "cursor", "count")

ROUTES: tuple[Route, ...] = (
    Route("GET", "/v2/dlq", listing, "Messages that were given up.", query=QUERY, answer=DeadMessages),
    Route(
        "DELETE",
        "/v2/dlq",
        delete_many,
        "Forget the dead letters that are named, that fit, or all.",
        query=QUERY,
        body=dict[str, str | int | list[str]],
        answer=Deleted,
    ),
    Route(
        "POST",
        "/v2/dlq/retry",
        retry_many,
        "Publish messages that were given up once more, at most 100.",
        query=QUERY,
        headers=MESSAGE_HEADERS,
        body=dict[str, str | int | list[str]],
        answer=Retried,
    ),
    Route(
        "POST",
        "/v2/dlq/retry/{dlq_id}",
        retry,
        "Publish a message that was given up once more.",
        headers=MESSAGE_HEADERS,
        answer=Published,
    ),
    Route("GET", "/v2/dlq/{dlq_id}", get, "A message that was given up.", answer=DeadMessage),
    Route("DELETE", "/v2/dlq/{dlq_id}", delete, "Forget a message that was given up.", answer=Deleted),
)
