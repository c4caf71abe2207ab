"""What a step costs in process and over HTTP: statements and commits, on every connection, events included."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import current_thread
from typing import Any

import msgspec
import pytest
from django.db import connection
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper

from django_workflow import WorkflowContext, workflow
from django_workflow.engine import signing_keys
from django_workflow.engine.worker import Worker
from django_workflow.models import Run, Step
from django_workflow.testing import Harness, WorkflowClock, mock_calls
from tests.engine.workers import eventually
from tests.scenarios.edges import SITE, web_process

BOUNDARIES = ("BEGIN", "COMMIT", "SAVEPOINT", "RELEASE", "ROLLBACK", "SET ")
MAX_STATEMENTS, MAX_COMMITS = 7, 1.3
MAX_BY_ORM = 9
"""Statements of a step on databases without hot statements of their own."""
MAX_STATEMENTS_WHEN_BUSY, MAX_COMMITS_WHEN_BUSY = 2, 0.3
MAX_REPLAY = 60
"""What a step that is known costs at most, in readings of its JSON, also on a machine that is busy."""


@workflow(name="hot-path")
def hot_path(ctx: WorkflowContext[int]) -> int:
    for number in range(ctx.request_payload):
        ctx.run(f"step {number}", dict, n=number)
    return ctx.request_payload


def decoding_takes() -> float:
    """CPU seconds in which this machine reads one such result from JSON at this moment."""
    decode = msgspec.json.Decoder().decode
    best = math.inf
    for _ in range(20):
        started = time.process_time()
        for number in range(1000):
            decode(f'{{"n":{number}}}')
        best = min(best, (time.process_time() - started) / 1000)
    return best


@dataclass
class Cost:
    statements: int = 0
    commits: int = 0


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cost]:
    cost = Cost()
    commit = BaseDatabaseWrapper.commit

    def count_commit(self: BaseDatabaseWrapper) -> None:
        cost.commits += 1
        commit(self)

    def count_statement(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if not sql.startswith(BOUNDARIES):
            cost.statements += 1
        return execute(sql, params, many, context)

    monkeypatch.setattr(BaseDatabaseWrapper, "commit", count_commit)
    with connection.execute_wrapper(count_statement):
        yield cost


def has_statements_of_its_own() -> bool:
    return connection.vendor in ("sqlite", "postgresql")


@pytest.mark.django_db(transaction=True)
def test_a_step_of_a_lone_run_costs_few_statements_and_commits(
    workflow_clock: WorkflowClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = Harness()
    with counted(monkeypatch) as cost:
        handle = hot_path.trigger(10)
        harness._fill()
        while harness._ready:  # until the run's end, without the look for more that an idle worker takes
            harness._deliver(harness._ready.popleft())
    assert handle.run.status == Run.Status.SUCCESS
    assert cost.statements <= 10 * (MAX_STATEMENTS if has_statements_of_its_own() else MAX_BY_ORM), cost
    assert cost.commits <= 10 * MAX_COMMITS, cost


@pytest.mark.django_db(transaction=True)
def test_a_step_over_http_costs_no_more_of_them(
    workflow_clock: WorkflowClock, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    """Those of the web process are counted too: both use this connection here."""
    settings.DJANGO_WORKFLOW = {"base_url": SITE}
    signing_keys.verification_keys()  # looked up every few seconds only
    harness = Harness()
    with mock_calls(web_process) as recorder, counted(monkeypatch) as cost:
        handle = hot_path.trigger(10)
        harness._fill()
        while harness._ready:
            harness._deliver(harness._ready.popleft())
    assert handle.run.status == Run.Status.SUCCESS
    assert len(recorder.calls) == 11
    assert cost.statements <= 10 * (MAX_STATEMENTS if has_statements_of_its_own() else MAX_BY_ORM), cost
    assert cost.commits <= 10 * MAX_COMMITS, cost


@pytest.mark.django_db(transaction=True)
def test_the_five_hundredth_step_costs_what_the_tenth_does(
    workflow_clock: WorkflowClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    hot_path.trigger(520)
    harness = Harness()
    harness._fill()
    costs: list[tuple[int, float]] = []
    with counted(monkeypatch) as cost:
        for _ in range(520):
            before, started = cost.statements, time.process_time()
            harness._deliver(harness._ready.popleft())
            costs.append((cost.statements - before, time.process_time() - started))
    early, late = costs[10:60], costs[460:510]
    assert max(statements for statements, _ in late) <= max(statements for statements, _ in early)
    # Each replays what came before; the best of fifty is what it takes, whatever else the machine does.
    more = min(seconds for _, seconds in late) - min(seconds for _, seconds in early)
    assert more <= 450 * MAX_REPLAY * decoding_takes(), f"{more * 1e6 / 450:.2f} us for a step that is known"


@pytest.mark.django_db(transaction=True)
def test_runs_share_commits_and_statements_when_the_engine_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    runs, steps = 64, 10
    for _ in range(runs):
        hot_path.trigger(steps)
    with counted_in_worker(monkeypatch) as cost:
        worker = Worker(concurrency=16)
        worker.start()
        try:
            eventually(lambda: not Run.objects.active().exists(), timeout=120, every=0.05)
        finally:
            assert worker.drain()
    assert Step.objects.filter(status=Step.Status.SUCCESS).count() == runs * steps
    assert cost.commits <= MAX_COMMITS_WHEN_BUSY * runs * steps, cost
    assert cost.statements <= MAX_STATEMENTS_WHEN_BUSY * runs * steps, cost


@contextmanager
def counted_in_worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cost]:
    """What all of a worker's threads do: claims, timers and heartbeats too."""
    cost = Cost()
    commit = BaseDatabaseWrapper.commit
    run = CursorWrapper._execute_with_wrappers  # type: ignore[attr-defined]

    def is_workers() -> bool:
        return current_thread().name.startswith("workflow-")

    def count_commit(self: BaseDatabaseWrapper) -> None:
        cost.commits += is_workers()
        commit(self)

    def count_statement(self: Any, sql: str, *arguments: Any, **options: Any) -> Any:
        cost.statements += is_workers() and not sql.startswith(BOUNDARIES)
        return run(self, sql, *arguments, **options)

    monkeypatch.setattr(BaseDatabaseWrapper, "commit", count_commit)
    monkeypatch.setattr(CursorWrapper, "_execute_with_wrappers", count_statement)
    yield cost
