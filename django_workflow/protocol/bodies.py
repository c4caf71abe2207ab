"""Bodies in text columns: any bytes come back as they were, and every database takes the text."""

from __future__ import annotations

import base64


def stored(body: bytes) -> tuple[str, bool]:
    """A body as it stands in a text column: its text, or base64 when it is no text that every database takes."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return base64.b64encode(body).decode(), True
    return (base64.b64encode(body).decode(), True) if "\0" in text else (text, False)


def raw(text: str, is_base64: bool) -> bytes:
    return base64.b64decode(text) if is_base64 else text.encode()


def printable(text: str) -> str:
    """Text that every database takes: PostgreSQL refuses U+0000, and lone surrogates are no UTF-8."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
