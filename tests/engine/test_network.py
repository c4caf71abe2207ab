from __future__ import annotations

import datetime as dt
import gzip
import logging
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Barrier, Event, Thread
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from django_workflow.conf import Settings
from django_workflow.engine import network as module
from django_workflow.engine.network import HttpAnswer, Network

LIMIT = 4 * 1024 * 1024
SOON = 10.0
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

Handler = Callable[["Peer"], None]


class Peer:
    """One connection, seen from the server."""

    def __init__(self, sock: socket.socket, stopped: Event) -> None:
        self.socket = sock
        self.stopped = stopped

    def receive(self) -> bytes:
        """One request: its head, and its body by Content-Length. Empty when the client left."""
        text = b""
        while b"\r\n\r\n" not in text:
            piece = self.socket.recv(65536)
            if not piece:
                return b""
            text += piece
        head, _, body = text.partition(b"\r\n\r\n")
        length = next(
            (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
        )
        while len(body) < length:
            body += self.socket.recv(65536)
        return head + b"\r\n\r\n" + body

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)


class Server:
    """A server on the loopback; `handler` has each connection to itself, in a thread."""

    def __init__(self, handler: Handler, tls: ssl.SSLContext | None = None) -> None:
        self.handler = handler
        self.tls = tls
        self.stopped = Event()
        self.connections = 0
        self.requests: list[bytes] = []
        self.open: list[socket.socket] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.threads = [Thread(target=self._accept, daemon=True)]
        self.threads[0].start()

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}{path}"

    def close(self) -> None:
        self.stopped.set()
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for sock in self.open:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join(SOON)

    def _accept(self) -> None:
        while not self.stopped.is_set():
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            thread = Thread(target=self._serve, args=(sock,), daemon=True)
            self.threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        with sock:
            sock.settimeout(SOON)
            try:
                if self.tls:
                    sock = self.tls.wrap_socket(sock, server_side=True)
                with sock:
                    self.open.append(sock)
                    self.handler(Peer(sock, self.stopped))
            except OSError:
                pass  # the client left, or the test is over


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(handler: Handler | bytes, tls: ssl.SSLContext | None = None) -> Server:
        """A server that handles connections so; bytes: it answers every request with them and notes the request."""
        if isinstance(handler, bytes):
            answer = handler

            def handler(peer: Peer) -> None:
                while request := peer.receive():
                    server.requests.append(request)
                    peer.send(answer)

        server = Server(handler, tls)
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """TLS of a server that is `shop.example`, and of a client that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "shop.example")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("shop.example")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path: Path = tmp_path_factory.mktemp("tls") / "server.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(path)
    return server, ssl.create_default_context(cafile=str(path))


@pytest.fixture
def network() -> Iterator[Network]:
    with_connections = Network(settings=Settings(), tls=ssl.create_default_context())
    yield with_connections
    with_connections.close()


def names(**addresses: str) -> module.Resolve:
    """A resolver that knows these names; underscores stand for dots, commas separate addresses."""
    known = {name.replace("_", "."): texts.split(",") for name, texts in addresses.items()}

    def resolve(host: str, port: int) -> list[tuple[Any, ...]]:
        if host not in known:
            return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        found: list[tuple[Any, ...]] = []
        for text in known[host]:
            found += socket.getaddrinfo(text, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        return found

    return resolve


def get(network: Network, url: str, timeout: float = SOON, *, guarded: bool = False, **headers: str) -> HttpAnswer:
    return network.send("GET", url, headers, b"", timeout, guarded=guarded)


# Requests


def test_a_request_arrives_as_it_was_given(network: Network, serve: Callable[..., Server]) -> None:
    server = serve(OK)
    answer = network.send(
        "post",
        server.url("/a%2Fb//c?x=1&y=%20"),
        {"X-One": "1", "Content-Type": "text/plain"},
        b"body",
        SOON,
        guarded=False,
    )
    assert answer == HttpAnswer(200, {"Content-Length": ["2"]}, b"ok", "")
    assert server.requests == [
        b"POST /a%2Fb//c?x=1&y=%20 HTTP/1.1\r\n"
        b"Host: 127.0.0.1:" + str(server.port).encode() + b"\r\nX-One: 1\r\nContent-Type: text/plain\r\n"
        b"Accept-Encoding: gzip\r\nContent-Length: 4\r\n\r\nbody"
    ]


@pytest.mark.parametrize(("method", "length"), [("POST", True), ("PUT", True), ("DELETE", True), ("GET", False)])
def test_the_length_is_sent_also_for_an_empty_body(
    network: Network, serve: Callable[..., Server], method: str, length: bool
) -> None:
    server = serve(OK)
    assert network.send(method, server.url(), {}, b"", SOON, guarded=False).status == 200
    assert (b"Content-Length: 0" in server.requests[0]) is length


def test_a_body_of_any_method_is_sent(network: Network, serve: Callable[..., Server]) -> None:
    server = serve(OK)
    big = b"x" * 1_000_000
    assert network.send("GET", server.url(), {}, big, SOON, guarded=False).status == 200
    assert server.requests[0].endswith(b"Content-Length: 1000000\r\n\r\n" + big)


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        ("plain", b"plain"),
        ("caf\u00e9", b"caf\xe9"),  # Latin-1, as it was received
        ("\u4f60\u597d", "\u4f60\u597d".encode()),  # anything else as UTF-8
        ("  blanks around ", b"blanks around"),
        ("a\tb", b"a\tb"),
        ("", b""),
    ],
)
def test_header_values_are_sent_as_latin_1_or_utf_8(
    network: Network, serve: Callable[..., Server], value: str, sent: bytes
) -> None:
    server = serve(OK)
    assert get(network, server.url(), X=value).status == 200
    assert b"\r\nX: " + sent + b"\r\n" in server.requests[0]


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nb", "a\x00b", "a\x7fb", "\ud800"])
def test_a_bad_header_value_is_refused_without_showing_it(network: Network, value: str) -> None:
    answer = get(network, "http://127.0.0.1:9/", Authorization=value)
    assert answer.status == 0
    assert "The value of header Authorization has a control character" in answer.error
    assert value not in answer.error


@pytest.mark.parametrize("name", ["", "a b", "a:b", "a\r\nb", "\u00e9"])
def test_a_bad_header_name_is_refused(network: Network, name: str) -> None:
    answer = network.send("GET", "http://127.0.0.1:9/", {name: "x"}, b"", SOON, guarded=False)
    assert answer.status == 0
    assert "cannot be the name of a header" in answer.error


def test_headers_of_another_connection_do_not_break_this_one(network: Network, serve: Callable[..., Server]) -> None:
    server = serve(OK)
    copied = {
        "host": "elsewhere",
        "Content-Length": "999",
        "Transfer-Encoding": "chunked",
        "Connection": "close",
        "Expect": "100-continue",
        "TE": "trailers",
        "Upgrade": "h2c",
        "X-Kept": "1",
    }
    assert network.send("POST", server.url(), copied, b"body", SOON, guarded=False).status == 200
    head = server.requests[0].split(b"\r\n\r\n")[0].split(b"\r\n")
    assert [line.split(b":")[0] for line in head[1:]] == [b"Host", b"X-Kept", b"Accept-Encoding", b"Content-Length"]
    assert b"elsewhere" not in server.requests[0]


def test_a_user_in_the_url_becomes_basic_authorization(network: Network, serve: Callable[..., Server]) -> None:
    server = serve(OK)
    url = f"http://user:p%40ss@127.0.0.1:{server.port}/"
    get(network, url)
    get(network, url, Authorization="Bearer x")
    assert b"\r\nAuthorization: Basic dXNlcjpwQHNz\r\n" in server.requests[0]
    assert b"Basic" not in server.requests[1]
    assert b"@" not in server.requests[0].split(b"\r\n\r\n")[0]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://host/x", "Only http:// and https:// URLs"),
        ("file:///etc/passwd", "Only http:// and https:// URLs"),
        ("//host/x", "Only http:// and https:// URLs"),
        ("billing", "Only http:// and https:// URLs"),
        ("http:///x", "it has no host"),
        ("http://a\nb/", "is not a URL that can be called"),
        ("http://[::1/", "is not a URL that can be called"),
        ("http://host:port/", "is not a URL that can be called"),
        ("http://" + "x" * 70_000, "is not a URL that can be called"),
        ("http://" + "a" * 64 + ".example/", "cannot be looked up"),
        ("http://exa mple/", "cannot be looked up"),
    ],
)
def test_a_url_that_cannot_be_called_is_an_answer_with_the_reason(network: Network, url: str, said: str) -> None:
    answer = get(network, url)
    assert answer.status == 0
    assert said in answer.error
    assert len(answer.error) < 400


def test_a_port_that_does_not_exist_is_an_answer(network: Network) -> None:
    assert get(network, "http://127.0.0.1:99999/").status == 0


@pytest.mark.parametrize("method", ["CONNECT", "connect", "", "GE T", "G\r\nX: 1"])
def test_only_methods_with_a_plain_answer_are_made(network: Network, method: str) -> None:
    answer = network.send(method, "http://127.0.0.1:9/", {}, b"", SOON, guarded=False)
    assert "is not a method that can be called" in answer.error


# Answers


def test_names_of_headers_are_written_as_go_does(network: Network, serve: Callable[..., Server]) -> None:
    server = serve(
        b"HTTP/1.1 204 No Content\r\nupstash-workflow-runId: wfr_1\r\nX-A: 1\r\nx-a: 2\r\nX-caf: caf\xe9\r\n\r\n"
    )
    assert get(network, server.url()).headers == {
        "Upstash-Workflow-Runid": ["wfr_1"],
        "X-A": ["1", "2"],
        "X-Caf": ["caf\u00e9"],
    }


def test_redirects_are_not_followed_and_cookies_not_kept(network: Network, serve: Callable[..., Server]) -> None:
    server = serve(b"HTTP/1.1 302 Found\r\nLocation: /next\r\nSet-Cookie: a=1\r\nContent-Length: 0\r\n\r\n")
    answer = get(network, server.url())
    assert (answer.status, answer.headers["Location"], answer.error) == (302, ["/next"], "")
    get(network, server.url())
    assert [request.split(b" ")[1] for request in server.requests] == [b"/", b"/"]
    assert b"ookie" not in server.requests[1]


def test_a_body_in_chunks_is_put_together(network: Network, serve: Callable[..., Server]) -> None:
    server = serve(b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
    answer = get(network, server.url())
    assert (answer.status, answer.body) == (500, b"abcde")


def test_a_body_may_end_with_its_connection(network: Network, serve: Callable[..., Server]) -> None:
    def answer_and_leave(peer: Peer) -> None:
        peer.receive()
        peer.send(b"HTTP/1.0 200 OK\r\n\r\nall of it")

    assert get(network, serve(answer_and_leave).url()).body == b"all of it"


def zipped_answer(body: bytes, coding: bytes = b"gzip") -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Encoding: %b\r\nContent-Length: %d\r\n\r\n%b" % (coding, len(body), body)


def test_a_zipped_body_is_unzipped(network: Network, serve: Callable[..., Server]) -> None:
    text = b"text " * 100_000
    server = serve(zipped_answer(gzip.compress(text[:1000]) + gzip.compress(text[1000:])))
    answer = get(network, server.url())
    assert answer.body == text
    assert answer.headers == {}, "both would tell what was sent, not what this body is"


def test_what_was_not_asked_for_is_handed_on(network: Network, serve: Callable[..., Server]) -> None:
    answer = get(network, serve(zipped_answer(b"brotli", b"br")).url())
    assert (answer.body, answer.headers["Content-Encoding"]) == (b"brotli", ["br"])


def test_an_empty_body_may_be_called_zipped(network: Network, serve: Callable[..., Server]) -> None:
    answer = get(network, serve(zipped_answer(b"")).url())
    assert (answer.status, answer.body) == (200, b"")


@pytest.mark.parametrize("body", [b"no gzip at all", gzip.compress(b"text" * 100)[:-9]], ids=["other", "cut"])
def test_a_broken_zipped_body_is_no_answer(network: Network, serve: Callable[..., Server], body: bytes) -> None:
    answer = get(network, serve(zipped_answer(body)).url())
    assert answer.status == 0
    assert "zip" in answer.error


# Bounds


def endless(peer: Peer) -> None:
    peer.receive()
    peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while not peer.stopped.is_set():
        peer.send(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")


def announced(peer: Peer) -> None:
    peer.receive()
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (LIMIT + 1))
    peer.stopped.wait(SOON)


def bomb(peer: Peer) -> None:
    peer.receive()
    peer.send(zipped_answer(gzip.compress(bytes(64 * LIMIT))))


@pytest.mark.parametrize("handler", [endless, announced, bomb])
def test_a_larger_body_than_allowed_is_refused_with_the_limit(
    network: Network, serve: Callable[..., Server], handler: Handler
) -> None:
    answer = get(network, serve(handler).url())
    assert answer.status == 0
    assert f"more than {LIMIT} bytes, which max_result_bytes" in answer.error


def test_the_largest_allowed_body_passes(serve: Callable[..., Server]) -> None:
    network = Network(settings=Settings(max_result_bytes=2), tls=ssl.create_default_context())
    assert get(network, serve(OK).url()).body == b"ok"
    network.close()


def test_headers_are_bounded(network: Network, serve: Callable[..., Server]) -> None:
    def headers_only(peer: Peer) -> None:
        peer.receive()
        peer.send(b"HTTP/1.1 200 OK\r\n")
        while not peer.stopped.is_set():
            peer.send(b"X-More: " + b"x" * 1000 + b"\r\n")

    answer = get(network, serve(headers_only).url())
    assert answer.status == 0
    assert "headers are larger than 100 KiB" in answer.error


def silent(peer: Peer) -> None:
    peer.receive()
    peer.stopped.wait(SOON)


def drip_of(start: bytes, drop: bytes) -> Handler:
    def drip(peer: Peer) -> None:
        peer.receive()
        peer.send(start)
        while not peer.stopped.wait(0.01):
            peer.send(drop)

    return drip


def deaf(peer: Peer) -> None:
    peer.stopped.wait(SOON)


@pytest.mark.parametrize(
    "handler",
    [
        silent,
        drip_of(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b"x"),
        drip_of(b"HTTP/1.1 200 OK\r\nX-Slow: ", b"x"),
        drip_of(b"", b"HTTP/1.1 102 Processing\r\n\r\n"),
        deaf,
    ],
    ids=["silent", "slow body", "slow header", "interim answers", "deaf"],
)
def test_the_timeout_is_that_of_the_whole_call(
    network: Network, serve: Callable[..., Server], handler: Handler
) -> None:
    server = serve(handler)
    started = time.monotonic()
    answer = network.send("POST", server.url("/secret"), {}, b"x" * 20_000_000, 0.3, guarded=False)
    assert answer == HttpAnswer(0, error=f"No complete answer from 127.0.0.1:{server.port} within 0.3 s.")
    assert time.monotonic() - started < SOON / 2


def test_looking_a_host_up_counts_as_well() -> None:
    go_on = Event()

    def resolve(host: str, port: int) -> list[tuple[Any, ...]]:
        go_on.wait(SOON)
        return []

    network = Network(settings=Settings(), tls=ssl.create_default_context(), resolve=resolve)
    started = time.monotonic()
    assert get(network, "http://slow.example/", timeout=0.1).error == "No connection to slow.example within 0.1 s."
    assert time.monotonic() - started < SOON / 2
    go_on.set()


def test_a_silent_tls_server_counts_as_well(network: Network, serve: Callable[..., Server]) -> None:
    server = serve(deaf)
    answer = get(network, f"https://127.0.0.1:{server.port}/", timeout=0.1)
    assert "No connection to" in answer.error


# Peers that fail


def test_a_refused_connection_is_named(network: Network) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    answer = get(network, f"http://127.0.0.1:{port}/secret?key=1")
    assert answer == HttpAnswer(0, error=f"No connection to 127.0.0.1:{port}: Connection refused (127.0.0.1).")


def test_an_unknown_host_is_named() -> None:
    network = Network(settings=Settings(), tls=ssl.create_default_context(), resolve=names())
    assert get(network, "http://nowhere.example/").error == (
        "No connection to nowhere.example: the host cannot be looked up (Name or service not known)."
    )


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (b"", "Server disconnected without sending a response."),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "did not answer in HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", "received 4 bytes, expected 10"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", "incomplete chunked read"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "did not answer in HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx", "did not answer in HTTP"),
    ],
)
def test_half_an_answer_is_none(network: Network, serve: Callable[..., Server], sent: bytes, said: str) -> None:
    def answer_half(peer: Peer) -> None:
        peer.receive()
        peer.send(sent)

    answer = get(network, serve(answer_half).url())
    assert (answer.status, answer.body) == (0, b"")
    assert said in answer.error


def test_a_reset_connection_is_named(network: Network, serve: Callable[..., Server]) -> None:
    def reset(peer: Peer) -> None:
        peer.receive()
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")

    server = serve(reset)
    assert get(network, server.url()).error == (
        f"The connection to 127.0.0.1:{server.port} broke: Connection reset by peer."
    )


def test_what_nobody_thought_of_is_an_answer_too(
    network: Network, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise LookupError("surprise")

    monkeypatch.setattr(network, "_exchange", fail)
    with caplog.at_level(logging.ERROR, "django_workflow.engine"):
        answer = get(network, "http://user:password@host/")
    assert answer == HttpAnswer(0, error="The call to host failed: LookupError: surprise")
    assert "surprise" in caplog.text
    assert "password" not in caplog.text


def test_the_next_call_is_not_hurt_by_a_failed_one(network: Network, serve: Callable[..., Server]) -> None:
    first = Event()

    def fail_once(peer: Peer) -> None:
        while peer.receive():
            if first.is_set():
                peer.send(OK)
            else:
                first.set()
                peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
                return

    server = serve(fail_once)
    assert [get(network, server.url()).status for _ in range(2)] == [0, 200]


# Connections


def test_connections_are_kept(network: Network, serve: Callable[..., Server]) -> None:
    server = serve(OK)
    assert [get(network, server.url()).status for _ in range(5)] == [200] * 5
    assert server.connections == 1


def test_a_connection_that_the_server_closed_is_not_used_again(network: Network, serve: Callable[..., Server]) -> None:
    closed = Event()

    def answer_once(peer: Peer) -> None:
        peer.receive()
        peer.send(OK)
        peer.socket.shutdown(socket.SHUT_RDWR)
        closed.set()

    server = serve(answer_once)
    for _ in range(3):
        assert get(network, server.url()).status == 200
        assert closed.wait(SOON)
        closed.clear()
    assert server.connections == 3


def test_all_threads_of_a_worker_call_at_once(serve: Callable[..., Server]) -> None:
    at_once = 24  # more than the connections that are kept
    everybody = Barrier(at_once)

    def meet(peer: Peer) -> None:
        while peer.receive():
            everybody.wait(SOON)
            peer.send(OK)

    server = serve(meet)
    network = Network(4, Settings(), tls=ssl.create_default_context())
    with ThreadPoolExecutor(at_once) as pool:
        for _ in range(3):
            assert [answer.status for answer in pool.map(lambda _: get(network, server.url()), range(at_once))] == [
                200
            ] * at_once
    network.close()


def test_a_request_is_sent_with_one_call_of_the_system(
    network: Network, serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each lets go of the interpreter lock, and a busy worker's thread waits to get it back."""
    sent: list[int] = []
    server = serve(OK)
    send = socket.socket.send

    class Counting(socket.socket):
        def send(self, data: Any, flags: int = 0) -> int:
            sent.append(len(data))
            return send(self, data, flags)

    monkeypatch.setattr(module.socket, "socket", Counting)
    assert network.send("POST", server.url(), {}, b"x" * 2000, SOON, guarded=False).status == 200
    assert len(sent) == 1
    assert server.requests[0].endswith(b"x" * 2000)


@pytest.mark.parametrize("size", [0, 1, module.LARGEST_TOGETHER, 3_000_000])
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_bodies_of_any_size_go_both_ways(
    serve: Callable[..., Server], authority: tuple[ssl.SSLContext, ssl.SSLContext], size: int, secure: bool
) -> None:
    def echo(peer: Peer) -> None:
        while request := peer.receive():
            body = request.partition(b"\r\n\r\n")[2]
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    server = serve(echo, authority[0] if secure else None)
    network = Network(settings=Settings(), tls=authority[1], resolve=names(shop_example="127.0.0.1"))
    body = bytes(range(256)) * (size // 256) + b"." * (size % 256)
    for _ in range(2):
        url = server.url(host="shop.example")
        assert network.send("POST", url, {}, body, SOON, guarded=False) == HttpAnswer(
            200, {"Content-Length": [str(size)]}, body
        )
    assert server.connections == 1
    network.close()


def test_an_answer_counts_although_the_peer_stopped_reading(network: Network) -> None:
    ours, peer = socket.socketpair()
    peer.sendall(b"too large")
    peer.close()
    stream = module._Stream(ours)
    stream.write(b"request")
    with module._deadline(SOON):
        assert stream.read(100) == b"too large"
    stream.close()


def test_proxies_of_the_environment_are_not_used(
    monkeypatch: pytest.MonkeyPatch, network: Network, serve: Callable[..., Server]
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert get(network, serve(OK).url()).status == 200


def test_the_next_address_is_tried_when_one_does_not_answer(serve: Callable[..., Server]) -> None:
    server = serve(OK)
    network = Network(settings=Settings(), tls=ssl.create_default_context(), resolve=names(two_example="::1,127.0.0.1"))
    assert get(network, server.url(host="two.example")).status == 200
    assert b"\r\nHost: two.example:" in server.requests[0]
    network.close()


# TLS


def test_tls_is_verified_against_the_name(
    serve: Callable[..., Server], authority: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    of_server, of_client = authority
    server = serve(OK, of_server)
    resolve = names(shop_example="127.0.0.1", other_example="127.0.0.1")
    network = Network(settings=Settings(call_allow=("127.0.0.1",)), tls=of_client, resolve=resolve)
    for guarded in (False, True):
        assert get(network, server.url(host="shop.example"), guarded=guarded).body == b"ok"
        # Same address, and a connection to it is open: it must not serve another name.
        wrong = get(network, server.url(host="other.example"), guarded=guarded)
        assert wrong.status == 0
        assert "TLS: Hostname mismatch" in wrong.error
    assert len(server.requests) == 2
    network.close()


def test_an_unknown_authority_is_named(
    serve: Callable[..., Server], authority: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    server = serve(OK, authority[0])
    network = Network(settings=Settings(), resolve=names(shop_example="127.0.0.1"))
    answer = get(network, server.url(host="shop.example"))
    assert answer.error == f"No connection to shop.example:{server.port}: TLS: self-signed certificate."


def test_tls_to_a_server_without_is_named(network: Network, serve: Callable[..., Server]) -> None:
    def plain(peer: Peer) -> None:
        peer.socket.recv(10)
        peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    server = serve(plain)
    assert "TLS: " in get(network, f"https://127.0.0.1:{server.port}/").error


# The guard


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "0177.1", "127.1", "[::ffff:127.0.0.1]"]
)
def test_a_guarded_call_does_not_reach_this_machine(network: Network, serve: Callable[..., Server], host: str) -> None:
    server = serve(OK)
    answer = get(network, server.url(host=host), guarded=True)
    assert answer.status == 0
    assert "is not a public address" in answer.error
    assert server.connections == 0


def test_a_guarded_call_does_not_find_an_unguarded_connection(network: Network, serve: Callable[..., Server]) -> None:
    server = serve(OK)
    assert get(network, server.url()).status == 200
    assert get(network, server.url(), guarded=True).status == 0
    assert len(server.requests) == 1


@pytest.mark.parametrize("allow", ["127.0.0.0/8", "shop.example", "*.example"])
def test_call_allow_admits(serve: Callable[..., Server], allow: str) -> None:
    server = serve(OK)
    settings = replace(Settings(), call_allow=(allow,))
    network = Network(settings=settings, tls=ssl.create_default_context(), resolve=names(shop_example="127.0.0.1"))
    assert get(network, server.url(host="shop.example"), guarded=True).status == 200
    network.close()


def test_the_address_that_was_checked_is_the_one_that_is_connected_to(
    serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(OK)
    asked: list[str] = []
    connected: list[Any] = []

    def rebinding(host: str, port: int) -> list[tuple[Any, ...]]:
        """Public when asked first, this machine ever after."""
        asked.append(host)
        return names(evil_example="8.8.8.8" if len(asked) == 1 else "127.0.0.1")(host, port)

    def connect(sock: socket.socket, address: tuple[Any, ...], timeout: float) -> object:
        connected.append(address)
        sock.close()
        raise OSError("not really")

    monkeypatch.setattr(module, "_connect", connect)
    network = Network(settings=Settings(), tls=ssl.create_default_context(), resolve=rebinding)
    get(network, server.url(host="evil.example"), guarded=True)
    assert asked == ["evil.example"]
    assert connected == [("8.8.8.8", server.port)]
    assert "is not a public address" in get(network, server.url(host="evil.example"), guarded=True).error
    assert len(connected) == 1


def test_the_settings_in_force_are_taken_by_default() -> None:
    network = Network()
    assert network.max_body_bytes == LIMIT
    network.close()
