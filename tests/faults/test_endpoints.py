"""Endpoints that are dead, slow, or lie: their runs become dead letters with what was really wrong, and no other run
is touched; deliveries that come twice or in another order change nothing."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.test import Client

from django_workflow import WorkflowContext, workflow
from django_workflow.engine.network import Network
from django_workflow.models import DeadLetter, Delivery, JournalEntry, Run
from django_workflow.testing import WorkflowClock, run_workflows
from django_workflow.testing.calls import current_network
from tests.effects.models import Effect
from tests.effects.workflows import EVERY_RESULT, every_kind
from tests.engine.deliveries import Hand, start, step
from tests.engine.test_elsewhere import submit
from tests.faults.invariants import assert_sound, broken_rules
from tests.scenarios.http_server import ThreadedServer, django_application

OK = b"HTTP/1.1 200 OK\r\nUpstash-Workflow-Sdk-Version: 1\r\n"
MEGABYTES = b"X-Padding: " + b"x" * 1000 + b"\r\n"
HANG_SECONDS = 0.5


class Liar:
    """A server that answers every request by `talk`, whatever was asked."""

    def __init__(self, talk: Callable[[socket.socket], None]) -> None:
        self._talk = talk
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/flow"
        self.calls = 0
        self.closing = threading.Event()
        self._threads: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def close(self) -> None:
        self.closing.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in (self._accepting, *self._threads):
            thread.join(10)

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(peer,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, peer: socket.socket) -> None:
        with peer:
            try:
                _read_request(peer)
                self.calls += 1
                self._talk(peer)
            except OSError:
                return  # the engine has hung up


def _read_request(peer: socket.socket) -> None:
    """All of it: a connection that is closed with something unread is reset, and the answer may be lost."""
    with peer.makefile("rb") as stream:
        length = 0
        while (line := stream.readline()) not in (b"\r\n", b""):
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        stream.read(length)


@contextmanager
def liar(talk: Callable[[socket.socket], None]) -> Iterator[Liar]:
    server = Liar(talk)
    try:
        yield server
    finally:
        server.close()


def says(*parts: bytes) -> Callable[[socket.socket], None]:
    return lambda peer: peer.sendall(b"".join(parts))


def reset(peer: socket.socket) -> None:
    peer.sendall(OK)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")


def hang(peer: socket.socket) -> None:
    peer.settimeout(30)
    while peer.recv(65536):  # until the engine has had enough
        pass


def never_end(peer: socket.socket) -> None:
    peer.sendall(OK + b"Transfer-Encoding: chunked\r\n\r\n")
    while True:
        peer.sendall(b"1\r\nx\r\n")
        threading.Event().wait(0.01)


def redirect_for_ever(peer: socket.socket) -> None:
    peer.sendall(b"HTTP/1.1 302 Found\r\nLocation: /flow\r\nContent-Length: 0\r\n\r\n")


@pytest.fixture
def _real_network(settings: Any) -> Iterator[None]:
    settings.DJANGO_WORKFLOW = {"call_allow": ("127.0.0.1",)}
    network = Network()
    current_network.append(network)
    yield
    current_network.remove(network)
    network.close()


LIES = {
    "silence": (hang, "No complete answer"),
    "hangs up": (says(), "did not answer in HTTP"),
    "resets": (reset, "did not answer in HTTP|broke"),
    "half a body": (says(OK, b"Content-Length: 100\r\n\r\nhalf"), "did not answer in HTTP"),
    "half a chunk": (says(OK, b"Transfer-Encoding: chunked\r\n\r\n10\r\nhalf"), "did not answer in HTTP"),
    "never ends": (never_end, "No complete answer"),
    "a length that is none": (says(OK, b"Content-Length: many\r\n\r\n"), "did not answer in HTTP"),
    "two lengths": (says(OK, b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx"), "did not answer in HTTP"),
    "headers of 10 MB": (says(OK, MEGABYTES * 10_000, b"\r\n"), "larger than 100 KiB|broke"),
    "a body of 10 GB": (says(OK, b"Content-Length: 10000000000\r\n\r\nx"), "max_result_bytes"),
    "no HTTP": (says(b"220 mail.example ESMTP\r\n"), "did not answer in HTTP"),
    "redirects": (redirect_for_ever, "302"),
    "nothing submitted": (says(OK, b"Content-Length: 2\r\n\r\n{}"), "submitted nothing"),
}


@pytest.mark.django_db
@pytest.mark.usefixtures("_real_network")
@pytest.mark.parametrize("lie", LIES)
def test_the_run_of_a_lying_endpoint_is_a_dead_letter_with_the_true_reason(
    workflow_clock: WorkflowClock, lie: str
) -> None:
    talk, reason = LIES[lie]
    with liar(talk) as server:
        run = start(url=server.url, retries=1, retry_delay="0", timeout=HANG_SECONDS)
        other = every_kind.trigger(0.0)
        run_workflows(skip_delays=True)
        assert server.calls == 2
    run.refresh_from_db()
    assert run.status == Run.Status.FAILED
    letter = DeadLetter.objects.get()
    assert letter.run == run
    assert _matches(reason, letter.error), letter.error
    assert other.run.result == EVERY_RESULT
    assert_sound()


def _matches(reason: str, text: str) -> bool:
    return any(part in text for part in reason.split("|"))


@pytest.mark.django_db
@pytest.mark.usefixtures("_real_network")
def test_a_dead_endpoint_is_named(workflow_clock: WorkflowClock) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    start(url=f"http://127.0.0.1:{port}/flow", retries=0)
    run_workflows()
    assert f"No connection to 127.0.0.1:{port}" in DeadLetter.objects.get().error
    assert_sound()


# Answered well, and nothing came of it


@pytest.mark.django_db
class TestNothingSubmitted:
    URL = "https://elsewhere.example/flow"

    def test_in_the_middle_of_a_run(self, workflow_clock: WorkflowClock) -> None:
        hand, run = Hand(workflow_clock), start(url=self.URL, retries=1, retry_delay="0")
        (lease,) = hand.claim()
        submit(run, step(1))
        hand.settle(lease)
        for _ in range(2):
            (lease,) = hand.claim()
            hand.settle(lease)
        assert "status 200, and submitted nothing" in DeadLetter.objects.get(run=run).error

    def test_in_a_branch(self, workflow_clock: WorkflowClock) -> None:
        hand, run = Hand(workflow_clock), start(url=self.URL, retries=0)
        (lease,) = hand.claim()
        submit(run, *(step(0, None, target_step=n, concurrent=2, step_name=f"b{n}") for n in (1, 2)))
        hand.settle(lease)
        first, second = sorted(hand.claim(), key=lambda lease: lease.position)
        submit(run, step(1, concurrent=2, step_name="b1"))
        hand.settle(first)
        hand.settle(second)
        assert "submitted nothing" in DeadLetter.objects.get(run=run).error
        assert broken_rules() == []

    def test_a_call_of_a_result_in_a_group_may_be_answered_with_nothing(self, workflow_clock: WorkflowClock) -> None:
        """Other SDKs go on with the last of them."""
        hand, run = Hand(workflow_clock), start(url=self.URL, retries=0)
        (lease,) = hand.claim()
        submit(run, *(step(0, None, target_step=n, concurrent=2, step_name=f"b{n}") for n in (1, 2)))
        hand.settle(lease)
        for lease, number in zip(sorted(hand.claim(), key=lambda lease: lease.position), (1, 2), strict=True):
            submit(run, step(number, concurrent=2, step_name=f"b{number}"))
            hand.settle(lease)
        first, last = sorted(hand.claim(), key=lambda lease: lease.position)
        hand.settle(first)
        assert not DeadLetter.objects.exists()
        submit(run, step(3))
        hand.settle(last)
        assert not DeadLetter.objects.exists()
        assert broken_rules() == []


# Twice, and in another order


class Recording(Network):
    """The network, with what went over it."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[tuple[str, str, dict[str, str], bytes]] = []

    def send(self, method: str, url: str, headers: Any, body: bytes, timeout: float, *, guarded: bool) -> Any:
        self.sent.append((method, url, dict(headers), body))
        return super().send(method, url, headers, body, timeout, guarded=guarded)


@workflow(name="told-twice")
def told_twice(ctx: WorkflowContext[None]) -> list[int]:
    return [ctx.run(f"atomic {n}", _note, ctx.workflow_run_id, f"atomic {n}", atomic=True) for n in range(4)]


def _note(run_id: str, name: str) -> int:
    Effect.objects.create(run_id=run_id, step=name, atomic=True)
    return int(name[-1])


@pytest.mark.django_db(transaction=True)
def test_calls_that_come_twice_or_in_another_order_change_nothing(
    settings: Any, workflow_clock: WorkflowClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_workflow.engine.dispatch.time.time", lambda: workflow_clock.now().timestamp())
    dice = random.Random(7)
    with ThreadedServer(django_application()) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        settings.DJANGO_WORKFLOW = {"base_url": server.origin, "call_allow": ("127.0.0.1",)}
        network = Recording()
        current_network.append(network)
        try:
            handle = told_twice.trigger()
            run_workflows()
        finally:
            current_network.remove(network)
            network.close()
        server.shutdown()
    assert len(network.sent) == 5
    before = list(JournalEntry.objects.order_by("position").values())
    again = [call for call in network.sent for _ in range(2)]
    dice.shuffle(again)
    for method, url, headers, body in again:
        answer = Client().generic(
            method, urlsplit(url).path, body, headers={**headers, "Host": urlsplit(url).netloc}, secure=False
        )
        assert answer.status_code in (200, 400), answer.content
    assert list(JournalEntry.objects.order_by("position").values()) == before
    assert handle.run.result == "[0,1,2,3]"
    assert not Delivery.objects.exists()
    assert_sound()
