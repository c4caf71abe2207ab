"""The endpoints of workflows on threads of their own, beside Django's ASGI handler.

That handler starts and ends a thread and runs its request signals through others for each request, which costs more
than a short step. Here a request goes to a fixed thread with open database connections, and through the project's
middleware to the same view. `asgi.workflow_application` puts it in front of Django when a project asks for it.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

from django.core.handlers.asgi import ASGIRequest
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpResponse
from django.urls import set_script_prefix

from django_workflow.client.urls import workflow_path
from django_workflow.kept_connections import KeptConnections
from django_workflow.serve.views import MAX_BODY_BYTES

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class EndpointThreads:
    """An ASGI application for requests to workflows. `request_started` and `request_finished` are not sent."""

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="workflow-endpoint")
        self._connections = KeptConnections()
        self._handler: WSGIHandler | None = None

    def takes(self, scope: Scope) -> bool:
        """Whether this is a request to a workflow."""
        if scope["type"] != "http":
            return False
        path, root = scope["path"], scope.get("root_path", "")
        if root and path.startswith(root):
            path = path[len(root) :]
        return bool(path.startswith(workflow_path("-").removesuffix("-/")))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await _read(receive)
        if body is None:  # whoever asked is gone
            return
        response = await asyncio.get_running_loop().run_in_executor(self._pool, self._answer, scope, body)
        headers = [(name.encode("ascii"), value.encode("latin-1")) for name, value in response.items()]
        await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": response.content})

    def _answer(self, scope: Scope, body: bytes) -> HttpResponse:
        if self._handler is None:
            self._handler = WSGIHandler()
        self._connections.drop_broken()
        request = ASGIRequest(scope, io.BytesIO(body))
        set_script_prefix(request.script_name or "/")
        return cast(HttpResponse, self._handler.get_response(request))


async def _read(receive: Receive) -> bytes | None:
    """The body; of one that is too large a little more than is allowed, which the view refuses. None: no complete one
    came."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        if len(body) <= MAX_BODY_BYTES:
            body += message.get("body", b"")
        if not message.get("more_body"):
            return bytes(body)
