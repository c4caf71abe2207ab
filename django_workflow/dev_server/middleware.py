"""What stands before every view of the development server: a line for each call, and a guard against web pages."""

from __future__ import annotations

import time
from collections.abc import Callable
from urllib.parse import urlsplit

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.request import split_domain_port, validate_host

from django_workflow.dev_server.events import tell_call
from django_workflow.dev_server.settings import THIS_MACHINE

Next = Callable[[HttpRequest], HttpResponse]


def tell_calls(get_response: Next) -> Next:
    def middleware(request: HttpRequest) -> HttpResponse:
        started = time.monotonic()
        response = get_response(request)
        if request.path.startswith("/v2/"):
            error = "" if response.status_code < 400 or response.streaming else response.content[:2000].decode()
            tell_call(request.method or "", _target(request), response.status_code, time.monotonic() - started, error)
        return response

    return middleware


def refuse_strangers(get_response: Next) -> Next:
    """The token is public, so a page of any site could make its visitor's browser publish here.

    Browsers say which site a writing call comes from; only pages of this machine may make one. What pages read is
    kept from them by the browser itself, as this server never allows it.
    """

    def middleware(request: HttpRequest) -> HttpResponse:
        request.get_host()  # raises DisallowedHost, which is a 400: a page may have pointed its own name at us
        origin = request.headers.get("Origin")
        if origin and request.method not in ("GET", "HEAD") and not _is_near(origin):
            return JsonResponse(
                {"error": f"A web page of {origin} may not call the development server. Call it from your own server."},
                status=403,
            )
        return get_response(request)

    return middleware


def _is_near(origin: str) -> bool:
    host, _ = split_domain_port(urlsplit(origin).netloc)
    named = [name for name in settings.ALLOWED_HOSTS if name != "*"]
    return validate_host(host, [*THIS_MACHINE, ".localhost", *named])


def _target(request: HttpRequest) -> str:
    """Path and query as they came, without the token."""
    raw = getattr(request, "scope", {}).get("raw_path")
    path = raw.decode("ascii", "replace") if raw else request.path
    query = "&".join(
        piece for piece in request.META.get("QUERY_STRING", "").split("&") if not piece.startswith("qstash_token=")
    )
    return f"{path}?{query}" if query else path
