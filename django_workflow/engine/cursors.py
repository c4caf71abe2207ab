"""Pages of rows, the newest first, and the cursors between them: opaque texts that say where a page ended."""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID

import msgspec
from django.db.models import Model, Q, QuerySet

from django_workflow.errors import EngineError, MessageInvalid

M = TypeVar("M", bound=Model)
T = TypeVar("T")


def encode_cursor(value: object) -> str:
    """An opaque text for the end of a page."""
    return base64.urlsafe_b64encode(msgspec.json.encode(value)).decode().rstrip("=")


def decode_cursor(text: str, kind: type[T]) -> T:
    """The value that `encode_cursor` was given. Raises MessageInvalid."""
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), type=kind)
    except (binascii.Error, msgspec.DecodeError, ValueError) as error:
        raise MessageInvalid("The cursor was not made by this engine.", name="cursor", value=text[:100]) from error


def page(rows: QuerySet[M], count: int, cursor: str | None) -> tuple[list[M], str | None]:
    """The next `count` rows by `created_at` and key, and the cursor for those that follow; None when none do.

    Raises EngineError with status 400 for a cursor of somebody else.
    """
    if cursor is not None:
        created_at, key = _place(cursor)
        rows = rows.filter(Q(created_at__lt=created_at) | Q(created_at=created_at, pk__lt=key))
    found = list(rows.order_by("-created_at", "-pk")[: count + 1])
    if len(found) <= count:
        return found, None
    return found[:count], cursor_of(found[count - 1])


def _place(cursor: str) -> tuple[datetime, UUID]:
    try:
        created_at, key = decode_cursor(cursor, tuple[datetime, UUID])
        return created_at.astimezone(UTC), key
    except (MessageInvalid, OverflowError) as error:
        raise EngineError(str(error), status=400) from error


def cursor_of(row: Any) -> str:
    return encode_cursor((row.created_at, row.pk))
