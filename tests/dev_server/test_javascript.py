"""The official JavaScript clients with QSTASH_DEV=true, and nothing else, find the server and download nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.dev_server.processes import DevServerProcess
from tests.services import clients

SCRIPT = Path(__file__).parent / "dev_mode.mjs"


@pytest.mark.interop
def test_an_application_in_dev_mode_uses_the_running_server(server: DevServerProcess, tmp_path: Path) -> None:
    if reason := clients.why_missing():
        pytest.fail(reason, pytrace=False)
    (tmp_path / "node_modules").symlink_to(clients.NODE_MODULES)
    script = shutil.copy(SCRIPT, tmp_path)
    home = tmp_path / "home"
    home.mkdir()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),  # a server that the SDK downloads would be kept in its cache
        "QSTASH_DEV": "true",
        "QSTASH_DEV_PORT": str(server.port),
        "UPSTASH_DISABLE_TELEMETRY": "1",
    }
    command = [str(clients.node()), str(script)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {"verified": True, "greeting": "hello world"}
    assert f"Server already running at http://127.0.0.1:{server.port}" in done.stdout
    assert list(home.iterdir()) == []
