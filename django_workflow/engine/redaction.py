"""Redaction: what a message or a run asked to hide, replaced wherever the engine shows it.

Called by the resources of the HTTP API with what is stored; deliveries, callbacks and retries take the originals.
`fields` are those of `protocol.publish.decode_redact`: `body`, `header` (all of them) and `header[Name]`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from typing import TypeVar, cast

B = TypeVar("B", str, bytes)
V = TypeVar("V", bound=str | list[str])

REDACTED_PREFIX = "REDACTED:"


def redacted(value: str | bytes) -> str:
    """`REDACTED:<SHA-256 of the original, as hexadecimal digits>`: whoever knows the original can recognize it."""
    return REDACTED_PREFIX + hashlib.sha256(value.encode() if isinstance(value, str) else value).hexdigest()


def hides_body(fields: Collection[str]) -> bool:
    return "body" in fields


def redact_body(text: B, fields: Collection[str]) -> B | str:
    """The body as it may be shown. Nothing is hidden of an empty one: its digest would say as much.

    Give bytes for what is stored as base64, so that the digest is that of the bytes which were published.
    """
    return redacted(text) if text and hides_body(fields) else text


def redact_headers(headers: Mapping[str, V], fields: Collection[str]) -> dict[str, V]:
    """The headers as they may be shown: names stay, hidden values are replaced. Values are texts or lists of texts."""
    every = "header" in fields
    named = {field[7:-1].lower() for field in fields if field.startswith("header[")}
    return {name: _hidden(value) if every or name.lower() in named else value for name, value in headers.items()}


def _hidden(value: V) -> V:
    return cast(V, [redacted(item) for item in value] if isinstance(value, list) else redacted(value))
