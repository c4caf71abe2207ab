"""The wheel that users install holds everything the package needs, and nothing of the project around it."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from email.message import Message
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "django_workflow"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = folder.glob("*.whl")
    with ZipFile(path) as archive:
        return archive


@pytest.fixture(scope="module")
def metadata(wheel: ZipFile) -> Message:
    with ZipFile(str(wheel.filename)) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode())


def test_every_file_of_the_package_is_in_the_wheel(wheel: ZipFile) -> None:
    files = (path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    missing = {str(path.relative_to(ROOT)) for path in files} - set(wheel.namelist())
    assert missing == set()
    assert "django_workflow/py.typed" in wheel.namelist()


@pytest.mark.parametrize("folder", ["locale", "migrations", "static", "templates"])
def test_a_folder_that_django_looks_for_is_in_the_wheel(wheel: ZipFile, folder: str) -> None:
    assert any(name.startswith(f"django_workflow/{folder}/") for name in wheel.namelist())


def test_the_wheel_holds_the_package_alone(wheel: ZipFile) -> None:
    tops = {name.partition("/")[0] for name in wheel.namelist()}
    assert tops == {"django_workflow", f"django_durable_workflow-{PROJECT['version']}.dist-info"}


def test_the_wheel_names_its_licence_and_pythons(metadata: Message) -> None:
    assert metadata["Name"] == "django-durable-workflow"
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Requires-Python"] == ">=3.11"


def test_a_version_in_the_package_is_that_of_the_metadata() -> None:
    text = (PACKAGE / "__init__.py").read_text(encoding="utf-8")
    assert re.findall(r'^__version__ = "(.+)"$', text, re.MULTILINE) in ([], [PROJECT["version"]])


def test_constraints_hold_names_and_versions_only() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = [line for line in lines if line and not line.startswith("#")]
    assert [line for line in pinned if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []


def test_every_direct_dependency_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {normalised(line.partition("==")[0]) for line in lines if "==" in line}
    extras = [requirement for group in PROJECT["optional-dependencies"].values() for requirement in group]
    asked = {normalised(re.split(r"[\[><=]", requirement)[0]) for requirement in PROJECT["dependencies"] + extras}
    assert asked - pinned == set()


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
