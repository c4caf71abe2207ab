"""Transports: how an engine request reaches its engine.

A transport has two methods, `send` and its async twin. `HttpTransport` goes over the network with httpx; the
embedded engine's own (`engine.transport`) answers in this process. `apps` chooses one and hands it to
`use_transport`; nothing else asks which it is.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

import httpx

from django_workflow.errors import EngineError, EngineUnavailable, Misconfigured
from django_workflow.protocol import wire
from django_workflow.protocol.requests import EngineRequest

R = TypeVar("R")


class Transport(Protocol):
    def send(self, request: EngineRequest[R]) -> R:
        """The engine's answer. Raises RunEnded, QuotaExceeded, EngineUnavailable or another EngineError."""

    async def asend(self, request: EngineRequest[R]) -> R: ...

    def atomic(self) -> AbstractContextManager[None]:
        """A transaction that holds the caller's writes and what is sent inside it: both are kept, or neither."""


_factory: Callable[[], Transport] | None = None
_transport: Transport | None = None
_lock = threading.Lock()


def use_transport(factory: Callable[[], Transport]) -> None:
    """Make `factory` the source of the transport; it is called when the transport is first needed."""
    global _factory, _transport
    with _lock:
        _factory, _transport = factory, None


def current_transport() -> Transport:
    """The transport in use. Raises Misconfigured when none was chosen: the app is not installed, or not ready yet."""
    return _transport or _make()


def _make() -> Transport:
    global _transport
    with _lock:
        if _transport is None:
            if _factory is None:
                raise Misconfigured(
                    'No transport to an engine was chosen. Add "django_workflow" to INSTALLED_APPS, and use the client '
                    "only after django.setup()."
                )
            _transport = _factory()
        return _transport


class HttpTransport:
    """An engine behind a URL: hosted QStash, or any other that speaks its API.

    `timeout` in seconds holds for each of connecting, sending, waiting and receiving. Only a connection that could not
    be made is tried again (`connect_retries` times): after that nobody knows whether the engine took the request.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        timeout: float = 30.0,
        connect_timeout: float = 5.0,
        connect_retries: int = 3,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self._token = token
        self._timeout = httpx.Timeout(timeout, connect=connect_timeout)
        self._connect_retries = connect_retries
        self._inner = transport
        self._client: httpx.Client | None = None
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<HttpTransport {self.url}>"

    def send(self, request: EngineRequest[R]) -> R:
        encoded = wire.encode_request(request)
        # As bytes: httpx refuses to send text outside of ASCII, but step names and headers of users may hold it.
        headers = [(name.encode(), value.encode()) for name, value in encoded.headers.items()]
        headers.append((b"Authorization", f"Bearer {self._token}".encode()))
        try:
            response = self._open_client().request(
                encoded.method, self.url + encoded.path, headers=headers, content=encoded.body
            )
        except httpx.TransportError as error:
            raise EngineUnavailable(
                f"The engine at {self.url} did not answer {encoded.method} {encoded.path.partition('?')[0]}: "
                f"{type(error).__name__} {error}. Check the URL and the network; the request may have arrived."
            ) from error
        return wire.decode_answer(request, response.status_code, response.content)

    async def asend(self, request: EngineRequest[R]) -> R:
        # In a thread: one pool of connections serves every event loop, and closes with none of them.
        return await asyncio.to_thread(self.send, request)

    def atomic(self) -> AbstractContextManager[None]:
        raise Misconfigured(
            f"The engine at {self.url} cannot share a transaction with this database: what the network took cannot be "
            "taken back. Atomic steps need the embedded engine, or the outbox of the hosted one."
        )

    def close(self) -> None:
        """Close the connections; the next request opens new ones."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _open_client(self) -> httpx.Client:
        # Built late and once: its TLS context costs a tenth of a second.
        if self._client is None:
            with self._lock:
                if self._client is None:
                    self._client = httpx.Client(
                        transport=self._inner or httpx.HTTPTransport(retries=self._connect_retries),
                        timeout=self._timeout,
                    )
        return self._client


class WireTransport:
    """Forces every request and answer through their wire form before the inner transport: shows that nothing is lost.

    The scenario suite runs over it once, so that what works in process also works over HTTP.
    """

    def __init__(self, inner: Transport) -> None:
        self.inner = inner

    def send(self, request: EngineRequest[R]) -> R:
        arrived = _over_the_wire(request)
        try:
            answer = self.inner.send(arrived)
        except EngineError as error:
            return _refused(request, error)
        return wire.decode_answer(request, *wire.encode_answer(arrived, answer))

    async def asend(self, request: EngineRequest[R]) -> R:
        arrived = _over_the_wire(request)
        try:
            answer = await self.inner.asend(arrived)
        except EngineError as error:
            return _refused(request, error)
        return wire.decode_answer(request, *wire.encode_answer(arrived, answer))

    def atomic(self) -> AbstractContextManager[None]:
        return self.inner.atomic()


def _over_the_wire(request: EngineRequest[R]) -> EngineRequest[R]:
    encoded = wire.encode_request(request)
    return wire.decode_request(encoded.method, encoded.path, encoded.headers, encoded.body)


def _refused(request: EngineRequest[R], error: EngineError) -> R:
    """A refusal travels as its status and text; no answer at all does not travel."""
    if isinstance(error, EngineUnavailable):
        raise error
    return wire.decode_answer(request, *wire.encode_error(error, request))
