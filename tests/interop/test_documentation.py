"""The programs of docs/howto/other-languages.md, run as a reader would run them."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.interop.conftest import wait_for_waiter
from tests.interop.engine import Engine
from tests.interop.processes import Client
from tests.services import clients

PAGE = Path(__file__).parents[2] / "docs/howto/other-languages.md"
START_SECONDS = 30
BLOCK = re.compile(r"^```\{code-block\} (?:javascript|python)\n:caption: (\S+)\n\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def site(folder: Path, tmp_path: Path) -> Path:
    """A folder with the files of the page, next to the packages that they import."""
    (tmp_path / "node_modules").symlink_to(clients.NODE_MODULES)
    for name, code in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        (tmp_path / name).write_text(code, encoding="utf-8")
    return tmp_path


@contextmanager
def running(command: list[Any], site: Path, environment: dict[str, str]) -> Iterator[None]:
    """A server of the page, from the moment its port answers."""
    with (site / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=site, env=environment, stdout=log, stderr=log)
    try:
        limit = time.monotonic() + START_SECONDS
        while not answers(int(environment["PORT"])):
            assert process.poll() is None, (site / "log").read_text()
            assert time.monotonic() < limit, (site / "log").read_text()
            time.sleep(0.02)
        yield
    finally:
        process.terminate()
        process.wait(20)


def answers(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


def run(command: list[Any], site: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(command, cwd=site, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


@pytest.fixture
def environment(engine: Engine, unused_tcp_port: int) -> dict[str, str]:
    return {**os.environ, **engine.environment, "PORT": str(unused_tcp_port), "PYTHONPATH": ""}


@pytest.mark.parametrize("app", ["express-app.mjs", "hono-app.mjs"])
def test_a_javascript_workflow_of_the_page_runs(
    engine: Engine, js: Client, site: Path, environment: dict[str, str], app: str
) -> None:
    node = clients.node()
    with running([node, app], site, environment):
        run_id = run([node, "start.mjs"], site, environment)
        wait_for_waiter(js, "confirm-ada@example.com")
        run([node, "confirm.mjs"], site, environment)
        rows = engine.wait(run_id, "success")
    assert rows.result == "ada@example.com confirmed by Ada"
    assert rows.names == ["create user", "let it settle", "confirmation", "welcome"]
    assert rows.run["labels"] == ["welcome"]


def test_a_python_workflow_of_the_page_runs(engine: Engine, site: Path, environment: dict[str, str]) -> None:
    port = environment["PORT"]
    server = [clients.PYTHON, "-m", "uvicorn", "fastapi_app:app", "--port", port]
    with running(server, site, environment):
        run([clients.PYTHON, "start.py"], site, environment)
        url = f"http://127.0.0.1:{port}/report"
        limit = time.monotonic() + START_SECONDS
        while (run_id := engine.newest(url)) is None:
            assert time.monotonic() < limit
            time.sleep(0.02)
        rows = engine.wait(run_id, "success")
    assert rows.results == {"collect": [0, 1, 4, 9], "let it settle": None, "sum": 14}


def test_the_call_of_the_page_starts_a_run(engine: Engine, js: Client, site: Path, environment: dict[str, str]) -> None:
    (command,) = re.findall(r"^\$ curl (.*?)^\{", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    command = command.replace(":3000/", f":{environment['PORT']}/").replace("\\\n", "")
    for name in ("QSTASH_URL", "QSTASH_TOKEN"):
        command = command.replace(f"${name}", environment[name])
    curl = argparse.ArgumentParser()
    curl.add_argument("-H", action="append")
    curl.add_argument("-d")
    curl.add_argument("url")
    options = curl.parse_args(shlex.split(command))
    headers = dict(header.split(": ") for header in options.H)
    with running([clients.node(), "express-app.mjs"], site, environment):
        answer = httpx.post(options.url, content=options.d, headers=headers, trust_env=False)
        wait_for_waiter(js, "confirm-ada@example.com")
        run([clients.node(), "confirm.mjs"], site, environment)
        rows = engine.wait(answer.json()["workflowRunId"], "success")
    assert rows.result == "ada@example.com confirmed by Ada"
