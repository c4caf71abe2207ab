"""Databases that refuse, lock, fill up, lose connections or are started anew: runs wait, and end as they should."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from django.core.management import call_command
from django.db import OperationalError, connection
from django.db.backends.signals import connection_created

from django_workflow import WorkflowContext, workflow
from django_workflow.client.handle import RunHandle
from django_workflow.engine.worker import Worker
from django_workflow.models import JournalEntry, Run
from django_workflow.models import Worker as WorkerRow
from tests.effects.workflows import every_kind
from tests.engine.workers import ROOT, eventually
from tests.faults.crashes import REFUSALS
from tests.faults.invariants import all_over, assert_all_done, assert_sound
from tests.faults.nursery import Nursery

pytestmark = pytest.mark.django_db(transaction=True)

FEW, MANY = 4, 40


@pytest.mark.parametrize("how", REFUSALS)
@pytest.mark.parametrize(
    ("every", "runs"), [(5, FEW), pytest.param(3, MANY, marks=pytest.mark.slow)], ids=["short", "long"]
)
def test_commits_that_are_refused_or_unanswered(nursery: Nursery, how: str, every: int, runs: int) -> None:
    # An atomic step that the database refuses is a failed attempt.
    handles = [every_kind.trigger(0.0) for _ in range(runs)]
    worker = nursery.worker(crash=(how, every), patches={"django_workflow.engine.worker:HEARTBEAT_SECONDS": 0.2})
    eventually(all_over, 60)
    worker.kill()  # it cannot leave in order: its last commits are refused as well
    last = nursery.worker()
    eventually(lambda: list(WorkerRow.objects.values_list("pid", flat=True)) == [last.pid])
    assert last.stop() == 0
    assert_all_done(handles)


# SQLite


@workflow(name="large", retries=0)
def large(ctx: WorkflowContext[int]) -> list[int]:
    return [len(ctx.run(f"grow {n}", lambda: "x" * ctx.request_payload)) for n in range(3)]


@contextmanager
def locked_by_another_process() -> Iterator[None]:
    """Another process writes to the file, for as long as the block lasts."""
    code = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); "
        "c.execute('PRAGMA busy_timeout=30000'); c.execute('BEGIN IMMEDIATE'); print('locked', flush=True); "
        "sys.stdin.read(); c.execute('COMMIT')"
    )
    name = str(connection.settings_dict["NAME"])
    with subprocess.Popen(
        [sys.executable, "-c", code, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield
        process.communicate()
    assert process.returncode == 0


@pytest.mark.sqlite
@pytest.mark.parametrize("seconds", [0.5, pytest.param(10.0, marks=pytest.mark.slow)])
def test_a_file_that_another_process_has_locked(nursery: Nursery, seconds: float) -> None:
    handles = [every_kind.trigger(0.01) for _ in range(FEW)]
    worker = nursery.worker()
    eventually(lambda: JournalEntry.objects.exclude(step_id=None).exists())
    with locked_by_another_process():
        # The length of the lock is what is tested.
        Event().wait(seconds)
        assert Run.objects.active().exists()
    eventually(all_over, 60)
    assert worker.stop() == 0
    assert_all_done(handles)


@pytest.fixture
def disk() -> Iterator[dict[str, int]]:
    """How many pages the file may have, for connections that are opened from now on."""
    disk = {"pages": 0}

    def limit(sender: Any, connection: Any, **kwargs: Any) -> None:
        if disk["pages"]:
            with connection.cursor() as cursor:
                cursor.execute(f"PRAGMA max_page_count = {disk['pages']}")

    connection_created.connect(limit)
    yield disk
    connection_created.disconnect(limit)


@pytest.mark.sqlite
def test_a_full_disk_holds_runs_up_until_there_is_room(disk: dict[str, int], caplog: Any) -> None:
    handle = large.using(delay="1h").trigger(100_000)
    with connection.cursor() as cursor:
        cursor.execute("VACUUM")  # other tests have left free pages in the file
        pages: int = cursor.execute("PRAGMA page_count").fetchone()[0]
    disk["pages"] = pages + 10
    Run.objects.get(run_id=handle.id).deliveries.update(due_at=handle.run.created_at)
    worker = Worker(concurrency=2)
    worker.start()
    try:
        eventually(lambda: any("disk is full" in record.getMessage() for record in caplog.records))
        assert handle.run.status not in Run.FINAL
        disk["pages"] = 0
        eventually(all_over)
    finally:
        disk["pages"] = 0
        assert worker.drain()
    assert (handle.run.status, handle.run.result) == (Run.Status.SUCCESS, "[100000,100000,100000]")
    assert_sound()


# PostgreSQL


@pytest.mark.postgresql
def test_connections_that_are_cut_in_the_middle_of_their_transactions(nursery: Nursery) -> None:
    handles = [every_kind.trigger(0.01) for _ in range(FEW)]
    worker = nursery.worker()
    cut = 0
    while not all_over():
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() "
                "AND pid != pg_backend_pid() AND state LIKE '%in transaction%'"
            )
            cut += cursor.fetchone()[0]
        Event().wait(0.02)
    assert cut
    assert worker.stop() == 0
    assert_all_done(handles)


@pytest.fixture
def own_postgresql(settings: Any) -> Iterator[Any]:
    """A server of this test alone, whose commits survive a power cut; the test's connection goes there."""
    import shutil
    import tempfile

    from tests.services.addresses import database_settings
    from tests.services.servers import CannotStart, Postgresql

    folder = Path(tempfile.mkdtemp(prefix="workflow-", dir="/tmp"))  # a socket's path must be short
    folder.chmod(0o755)
    server = Postgresql(folder, durable=True)
    before = dict(connection.settings_dict)
    try:
        server.url = server.start()  # type: ignore[attr-defined]
    except CannotStart as error:
        shutil.rmtree(folder)
        pytest.skip(f"needs a PostgreSQL server of its own: {error}")
    connection.close()
    connection.settings_dict.update(database_settings(server.url), NAME="postgres")  # type: ignore[attr-defined]
    try:
        call_command("migrate", verbosity=0, run_syncdb=True)
        yield server
    finally:
        connection.close()
        connection.settings_dict.clear()
        connection.settings_dict.update(before)
        server.stop()
        shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.postgresql
def test_a_server_that_is_started_anew_under_load(own_postgresql: Any, tmp_path: Path) -> None:
    server = own_postgresql
    environment = {"WORKFLOW_TEST_POSTGRESQL_URL": server.url, "WORKFLOW_TEST_DATABASE_NAME": "postgres"}
    handles: list[RunHandle] = []
    with Nursery(tmp_path / "log", **environment) as nursery:
        workers = [nursery.worker(), nursery.worker()]
        for _ in range(3):
            while len(handles) % 10 or not handles or all_over():
                handles.append(every_kind.trigger(0.01))
            eventually(lambda: JournalEntry.objects.exists(), 90)
            server.stop()  # at once, as when it is killed: it recovers from its log
            with pytest.raises(OperationalError):
                every_kind.trigger(0.0)
            restart(server)
            connection.close()
            handles.append(every_kind.trigger(0.0))
        eventually(all_over, 120)
        assert [worker.stop() for worker in workers] == [0, 0]
    assert_all_done(handles)


def restart(server: Any) -> None:
    with suppress(FileNotFoundError):
        (server.folder / "data" / "postmaster.pid").unlink()
    options = ("-c", "listen_addresses=", "-c", f"unix_socket_directories={server.folder}", "-c", "fsync=on")
    server.launch(server.program(), "-D", server.folder / "data", *options, url=server.url)
