"""The unit tests on other pairs of Python and Django than the one in `.venv`.

Each pair has an environment of its own, `.venv-newest` or `.venv-<python>-<django>`, made again when pyproject.toml or
constraints.txt changed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.services.passes import ROOT, Pass, run_passes

EXTRAS = ".[dev,docs,redis,postgres,mysql]"

PYTHONS = ("3.11", "3.12", "3.13", "3.14")
DJANGOS = {"5.2": "5.2.19", "6.0": "6.0.10", "6.1": "6.1.3"}
# Django 6 needs Python 3.12. Django 5.2 and 6.0 are on 3.14 by their release notes.
NOT_PAIRED = {("3.11", "6.0"), ("3.11", "6.1")}
NEWEST = ("3.13", "6.1")

# No service is needed for these.
MARKS = "not slow and not browser and not redis and not node and not interop"
# `make verify` leaves out what takes long and depends on neither version; `make matrix` runs it on every pair.
NEWEST_MARKS = f"{MARKS} and not heavy"


@dataclass(frozen=True)
class Pair:
    python: str
    django: str

    def __str__(self) -> str:
        return f"Django {DJANGOS[self.django]} on Python {self.python}"


ALL_PAIRS = tuple(
    Pair(python, django) for python in PYTHONS for django in DJANGOS if (python, django) not in NOT_PAIRED
)


def find_python(version: str) -> Path | None:
    """The interpreter of a version such as "3.13": pyenv's newest, else the one on PATH."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    patches = (path for path in pyenv.glob(f"{version}.*/bin/python") if path.parent.parent.name[-1].isdigit())
    newest_first = sorted(patches, key=lambda path: int(path.parent.parent.name.rpartition(".")[2]), reverse=True)
    on_path = shutil.which(f"python{version}")
    for path in [*newest_first, *([Path(on_path)] if on_path else [])]:
        # A pyenv shim is on PATH for every version, also for those it will not run.
        if subprocess.run([path, "-c", "import ensurepip"], capture_output=True, check=False).returncode == 0:
            return path
    return None


def environment(pair: Pair, folder: Path) -> Path | None:
    """Make or refresh the environment of `pair` in `folder`. Returns its python, or None without an interpreter."""
    python = find_python(pair.python)
    if python is None:
        return None
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    wanted = hashlib.sha256(f"{python}\n{pair}\n{constraints}\n{project}".encode()).hexdigest()
    stamp = folder / "installed"
    inside = folder / "bin" / "python"
    if stamp.exists() and stamp.read_text() == wanted:
        return inside
    print(f"Installing {pair} into {folder.name}", flush=True)
    subprocess.run([python, "-m", "venv", "--clear", folder], check=True)
    others = [line for line in constraints.splitlines() if not line.lower().startswith("django==")]
    mine = folder / "constraints.txt"
    mine.write_text("\n".join([*others, f"Django=={DJANGOS[pair.django]}", ""]))
    install = [inside, "-m", "pip", "install", "-q", "--disable-pip-version-check", "-c", mine, "-e", EXTRAS]
    subprocess.run(install, cwd=ROOT, check=True)
    stamp.write_text(wanted)
    return inside


def install_newest() -> int:
    environment(Pair(*NEWEST), ROOT / ".venv-newest")
    return 0


def newest_pass() -> Pass:
    """The tests on the newest pair, once its environment is made."""
    return _pass(Pair(*NEWEST), ROOT / ".venv-newest", NEWEST_MARKS)


def test_newest(arguments: list[str]) -> int:
    return _run([newest_pass()], arguments)


def test_matrix(arguments: list[str]) -> int:
    passes = [_pass(pair, ROOT / f".venv-{pair.python}-{pair.django}", MARKS) for pair in ALL_PAIRS]
    return _run(passes, arguments, WORKFLOW_TEST_EVERYTHING="1")


def _pass(pair: Pair, folder: Path, marks: str) -> Pass:
    python = environment(pair, folder)
    if python is None:
        print(f"{pair} is not run: this machine has no Python {pair.python}", flush=True)
    return Pass(str(pair), marks, python=python)


def _run(passes: Sequence[Pass], arguments: list[str], **variables: str) -> int:
    results = run_passes(passes, arguments, {**os.environ, **variables})
    print("\nResult")
    for result in results:
        print(f"  {result}")
    return int(any(result.failed for result in results))
