"""The ASGI application of a project that uses workflows: WebSockets beside HTTP, and a worker in the server process.

application = workflow_application(get_asgi_application())
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings as django_settings

from django_workflow.conf import get_settings
from django_workflow.engine.supervisor import Supervisor
from django_workflow.mirror.worker import HostedWorker
from django_workflow.realtime.routing import websocket_urlpatterns
from django_workflow.serve.threads import EndpointThreads

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


LARGEST_HEADERS = 1 << 20


class WorkflowApplication:
    """Routes HTTP to Django and WebSockets to the widget's consumer; starts a worker when the settings ask for one.

    The worker starts with the first call, so that it lives in the serving process, after any fork; it drains when the
    server says goodbye (lifespan) or the interpreter ends, whichever comes first.
    """

    def __init__(self, http: Application, *, endpoint_threads: int = 0) -> None:
        self._endpoints = EndpointThreads(endpoint_threads) if endpoint_threads else None
        self._router = ProtocolTypeRouter(
            {"http": http, "websocket": AuthMiddlewareStack(URLRouter(websocket_urlpatterns))}
        )
        self._supervisor = make_worker() if wants_worker() else None
        if self._supervisor is not None:
            self._supervisor.start()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if self._supervisor is not None:
            self._supervisor.start()
        if self._endpoints is not None and self._endpoints.takes(scope):
            await self._endpoints(scope, receive, send)
            return
        await self._router(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                if self._supervisor is not None:
                    self._supervisor.start()
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                if self._supervisor is not None:
                    self._supervisor.stop()
                await send({"type": "lifespan.shutdown.complete"})
                return


def workflow_application(http: Application, *, endpoint_threads: int = 0) -> WorkflowApplication:
    """Wrap Django's ASGI application.

    `endpoint_threads`: so many threads answer the calls of workflows that come over the network, in place of Django's
    ASGI handler, which costs about a millisecond for each request. They pass the project's middleware as ever, keep
    their database connections, and send no `request_started` and `request_finished`.
    """
    lift_header_limits()
    return WorkflowApplication(http, endpoint_threads=endpoint_threads)


def lift_header_limits() -> None:
    """Let daphne take headers of up to 1 MiB: above 16 KiB it closes the connection without a word.

    SDKs forward whole requests and a run's configuration in headers, and destinations stand in paths.
    """
    http: Any = sys.modules.get("twisted.web.http")
    if http is not None:  # daphne, or whoever else serves by twisted
        http.HTTPChannel.totalHeadersSize = http.HTTPChannel.MAX_LENGTH = LARGEST_HEADERS


def make_worker() -> Supervisor | HostedWorker:
    """The worker that fits the engine. That of a hosted one makes no deliveries."""
    return HostedWorker() if get_settings().is_hosted else Supervisor()


def wants_worker() -> bool:
    """Whether this server process runs a worker: setting `worker_autostart`."""
    settings = get_settings()
    return bool(django_settings.DEBUG) if settings.worker_autostart == "debug" else bool(settings.worker_autostart)
