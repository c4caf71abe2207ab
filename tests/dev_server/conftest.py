"""Servers for these tests. No database of the test project is used."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dev_server.processes import Destination, DevServerProcess, destination_server


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevServerProcess]:
    """One server for all tests that leave it as it is."""
    with DevServerProcess("--port=0", "--verbosity=2", temporary=tmp_path_factory.mktemp("server")) as server:
        yield server.ready()


@pytest.fixture
def destination() -> Iterator[Destination]:
    with destination_server() as destination:
        yield destination


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder for temporary files of a server that a test starts itself."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    return folder
