"""The official clients that `tests/interop` runs: npm packages and a Python environment, both in `.interop/`.

They are no dependency of the package and stay out of the project's own environment. What is wanted stands in
`tests/interop/package.json` and `tests/interop/requirements.txt`; when these change, all is installed again. Standard
library alone, and the only place that downloads: the tests use what they find here, and fail without it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.services import packages

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / ".interop"
NODE_MODULES = FOLDER / "node_modules"
PYTHON = FOLDER / "venv" / "bin" / "python"

PACKAGES = ROOT / "tests/interop/package.json"
REQUIREMENTS = ROOT / "tests/interop/requirements.txt"

_STAMP = FOLDER / "installed"


def node() -> str | None:
    """The path of node: the one that WORKFLOW_TEST_NODE names, else the one on PATH."""
    return os.environ.get("WORKFLOW_TEST_NODE") or shutil.which("node")


def why_missing() -> str | None:
    """Why the clients cannot be run, and what to do about it; None when all is there."""
    if node() is None:
        return "Node.js is missing: install it (`apt-get install nodejs npm`), then `make clients`"
    if not _STAMP.exists():
        return "the official clients are not installed: `make clients`"
    if _STAMP.read_text() != _wanted():
        return "the official clients are others than those that tests/interop names: `make clients`"
    return None


def install() -> str | None:
    """Bring the clients; returns why that failed, or None."""
    missing = packages.install([name for name in ("node", "npm") if name != "node" or node() is None])
    if missing:
        return "; ".join(f"{name}: {reason}" for name, reason in missing.items())
    if why_missing() is None:
        return None
    print(f"Installing the official clients into {FOLDER.name}", flush=True)
    # Without a stamp a half-made folder is made again.
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    shutil.copy(PACKAGES, FOLDER)
    venv = PYTHON.parent.parent
    for command in (
        # No lock file: it would name the registry. Nothing that is installed may run anything by itself.
        ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"],
        [sys.executable, "-m", "venv", venv],
        [PYTHON, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", "-r", REQUIREMENTS],
        [PYTHON, "-m", "pip", "check", "-q", "--disable-pip-version-check"],
    ):
        done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=False)
        if done.returncode:
            words = (done.stderr or done.stdout).strip()[-1000:]
            return f"{' '.join(map(str, command[:4]))} failed: {words}"
    _STAMP.write_text(_wanted())
    return None


def _wanted() -> str:
    """A digest of all that decides what is installed."""
    parts = (PACKAGES.read_bytes(), REQUIREMENTS.read_bytes(), sys.version.encode(), str(FOLDER).encode())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()
