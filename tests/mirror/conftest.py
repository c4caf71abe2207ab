"""A hosted site: its engine is the strict stub of the hosted service, reached without sockets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from django_workflow.apps import make_transport
from django_workflow.client.transports import HttpTransport, use_transport
from django_workflow.mirror import outbox
from django_workflow.mirror.transport import HostedTransport
from django_workflow.testing import WorkflowClock, workflow_clock
from tests.hosted_stub import Answer, HostedStub, NoAnswer
from tests.scenarios.hosted_edges import SITE, settings_of, to_site

URL = "https://engine.example/qstash"


class ToStub(httpx.BaseTransport):
    """Carries requests to the stub as a network would. `during` is called while a request is on its way."""

    def __init__(self, stub: HostedStub) -> None:
        self.stub = stub
        self.during: Callable[[httpx.Request], None] = lambda request: None

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.during(request)
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw]
        try:
            found = self.stub.handle(request.method, str(request.url), headers, request.read())
        except NoAnswer as error:
            raise httpx.ReadError(str(error)) from error
        return httpx.Response(found.status, content=found.body)


class Hosted:
    """The engine of a hosted site, and the way to it."""

    def __init__(self, clock: WorkflowClock) -> None:
        self.clock = clock
        self.service = HostedStub(to_site, lambda: clock.now().timestamp(), url=URL)
        self.network = ToStub(self.service)
        self.transport = HostedTransport(HttpTransport(URL, self.service.token, transport=self.network))

    def run(self, *, skip_delays: bool = False) -> int:
        """Send what is due and make every delivery; with `skip_delays` to the end of everything."""
        made = 0
        while True:
            sent = outbox.send_due(self.transport.inner)
            found = self.service.run_due()
            made += found
            due = self.service.next_due_at() if skip_delays else None
            if due is not None:
                instant = datetime.fromtimestamp(due, UTC) + timedelta(microseconds=1)
                self.clock.move_to(max(instant, self.clock.now()))
            elif not sent and not found:
                return made

    def away(self, times: int = 1) -> None:
        """Do not answer the next calls, and do not take them."""
        self.service.trouble.extend([NoAnswer("the engine is away")] * times)

    def refuse(self, status: int, text: str = "refused", times: int = 1) -> None:
        self.service.trouble.extend([Answer(status, {}, f'{{"error":"{text}"}}'.encode())] * times)

    def asked(self, method: str, path: str) -> int:
        """How many calls of that path the engine has answered."""
        return sum(
            exchange.request.method == method and path in exchange.request.target for exchange in self.service.exchanges
        )


@pytest.fixture
def hosted(transactional_db: None, settings: Any) -> Iterator[Hosted]:
    with workflow_clock() as clock:
        engine = Hosted(clock)
        keys = engine.service.keys
        settings.DJANGO_WORKFLOW = {
            **settings.DJANGO_WORKFLOW,
            **settings_of(URL, engine.service.token, keys.current, keys.next, SITE),
        }
        use_transport(lambda: engine.transport)
        try:
            yield engine
            engine.service.check_no_faults()
        finally:
            use_transport(make_transport)
