"""HttpRequest in, HttpResponse out, at `serve/<workflow name>/`.

Everything between is `handler.handle`, which knows no Django request. A request that carries a delivery's session in
its environ was made by this process's own worker and is trusted; no network can put an object there.
"""

from __future__ import annotations

import difflib
import logging
from typing import cast

from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse

from django_workflow.authoring.registry import registry
from django_workflow.client.client import get_client
from django_workflow.client.session import SESSION_KEY, DeliverySession
from django_workflow.client.urls import workflow_url
from django_workflow.errors import RequestRejected
from django_workflow.machine_views import MetaHeaders, machine_view, read_body, to_django
from django_workflow.serve import keys, responses
from django_workflow.serve.endpoint import EndpointRequest, EndpointResponse
from django_workflow.serve.handler import handle

logger = logging.getLogger("django_workflow.serve")

MAX_BODY_BYTES = 64 * 1024 * 1024
"""Largest request: the history of a run, sent over the network in one piece. Engines send longer ones by reference."""


@machine_view
def serve(request: HttpRequest, name: str) -> HttpResponse:
    """One invocation of the workflow `name`."""
    if request.method != "POST":
        return _to_django(
            responses.rejected(405, "MethodNotAllowed", "Only POST requests are allowed in workflows"), Allow="POST"
        )
    session = _session(request)
    try:
        body = read_body(request, MAX_BODY_BYTES)
        incoming = EndpointRequest("POST", _url(request, name), MetaHeaders(request.META), body)
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
    return to_django(response.status, {**response.headers, **headers}, response.body)
