from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.services.passes import NO_TESTS, Pass, Result, run_passes

MakePass = Callable[[str, str], Pass]


@pytest.fixture
def make_pass(tmp_path: Path) -> MakePass:
    """A pass with that title whose "Python" is a shell script."""

    def make(title: str, script: str) -> Pass:
        file = tmp_path / title
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)
        return Pass(title, "not slow", python=file)

    return make


def test_results_come_in_the_order_of_the_passes(make_pass: MakePass) -> None:
    passes = [make_pass("one", "exit 1"), Pass("none", "slow", python=None), make_pass("two", f"exit {NO_TESTS}")]
    results = run_passes(passes, [], {})
    assert [(result.title, result.code, result.failed) for result in results] == [
        ("one", 1, True),
        ("none", None, False),
        ("two", NO_TESTS, False),
    ]


def test_a_pass_that_was_killed_has_failed() -> None:
    assert Result("one", -9).failed


def test_each_line_comes_after_the_title_of_its_pass(make_pass: MakePass, capsys: pytest.CaptureFixture[str]) -> None:
    run_passes([make_pass("one", 'echo "$WORKFLOW_TEST_DATABASE $5"; echo wrong >&2')], ["-x"], {})
    assert capsys.readouterr().out.splitlines() == ["one        | sqlite not slow", "one        | wrong"]


def test_two_run_at_a_time(make_pass: MakePass, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # opening one end waits for the other
    writer = make_pass("writer", f"timeout 60 sh -c 'echo hello > {tmp_path}/pipe'")
    reader = make_pass("reader", f"test $(timeout 60 cat {tmp_path}/pipe) = hello")
    assert [result.code for result in run_passes([writer, reader], [], os.environ)] == [0, 0]


def test_bytecode_is_kept_even_where_python_is_told_not_to(
    make_pass: MakePass, capsys: pytest.CaptureFixture[str]
) -> None:
    each = make_pass("one", 'echo "[$PYTHONDONTWRITEBYTECODE] $PYTHONPYCACHEPREFIX"')
    run_passes([each], [], {"PYTHONDONTWRITEBYTECODE": "1"})
    run_passes([each], [], {"PYTHONPYCACHEPREFIX": "/mine", "PYTHONDONTWRITEBYTECODE": "1"})
    run_passes([each], [], {})
    assert capsys.readouterr().out.splitlines() == [
        f"one        | [] {sys.prefix}/bytecode",
        "one        | [] /mine",
        "one        | [] ",
    ]
