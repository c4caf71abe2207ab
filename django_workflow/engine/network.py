"""The network: outgoing HTTP of a worker, for deliveries to other processes and for calls.

`dispatch` gives a request and gets an `HttpAnswer`, whatever the peer does: a failed call is an answer with status 0
and a sentence. One `Network` serves all threads of a worker and keeps its connections. It is built on httpcore, the
layer below httpx, because only there a call as a whole has a deadline, and the address that was checked is the one
that is connected to (a name that is looked up a second time may have moved inward meanwhile).
"""

from __future__ import annotations

import base64
import logging
import math
import re
import select
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any, NoReturn, TypeVar, cast

import httpcore
import httpx

from django_workflow.conf import Settings, get_settings
from django_workflow.engine.call_guard import CallRefused, Guard, address_of, guard_of
from django_workflow.engine.http_connections import IdleConnections
from django_workflow.protocol.headers import HOP_BY_HOP, canonical

MAX_CONNECT_SECONDS = 10.0
"""Longest try of one of a host's addresses, so that the next one gets its turn."""

LARGEST_TOGETHER = 64 * 1024
"""Bytes of a request that are sent with one call of the system."""

logger = logging.getLogger("django_workflow.engine")

T = TypeVar("T")

# What family, type, protocol and address a socket needs; the items of socket.getaddrinfo.
Resolve = Callable[[str, int], list[tuple[Any, ...]]]

_TOKEN_RE = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_CONTROL_RE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")

# They describe one connection, or are made here; a copy from somewhere else would break the framing.
_OURS = HOP_BY_HOP | {"content-length", "expect", "host", "http2-settings"}


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """What came back. `status` 0: nothing usable did, and `error` says why. Header names as Go writes them."""

    status: int
    headers: dict[str, list[str]] = field(default_factory=dict)
    body: bytes = b""
    error: str = ""


class Network:
    """The connections of one worker. `call_allow` and `max_result_bytes` are those of the moment it is built."""

    def __init__(
        self,
        concurrency: int = 16,
        settings: Settings | None = None,
        *,
        tls: ssl.SSLContext | None = None,
        resolve: Resolve | None = None,
    ) -> None:
        settings = settings or get_settings()
        self.max_body_bytes = settings.max_result_bytes
        # Made once: it takes 0.1 s. The bundle of certifi, or SSL_CERT_FILE and SSL_CERT_DIR of the environment.
        tls = tls or httpx.create_ssl_context()
        guard = guard_of(settings.call_allow)
        # Apart: a guarded call must not find a connection that was opened without the guard.
        self._idle = {
            guarded: IdleConnections(tls, _Backend(guard if guarded else None, resolve or _resolve), concurrency)
            for guarded in (False, True)
        }

    def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, timeout: float, *, guarded: bool
    ) -> HttpAnswer:
        """Make one call, all in all within `timeout` seconds. Redirects are answers, proxies of the environment unused.

        Raises nothing for what the peer does or the caller's URL and headers say. `guarded`: `call_allow` applies.
        """
        where = _shorten(url)
        try:
            request = _Request.of(method, url, headers, body)
            where = request.where
            with _deadline(timeout):
                return self._exchange(self._idle[guarded], request)
        except (_Unsendable, CallRefused) as error:
            return HttpAnswer(0, error=str(error))
        except _TooLarge as error:
            return HttpAnswer(0, error=f"{where} answered with {error}")
        except httpcore.ConnectTimeout:
            return HttpAnswer(0, error=f"No connection to {where} within {timeout:g} s.")
        except httpcore.TimeoutException:
            return HttpAnswer(0, error=f"No complete answer from {where} within {timeout:g} s.")
        except httpcore.ConnectError as error:
            return HttpAnswer(0, error=f"No connection to {where}: {error}")
        except httpcore.NetworkError as error:
            return HttpAnswer(0, error=f"The connection to {where} broke: {error}.")
        except httpcore.RemoteProtocolError as error:
            return HttpAnswer(0, error=f"{where} did not answer in HTTP: {_protocol_reason(error)}")
        except Exception as error:
            logger.exception("A call to %s failed in an unforeseen way.", where)
            return HttpAnswer(0, error=f"The call to {where} failed: {type(error).__name__}: {error}")

    def close(self) -> None:
        """Close all connections."""
        for idle in self._idle.values():
            idle.close()

    def _exchange(self, idle: IdleConnections, request: _Request) -> HttpAnswer:
        connection = idle.take(request.url.origin)
        try:
            sent = httpcore.Request(request.method, request.url, headers=request.headers, content=request.body)
            response = connection.handle_request(sent)
            try:
                headers: dict[str, list[str]] = {}
                for name, value in response.headers:
                    headers.setdefault(canonical(name.decode("latin-1")), []).append(value.decode("latin-1"))
                return HttpAnswer(response.status, headers, self._read(response.iter_stream(), headers))
            finally:
                response.close()
        finally:
            idle.give_back(connection, request.url.origin)

    def _read(self, chunks: Iterable[bytes], headers: dict[str, list[str]]) -> bytes:
        limit = self.max_body_bytes
        length = headers.get("Content-Length", [""])[0]
        if length.isascii() and length.isdigit() and int(length[:20]) > limit:
            raise _TooLarge(limit)
        zipped = headers.get("Content-Encoding") in (["gzip"], ["x-gzip"])
        if zipped:
            chunks = _unzip(chunks, limit)
        body = bytearray()
        for chunk in chunks:
            body += chunk
            if len(body) > limit:
                raise _TooLarge(limit)
        if zipped and body:
            # They describe what was sent, not what is handed on.
            del headers["Content-Encoding"]
            headers.pop("Content-Length", None)
        return bytes(body)


# What is sent


class _Unsendable(Exception):
    """The caller's request cannot be put on the wire."""


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    url: httpcore.URL
    headers: list[tuple[bytes, bytes]]
    body: bytes | None
    where: str
    """Host and port for messages; no path or user, which may hold secrets."""

    @classmethod
    def of(cls, method: str, url: str, headers: Mapping[str, str], body: bytes) -> _Request:
        """Raises _Unsendable with what is wrong."""
        if not _TOKEN_RE.fullmatch(method) or method.upper() == "CONNECT":
            raise _Unsendable(f"{_shorten(method)!r} is not a method that can be called.")
        target = _target_of(url)
        lines = [(b"Host", target.netloc)]
        lines += [_header(name, value) for name, value in headers.items() if name.lower() not in _OURS]
        given = {name.lower() for name, _ in lines}
        if target.authorization and b"authorization" not in given:
            lines.append((b"Authorization", target.authorization))
        if b"accept-encoding" not in given:
            lines.append((b"Accept-Encoding", b"gzip"))
        # Always with its length: WSGI servers see no body in chunks.
        if body or method.upper() not in ("GET", "HEAD"):
            lines.append((b"Content-Length", b"%d" % len(body)))
        return cls(method.upper(), target.url, lines, body or None, target.netloc.decode("ascii"))


@dataclass(frozen=True, slots=True)
class _Target:
    """What a URL says of a request; `authorization` is made of its user and password."""

    url: httpcore.URL
    netloc: bytes
    authorization: bytes


@lru_cache(maxsize=512)  # deliveries go to a few addresses again and again
def _target_of(url: str) -> _Target:
    """Raises _Unsendable with what is wrong."""
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError) as error:
        raise _Unsendable(f"{_shorten(url)!r} is not a URL that can be called: {error}") from error
    if parsed.scheme not in ("http", "https"):
        raise _Unsendable(f"Only http:// and https:// URLs can be called, not {_shorten(url)!r}.")
    if not parsed.raw_host:
        raise _Unsendable(f"{_shorten(url)!r} is not a URL that can be called: it has no host.")
    authorization = b""
    if parsed.userinfo:
        authorization = b"Basic " + base64.b64encode(f"{parsed.username}:{parsed.password}".encode())
    target = httpcore.URL(
        scheme=parsed.raw_scheme, host=parsed.raw_host, port=parsed.port, target=parsed.raw_path or b"/"
    )
    return _Target(target, parsed.netloc, authorization)


def _header(name: str, value: str) -> tuple[bytes, bytes]:
    if not _TOKEN_RE.fullmatch(name):
        raise _Unsendable(f"{_shorten(name)!r} cannot be the name of a header, so the call was not made.")
    try:
        try:
            raw = value.encode("latin-1")
        except UnicodeEncodeError:
            raw = value.encode()
    except UnicodeEncodeError:
        raw = b"\x00"
    raw = raw.strip(b" \t")
    if _CONTROL_RE.search(raw):
        # Without the value: such headers carry credentials.
        raise _Unsendable(
            f"The value of header {name} has a control character or a lone surrogate in it (a line break, perhaps), "
            "so the call was not made."
        )
    return name.encode("ascii"), raw


def _shorten(text: str) -> str:
    """The first characters of a URL or name, without what may be a password."""
    text = re.sub(r"//[^/@]*@", "//", text)
    return text if len(text) <= 100 else text[:100] + "…"


# What comes back


class _TooLarge(Exception):
    def __init__(self, limit: int) -> None:
        super().__init__(f"more than {limit} bytes, which max_result_bytes in DJANGO_WORKFLOW does not allow.")


def _unzip(chunks: Iterable[bytes], limit: int) -> Iterator[bytes]:
    """What was zipped, never more of it than just above `limit` bytes. Raises RemoteProtocolError when it is broken."""
    unzip = None
    for chunk in chunks:
        while chunk:
            unzip = unzip or zlib.decompressobj(16 + zlib.MAX_WBITS)
            try:
                yield unzip.decompress(chunk, limit + 1)
            except zlib.error as error:
                raise httpcore.RemoteProtocolError(
                    f"the body is not the gzip that it claims to be ({error})"
                ) from error
            chunk = unzip.unconsumed_tail
            if unzip.eof:
                chunk, unzip = unzip.unused_data, None
    if unzip is not None:
        raise httpcore.RemoteProtocolError("the zipped body ended early")


def _protocol_reason(error: httpcore.RemoteProtocolError) -> str:
    # h11's hint for a head (status line and headers) that outgrew httpcore's buffer of 100 KiB.
    if error.args and getattr(error.args[0], "error_status_hint", None) == 431:
        return "its headers are larger than 100 KiB."
    text = str(error)
    return text if text.endswith(".") else text + "."


def _reason(error: BaseException) -> str:
    """An error of a socket in words, without `[Errno 111]`."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS: {error.verify_message.rstrip('.')}"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {(error.reason or str(error)).replace('_', ' ').lower()}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


# Connections


_call = threading.local()


@contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    """Everything that this thread does on its connections in the block ends by then."""
    _call.ends_at = time.monotonic() + seconds
    try:
        yield
    finally:
        del _call.ends_at


def _left(late: type[httpcore.TimeoutException]) -> float:
    """Seconds left of this thread's call. Raises `late` when there are none."""
    seconds = cast(float, _call.ends_at) - time.monotonic()
    if seconds <= 0:
        raise late
    return seconds


class _Backend(httpcore.NetworkBackend):
    """Opens connections: looks a host up once, has its addresses checked, connects to the first that answers."""

    def __init__(self, guard: Guard | None, resolve: Resolve) -> None:
        self._guard = guard
        self._resolve = resolve

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        found = self._look_up(host, port)
        if self._guard is not None:
            self._guard.check(host, [address_of(item[4][0]) for item in found])
        reason = "the name has no address."
        for tried, (family, kind, protocol, _, address) in enumerate(found):
            share = _left(httpcore.ConnectTimeout) / (len(found) - tried)
            try:
                return _connect(socket.socket(family, kind, protocol), address, min(share, MAX_CONNECT_SECONDS))
            except TimeoutError:
                reason = f"{address[0]} did not answer."
            except OSError as error:
                reason = f"{_reason(error)} ({address[0]})."
        _left(httpcore.ConnectTimeout)
        raise httpcore.ConnectError(reason)

    def _look_up(self, host: str, port: int) -> list[tuple[Any, ...]]:
        """All addresses of the host. The system's resolver knows no timeout, so it runs beside this thread."""
        outcome: list[list[tuple[Any, ...]] | Exception] = []
        done = threading.Event()

        def run() -> None:
            try:
                outcome.append(self._resolve(host, port))
            except Exception as error:
                outcome.append(error)
            done.set()

        try:
            address_of(host)
            run()  # a number: nothing to ask for
        except ValueError:
            try:
                threading.Thread(target=run, name="workflow-resolver", daemon=True).start()
            except RuntimeError:  # the interpreter shuts down: no new threads
                run()
        if not done.wait(_left(httpcore.ConnectTimeout)):
            raise httpcore.ConnectTimeout
        found = outcome[0]
        if isinstance(found, (OSError, UnicodeError, OverflowError)):
            raise httpcore.ConnectError(f"the host cannot be looked up ({_reason(found)}).") from found
        if isinstance(found, Exception):
            raise found
        return found


def _resolve(host: str, port: int) -> list[tuple[Any, ...]]:
    return cast(list[tuple[Any, ...]], socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))


def _connect(sock: socket.socket, address: tuple[Any, ...], timeout: float) -> _Stream:
    try:
        sock.settimeout(timeout)
        sock.connect(address)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        sock.close()
        raise
    return _Stream(sock)


class _Stream(httpcore.NetworkStream):
    """A connection whose every operation ends by the deadline of the thread that uses it.

    The socket does not block: each call of the system lets go of Python's interpreter lock, and in a busy worker it
    takes long to get it back. So there are few of them, and what is written waits to be sent together.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._unsent = b""

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        with suppress(httpcore.WriteError):  # the peer may have answered before it closed
            self._flush()
        if not isinstance(self._socket, ssl.SSLSocket):  # which may have read already what is asked for
            self._wait(to_write=False, late=httpcore.ReadTimeout)
        try:
            return self._retry(partial(self._socket.recv, max_bytes), httpcore.ReadTimeout)
        except OSError as error:
            raise httpcore.ReadError(_reason(error)) from error

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send it now, or with what is written next: at the latest, before something is read."""
        self._unsent += buffer
        if len(self._unsent) > LARGEST_TOGETHER:
            self._flush()

    def close(self) -> None:
        self._socket.close()

    def _flush(self) -> None:
        view, self._unsent = memoryview(self._unsent), b""
        try:
            while view:
                view = view[self._retry(partial(self._socket.send, view), httpcore.WriteTimeout) :]
        except OSError as error:
            raise httpcore.WriteError(_reason(error)) from error

    def _retry(self, operation: Callable[[], T], late: type[httpcore.TimeoutException]) -> T:
        """The operation's result, as soon as the socket is ready for it."""
        while True:
            try:
                return operation()
            except ssl.SSLWantReadError:
                self._wait(to_write=False, late=late)
            except ssl.SSLWantWriteError:
                self._wait(to_write=True, late=late)
            except BlockingIOError:
                self._wait(to_write=late is httpcore.WriteTimeout, late=late)

    def _wait(self, *, to_write: bool, late: type[httpcore.TimeoutException]) -> None:
        if not _is_ready(self._socket, to_write, _left(late)):
            raise late

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        self._socket.settimeout(_left(httpcore.ConnectTimeout))
        try:
            return _Stream(ssl_context.wrap_socket(self._socket, server_hostname=server_hostname))
        except TimeoutError as error:
            self._fail(httpcore.ConnectTimeout(), error)
        except (OSError, ValueError) as error:
            self._fail(httpcore.ConnectError(_reason(error) + "."), error)

    def _fail(self, failure: Exception, cause: Exception) -> NoReturn:
        self.close()
        raise failure from cause

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":  # of an idle connection: the peer closed it
            return self._socket.fileno() < 0 or _is_ready(self._socket, False, 0)
        if info == "ssl_object":
            return self._socket if isinstance(self._socket, ssl.SSLSocket) else None
        return None


def _is_ready(sock: socket.socket, to_write: bool, seconds: float) -> bool:
    """Whether a socket can be written to (or read from) within so many seconds; an error is ready too."""
    if not hasattr(select, "poll"):  # Windows
        ready = select.select([] if to_write else [sock], [sock] if to_write else [], [sock], seconds)
        return any(ready)
    poll = select.poll()
    poll.register(sock, select.POLLOUT if to_write else select.POLLIN)
    return bool(poll.poll(math.ceil(seconds * 1000)))
