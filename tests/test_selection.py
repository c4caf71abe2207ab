from __future__ import annotations

import pytest

from tests import selection
from tests.scenarios.summary import EDGES
from tests.selection import edges_here, may_use_the_database


def test_on_another_database_one_of_two_edges_with_the_same_statements_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "EVERYTHING", False)
    monkeypatch.setattr(selection, "DATABASE", "sqlite")
    assert edges_here(EDGES) == list(EDGES)
    monkeypatch.setattr(selection, "DATABASE", "mariadb")
    assert edges_here(EDGES) == ["in_process", "stub"]
    assert edges_here(("on_the_wire", "apart")) == ["on_the_wire", "apart"]
    monkeypatch.setattr(selection, "EVERYTHING", True)
    assert edges_here(EDGES) == list(EDGES)


@pytest.mark.django_db
def test_a_test_that_is_marked_may_use_the_database(request: pytest.FixtureRequest) -> None:
    assert may_use_the_database(request.node)


def test_a_test_with_a_fixture_of_the_database_may_use_it(db: None, request: pytest.FixtureRequest) -> None:
    assert may_use_the_database(request.node)


def test_another_may_not(request: pytest.FixtureRequest) -> None:
    assert not may_use_the_database(request.node)
