"""How the server starts, says where it is, and ends."""

from __future__ import annotations

import json
import signal
import socket
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import httpx
import pytest
from django.core.management import load_command_class

from django_workflow.dev_server.users import USERS
from tests.dev_server.processes import READY, ROOT, DevServerProcess
from tests.engine.workers import eventually

# Of the SDK, written out: src/dev-server/constants.ts of qstash-js.
TOKEN = "eyJVc2VySUQiOiJkZWZhdWx0VXNlciIsIlBhc3N3b3JkIjoiZGVmYXVsdFBhc3N3b3JkIn0="
CURRENT = "sig_7kYjw48mhY7kAjqNGcy6cr29RJ6r"
NEXT = "sig_5ZB6DVzB1wjE8S6rZ7eenA8Pdnhs"


def probe(port: int) -> bool:
    """What an SDK asks before it uses a server that runs: src/dev-server/health.ts of qstash-js."""
    with closing(HTTPConnection("127.0.0.1", port, timeout=2)) as connection:
        connection.request("GET", "/v2/keys", headers={"Authorization": f"Bearer {TOKEN}"})
        response = connection.getresponse()
        keys = json.loads(response.read())
        return response.status == 200 and keys["current"] == CURRENT and keys["next"] == NEXT


@pytest.fixture
def stranger() -> Iterator[socket.socket]:
    """Another program that listens."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


# Start


def test_a_line_is_what_sdks_wait_for(server: DevServerProcess) -> None:
    assert server.line(READY).endswith(f" running at {server.url}")


def test_the_variables_are_those_of_the_public_user(server: DevServerProcess) -> None:
    assert server.variables == {
        "QSTASH_URL": f"http://127.0.0.1:{server.port}",
        "QSTASH_TOKEN": TOKEN,
        "QSTASH_CURRENT_SIGNING_KEY": CURRENT,
        "QSTASH_NEXT_SIGNING_KEY": NEXT,
    }


def test_an_sdk_that_looks_for_a_running_server_takes_this_one(server: DevServerProcess) -> None:
    assert probe(server.port)


def test_another_user_is_another_token_and_other_keys(folder: Path) -> None:
    user = USERS[2]
    with DevServerProcess("--port=0", "--user=2", "--no-admin", temporary=folder) as server:
        server.ready()
        assert server.call("GET", "/v2/keys").json() == {
            "current": user.current_signing_key,
            "next": user.next_signing_key,
        }
        assert not probe(server.port)
        assert httpx.get(f"{server.url}/admin/").status_code == 404


def test_credentials_of_the_environment_are_not_taken(folder: Path) -> None:
    names = ("QSTASH_TOKEN", "QSTASH_CURRENT_SIGNING_KEY", "QSTASH_URL", "QSTASH_REGION", "US_EAST_1_QSTASH_TOKEN")
    theirs = dict.fromkeys(names, "theirs")
    with DevServerProcess("--port=0", temporary=folder, environment=theirs) as server:
        assert server.ready().variables["QSTASH_TOKEN"] == TOKEN
        assert probe(server.port)


def test_the_port_can_come_from_the_variable_that_sdks_read(folder: Path, stranger: socket.socket) -> None:
    port = str(stranger.getsockname()[1])
    with DevServerProcess(temporary=folder, environment={"QSTASH_DEV_PORT": port}) as server:
        assert server.wait() == 1
        assert f"Port {port} is taken" in server.output


def test_it_can_listen_at_ipv6(folder: Path) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with DevServerProcess("--port=0", "--host=::1", temporary=folder) as server:
        assert server.ready().url.startswith("http://[::1]:")
        assert httpx.get(server.url).status_code == 200


# A port that is taken


def test_a_port_of_another_program_is_named(folder: Path, stranger: socket.socket) -> None:
    port = stranger.getsockname()[1]
    with DevServerProcess(f"--port={port}", temporary=folder) as server:
        assert server.wait() == 1
        assert f"Port {port} is taken by another program (address already in use)" in server.output
        assert f"--port {port + 1}" in server.output
        assert not READY.search(server.output)


def test_a_server_that_runs_already_is_good_enough(server: DevServerProcess, folder: Path) -> None:
    with DevServerProcess(f"--port={server.port}", temporary=folder) as second:
        assert second.wait() == 0
        assert READY.search(second.lines[0])
        assert "already running" in second.lines[0]
        assert second.variables == server.variables


def test_a_server_that_runs_with_other_data_is_not(server: DevServerProcess, folder: Path) -> None:
    with DevServerProcess(f"--port={server.port}", "--database=runs.sqlite3", temporary=folder) as second:
        assert second.wait() == 1
        assert "stop it first" in second.output
    assert not (folder / "runs.sqlite3").exists()


def test_a_server_of_another_user_is_another_program(server: DevServerProcess, folder: Path) -> None:
    with DevServerProcess(f"--port={server.port}", "--user=3", temporary=folder) as second:
        assert second.wait() == 1
        assert "taken by another program" in second.output


# Other refusals


def test_a_database_that_is_not_ours_is_left_alone(folder: Path) -> None:
    theirs = folder / "shop.sqlite3"
    with closing(sqlite3.connect(theirs)) as connection:
        connection.execute("CREATE TABLE customers (id)")
    before = theirs.read_bytes()
    with DevServerProcess("--port=0", f"--database={theirs}", temporary=folder) as server:
        assert server.wait() == 1
        assert "left alone" in server.output
    assert theirs.read_bytes() == before


def test_a_database_is_used_by_one_server_at_a_time(folder: Path) -> None:
    with DevServerProcess("--port=0", "--database=runs.sqlite3", temporary=folder) as first:
        first.ready()
        with DevServerProcess("--port=0", "--database=runs.sqlite3", temporary=folder) as second:
            assert second.wait() == 1
            assert "another server works on this database" in second.output


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("--host=no.such.host.invalid", "no address"),
        ("--host=192.0.2.1", "cannot listen at 192.0.2.1"),
        ("--database=missing/runs.sqlite3", "cannot be used as a database"),
    ],
)
def test_what_cannot_be_had_is_said_in_a_line(folder: Path, argument: str, said: str) -> None:
    with DevServerProcess("--port=0", argument, temporary=folder) as server:
        assert server.wait() == 1
        (line,) = server.lines
        assert said in line


# End


@pytest.fixture
def hangups_count() -> Iterator[None]:
    """Tests that `nohup` has started ignore the signal, and so does rightly a server that they start."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hangups_count")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_ends_it_and_leaves_nothing_behind(folder: Path, number: signal.Signals) -> None:
    with DevServerProcess("--port=0", temporary=folder) as server:
        server.ready()
        assert list(folder.iterdir())
        with socket.create_connection(("127.0.0.1", server.port)) as unfinished, httpx.Client() as idle:
            unfinished.sendall(b"GET / HTT")
            idle.get(server.url)
            assert server.end(number, timeout=5) == 0
        assert "Traceback" not in server.output
        assert list(folder.iterdir()) == []
        assert not server.left_behind


def test_a_signal_during_the_start_leaves_nothing_behind(folder: Path) -> None:
    with DevServerProcess("--port=0", temporary=folder) as server:
        eventually(lambda: any(folder.iterdir()))
        assert server.end(timeout=5) == 0
        assert "Traceback" not in server.output
    assert list(folder.iterdir()) == []


def test_the_next_start_tidies_up_after_one_that_was_killed(folder: Path) -> None:
    with DevServerProcess("--port=0", temporary=folder) as killed:
        killed.ready()
        killed.end(signal.SIGKILL)
    (left,) = folder.iterdir()
    with DevServerProcess("--port=0", temporary=folder) as first:
        first.ready()
        assert not left.exists()
        (own,) = folder.iterdir()
        with DevServerProcess("--port=0", temporary=folder) as second:
            second.ready()
            assert own.exists()


# In a project


def test_the_command_of_a_project_leaves_its_database_and_settings_alone(folder: Path) -> None:
    database = folder / "project.sqlite3"
    command = [sys.executable, str(ROOT / "manage.py"), "workflow_dev_server"]
    environment = {"DEMO_DB": str(database), "DJANGO_SETTINGS_MODULE": "example_project.settings"}
    with DevServerProcess(
        "--port=0", "--no-admin", temporary=folder, command=command, environment=environment
    ) as server:
        server.ready()
        assert probe(server.port)
        assert httpx.get(f"{server.url}/workflows/serve/fulfil_order/").status_code == 404
        assert server.end() == 0
        assert not server.left_behind
    assert not database.exists()


def test_the_command_says_that_it_does() -> None:
    text = load_command_class("django_workflow", "workflow_dev_server").create_parser("manage.py", "x").format_help()
    assert "python -m django_workflow.dev_server" in text
    assert "settings and database are neither read nor changed" in " ".join(text.split())
