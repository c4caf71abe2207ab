"""The engine's API behind real servers: what they make of paths, headers and bodies before Django sees them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import msgspec
import pytest
from django.db import connection

from django_workflow.engine.signing_keys import engine_token
from django_workflow.models import MessageLog
from tests.engine.http_api.conftest import MOUNT
from tests.engine.workers import ROOT, eventually

pytestmark = [pytest.mark.sqlite, pytest.mark.django_db(transaction=True)]

DESTINATION = "https://host.example/a%2Fb//c%3Fd/%20x/%C3%BC?x=1&y=%2F%26&x=2&z=%FF"

ASGI = "tests.asgi:application"
WSGI = "django.core.wsgi:get_wsgi_application()"
SERVERS = {
    "daphne": ("daphne", "-b", "127.0.0.1", "-p", "{port}", ASGI),
    "uvicorn": ("uvicorn", "--host", "127.0.0.1", "--port", "{port}", ASGI),
    "runserver": ("django", "runserver", "--noreload", "{port}"),
    "gunicorn": ("gunicorn", "--no-control-socket", "-b", "127.0.0.1:{port}", WSGI),
}


@contextmanager
def serving(name: str, folder: Path) -> Iterator[httpx.Client]:
    """A client of a server that runs until the block is left."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.engine.http_api.served_settings",
        "WORKFLOW_TEST_DATABASE_NAME": str(connection.settings_dict["NAME"]),
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", *(part.format(port=port) for part in SERVERS[name])]
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, cwd=folder)
    try:

        def answers() -> bool:
            assert process.poll() is None, log.read_text()
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        eventually(answers, every=0.05)
        base = f"http://127.0.0.1:{port}{MOUNT}"
        with httpx.Client(base_url=base, headers={"Authorization": f"Bearer {engine_token()}"}, timeout=30) as client:
            yield client
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


@pytest.mark.parametrize("name", SERVERS)
def test_what_is_sent_arrives(name: str, tmp_path: Path) -> None:
    with serving(name, tmp_path) as client:
        sent = {b"Upstash-Forward-X-User": "grün".encode()}
        answer = client.post(f"/v2/publish/{DESTINATION}", content=b"\xff\0", headers=list(sent.items()))
        assert answer.status_code == 200, answer.text
        message = MessageLog.objects.get()
        assert message.url == DESTINATION
        assert message.caller_ip == "127.0.0.1"
        assert msgspec.json.decode(message.config)["headers"] == {"X-User": "grün"}

        chunks = client.post("/v2/publish/https://host.example/", content=iter([b"ab", b"c"]))
        if name == "gunicorn":
            assert chunks.status_code == 411
        else:
            assert chunks.status_code == 200
            assert MessageLog.objects.latest("pk").body == "abc"

        refused = client.post("/v2/publish/https://host.example/", headers={"Upstash-Retries": "9" * 50_000})
        assert refused.status_code == (431 if name == "gunicorn" else 400)

        large = client.post("/v2/batch", json=[{"destination": "https://host.example/", "body": "x" * 6_000_000}])
        assert large.status_code == 200
        assert client.get("/v2/none/such").json() == {"error": "The engine has no GET /v2/none/such."}
        assert client.get("/v2/waiters/e", headers={"Authorization": ""}).status_code == 401
