"""What views have in common that machines call: workflows' endpoints, webhooks, the engine's API.

Reads what Django keeps to itself or takes apart: bodies under limits of our own, headers as the UTF-8 that was sent,
and the part of a path that a destination stands in, before it was decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import quote, unquote

from django.contrib.auth.decorators import login_not_required
from django.core.handlers.asgi import ASGIRequest
from django.db import connections
from django.db.transaction import non_atomic_requests
from django.http import HttpRequest, HttpResponse
from django.http.request import UnreadablePostError
from django.views.decorators.csrf import csrf_exempt

from django_workflow.errors import RequestRejected
from django_workflow.protocol.headers import utf8_value

View = Callable[..., HttpResponse]


class LengthRequired(RequestRejected):
    """The body came in chunks, which no WSGI server hands on."""

    status_code = 411


class BodyTooLarge(RequestRejected):
    status_code = 413


def machine_view(view: View) -> View:
    """For views that machines call: no CSRF token, no login, and no transaction around the whole request."""
    for alias in connections:
        view = non_atomic_requests(using=alias)(view)
    return csrf_exempt(login_not_required(view))


def read_body(request: HttpRequest, limit: int) -> bytes:
    """The body by `read()`: `request.body` would refuse what is above DATA_UPLOAD_MAX_MEMORY_SIZE.

    Raises LengthRequired, BodyTooLarge (nothing is read when the length tells it), or RequestRejected.
    """
    meta = request.META
    length = meta.get("CONTENT_LENGTH")
    chunked = not length and "chunked" in meta.get("HTTP_TRANSFER_ENCODING", "").lower()
    if chunked and not isinstance(request, ASGIRequest):
        raise LengthRequired("Chunked bodies are lost under WSGI. Send a Content-Length, or serve this site by ASGI.")
    if length and length.isdigit() and int(length) > limit:
        raise BodyTooLarge(f"The body has {length} bytes, but {limit} is the limit.")
    try:
        body = request.read(limit + 1)
    except UnreadablePostError as error:
        raise RequestRejected(f"The body could not be read: {error}") from error
    if len(body) > limit:
        raise BodyTooLarge(f"The body has more than {limit} bytes.")
    return body


def to_django(status: int, headers: Mapping[str, str], body: bytes) -> HttpResponse:
    """An answer that Django does not log: its words would call every failed step of a workflow a broken page."""
    answer = HttpResponse(body, status=status, headers=dict(headers))
    answer._has_been_logged = True  # type: ignore[attr-defined]
    return answer


def undecoded(request: HttpRequest, tail: str) -> str:
    """The end of the request's path as it was sent; `tail` is that end as the URL pattern captured it, decoded.

    Where the server tells no undecoded path (runserver without daphne, granian as a WSGI server, Django's test
    client), `tail` is quoted again: `%2F` is a slash then.
    """
    sent = _sent_path(request)
    if sent is None:
        return quote(tail, safe=_QUOTED_SAFE)
    # The prefix is found by its pieces: its length differs when it is encoded, and a proxy may have cut it off.
    prefixes = {path[: len(path) - len(tail)] for path in (request.path, request.path_info)}
    end = 0
    for _ in range(max(prefix.count("/") for prefix in prefixes)):
        end = sent.find("/", end) + 1
        if not end:
            break
        if unquote(sent[:end]) in prefixes:
            return sent[end:]
    return quote(tail, safe=_QUOTED_SAFE)


_QUOTED_SAFE = "/:@!$&'()*+,;=~"


def _sent_path(request: HttpRequest) -> str | None:
    """The undecoded path without its query; None when the server does not tell it."""
    if isinstance(request, ASGIRequest):
        raw = request.scope.get("raw_path")
        return utf8_value(raw.decode("latin-1")) if raw else None
    uri = request.META.get("RAW_URI") or request.META.get("REQUEST_URI")
    if not uri:
        return None
    path = uri.partition("?")[0]
    if not path.startswith("/"):  # the absolute form, `http://host/path`
        path = "/" + path.partition("://")[2].partition("/")[2]
    return utf8_value(path)


class MetaHeaders(Mapping[str, str]):
    """The headers in a request's META, read only when asked for; names in any letter case.

    A delivery asks for some ten of them. Django's own mapping copies all of META first, which costs more than that.
    """

    __slots__ = ("_meta",)

    def __init__(self, meta: Mapping[str, Any]) -> None:
        self._meta = meta

    def __getitem__(self, name: str) -> str:
        return utf8_value(self._meta[meta_key(name)])

    def get(self, name: str, default: Any = None) -> Any:
        value = self._meta.get(meta_key(name))
        return default if value is None else utf8_value(value)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and meta_key(name) in self._meta

    def __iter__(self) -> Iterator[str]:
        for key, value in self._meta.items():
            if key.startswith("HTTP_"):
                yield key[5:].replace("_", "-").title()
            elif key in _UNPREFIXED and value:
                yield key.replace("_", "-").title()

    def __len__(self) -> int:
        return sum(1 for _ in self)


_UNPREFIXED = ("CONTENT_TYPE", "CONTENT_LENGTH")


@lru_cache(maxsize=512)
def meta_key(name: str) -> str:
    """A header's name as it stands in META, and in a WSGI environ."""
    key = name.replace("-", "_").upper()
    return key if key in _UNPREFIXED else f"HTTP_{key}"
