"""The browser's modules: their own tests, run by Node.js, and what they weigh."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import django_workflow
from django_workflow.models import Run, Step
from django_workflow.realtime.labels import LABELS

STATIC = Path(django_workflow.__path__[0]) / "static/django_workflow"
SCRIPTS = ("store.js", "connection.js", "progress.js")
TESTS = Path(__file__).parent / "js"
KB = 1024


def weight(*names: str) -> int:
    """Bytes that travel, each file compressed by itself."""
    return sum(len(gzip.compress((STATIC / name).read_bytes(), 9, mtime=0)) for name in names)


@pytest.mark.node
@pytest.mark.parametrize("name", ["store", "connection"])
def test_the_modules_pass_their_own_tests(tmp_path: Path, name: str) -> None:
    for file in (*(STATIC / script for script in SCRIPTS), TESTS / f"{name}.test.mjs"):
        shutil.copy(file, tmp_path)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    node = os.environ.get("WORKFLOW_TEST_NODE") or shutil.which("node") or "node"
    run = subprocess.run(
        [node, "--test", f"{name}.test.mjs"], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert re.search(r"^# pass [1-9]", run.stdout, re.MULTILINE)


def test_the_widget_stays_light() -> None:
    assert weight(*SCRIPTS) <= 12 * KB
    assert weight("progress.css") <= 3 * KB


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_safe_under_a_strict_policy(name: str) -> None:
    text = (STATIC / name).read_text()
    forbidden = (
        r"\b(innerHTML|outerHTML|insertAdjacentHTML|DOMParser|document\.write|eval|Function)\b|setAttribute\(.style"
    )
    assert re.findall(forbidden, text) == []
    assert re.findall(r"(?:from|import\()\s*[\"'](?!\./)", text) == []  # nothing from elsewhere


def test_every_status_and_word_of_the_script_has_a_label() -> None:
    text = "".join((STATIC / script).read_text() for script in SCRIPTS)
    assert {f"step-{status}" for status in Step.Status.values} <= set(LABELS)
    assert set(Run.Status.values) <= set(LABELS)
    of_statuses = {f"step-{status}" for status in Step.Status.values} | set(Run.Status.values)
    assert [key for key in LABELS if key not in of_statuses and f'"{key}"' not in text] == []


def test_the_stylesheet_fits_both_directions_of_writing() -> None:
    text = (STATIC / "progress.css").read_text()
    physical = r"(?:margin|padding|border)-(?:left|right|top|bottom)|\b(?:left|right|width|height):|text-align"
    assert re.findall(physical, text) == []
    assert "prefers-reduced-motion" in text
    assert "forced-colors" in text
