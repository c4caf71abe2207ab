"""What stands before every view of the development server: a line for each call, and a guard against web pages."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.request import split_domain_port, validate_host

from django_workflow.dev_server.events import tell_call
from django_workflow.dev_server.settings import THIS_MACHINE
from django_workflow.engine.http_api.auth import take_token

Next = Callable[[HttpRequest], HttpResponse]


def tell_calls(get_response: Next) -> Next:
    def middleware(request: HttpRequest) -> HttpResponse:
        started = time.monotonic()
        response = get_response(request)
        if request.path.startswith("/v2/"):
            seconds = time.monotonic() - started
            tell_call(request.method or "", _target(request), response.status_code, seconds, _error(response))
        return response

    return middleware


def refuse_strangers(get_response: Next) -> Next:
    """The token is public, so a page of any site could make its visitor's browser publish here.

    Browsers say which site a call comes from; only pages of this machine may make one that writes. What pages read is
    kept from them by the browser itself, as this server never allows it.
    """

    def middleware(request: HttpRequest) -> HttpResponse:
        try:
            request.get_host()
        except DisallowedHost:  # a page may have pointed a name of its own at this machine
            near = ", ".join(settings.ALLOWED_HOSTS)
            return _refusal(400, f"The host in this call is not one of {near}. --host lets others in.")
        origin = request.headers.get("Origin")
        if not origin and _publishes(request) and request.headers.get("Sec-Fetch-Site") == "cross-site":
            return _refusal(403, "A web page of elsewhere may not call the development server; your own server may.")
        if origin and (_writes(request) or _publishes(request)) and not _is_near(origin):
            return _refusal(403, f"A web page of {origin} may not call the development server; your own server may.")
        return get_response(request)

    return middleware


def _writes(request: HttpRequest) -> bool:
    return request.method not in ("GET", "HEAD")


def _publishes(request: HttpRequest) -> bool:
    """Whether a call may publish by any method: an image or a link does, to which browsers add no Origin. Webhooks are
    meant to be called from elsewhere: their URLs are secrets."""
    return request.path.startswith("/v2/") and not request.path.startswith("/v2/workflows/hooks/")


def _refusal(status: int, error: str) -> HttpResponse:
    return JsonResponse({"error": error}, status=status)


def _is_near(origin: str) -> bool:
    host, _ = split_domain_port(urlsplit(origin).netloc)
    named = [name for name in settings.ALLOWED_HOSTS if name != "*"]
    return validate_host(host, [*THIS_MACHINE, ".localhost", *named])


def _target(request: HttpRequest) -> str:
    """Path and query as they came, without the token."""
    raw = getattr(request, "scope", {}).get("raw_path")
    path = raw.decode("ascii", "replace") if raw else request.path
    query, _ = take_token(request.META.get("QUERY_STRING", ""))
    return f"{path}?{query}" if query else path


def _error(response: HttpResponse) -> str:
    """What an answer says was wrong, "" when nothing was."""
    if response.status_code < 400 or response.streaming:
        return ""
    text = response.content.decode("utf-8", "replace")
    try:
        said = json.loads(text)
    except ValueError:
        return text
    return str(said.get("error", text)) if isinstance(said, dict) else text
