"""Which tests run where: what is left out of a pass, and why.

| pass | what runs | what is left out there |
|---|---|---|
| SQLite | all | |
| PostgreSQL, MariaDB | `every_database` | what touches no database; of two edges with the same statements one |
| the newest pair | all that need no service | `heavy` |

`WORKFLOW_TEST_EVERYTHING=1` leaves nothing of this out; `make matrix` sets it. The marks are described in
pyproject.toml, the passes in `tests/services/suite.py` and `pairs.py`.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
DATABASE = os.environ.get("WORKFLOW_TEST_DATABASE", "sqlite")
DATABASE_MARKS = {"sqlite", "postgresql", "mariadb"}
EVERYTHING = os.environ.get("WORKFLOW_TEST_EVERYTHING") == "1"

ON_EVERY_DATABASE = {"engine", "faults", "mirror", "models", "scenarios"}
# pytest-django keeps a test that asks for none of these away from the database: it would be the same on all of them.
DATABASE_FIXTURES = {"db", "transactional_db", "live_server", "django_db_setup"}

# Of processes that start, die and are started again. What they are made of (the worker, the engine's API, the admin)
# has tests of its own, which run on every pair of Python and Django.
HEAVY = {"dev_server", "faults"}

SAME_STATEMENTS_AS = {"on_the_wire": "in_process", "apart": "stub"}
"""For an edge of the scenarios another one, whose statements on this project's database are the same: what differs is
how messages travel, and that is the same on every database."""


def add_marks(item: pytest.Item) -> None:
    """Give the test the marks that follow from where it stands and what it asks for."""
    folder = item.path.relative_to(TESTS).parts[0] if item.path.is_relative_to(TESTS) else ""
    if folder in ON_EVERY_DATABASE and (EVERYTHING or may_use_the_database(item)):
        item.add_marker("every_database")
    if folder in HEAVY:
        item.add_marker("heavy")


def may_use_the_database(item: pytest.Item) -> bool:
    names = getattr(item, "fixturenames", ())
    return item.get_closest_marker("django_db") is not None or not DATABASE_FIXTURES.isdisjoint(names)


def is_for_another_database(item: pytest.Item) -> bool:
    marks = {mark.name for mark in item.iter_markers()} & DATABASE_MARKS
    return bool(marks) and DATABASE not in marks


def edges_here(chosen: tuple[str, ...]) -> list[str]:
    """Those of the edges that a scenario runs over on this database."""
    if EVERYTHING or DATABASE == "sqlite":
        return list(chosen)
    return [edge for edge in chosen if SAME_STATEMENTS_AS.get(edge) not in chosen]
