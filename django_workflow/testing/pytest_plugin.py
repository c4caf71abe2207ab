"""Fixtures for pytest-django: `pytest_plugins = ["django_workflow.testing.pytest_plugin"]` in conftest.py."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from django_workflow.testing.clock import WorkflowClock


@pytest.fixture(name="workflow_clock")
def _workflow_clock() -> Iterator[WorkflowClock]:
    """The engine's time, standing still until it is moved."""
    from django_workflow.testing.clock import workflow_clock

    with workflow_clock() as clock:
        yield clock
