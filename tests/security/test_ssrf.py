"""Calls do not reach the network that the worker stands in, however the address is written; nor do callbacks."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from threading import Thread
from typing import Any

import pytest

from django_workflow import WorkflowContext, workflow
from django_workflow.authoring.registry import registry
from django_workflow.client.client import get_client
from django_workflow.conf import Settings
from django_workflow.engine.network import HttpAnswer, Network
from django_workflow.protocol.publish import CallbackConfig, Message
from django_workflow.protocol.requests import Publish
from django_workflow.testing import run_workflows, workflow_clock
from django_workflow.testing.calls import current_network


@pytest.fixture
def port() -> Iterator[int]:
    """A service of this machine that notes who connects."""
    listener = socket.create_server(("", 0), family=socket.AF_INET)
    connections: list[Any] = []

    def accept() -> None:
        while True:
            try:
                sock, address = listener.accept()
            except OSError:
                return
            connections.append(address)
            sock.close()

    thread = Thread(target=accept, daemon=True)
    thread.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(10)
    assert connections == []


@pytest.fixture
def network() -> Iterator[Network]:
    made = Network(settings=Settings(), tls=ssl.create_default_context())
    yield made
    made.close()


HERE = [
    "127.0.0.1",
    "127.1",
    "127.0.1",
    "127.255.255.254",
    "2130706433",  # as one number
    "0x7f000001",
    "0x7f.0.0.1",
    "0177.0.0.1",  # octal
    "017700000001",
    "0",
    "0.0.0.0",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[0:0:0:0:0:ffff:7f00:0001]",
    "[::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[fe80::1%25lo]",
    "１２７.0.0.1",  # noqa: RUF001 - digits of another width, which IDNA makes plain ones
    "127。0。0。1",  # and full stops of another script
    "%31%32%37.0.0.1",
    "user@127.0.0.1",
    "example.com@127.0.0.1",
    "example.com:443@127.0.0.1",
    "example.com%2F@127.0.0.1",
]


@pytest.mark.parametrize("host", HERE)
def test_no_way_to_write_this_machine_is_let_through(network: Network, port: int, host: str) -> None:
    answer = network.send("GET", f"http://{host}:{port}/", {}, b"", 10, guarded=True)
    assert answer.status == 0
    assert answer.error


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}\\@example.com/",
        "http://example.com\\@127.0.0.1:{port}/",
        "http:127.0.0.1:{port}/",
        "http:///127.0.0.1:{port}/",
        "//127.0.0.1:{port}/",
        "file:///etc/passwd",
        "gopher://127.0.0.1:{port}/_x",
        "ftp://127.0.0.1:{port}/",
        "unix:///run/docker.sock",
        "http+unix://%2Frun%2Fdocker.sock/",
        "\thttp://127.0.0.1:{port}/",
        "http://127.0.0.1:{port}\r\nHost: example.com/",
    ],
)
def test_no_odd_url_is_let_through(network: Network, port: int, url: str) -> None:
    answer = network.send("GET", url.format(port=port), {}, b"", 10, guarded=True)
    assert answer.status == 0
    assert answer.error


def test_a_name_that_moves_inward_after_the_check_is_not_followed(port: int) -> None:
    """DNS rebinding: public when it is checked, this machine when it is asked for again. It is asked for once."""
    asked: list[str] = []

    def resolve(host: str, wanted: int) -> list[tuple[Any, ...]]:
        asked.append(host)
        address = "192.0.2.1" if len(asked) == 1 else "127.0.0.1"
        return socket.getaddrinfo(address, wanted, type=socket.SOCK_STREAM)

    network = Network(settings=Settings(), tls=ssl.create_default_context(), resolve=resolve)
    for _ in range(2):
        assert network.send("GET", f"http://rebinding.example:{port}/", {}, b"", 2, guarded=True).status == 0
    network.close()
    assert len(asked) == 2  # once for each call


def test_the_metadata_services_of_the_clouds_are_refused(network: Network) -> None:
    for host in ("169.254.169.254", "[fd00:ec2::254]", "168.63.129.16", "100.100.100.200", "2852039166"):
        answer = network.send("GET", f"http://{host}/latest/meta-data/", {}, b"", 10, guarded=True)
        assert (answer.status, "not a public address" in answer.error) == (0, True), host


# Who is guarded


class Recorder:
    """A network that notes what it is asked for, and whether the guard applies."""

    def __init__(self, answer: HttpAnswer) -> None:
        self.answer = answer
        self.calls: list[tuple[str, bool]] = []

    def send(self, method: str, url: str, *args: Any, guarded: bool) -> HttpAnswer:
        self.calls.append((url, guarded))
        return self.answer


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    made = Recorder(HttpAnswer(200, {"Location": ["http://127.0.0.1/admin/"]}, b"{}"))
    current_network.append(made)
    yield made
    current_network.pop()


INSIDE = "http://10.0.0.7/"


@pytest.mark.django_db
def test_calls_callbacks_and_failure_callbacks_are_guarded(recorder: Recorder) -> None:
    with workflow_clock():
        message = Message(
            destination=INSIDE + "message",
            body=b"{}",
            callback=CallbackConfig(url=INSIDE + "callback"),
            failure_callback=CallbackConfig(url=INSIDE + "failure"),
        )
        get_client().transport.send(Publish(message=message))
        recorder.answer = HttpAnswer(200)
        run_workflows(skip_delays=True)
        recorder.answer = HttpAnswer(500)
        get_client().transport.send(Publish(message=message))
        run_workflows(skip_delays=True)
    assert {url for url, _ in recorder.calls} == {INSIDE + name for name in ("message", "callback", "failure")}
    assert all(guarded for _, guarded in recorder.calls)


@pytest.mark.django_db
def test_a_step_that_calls_is_guarded_and_follows_no_redirect(recorder: Recorder) -> None:
    recorder.answer = HttpAnswer(302, {"Location": ["http://127.0.0.1/admin/"]})
    with registry.isolated(), workflow_clock():

        @workflow
        def ship(ctx: WorkflowContext[Any]) -> int:
            return ctx.call("pay", url=INSIDE).status

        handle = ship.trigger()
        run_workflows(skip_delays=True)
    assert recorder.calls == [(INSIDE, True)]
    assert handle.run.result == "302"


@pytest.mark.django_db
@pytest.mark.parametrize(
    "url",
    [
        "https://shop.example/workflows/serve/../../admin/",
        "https://shop.example/workflows/serve/%2e%2e/%2e%2e/admin/",
        "https://shop.example/workflows/serve/..%2f..%2fadmin/",
        "https://shop.example.evil.example/workflows/serve/ship/",
        "https://shop.example@10.0.0.7/workflows/serve/ship/",
        "https://shop.example:8443/workflows/serve/ship/",
        "http://shop.example/workflows/serve/ship/",
    ],
)
def test_what_only_looks_like_this_site_is_guarded(recorder: Recorder, settings: Any, url: str) -> None:
    settings.DJANGO_WORKFLOW = {"base_url": "https://shop.example"}
    with workflow_clock():
        get_client().transport.send(Publish(message=Message(destination=url, body=b"{}", retries=0)))
        run_workflows()
    assert recorder.calls == [(url, True)]
