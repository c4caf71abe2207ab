"""A plain WSGI server for tests, one request a connection: of a site in the test's own thread, or in a thread each."""

from __future__ import annotations

from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import ServerHandler, WSGIRequestHandler, WSGIServer
from wsgiref.types import WSGIApplication

from django.core.handlers.wsgi import WSGIHandler

HOST = "127.0.0.1"
OUTSIDE = "X-Outside-Url"
"""The header by which the engine's process hands over a call that would leave this machine."""


class Handler(WSGIRequestHandler):
    def get_environ(self) -> dict[str, Any]:
        # REQUEST_URI as other servers have it: a destination with a query stands in the path.
        own = {"REQUEST_URI": self.path, "tests.headers": self.headers.items(), "tests.connection": self.connection}
        return {**super().get_environ(), **own}

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Server(WSGIServer):
    """`application` at a port, a free one by default. `handle_request()` serves one request; `serve_forever()` all."""

    request_queue_size = 64

    def __init__(self, application: WSGIApplication, port: int = 0) -> None:
        super().__init__((HOST, port), Handler)
        self.set_app(application)
        self.origin = f"http://{HOST}:{self.server_address[1]}"

    def setup_environ(self) -> None:
        super().setup_environ()
        self.base_environ["SERVER_NAME"] = HOST  # the base class looks up this machine's name


class ThreadedServer(ThreadingMixIn, Server):
    daemon_threads = True


ServerHandler.server_software = "tests"


def django_application() -> WSGIApplication:
    """The project, when django.setup() was called."""
    return WSGIHandler()
