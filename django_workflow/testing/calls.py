"""HTTP calls of workflows in tests: answered by a function instead of the network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec

from django_workflow.engine.network import HttpAnswer


@dataclass(frozen=True)
class CallAnswer:
    """What the pretended server answers; a body that is not text or bytes is sent as JSON."""

    status: int = 200
    body: Any = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    def to_http(self) -> HttpAnswer:
        headers = {name: [value] for name, value in self.headers.items()}
        if isinstance(self.body, bytes):
            return HttpAnswer(status=self.status, headers=headers, body=self.body, error="")
        if isinstance(self.body, str):
            return HttpAnswer(status=self.status, headers=headers, body=self.body.encode(), error="")
        headers.setdefault("Content-Type", ["application/json"])
        return HttpAnswer(status=self.status, headers=headers, body=msgspec.json.encode(self.body), error="")


@dataclass(frozen=True)
class Call:
    """One request that a workflow made."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


Handler = Callable[[Call], CallAnswer]


class CallRecorder:
    """The calls that were made, in order; answers them through `handler`."""

    def __init__(self, handler: Handler | CallAnswer) -> None:
        self._handler = handler
        self.calls: list[Call] = []

    def send(
        self, method: str, url: str, headers: dict[str, str], body: bytes, timeout: float, *, guarded: bool
    ) -> HttpAnswer:
        call = Call(method, url, headers, body)
        self.calls.append(call)
        answer = self._handler if isinstance(self._handler, CallAnswer) else self._handler(call)
        return answer.to_http()


class RefusingNetwork:
    """Used when a test mocks nothing: a test must not reach the network by accident."""

    def send(
        self, method: str, url: str, headers: dict[str, str], body: bytes, timeout: float, *, guarded: bool
    ) -> HttpAnswer:
        raise AssertionError(f"A workflow called {method} {url}. Wrap the test in mock_calls(…) to answer it.")


current_network: list[Any] = [RefusingNetwork()]


@contextmanager
def mock_calls(handler: Handler | CallAnswer) -> Iterator[CallRecorder]:
    """Answer the HTTP calls of workflows: `with mock_calls(lambda call: CallAnswer(200, {"ok": True})) as recorder`."""
    recorder = CallRecorder(handler)
    current_network.append(recorder)
    try:
        yield recorder
    finally:
        current_network.remove(recorder)
