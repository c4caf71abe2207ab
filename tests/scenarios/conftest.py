"""The engine that a scenario drives: one test for each edge (`edges.py`), unless it is marked for some of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.scenarios.edges import Engine, InProcess, OnTheWire, embedded
from tests.scenarios.hosted_edges import EngineApart, StubServer, apart, stub
from tests.scenarios.summary import EDGES
from tests.selection import edges_here

__all__ = ["Engine"]

HOSTED = ("apart", "stub")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "edges(*names, reason): the scenario runs over these edges only, for a reason that users would accept",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "engine" not in metafunc.fixturenames:
        return
    marker = metafunc.definition.get_closest_marker("edges")
    chosen = EDGES if marker is None else marker.args
    if marker is not None and not marker.kwargs.get("reason"):
        raise pytest.UsageError(f"{metafunc.definition.nodeid}: say why it runs over some edges only (reason=…).")
    metafunc.parametrize("engine", [_param(edge) for edge in edges_here(chosen)], indirect=True)


def _param(edge: str) -> Any:
    marks = [pytest.mark.django_db(transaction=edge in HOSTED)]
    return pytest.param(edge, marks=[*marks, pytest.mark.heavy] if edge == "apart" else marks)


@pytest.fixture
def engine(request: pytest.FixtureRequest, settings: Any, caplog: pytest.LogCaptureFixture) -> Iterator[Engine]:
    edge: str = request.param
    if edge == "apart":
        with apart(request.getfixturevalue("engine_apart"), settings) as engine:
            yield engine
    elif edge == "stub":
        with stub(request.getfixturevalue("stub_server"), settings) as engine:
            yield engine
    else:
        with embedded(InProcess if edge == "in_process" else OnTheWire) as engine:
            yield engine
    # What goes wrong with the rows of hosted runs hurts no delivery, and would be seen here only.
    records = [each for each in caplog.get_records("call") if each.name == "django_workflow.mirror" and each.exc_info]
    assert not records, [f"{each.getMessage()} {each.exc_info}" for each in records]


@pytest.fixture(scope="session")
def engine_apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineApart]:
    process = EngineApart(tmp_path_factory.mktemp("engine") / "log")
    try:
        yield process
    finally:
        process.close()


@pytest.fixture(scope="session")
def stub_server() -> Iterator[StubServer]:
    server = StubServer()
    try:
        yield server
    finally:
        server.close()
