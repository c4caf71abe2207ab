"""HttpRequest in, HttpResponse out, at `serve/<workflow name>/`.

Everything between is `handler.handle`, which knows no Django request. A request that carries a delivery's session in
its environ was made by this process's own worker and is trusted; no network can put an object there.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable
from typing import cast

from django.contrib.auth.decorators import login_not_required
from django.core.handlers.asgi import ASGIRequest
from django.db import InterfaceError, OperationalError, connections
from django.db.transaction import non_atomic_requests
from django.http import HttpRequest, HttpResponse
from django.http.request import UnreadablePostError
from django.views.decorators.csrf import csrf_exempt

from django_workflow.authoring.registry import registry
from django_workflow.client.client import get_client
from django_workflow.client.session import SESSION_KEY, DeliverySession
from django_workflow.client.urls import workflow_url
from django_workflow.errors import RequestRejected
from django_workflow.serve import keys, responses
from django_workflow.serve.endpoint import EndpointRequest, EndpointResponse, MetaHeaders
from django_workflow.serve.handler import handle

logger = logging.getLogger("django_workflow.serve")

MAX_BODY_BYTES = 64 * 1024 * 1024
"""Largest request: the history of a run, sent over the network in one piece. Engines send longer ones by reference."""

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


@machine_view
def serve(request: HttpRequest, name: str) -> HttpResponse:
    """One invocation of the workflow `name`."""
    if request.method != "POST":
        return _to_django(
            responses.rejected(405, "MethodNotAllowed", "Only POST requests are allowed in workflows"), Allow="POST"
        )
    session = _session(request)
    try:
        incoming = EndpointRequest("POST", _url(request, name), MetaHeaders(request.META), _read_body(request))
    except RequestRejected as error:
        logger.warning("request to %r refused: %s", name, error)
        return _to_django(responses.rejected(error.status_code, type(error).__name__, str(error)))
    try:
        workflow = registry.find(name)
        if workflow is None:
            return _to_django(_unknown(name, tell=session is not None or _is_signed(incoming)))
        return _to_django(handle(workflow, incoming, client=get_client(), session=session))
    except (OperationalError, InterfaceError) as error:
        logger.error("request to %r failed: the database does not answer: %s", name, error)
        return _to_django(responses.rejected(503, "DatabaseUnavailable", "The database does not answer. Try again."))


@machine_view
def ping(request: HttpRequest) -> HttpResponse:
    """Tells the worker, when it starts, that deliveries reach this app and no middleware answers in its place."""
    return HttpResponse(b'{"ok":true}', headers=responses.HEADERS)


def _session(request: HttpRequest) -> DeliverySession | None:
    session = request.META.get(SESSION_KEY)
    # Some servers copy the process's variables into the environ; those are text, and prove nothing.
    return None if session is None or isinstance(session, str | bytes) else cast(DeliverySession, session)


def _read_body(request: HttpRequest) -> bytes:
    """The body by `read()`: `request.body` would refuse what is above DATA_UPLOAD_MAX_MEMORY_SIZE."""
    meta = request.META
    length = meta.get("CONTENT_LENGTH")
    chunked = not length and "chunked" in meta.get("HTTP_TRANSFER_ENCODING", "").lower()
    if chunked and not isinstance(request, ASGIRequest):
        raise LengthRequired("Chunked bodies are lost under WSGI. Send a Content-Length, or serve this site by ASGI.")
    if length and length.isdigit() and int(length) > MAX_BODY_BYTES:
        raise BodyTooLarge(f"The body has {length} bytes, but {MAX_BODY_BYTES} is the limit.")
    try:
        body = request.read(MAX_BODY_BYTES + 1)
    except UnreadablePostError as error:
        raise RequestRejected(f"The body could not be read: {error}") from error
    if len(body) > MAX_BODY_BYTES:
        raise BodyTooLarge(f"The body has more than {MAX_BODY_BYTES} bytes.")
    return body


def _url(request: HttpRequest, name: str) -> str:
    """The URL as the engine knows it: by name and settings, not by the Host header."""
    query = request.META.get("QUERY_STRING")
    return f"{workflow_url(name)}?{query}" if query else workflow_url(name)


def _is_signed(request: EndpointRequest) -> bool:
    try:
        return keys.verify(request)
    except RequestRejected:
        return False


def _unknown(name: str, *, tell: bool) -> EndpointResponse:
    """404; an engine is told the names that are near, a stranger is not."""
    logger.warning("request to unknown workflow %r", name)
    near = difflib.get_close_matches(name, sorted(registry.names()), n=3) if tell else []
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    return responses.rejected(
        404,
        "WorkflowNotFound",
        f"There is no workflow {name!r}.{hint} Workflows are found in the workflows.py of installed apps.",
    )


def _to_django(response: EndpointResponse, **headers: str) -> HttpResponse:
    answer = HttpResponse(response.body, status=response.status, headers={**response.headers, **headers})
    # Said in our own words already; Django's would call every failed step of a workflow a broken page.
    answer._has_been_logged = True  # type: ignore[attr-defined]
    return answer
