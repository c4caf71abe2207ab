"""The parts of the development server, each by itself."""

from __future__ import annotations

import base64
import importlib
import io
import json
import logging
import socket
import tomllib
from argparse import ArgumentParser
from pathlib import Path

import pytest

from django_workflow.dev_server import events, ports, storage
from django_workflow.dev_server.__main__ import main
from django_workflow.dev_server.errors import CannotStart
from django_workflow.dev_server.settings import allowed_hosts, is_public
from django_workflow.dev_server.users import USERS
from django_workflow.management.dev_server import Options, add_options
from tests.dev_server.processes import ROOT


def parse(*arguments: str) -> Options:
    parser = ArgumentParser()
    add_options(parser)
    parser.add_argument("--verbosity", type=int, default=1)
    return Options.of(vars(parser.parse_args(arguments)))


# Options


def test_options_without_any_are_those_of_qstash_dev(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QSTASH_DEV_PORT", raising=False)
    assert parse() == Options(port=8080, host="localhost", user=1, database=None, admin=True, verbosity=1)


def test_the_port_can_be_written_as_qstash_dev_has_it() -> None:
    assert parse("-port=8081").port == 8081


def test_an_option_goes_before_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QSTASH_DEV_PORT", "9000")
    assert parse().port == 9000
    assert parse("--port=9001").port == 9001


@pytest.mark.parametrize("port", ["http", "-1", "65536", ""])
def test_a_bad_port_is_refused(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(f"--port={port}")
    assert "is no port" in capsys.readouterr().err


def test_quiet_is_the_lowest_verbosity() -> None:
    assert parse("--quiet", "--verbosity=3").verbosity == 0


@pytest.mark.parametrize(
    "options",
    [
        Options(),
        Options(port=1, host="::1", user=4, database=Path("a b/c.sqlite3"), admin=False, verbosity=0, color=True),
        Options(color=False, verbosity=3),
    ],
)
def test_a_command_line_says_the_same_options(options: Options) -> None:
    parser = ArgumentParser()
    add_options(parser)
    parser.add_argument("--verbosity", type=int, default=1)
    parser.add_argument("--no-color", action="store_true")
    parser.add_argument("--force-color", action="store_true")
    assert Options.of(vars(parser.parse_args(options.arguments()))) == options


# Users


def test_tokens_are_the_documented_ones() -> None:
    """Source: QStash documentation, "Local Development"."""
    assert [user.token for user in USERS.values()] == [
        "eyJVc2VySUQiOiJkZWZhdWx0VXNlciIsIlBhc3N3b3JkIjoiZGVmYXVsdFBhc3N3b3JkIn0=",
        "eyJVc2VySUQiOiJ0ZXN0VXNlcjEiLCJQYXNzd29yZCI6InRlc3RQYXNzd29yZCJ9",
        "eyJVc2VySUQiOiJ0ZXN0VXNlcjIiLCJQYXNzd29yZCI6InRlc3RQYXNzd29yZCJ9",
        "eyJVc2VySUQiOiJ0ZXN0VXNlcjMiLCJQYXNzd29yZCI6InRlc3RQYXNzd29yZCJ9",
    ]


def test_sdks_can_read_the_user_out_of_a_token() -> None:
    assert json.loads(base64.b64decode(USERS[1].token))["UserID"] == "defaultUser"


# Ports


def test_all_addresses_of_a_host_listen_at_one_port(monkeypatch: pytest.MonkeyPatch) -> None:
    both = [(socket.AF_INET, 1, 6, "", ("127.0.0.1", 0)), (socket.AF_INET, 1, 6, "", ("127.0.0.2", 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: both)
    with ports.listening("both", 0) as sockets:
        names = [sock.getsockname() for sock in sockets]
    assert [host for host, _ in names] == ["127.0.0.1", "127.0.0.2"]
    assert len({port for _, port in names}) == 1


def test_an_address_that_this_machine_lacks_is_left_out_beside_another(monkeypatch: pytest.MonkeyPatch) -> None:
    known = [(socket.AF_INET, 1, 6, "", ("192.0.2.1", 0)), (socket.AF_INET, 1, 6, "", ("127.0.0.1", 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: known[::-1])
    with ports.listening("both", 0) as sockets:
        assert [sock.getsockname()[0] for sock in sockets] == ["127.0.0.1"]


def test_a_program_that_listens_at_all_addresses_has_the_port() -> None:
    with socket.create_server(("0.0.0.0", 0)) as theirs:
        port = theirs.getsockname()[1]
        with pytest.raises(ports.PortTaken, match=f"Port {port} is taken"), ports.listening("127.0.0.1", port):
            pass


def test_a_program_that_does_not_answer_in_http_is_no_development_server(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(ports, "PROBE_SECONDS", 0.05)
        assert not ports.answers_as(USERS[1], "127.0.0.1", silent.getsockname()[1])


# Hosts


@pytest.mark.parametrize(
    ("host", "public"),
    [("localhost", False), ("127.0.0.1", False), ("127.0.0.5", False), ("::1", False), ("0.0.0.0", True), ("::", True)],
)
def test_a_host_lets_others_in_or_not(host: str, public: bool) -> None:
    assert is_public(host) is public
    assert (allowed_hosts(host) == ["*"]) is public


# Storage


def test_a_file_of_the_server_is_taken_again(tmp_path: Path) -> None:
    for _ in range(2):
        with storage.database_file(tmp_path / "runs.sqlite3") as file:
            assert file == tmp_path / "runs.sqlite3"
    assert file.exists()


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("not a database, but a text that is long enough to be read as one\n" * 20)
    with pytest.raises(CannotStart, match="file is not a database"), storage.database_file(file):
        pass


def test_a_folder_of_another_person_or_a_link_is_no_leftover(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    elsewhere = tmp_path / "documents"
    elsewhere.mkdir()
    (elsewhere / "lock").touch()
    (tmp_path / f"{storage.PREFIX}link").symlink_to(elsewhere)
    with storage.database_file(None):
        assert (elsewhere / "lock").exists()
    assert (elsewhere / "lock").exists()


# Events


def lines_of(color: bool) -> tuple[io.StringIO, logging.Handler]:
    stream = io.StringIO()
    handler = events._Lines(stream)
    handler.setFormatter(events._Formatter(color))
    return stream, handler


def record(text: str, tone: str) -> logging.LogRecord:
    made = logging.LogRecord("x", logging.INFO, "", 0, text, None, None)
    made.tone = tone
    return made


def test_colours_are_left_out_where_nobody_sees_them() -> None:
    for color, start in ((True, "\x1b["), (False, "")):
        stream, handler = lines_of(color)
        handler.emit(record("out  POST", events.BAD))
        assert stream.getvalue().startswith(start)
        assert ("\x1b" in stream.getvalue()) is color


def test_what_others_send_stays_on_its_line() -> None:
    assert events._short("a\nb\x1b[2Jc\r") == "a b [2Jc"
    assert len(events._short("x" * 10_000)) == events.LONGEST + 1


@pytest.mark.parametrize(
    ("method", "target", "routine"),
    [
        ("POST", "/v2/publish/https://example.com", False),
        ("DELETE", "/v2/messages/msg_1", False),
        ("DELETE", "/v2/workflows/runs/wfr_1", False),
        ("GET", "/v2/logs", True),
        ("POST", "/v2/batch", True),  # after each step
        ("DELETE", "/v2/workflows/runs/wfr_1?cancel=false", True),  # at the end of a run
    ],
)
def test_what_workflows_send_by_themselves_is_for_higher_verbosities(method: str, target: str, routine: bool) -> None:
    assert events._is_routine(method, target) is routine


# The console script


def test_the_console_script_is_the_module() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, _, name = project["scripts"]["django-workflow-dev"].partition(":")
    assert getattr(importlib.import_module(module), name) is main
