"""The engine's door for HTTP: Django's request in, an ApiRequest to `routes`, its ApiResponse out.

Served when the setting `engine_api` is on, which each request looks up. The order is: is there such a call, may this
caller make it, then only is the body read.
"""

from __future__ import annotations

import logging

from django.core.exceptions import DisallowedHost
from django.db import DataError, InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse

from django_workflow.conf import get_settings
from django_workflow.engine import limits
from django_workflow.engine.http_api import auth
from django_workflow.engine.http_api.request import ApiRequest, ApiResponse, Route, refusal
from django_workflow.engine.http_api.routes import find, perform
from django_workflow.errors import RequestRejected, RequestUnknown, WorkflowError
from django_workflow.machine_views import MetaHeaders, machine_view, read_body, to_django, undecoded
from django_workflow.protocol import headers as h

logger = logging.getLogger("django_workflow.engine")


@machine_view
def engine_api(request: HttpRequest, call: str) -> HttpResponse:
    """One call of the API; `call` is its path from `v2` on, decoded."""
    path = "/" + undecoded(request, call)
    try:
        response = _answer(request, path, "/" + call)
    except WorkflowError as error:
        response = refusal(error)
    except DataError as error:
        response = refusal(RequestRejected(f"The database cannot hold this: {error}"))
    except (OperationalError, InterfaceError) as error:
        logger.error("%s %s failed: the database does not answer: %s", request.method, path[:200], error)
        response = ApiResponse(503, b'{"error":"The database does not answer. Try again."}')
    if response.status >= 400:
        logger.info("%s %s was refused with %s: %s", request.method, path[:200], response.status, response.body[:500])
    return to_django(response.status, response.headers, response.body)


def _answer(request: HttpRequest, path: str, decoded: str) -> ApiResponse:
    settings = get_settings()
    if not settings.engine_api or settings.is_hosted:
        raise RequestUnknown("The engine's API is not served here; DJANGO_WORKFLOW['engine_api'] switches it on.")
    query, token = auth.take_token(h.utf8_value(request.META.get("QUERY_STRING", "")))
    target = f"{path}?{query}" if query else path
    method, authorization = request.method or "GET", request.META.get("HTTP_AUTHORIZATION")
    try:
        route, pieces = find(method, target)
    except RequestRejected:
        auth.check(_ANY, authorization, token)  # strangers learn nothing of what there is
        raise
    auth.check(route, authorization, token)
    asked = ApiRequest(
        method=method,
        target=target,
        headers=_headers(request, public=route.public),
        body=read_body(request, _limit(route)),
        caller_ip=request.META.get("REMOTE_ADDR") or "",
        base=_base(request, decoded),
    )
    return perform(route, pieces, asked)


_ANY = Route("GET", "", lambda request: None, "")


def _headers(request: HttpRequest, *, public: bool) -> h.Headers:
    """The request's headers, without the engine's own token; where none is asked for, Authorization is the event's."""
    pairs = MetaHeaders(request.META).items()
    return h.Headers((name, value) for name, value in pairs if public or name != h.AUTHORIZATION)


def _limit(route: Route) -> int:
    if route.public:
        return get_settings().max_payload_bytes
    return route.largest or limits.LARGEST_MESSAGE_BYTES


def _base(request: HttpRequest, decoded: str) -> str:
    """Scheme, host and path before the target. Raises RequestRejected for a host that ALLOWED_HOSTS lacks."""
    try:
        origin = f"{request.scheme}://{request.get_host()}"
    except DisallowedHost as error:
        raise RequestRejected(str(error)) from error
    return origin + request.path[: len(request.path) - len(decoded)]
