"""One action on many runs: what would happen, progress, the end, being stopped, going on after a crash."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User

from django_workflow import NonRetryableError, WorkflowContext, workflow
from django_workflow.control import bulk
from django_workflow.control.actions import ACTIONS, ActionRefused
from django_workflow.engine.clock import current_clock
from django_workflow.engine.pruner import prune_batch
from django_workflow.models import BulkChunk, BulkOperation, DeadLetter, Delivery, JournalEntry, Run
from django_workflow.protocol.identifiers import new_run_id, uuid7
from django_workflow.testing import run_workflows, workflow_clock
from django_workflow.testing.factories import make_run, make_worker
from tests.admin.builders import make_user

pytestmark = pytest.mark.django_db


def fragile() -> str:
    raise NonRetryableError("it is broken")


@workflow(name="bulky", retries=0)
def bulky(ctx: WorkflowContext[int]) -> list[Any]:
    return [ctx.run("first", int, 1), ctx.run("fragile", fragile), ctx.request_payload]


@pytest.fixture
def operator(db: None) -> User:
    return make_user("operator", "cancel_run", "resume_run")


def failed_runs(count: int) -> None:
    """One that has really failed, and the others like it."""
    handle = bulky.trigger(7)
    run_workflows()
    first = handle.run
    assert first.status == "failed"
    letter, (entry,) = first.dead_letter, first.journal.all()
    runs = []
    for _ in range(count - 1):
        run = copy.copy(first)
        run.pk, run.run_id = uuid7(), new_run_id()
        runs.append(run)
    Run.objects.bulk_create(runs)
    DeadLetter.objects.bulk_create(_copies(letter, runs))
    JournalEntry.objects.bulk_create(_copies(entry, runs))


def _copies(row: Any, runs: list[Run]) -> Iterator[Any]:
    for run in runs:
        made = copy.copy(row)
        made.pk, made.run_id = uuid7(), run.pk
        yield made


def counts(operation: BulkOperation) -> tuple[str, int, int, int, int]:
    operation.refresh_from_db()
    return operation.state, operation.total, operation.done, operation.failed, operation.skipped


def test_a_preview_tells_what_will_and_what_will_not_be_done(operator: User) -> None:
    living, over = make_run(status="running"), make_run(status="success")
    seen = bulk.preview(ACTIONS["cancel"], Run.objects.all(), user=operator)
    assert (seen.will, seen.will_count, seen.will_not_count, seen.total) == ([living], 1, 1, 2)
    assert seen.will_not == [(over, "The run is over: Success.")]


def test_a_preview_without_permission_says_so(operator: User) -> None:
    run = make_run(status="failed")
    seen = bulk.preview(ACTIONS["restart"], Run.objects.all(), user=operator)
    assert (seen.will, seen.will_not_count) == ([], 1)
    assert "restart_run" in seen.will_not[0][1]
    with pytest.raises(ActionRefused, match="restart_run"):
        bulk.start(ACTIONS["restart"], Run.objects.filter(pk=run.pk), by=operator)
    assert not BulkOperation.objects.exists()


def test_a_preview_of_many_shows_the_first(operator: User, django_assert_max_num_queries: Any) -> None:
    for _ in range(bulk.SHOWN + 5):
        make_run(status="running")
    with django_assert_max_num_queries(6):
        seen = bulk.preview(ACTIONS["cancel"], Run.objects.all(), user=operator)
    assert (len(seen.will), seen.will_count, seen.will_not_count) == (bulk.SHOWN, bulk.SHOWN + 5, 0)


def test_few_runs_are_done_at_once(operator: User) -> None:
    runs = [make_run(status=status) for status in ("running", "waiting", "success")]
    operation = bulk.start(ACTIONS["cancel"], Run.objects.all(), by=operator, reason="closing down")
    assert counts(operation) == ("done", 3, 2, 0, 1)
    assert operation.name == "Cancel 2 runs"  # as the preview counted: one is passed over
    assert bulk.errors_of(operation) == [(runs[2].run_id, "The run is over: Success.")]
    assert LogEntry.objects.filter(change_message__contains="closing down").count() == 2
    assert not BulkChunk.objects.exists()


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few runs are several batches of several chunks."""
    monkeypatch.setattr(bulk, "BATCH", 5)
    monkeypatch.setattr(bulk, "CHUNK", 20)


@pytest.mark.usefixtures("small_batches")
def test_many_failed_runs_are_resumed_by_the_worker_with_progress(operator: User) -> None:
    failed_runs(55)
    operation = _in_background(ACTIONS["resume"], Run.objects.all(), by=operator)
    assert counts(operation) == ("running", 55, 0, 0, 0)
    seen = []
    while bulk.advance_due():
        operation.refresh_from_db()
        seen.append(operation.tried)
    assert seen == list(range(5, 56, 5))
    assert counts(operation) == ("done", 55, 55, 0, 0)
    resumed = Run.objects.filter(trigger_kind="resume", status="queued")
    assert resumed.count() == resumed.values("resumed_from").distinct().count() == 55
    assert Delivery.objects.filter(run__in=resumed, position=1).count() == 55
    assert not DeadLetter.objects.exists()


@pytest.mark.usefixtures("small_batches")
def test_an_operation_is_stopped_between_runs(operator: User) -> None:
    failed_runs(12)
    operation = _in_background(ACTIONS["resume"], Run.objects.all(), by=operator)
    assert bulk.advance(operation)
    assert bulk.abort(operation)
    assert not bulk.abort(operation)
    assert not bulk.advance(operation)
    assert counts(operation) == ("aborted", 12, 5, 0, 0)
    assert operation.finished_at is not None
    assert Run.objects.filter(trigger_kind="resume").count() == 5


def test_a_crash_in_a_batch_counts_no_run_twice(operator: User, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(8):
        make_run(status="running")
    operation = _in_background(ACTIONS["cancel"], Run.objects.all(), by=operator)
    perform, done = type(ACTIONS["cancel"]).perform, []

    def crash(self: Any, run: Run, **parameters: Any) -> Any:
        outcome = perform(self, run, **parameters)
        done.append(run.pk)
        if len(done) == 4:
            raise RuntimeError("killed")
        return outcome

    with workflow_clock() as clock:
        monkeypatch.setattr(type(ACTIONS["cancel"]), "perform", crash)
        with pytest.raises(RuntimeError):
            bulk.advance(operation)
        assert counts(operation) == ("running", 8, 3, 0, 0)
        assert Run.objects.filter(status="canceled").count() == 3
        clock.advance("5m")
        while bulk.advance(operation):
            pass
    assert counts(operation) == ("done", 8, 8, 0, 0)


def test_two_do_not_work_on_one_operation(operator: User) -> None:
    make_run(status="running")
    operation = _in_background(ACTIONS["cancel"], Run.objects.all(), by=operator)
    BulkOperation.objects.update(leased_until=current_clock().now() + bulk.LEASE)
    assert not bulk.advance(operation)
    assert not bulk.advance_due()
    assert counts(operation)[2] == 0


def test_a_permission_that_was_withdrawn_stops_what_is_left(operator: User) -> None:
    make_run(status="running")
    operation = _in_background(ACTIONS["cancel"], Run.objects.all(), by=operator)
    operator.user_permissions.clear()
    bulk.advance(operation)
    assert counts(operation)[2:] == (0, 0, 1)
    assert "cancel_run" in bulk.errors_of(operation)[0][1]


def test_an_operation_of_a_user_who_is_gone_ends(operator: User) -> None:
    make_run(status="running")
    operation = _in_background(ACTIONS["cancel"], Run.objects.all(), by=operator)
    operator.delete()
    bulk.advance(operation)
    assert counts(operation) == ("aborted", 1, 0, 0, 0)
    assert operation.by_name == "operator"


def test_a_form_that_is_sent_twice_starts_one_operation(operator: User) -> None:
    make_run(status="running")
    key = uuid7()
    first = bulk.start(ACTIONS["cancel"], Run.objects.all(), by=operator, key=key)
    again = bulk.start(ACTIONS["cancel"], Run.objects.all(), by=operator, key=key)
    assert first == again
    assert counts(again)[2:] == (1, 0, 0)


def test_whoever_looks_helps_when_no_worker_lives(operator: User) -> None:
    make_run(status="running")
    operation = _in_background(ACTIONS["cancel"], Run.objects.all(), by=operator)
    worker = make_worker(heartbeat_at=current_clock().now())
    assert bulk.follow(operation).tried == 0
    worker.delete()
    assert bulk.follow(operation).tried == 1
    assert bulk.follow(operation).state == "done"


def test_old_operations_are_pruned(operator: User) -> None:
    with workflow_clock() as clock:
        operation = bulk.start(ACTIONS["cancel"], Run.objects.none(), by=operator)
        assert counts(operation) == ("done", 0, 0, 0, 0)
        clock.advance("31d")
        assert prune_batch(clock.now(), timedelta(days=30)).operations == 1


def _in_background(action: Any, runs: Any, *, by: Any) -> BulkOperation:
    """Start an operation as one on very many runs is started."""
    at_once, bulk.AT_ONCE = bulk.AT_ONCE, -1
    try:
        return bulk.start(action, runs, by=by)
    finally:
        bulk.AT_ONCE = at_once
