"""The official clients, unmodified, against the engine's HTTP door: one server and its endpoints for all these tests.

All of them share an xdist group, so that one process starts everything once. Where the clients are missing, they fail.
"""

from __future__ import annotations

import re
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.interop.destination import Box, Destination, destination_server
from tests.interop.engine import Engine
from tests.interop.processes import Child, Client
from tests.services import clients

HERE = Path(__file__).parent
LOGS = pytest.StashKey[Path]()
BEFORE = pytest.StashKey[dict[Path, int]]()


@pytest.hookimpl(tryfirst=True)  # before `-m` is applied
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker("interop")
            item.add_marker(pytest.mark.xdist_group("interop"))


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """The scripts of the tests next to the packages that they import, and the logs of all processes."""
    if reason := clients.why_missing():
        pytest.fail(reason, pytrace=False)
    folder = request.config.stash[LOGS] = tmp_path_factory.mktemp("interop")
    (folder / "node_modules").symlink_to(clients.NODE_MODULES)
    for script in (*HERE.glob("clients/*"), *HERE.glob("apps/*")):
        shutil.copy(script, folder)
    return folder


@pytest.fixture(scope="session")
def start_engine(folder: Path) -> Callable[[], Engine]:
    """Starts a Django server with the engine's door and a worker; `with` it."""

    def start() -> Engine:
        log = folder / f"server-{secrets.token_hex(2)}.log"
        return Engine([sys.executable, "-m", "tests.interop.server"], log=log, temporary=folder)

    return start


@pytest.fixture(scope="session")
def engine(start_engine: Callable[[], Engine]) -> Iterator[Engine]:
    with start_engine() as engine:
        yield engine


@pytest.fixture(scope="session")
def start_node(folder: Path) -> Callable[..., Child]:
    """Runs a script by Node.js, with an engine's block in its environment."""

    def start(script: str, engine: Engine, kind: Callable[..., Any] = Child) -> Any:
        log = (folder / script).with_suffix(".log")
        return kind([str(clients.node()), folder / script], log=log, environment=engine.environment)

    return start


@pytest.fixture(scope="session")
def start_python(folder: Path) -> Callable[..., Child]:
    """Runs a script by the Python of the official clients, with an engine's block in its environment."""

    def start(script: str, engine: Engine, kind: Callable[..., Any] = Child) -> Any:
        # Nothing of this project shall be found.
        environment = {**engine.environment, "PYTHONPATH": ""}
        return kind([clients.PYTHON, folder / script], log=folder / f"{script}.log", environment=environment)

    return start


@pytest.fixture(scope="session")
def js(engine: Engine, start_node: Callable[..., Client]) -> Iterator[Client]:
    """Runs JavaScript with `@upstash/workflow` and `@upstash/qstash`."""
    with start_node("client.mjs", engine, Client) as client:
        yield client


@pytest.fixture(scope="session")
def py(engine: Engine, start_python: Callable[..., Client]) -> Iterator[Client]:
    """Runs Python with `qstash`."""
    with start_python("client.py", engine, Client) as client:
        yield client


@pytest.fixture(scope="session")
def express(engine: Engine, start_node: Callable[..., Child]) -> Iterator[str]:
    """The address below which the workflows of `apps/express_app.mjs` answer."""
    with start_node("express_app.mjs", engine) as app:
        yield f"http://127.0.0.1:{app.ready['port']}/workflows"


@pytest.fixture(scope="session")
def fastapi(engine: Engine, start_python: Callable[..., Child]) -> Iterator[str]:
    """The address below which the workflows of `apps/fastapi_app.py` answer."""
    with start_python("fastapi_app.py", engine) as app:
        yield f"http://127.0.0.1:{app.ready['port']}"


@pytest.fixture(scope="session")
def destination() -> Iterator[Destination]:
    with destination_server() as destination:
        yield destination


@pytest.fixture
def box(destination: Destination, request: pytest.FixtureRequest) -> Box:
    """A path of the destination that only this test knows."""
    return Box(destination, f"/{re.sub(r'[^a-z_]+', '-', request.node.name)}-{secrets.token_hex(3)}")


@pytest.fixture
def unique() -> str:
    """A name that no other test has: for queues, keys, labels, events."""
    return f"n{secrets.token_hex(6)}"


Trigger = Callable[..., str]
Records = Callable[[str], list[Any]]


@pytest.fixture
def trigger(js: Client, express: str) -> Trigger:
    """Starts a workflow of the Express application with the official client: its name and the options of `trigger`."""

    def trigger(name: str, body: Any = None, **options: Any) -> str:
        options = {"url": f"{express}/{name}", **({} if body is None else {"body": body}), **options}
        run_id: str = js("return (await workflow.trigger(options)).workflowRunId", options=options)
        return run_id

    return trigger


@pytest.fixture
def records(express: str) -> Records:
    """What a run of the Express application noted outside of its results."""

    def records(run_id: str) -> list[Any]:
        noted = httpx.get(f"{express.removesuffix('/workflows')}/records/{run_id}", trust_env=False)
        return list(noted.raise_for_status().json())

    return records


def wait_for_waiter(js: Client, event_id: str) -> list[dict[str, Any]]:
    """Who waits for the event, as the official client lists it, as soon as somebody does."""
    found: list[dict[str, Any]] = js(
        """
        for (let asked = 0; asked < 500; asked++) {
          const found = await workflow.getWaiters({ eventId });
          if (found.length) return found;
          await new Promise((resolve) => setTimeout(resolve, 20));
        }
        throw new Error(`nobody waits for ${eventId}`);
        """,
        eventId=event_id,
    )
    return found


def pytest_runtest_setup(item: pytest.Item) -> None:
    if LOGS in item.config.stash:
        item.stash[BEFORE] = {log: log.stat().st_size for log in item.config.stash[LOGS].glob("*.log")}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Any:
    """A failure shows what the processes said during the test."""
    report = yield
    if report.failed and LOGS in item.config.stash:
        before = item.stash.get(BEFORE, {})
        for log in sorted(item.config.stash[LOGS].glob("*.log")):
            said = log.read_bytes()[before.get(log, 0) :].decode(errors="replace")
            if said:
                report.sections.append((log.name, said[-3000:]))
    return report
