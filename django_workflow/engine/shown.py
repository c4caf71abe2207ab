"""What the API shows of stored bodies and headers: what a publisher hides is hidden, long bodies are cut."""

from __future__ import annotations

import base64
from collections.abc import Collection

import msgspec

from django_workflow.engine.redaction import hides_body, redact_body, redact_headers
from django_workflow.protocol.resources import HeaderLists

NO_BODIES = -1

# Credentials are hidden even when nobody asked for it.
_SECRETS = tuple(
    f"header[{name}]" for name in ("Authorization", "Cookie", "Proxy-Authorization", "Set-Cookie", "X-Api-Key")
)


class Shown:
    """How one run (or a call of it) is shown. `fields` are those to redact, `trim` the most bytes of a body (-1: none,
    None: all)."""

    __slots__ = ("fields", "trim")

    def __init__(self, fields: Collection[str], trim: int | None = None) -> None:
        self.fields = (*fields, *_SECRETS)
        self.trim = trim

    def text(self, body: str | None) -> str | None:
        """A body; None when there is none, or none is wanted."""
        return None if body is None else self.trimmed(redact_body(body, self.fields))

    def trimmed(self, text: str) -> str | None:
        """A text that was hidden already where it has to be."""
        return None if self.trim == NO_BODIES else self._cut(text)

    def payload(self, body: bytes) -> tuple[str, str]:
        """A body as text, and as base64 if it is no text; one of them is empty."""
        if hides_body(self.fields):
            return str(redact_body(body, self.fields)), ""
        try:
            return body.decode(), ""
        except UnicodeDecodeError:
            return "", base64.b64encode(body).decode()

    def headers(self, headers: HeaderLists) -> HeaderLists:
        return redact_headers(headers, self.fields)

    def answer_headers(self, stored: str) -> HeaderLists:
        """Headers that were stored as JSON."""
        return self.headers(msgspec.json.decode(stored or "{}"))

    def _cut(self, text: str) -> str:
        if self.trim is None or len(text) <= self.trim // 4:
            return text
        return text.encode()[: self.trim].decode("utf-8", "ignore")
