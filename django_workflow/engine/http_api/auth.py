"""Who may call: a bearer token in the header or in the query, one that may write or one that may only read.

Asked by `views` before a body is read. The token is taken out of the query first, so that nothing behind this door
sees it, passes it on or logs it.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from urllib.parse import unquote_plus

from django_workflow.engine import signing_keys
from django_workflow.engine.http_api.request import Route
from django_workflow.errors import RequestRejected
from django_workflow.protocol.queries import TOKEN_PARAMETER

_READING = frozenset(("GET", "HEAD"))


class Unauthorized(RequestRejected):
    status_code = 401


class ReadOnly(RequestRejected):
    """The token is right, but may not change anything."""

    status_code = 403


def take_token(query: str) -> tuple[str, str | None]:
    """A query without its token, and the token. What stays is as it came, byte for byte."""
    kept, token = [], None
    for piece in query.split("&"):
        name, _, value = piece.partition("=")
        if unquote_plus(name).lower() == TOKEN_PARAMETER:
            token = unquote_plus(value)
        else:
            kept.append(piece)
    return "&".join(kept), token


def check(route: Route, authorization: str | None, token: str | None) -> None:
    """Let a call pass, or raise Unauthorized or ReadOnly. One right token will do, wherever it stands."""
    if route.public:
        return
    tokens = [given for given in (token, _bearer(authorization)) if given]
    if _any_is_among(tokens, signing_keys.engine_tokens()):
        return
    if _any_is_among(tokens, signing_keys.read_only_tokens()):
        if _READING.issuperset(route.methods.split()):
            return
        raise ReadOnly("This token may only read. Use the other one, QSTASH_TOKEN of `manage.py workflow_keys`.")
    if tokens:
        raise Unauthorized("The token is not one of this engine's; `manage.py workflow_keys` prints it.")
    if authorization:
        raise Unauthorized("The Authorization header must be `Bearer <token>`.")
    raise Unauthorized(f"A token is missing: send `Authorization: Bearer <token>`, or ?{TOKEN_PARAMETER}=<token>.")


def _bearer(authorization: str | None) -> str | None:
    scheme, _, token = (authorization or "").strip().partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def _any_is_among(given: Iterable[str], right: Iterable[str]) -> bool:
    """Compared in constant time, every token with every other: the time tells nothing."""
    pairs = [(a.encode("utf-8", "replace"), b.encode()) for b in right for a in given]
    return sum(hmac.compare_digest(*pair) for pair in pairs) > 0
