"""What the API shows of stored bodies and headers: what a publisher hides is hidden, long bodies are cut."""

from __future__ import annotations

import base64
import json
from collections.abc import Collection

import msgspec

from django_workflow.engine.redaction import hides_body, redact_body, redact_headers
from django_workflow.protocol.resources import HeaderLists
from django_workflow.protocol.secrets import PAYLOAD, REDACTED, RESULT, Paths, mask, within

NO_BODIES = -1

# Credentials are hidden even when nobody asked for it.
_SECRETS = tuple(
    f"header[{name}]" for name in ("Authorization", "Cookie", "Proxy-Authorization", "Set-Cookie", "X-Api-Key")
)


class Shown:
    """How one run (or a call of it) is shown. `fields` are those to redact, `trim` the most bytes of a body (-1: none,
    None: all). `secret` are the paths of what is hidden of its payload and result."""

    __slots__ = ("fields", "secret", "trim")

    def __init__(self, fields: Collection[str], trim: int | None = None, secret: Paths = ()) -> None:
        self.fields = (*fields, *_SECRETS)
        self.trim = trim
        self.secret = secret

    def part(self, name: str, body: bytes) -> bytes:
        """The payload or the result (by the names of `protocol.secrets`) without its secrets."""
        paths = within(name, self.secret)
        if not paths or not body or hides_body(self.fields):
            return body
        try:
            return json.dumps(mask(json.loads(body), paths), ensure_ascii=False).encode()
        except (ValueError, RecursionError):
            return REDACTED.encode()

    def text(self, body: str | None) -> str | None:
        """A body; None when there is none, or none is wanted."""
        return None if body is None else self.trimmed(redact_body(body, self.fields))

    def trimmed(self, text: str) -> str | None:
        """A text that was hidden already where it has to be."""
        return None if self.trim == NO_BODIES else self._cut(text)

    def payload(self, body: bytes) -> tuple[str, str]:
        """A run's payload as text, and as base64 if it is no text; one of them is empty."""
        body = self.part(PAYLOAD, body)
        if hides_body(self.fields):
            return str(redact_body(body, self.fields)), ""
        try:
            return body.decode(), ""
        except UnicodeDecodeError:
            return "", base64.b64encode(body).decode()

    def result(self, text: str | None) -> str | None:
        """What a run returned; None when that is nothing, or no body is wanted."""
        return self.text(None if text is None else self.part(RESULT, text.encode()).decode())

    def headers(self, headers: HeaderLists) -> HeaderLists:
        return redact_headers(headers, self.fields)

    def answer_headers(self, stored: str) -> HeaderLists:
        """Headers that were stored as JSON."""
        return self.headers(msgspec.json.decode(stored or "{}"))

    def _cut(self, text: str) -> str:
        if self.trim is None or len(text) <= self.trim // 4:
            return text
        return text.encode()[: self.trim].decode("utf-8", "ignore")
