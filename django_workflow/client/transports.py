"""Transports: how an engine request reaches its engine.

A transport has two methods, `send` and its async twin. `HttpTransport` goes over the network with httpx; the
embedded engine's own (`engine.transport`) answers in this process, and the hosted engine's (`mirror.transport`) keeps
in the database what has to belong to a transaction. `apps` chooses one and hands it to `use_transport`; nothing else
asks which it is.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from itertools import starmap
from typing import Any, Protocol, TypeVar, cast

import httpx
from django.core.signals import setting_changed
from msgspec.structs import replace

from django_workflow.client.session import current_region
from django_workflow.errors import EngineError, EngineUnavailable, Misconfigured
from django_workflow.protocol import answers, wire
from django_workflow.protocol import headers as h
from django_workflow.protocol.publish import Message
from django_workflow.protocol.requests import Batch, EngineRequest, OwnRequest, Publish
from django_workflow.protocol.steps import Step

R = TypeVar("R")

# Asks this package's engine for the beginning of a run's list only. The hosted one does not know it; the answer is cut
# here anyway.
_NOT_DOCUMENTED = h.MESSAGE_ID


class Transport(Protocol):
    def send(self, request: EngineRequest[R]) -> R:
        """The engine's answer. Raises RunEnded, QuotaExceeded, EngineUnavailable or another EngineError."""

    async def asend(self, request: EngineRequest[R]) -> R: ...

    def atomic(self) -> AbstractContextManager[None]:
        """A transaction that holds the caller's writes and what is sent inside it: both are kept, or neither."""

    def kept(self, run_id: str, step: Step) -> Step | None:
        """The result of an atomic step that an earlier attempt committed, and that the engine may not have got.

        Asked inside `atomic()`, before the step's function runs. None: there is none, and nobody else runs the step.
        """


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


def _forget(*, setting: str, **kwargs: Any) -> None:
    """Other settings, another engine: in tests."""
    global _transport
    if setting == "DJANGO_WORKFLOW":
        with _lock:
            _transport = None


setting_changed.connect(_forget, dispatch_uid="django_workflow.client.transports")


class HttpTransport:
    """An engine behind a URL: hosted QStash, or any other that speaks its API.

    `url` may end in a path, below which the API stands. `timeout` in seconds holds for each of connecting, sending,
    waiting and receiving. A connection that could not be made is tried again (`connect_retries` times), and so is what
    only asks; for the rest nobody knows whether the engine took the request. Connections are kept and shared by all
    threads.
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
        self._pid = 0
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<HttpTransport {self.url}>"

    def send(self, request: EngineRequest[R]) -> R:
        encoded = wire.encode_request(request)
        status, body = self._exchange(encoded)
        try:
            return answers.decode_answer(request, status, body)
        except EngineError as error:
            raise self._told_apart(error, encoded) from None

    async def asend(self, request: EngineRequest[R]) -> R:
        # In a thread: one pool of connections serves every event loop, and closes with none of them.
        return await asyncio.to_thread(self.send, request)

    def atomic(self) -> AbstractContextManager[None]:
        raise Misconfigured(
            f"The engine at {self.url} cannot share a transaction with this database: what the network took cannot be "
            'taken back. With "engine": "qstash" in DJANGO_WORKFLOW results of atomic steps are kept in the outbox.'
        )

    def kept(self, run_id: str, step: Step) -> Step | None:
        return None

    def close(self) -> None:
        """Close the connections; the next request opens new ones."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _exchange(self, encoded: wire.EncodedRequest) -> tuple[int, bytes]:
        """Status and body of the answer. Raises EngineUnavailable when there is none."""
        # As bytes: httpx refuses to send text outside of ASCII, but step names and headers of users may hold it.
        given = encoded.headers.items()
        headers = [(name.encode(), value.encode()) for name, value in given if name != _NOT_DOCUMENTED]
        headers.append((b"Authorization", f"Bearer {self._token}".encode()))
        tries = 2 if encoded.method == "GET" else 1
        while True:
            tries -= 1
            try:
                response = self._open_client().request(
                    encoded.method, self.url + encoded.path, headers=headers, content=encoded.body
                )
                return response.status_code, response.content
            except httpx.TransportError as error:
                # A kept connection may have been closed by the other side just now; what only asks may ask again.
                if tries and not isinstance(error, httpx.TimeoutException):
                    continue
                raise self._unavailable(encoded, error) from error

    def _unavailable(self, encoded: wire.EncodedRequest, error: httpx.TransportError) -> EngineUnavailable:
        away = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
        return EngineUnavailable(
            f"The engine at {self.url} did not answer {_call(encoded)}: {type(error).__name__} {error}. Check "
            f"qstash_url (QSTASH_URL) and the network; the request {'did not arrive' if away else 'may have arrived'}."
        )

    def _told_apart(self, error: EngineError, encoded: wire.EncodedRequest) -> EngineError:
        """The same refusal, naming where it came from; one of the token names the setting."""
        if error.status in (401, 403):
            return EngineError(
                f"The engine at {self.url} does not take this site's token ({error.status} for {_call(encoded)}): "
                f"{error} Copy QSTASH_TOKEN again, or token in DJANGO_WORKFLOW; and compare qstash_url (QSTASH_URL): a "
                "token is worth nothing in another region.",
                status=error.status,
            )
        if type(error) is EngineError:
            return EngineError(f"{error} Asked was {_call(encoded)} of {self.url}.", status=error.status)
        return error

    def _open_client(self) -> httpx.Client:
        # Built late and once: its TLS context costs a tenth of a second. A forked child must not use its parent's
        # connections: each would read the other's answers.
        if self._client is None or self._pid != os.getpid():
            with self._lock:
                if self._client is None or self._pid != os.getpid():
                    self._client = httpx.Client(
                        transport=self._inner or httpx.HTTPTransport(retries=self._connect_retries),
                        timeout=self._timeout,
                    )
                    self._pid = os.getpid()
        return self._client


def _call(encoded: wire.EncodedRequest) -> str:
    """Method and path, without the query: it may hold what is nobody's business."""
    return f"{encoded.method} {encoded.path.partition('?')[0]}"


class RegionalTransport:
    """The engines of several regions. What a delivery submits goes back to the region that it came from, everything
    else to the default one."""

    def __init__(self, regions: Mapping[str, Transport], default: str) -> None:
        self._regions = regions
        self.default = default

    def __repr__(self) -> str:
        return f"<RegionalTransport {', '.join(self._regions)}>"

    def send(self, request: EngineRequest[R]) -> R:
        return self.chosen.send(request)

    async def asend(self, request: EngineRequest[R]) -> R:
        return await self.chosen.asend(request)

    def atomic(self) -> AbstractContextManager[None]:
        return self.chosen.atomic()

    def kept(self, run_id: str, step: Step) -> Step | None:
        return self.chosen.kept(run_id, step)

    def close(self) -> None:
        for transport in self._regions.values():
            close_transport(transport)

    @property
    def chosen(self) -> Transport:
        return self._regions.get(current_region.get() or self.default) or self._regions[self.default]


class WireTransport:
    """Forces every request and answer through their wire form before the inner transport: shows that nothing is lost.

    The scenario suite runs over it once, so that what works in process also works over HTTP.
    """

    def __init__(self, inner: Transport) -> None:
        self.inner = inner

    def send(self, request: EngineRequest[R]) -> R:
        if isinstance(request, OwnRequest):  # has no wire form
            return cast(R, self.inner.send(request))
        arrived = _over_the_wire(request)
        try:
            answer = self.inner.send(arrived)
        except EngineError as error:
            return _refused(request, error)
        return answers.decode_answer(request, *answers.encode_answer(arrived, answer))

    async def asend(self, request: EngineRequest[R]) -> R:
        if isinstance(request, OwnRequest):
            return cast(R, await self.inner.asend(request))
        arrived = _over_the_wire(request)
        try:
            answer = await self.inner.asend(arrived)
        except EngineError as error:
            return _refused(request, error)
        return answers.decode_answer(request, *answers.encode_answer(arrived, answer))

    def atomic(self) -> AbstractContextManager[None]:
        return self.inner.atomic()

    def kept(self, run_id: str, step: Step) -> Step | None:
        return self.inner.kept(run_id, step)


def close_transport(transport: Transport) -> None:
    """Close the connections of a transport that has some."""
    close = getattr(transport, "close", None)
    if close is not None:
        close()


def _over_the_wire(request: EngineRequest[R]) -> EngineRequest[R]:
    encoded = wire.encode_request(request)
    arrived = wire.decode_request(encoded.method, encoded.path, encoded.headers, encoded.body)
    return cast("EngineRequest[R]", _with_all_attributes(arrived, request))


def _with_all_attributes(arrived: EngineRequest[Any], sent: EngineRequest[Any]) -> EngineRequest[Any]:
    if isinstance(arrived, Batch) and isinstance(sent, Batch):
        both = zip(arrived.messages, sent.messages, strict=True)
        return replace(arrived, messages=tuple(starmap(_with_attributes, both)))
    if isinstance(arrived, Publish) and isinstance(sent, Publish):
        return replace(arrived, message=_with_attributes(arrived.message, sent.message))
    return arrived


def _with_attributes(arrived: Message, sent: Message) -> Message:
    """What never leaves the site did not get lost on the way."""
    return arrived if sent.attributes is None else replace(arrived, attributes=sent.attributes)


def _refused(request: EngineRequest[R], error: EngineError) -> R:
    """A refusal travels as its status and text; no answer at all does not travel."""
    if isinstance(error, EngineUnavailable):
        raise error
    return answers.decode_answer(request, *answers.encode_error(error, request))
