"""What tests/interop installs is told by name and version, and by nothing that names a place."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.services import clients, packages


def test_packages_of_npm_are_pinned_by_name_and_version() -> None:
    wanted = json.loads(clients.PACKAGES.read_text())["dependencies"]
    assert {"@upstash/workflow", "@upstash/qstash"} <= wanted.keys()
    assert [version for version in wanted.values() if not re.fullmatch(r"\d+\.\d+\.\d+", version)] == []


def test_packages_of_python_are_pinned_by_name_and_version() -> None:
    lines = [line for line in clients.REQUIREMENTS.read_text().splitlines() if not line.startswith("#")]
    assert {"qstash", "upstash-workflow"} <= {line.partition("==")[0] for line in lines}
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    folder = tmp_path / "clients"
    monkeypatch.setattr(clients, "FOLDER", folder)
    monkeypatch.setattr(clients, "_STAMP", folder / "installed")
    return folder


def test_missing_clients_are_told_with_the_command_that_brings_them(nothing_installed: Path) -> None:
    assert "make clients" in (clients.why_missing() or "")


def test_other_pins_ask_for_another_installation(
    nothing_installed: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    nothing_installed.mkdir()
    (nothing_installed / "installed").write_text(clients._wanted())
    assert clients.why_missing() is None
    changed = tmp_path / "requirements.txt"
    changed.write_text("qstash==9.9.9\n")
    monkeypatch.setattr(clients, "REQUIREMENTS", changed)
    assert "others than those" in (clients.why_missing() or "")


def test_without_npm_nothing_is_installed(nothing_installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "find", lambda name: None if name == "npm" else Path("/bin/true"))
    monkeypatch.setattr(packages, "_why_not", lambda: "it is not installed, and this machine has no apt-get")
    assert clients.install() == "npm: it is not installed, and this machine has no apt-get"
    assert not nothing_installed.exists()
