"""The stub behind an httpx client, without a socket."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx

from tests.hosted_stub.network import NoAnswer

if TYPE_CHECKING:
    from tests.hosted_stub.service import HostedStub


class StubTransport(httpx.BaseTransport):
    """Hands what a client sends to the stub: `httpx.Client(transport=StubTransport(stub))`."""

    def __init__(self, stub: HostedStub) -> None:
        self.stub = stub

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.read()
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw]
        target = request.url.raw_path.decode("ascii")
        origin = f"{request.url.scheme}://{request.url.netloc.decode('ascii')}"
        try:
            answer = self.stub.handle(request.method, origin + target, headers, request.content)
        except NoAnswer as error:
            raise httpx.ConnectError(str(error), request=request) from error
        pairs = [(name, value) for name, values in answer.headers.items() for value in values]
        return httpx.Response(answer.status, headers=pairs, content=answer.body)
