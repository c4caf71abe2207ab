"""The stub as a WSGI application."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from http.client import responses
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication

from tests.hosted_stub.network import Answer, NoAnswer
from tests.hosted_stub.service import HostedStub


def application(stub: HostedStub) -> WSGIApplication:
    """Needs of its server: `REQUEST_URI`, the undecoded target; `tests.headers`, the headers as they were sent (WSGI
    changes their names); `tests.connection`, the socket, which breaks when the service does not answer."""

    def answer(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        url = f"{environ['wsgi.url_scheme']}://{environ['HTTP_HOST']}{environ['REQUEST_URI']}"
        try:
            found = stub.handle(environ["REQUEST_METHOD"], url, environ["tests.headers"], body)
        except NoAnswer:
            environ["tests.connection"].shutdown(socket.SHUT_RDWR)
            found = Answer(503)
        pairs = [(name, value) for name, values in found.headers.items() for value in values]
        phrase = responses.get(found.status, "Unknown")
        start_response(f"{found.status} {phrase}", [*pairs, ("Content-Length", str(len(found.body)))])
        return [found.body]

    return answer
