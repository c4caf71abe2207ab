"""The fixtures that every folder uses, and what tests need; which of them run where is told in `selection.py`.

The marks are described in pyproject.toml, the environment variables in `tests/services/__init__.py`.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.test import TransactionTestCase

from django_workflow.authoring.registry import registry
from tests.emptying import empty_databases
from tests.selection import add_marks, is_for_another_database

pytest_plugins = ["django_workflow.testing.pytest_plugin", "tests.scenarios.summary"]

REQUIRE_ALL = os.environ.get("WORKFLOW_REQUIRE_ALL") == "1"


def _chromium() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome")
    return os.environ.get("WORKFLOW_TEST_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


def _node() -> str | None:
    return os.environ.get("WORKFLOW_TEST_NODE") or shutil.which("node")


def _redis() -> str | None:
    return os.environ.get("WORKFLOW_TEST_REDIS_URL")


NEEDS = {
    "redis": (_redis, "a Redis server (WORKFLOW_TEST_REDIS_URL)"),
    "browser": (_chromium, "Chromium"),
    "node": (_node, "Node.js"),
}


@pytest.hookimpl(tryfirst=True)  # before `-m` is applied
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    kept, elsewhere = [], []
    for item in items:
        add_marks(item)
        if item.get_closest_marker("redis"):
            # One process at a time, see `_redis_by_itself`; so that none waits for another of the same pass.
            item.add_marker(pytest.mark.xdist_group("redis"))
        (elsewhere if is_for_another_database(item) else kept).append(item)
    if elsewhere:
        config.hook.pytest_deselected(items=elsewhere)
    # Playwright leaves an event loop behind in this thread, which asynchronous tests cannot share.
    items[:] = sorted(kept, key=lambda item: item.get_closest_marker("browser") is not None)


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark, (find, description) in NEEDS.items():
        if item.get_closest_marker(mark) and not find():
            if REQUIRE_ALL:
                pytest.fail(f"This test needs {description}, and skips are failures here.", pytrace=False)
            pytest.skip(f"needs {description}")
    if item.get_closest_marker("browser"):
        # For the same event loop: Django would refuse the ORM in a thread that has one.
        os.environ.setdefault("DJANGO_ALLOW_ASYNC_UNSAFE", "true")


@pytest.fixture(scope="session", autouse=True)
def _tests_that_commit_empty_what_they_wrote() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransactionTestCase, "_fixture_teardown", empty_databases)
        yield


@pytest.fixture(autouse=True)
def _redis_by_itself(request: pytest.FixtureRequest) -> Iterator[None]:
    """One test at a time, over all passes: they share a server, and its pub/sub has no databases."""
    if request.node.get_closest_marker("redis") is None:
        yield
        return
    with (Path(tempfile.gettempdir()) / "workflow-tests-with-redis.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(autouse=True)
def no_two_workflows_of_one_name() -> Iterator[None]:
    """The first one keeps the name, so that a test which defines the second would run another test's workflow."""
    before = list(registry.clashes)
    yield
    assert registry.clashes == before


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Leave the reasons of skips to `python -m tests.services suite`, which sums them up over its passes."""
    path = os.environ.get("WORKFLOW_TEST_SKIPS")
    skipped = terminalreporter.stats.get("skipped", [])
    if path and skipped:
        reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in skipped)
        with Path(path).open("a", encoding="utf-8") as file:
            file.writelines(f"{count} x {reason}\n" for reason, count in sorted(reasons.items()))


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args: dict[str, Any]) -> dict[str, Any]:
    """Playwright drives the machine's own Chromium; its `page` fixture needs nothing else."""
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
    return {**browser_type_launch_args, "executable_path": _chromium(), "args": quiet}
