from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from threading import Event, Thread
from typing import Any

import pytest
from django.db import DatabaseError, OperationalError, connection, connections, transaction
from django.test.utils import CaptureQueriesContext

from django_workflow.engine import gate
from django_workflow.engine.gate import FairLock, engine_atomic, write_gate
from django_workflow.models import FlowKey

SOON = 10.0
"""Seconds after which a test gives up; none takes a tenth of one."""

sqlite_only = pytest.mark.sqlite


@contextmanager
def in_thread(function: Callable[[], None]) -> Iterator[Thread]:
    """Run `function` beside the block, which has to let it end; its error is the test's."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            function()
        except BaseException as error:
            errors.append(error)
        finally:
            connections.close_all()

    thread = Thread(target=run, daemon=True)
    thread.start()
    yield thread
    thread.join(SOON)
    assert not thread.is_alive()
    if errors:
        raise errors[0]


def wait_for_queue(lock: FairLock, length: int) -> None:
    tick = Event()
    for _ in range(int(SOON * 1000)):
        if lock.waiting == length:
            return
        tick.wait(0.001)
    pytest.fail(f"{lock.waiting} threads queue, not {length}")


def the_gate() -> FairLock:
    found = gate._gate("default")
    assert found is not None
    return found


# The lock


def test_a_lock_is_handed_on_in_the_order_of_arrival() -> None:
    lock = FairLock()
    order: list[int] = []

    def visit(number: int) -> None:
        lock.acquire()
        order.append(number)
        lock.release()

    lock.acquire()
    threads = []
    for number in range(5):
        threads.append(Thread(target=visit, args=(number,), daemon=True))
        threads[-1].start()
        wait_for_queue(lock, number + 1)
    lock.release()
    for thread in threads:
        thread.join(SOON)
    assert order == [0, 1, 2, 3, 4]


def test_a_thread_may_take_its_lock_again() -> None:
    lock = FairLock()
    assert lock.acquire() == 0.0
    assert lock.acquire() == 0.0
    lock.release()

    def visit() -> None:
        lock.acquire()
        lock.release()

    with in_thread(visit):
        wait_for_queue(lock, 1)  # one release is not enough
        lock.release()


def test_a_thread_cannot_release_what_another_has() -> None:
    lock = FairLock()
    lock.acquire()
    with pytest.raises(RuntimeError, match="does not have the lock"), in_thread(lock.release):
        pass
    lock.release()
    with pytest.raises(RuntimeError, match="does not have the lock"):
        lock.release()


def test_acquire_tells_how_long_it_waited() -> None:
    lock = FairLock()
    waited: list[float] = []

    def visit() -> None:
        waited.append(lock.acquire())
        lock.release()

    lock.acquire()
    with in_thread(visit):
        wait_for_queue(lock, 1)
        lock.release()
    assert waited[0] > 0


@pytest.mark.parametrize("late", [False, True], ids=["while queueing", "when its turn came"])
def test_who_is_interrupted_in_the_queue_holds_nobody_up(monkeypatch: pytest.MonkeyPatch, late: bool) -> None:
    lock = FairLock()

    class InterruptedLock:
        """Stands for the lock of one's turn; Ctrl-C arrives while the main thread waits for it."""

        def __init__(self) -> None:
            self.acquired = 0

        def acquire(self, timeout: float = -1) -> bool:
            self.acquired += 1
            if self.acquired == 2:
                if late:
                    holder_may_leave.set()
                    holder.join(SOON)
                raise KeyboardInterrupt
            return True

        def release(self) -> None: ...

    has_it, holder_may_leave = Event(), Event()

    def hold() -> None:
        lock.acquire()
        has_it.set()
        holder_may_leave.wait(SOON)
        lock.release()

    with in_thread(hold) as holder:
        assert has_it.wait(SOON)
        monkeypatch.setattr(gate, "Lock", InterruptedLock)
        with pytest.raises(KeyboardInterrupt):
            lock.acquire()
        monkeypatch.undo()
        holder_may_leave.set()
    assert lock.acquire() == 0.0
    lock.release()


def test_who_waited_too_long_leaves_the_queue() -> None:
    lock = FairLock()

    def visit() -> None:
        lock.acquire(timeout=0.01)

    lock.acquire()
    with pytest.raises(TimeoutError), in_thread(visit):
        pass
    assert lock.waiting == 0
    lock.release()
    assert lock.acquire() == 0.0
    lock.release()


# The gate


def test_only_sqlite_has_a_gate() -> None:
    if connection.vendor == "sqlite":
        with ExitStack() as stack, write_gate("default"):
            stack.enter_context(in_thread(enter_gate))
            wait_for_queue(the_gate(), 1)
    else:
        with write_gate("default") as waited, in_thread(enter_gate):
            assert waited == 0.0


def enter_gate() -> None:
    with write_gate("default"):
        pass


@sqlite_only
def test_two_aliases_of_one_file_share_a_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    other = connections["default"].copy(alias="other")
    monkeypatch.setattr(gate, "connections", {"default": connections["default"], "other": other})
    assert gate._gate("other") is gate._gate("default")


@sqlite_only
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_finds_the_gate_open() -> None:
    has_it, may_leave = Event(), Event()

    def hold() -> None:
        with write_gate("default"):
            has_it.set()
            may_leave.wait(SOON)

    with in_thread(hold):
        assert has_it.wait(SOON)
        child = os.fork()
        if not child:
            signal.alarm(int(SOON))  # it must not hang
            with write_gate("default") as waited:
                os._exit(0 if waited == 0.0 else 1)
        assert os.waitpid(child, 0)[1] == 0
        may_leave.set()


# Transactions


def write_and_fail(key: str, error: type[Exception]) -> None:
    with engine_atomic("default"):
        FlowKey.objects.create(key=key)
        if error is DatabaseError:
            FlowKey.objects.create(key=key)  # unique: the database refuses it
        raise error


@pytest.mark.django_db
def test_an_engine_error_leaves_the_callers_transaction_usable() -> None:
    with transaction.atomic():
        FlowKey.objects.create(key="before")
        with pytest.raises(DatabaseError):
            write_and_fail("engine", DatabaseError)
        FlowKey.objects.create(key="after")
    assert set(FlowKey.objects.values_list("key", flat=True)) == {"before", "after"}


@pytest.mark.django_db
def test_the_callers_rollback_takes_the_engines_rows_along() -> None:
    with transaction.atomic():
        with engine_atomic("default"):
            FlowKey.objects.create(key="engine")
        transaction.set_rollback(True)
    assert not FlowKey.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_outermost_it_commits_or_rolls_back() -> None:
    with engine_atomic("default"):
        FlowKey.objects.create(key="kept")
    with pytest.raises(ZeroDivisionError):
        write_and_fail("lost", ZeroDivisionError)
    assert [key.key for key in FlowKey.objects.all()] == ["kept"]
    assert not connection.in_atomic_block


@pytest.mark.django_db(transaction=True)
def test_blocks_nest() -> None:
    with engine_atomic("default"):
        FlowKey.objects.create(key="outer")
        with pytest.raises(ZeroDivisionError):
            write_and_fail("inner", ZeroDivisionError)
    assert [key.key for key in FlowKey.objects.all()] == ["outer"]


@sqlite_only
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("mode", [None, "DEFERRED", "IMMEDIATE"])
@pytest.mark.parametrize("connected", [True, False])
def test_sqlite_is_locked_at_once_whatever_the_project_set(
    monkeypatch: pytest.MonkeyPatch, mode: str | None, connected: bool
) -> None:
    connection.close()
    monkeypatch.setitem(connection.settings_dict["OPTIONS"], "transaction_mode", mode)
    if connected:
        connection.ensure_connection()
    begun: list[str] = []
    with connection.execute_wrapper(record_statements(begun)), engine_atomic("default"):
        assert begun == ["BEGIN IMMEDIATE"]
    assert connection.transaction_mode == mode  # type: ignore[attr-defined]
    with CaptureQueriesContext(connection) as queries, transaction.atomic():
        pass
    assert queries[0]["sql"] == ("BEGIN" if mode is None else f"BEGIN {mode}")
    connection.close()  # the next one has the suite's own options


def record_statements(statements: list[str]) -> Callable[..., Any]:
    def record(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        statements.append(sql)
        return execute(sql, params, many, context)

    return record


@sqlite_only
@pytest.mark.django_db(transaction=True)
def test_a_health_check_that_reconnects_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    connection.ensure_connection()
    monkeypatch.setitem(connection.settings_dict["OPTIONS"], "transaction_mode", "DEFERRED")
    monkeypatch.setattr(connection, "health_check_enabled", True)
    monkeypatch.setattr(connection, "health_check_done", False)
    monkeypatch.setattr(connection, "is_usable", lambda: False)
    before = connection.connection
    begun: list[str] = []
    with connection.execute_wrapper(record_statements(begun)), engine_atomic("default"):
        assert begun[-1] == "BEGIN IMMEDIATE"
    assert connection.connection is not before
    connection.close()


@sqlite_only
@pytest.mark.django_db(transaction=True)
def test_a_second_writer_waits_at_the_gate_and_not_in_sqlite() -> None:
    def write() -> None:
        with engine_atomic("default"):
            FlowKey.objects.create(key="second")

    with ExitStack() as stack, engine_atomic("default"):
        FlowKey.objects.create(key="first")
        stack.enter_context(in_thread(write))
        wait_for_queue(the_gate(), 1)
    assert FlowKey.objects.count() == 2


@sqlite_only
@pytest.mark.django_db(transaction=True)
def test_inside_a_callers_transaction_the_gate_is_left_alone() -> None:
    has_it, may_leave = Event(), Event()

    def hold() -> None:
        with write_gate("default"):
            has_it.set()
            may_leave.wait(SOON)

    with in_thread(hold):
        assert has_it.wait(SOON)
        with transaction.atomic(), engine_atomic("default"):
            FlowKey.objects.create(key="inside")
        may_leave.set()


@sqlite_only
@pytest.mark.django_db(transaction=True)
def test_hooks_of_the_commit_run_behind_the_gate() -> None:
    seen: list[int | None] = []
    with engine_atomic("default"):
        transaction.on_commit(lambda: seen.append(the_gate()._owner))
        assert the_gate()._owner == threading.get_ident()
    assert seen == [None]


@sqlite_only
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("where", ["begin", "commit"])
def test_the_gate_opens_after_a_failure(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise DatabaseError("database is locked")

    connection.ensure_connection()
    method = "_start_transaction_under_autocommit" if where == "begin" else "_commit"
    monkeypatch.setattr(connection, method, fail)
    with pytest.raises(DatabaseError, match="locked"), engine_atomic("default"):
        pass
    monkeypatch.undo()
    assert the_gate()._owner is None
    connection.close()
    with engine_atomic("default"):
        FlowKey.objects.create(key="afterwards")


@sqlite_only
@pytest.mark.django_db(transaction=True)
def test_a_step_that_waits_for_a_thread_which_waits_for_the_step_ends_with_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gate, "GATE_SECONDS", 0.05)

    def trigger() -> None:
        with engine_atomic("default"):
            FlowKey.objects.create(key="triggered")

    with engine_atomic("default"):
        with pytest.raises(OperationalError, match="an atomic step that waits for this thread"), in_thread(trigger):
            pass
        FlowKey.objects.create(key="step")
    assert [key.key for key in FlowKey.objects.all()] == ["step"]
