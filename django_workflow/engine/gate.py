"""The gate in front of SQLite's one writer, and the engine's outermost transactions.

Every transaction of the engine is an `engine_atomic` block. On SQLite the threads of a process first queue up at a
gate, first come first served: SQLite itself lets writers poll for its lock and starves some of them. Other databases
have no gate.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from threading import Lock, get_ident

from django.db import OperationalError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from django_workflow.engine.meters import meter

GATE_SECONDS = 30.0
"""Longest wait at the gate. Who has it may wait for the thread that queues: an atomic step that starts a thread which
triggers a run, and joins it."""


class FairLock:
    """A lock that a thread may take again while it has it, and that is handed on in the order of arrival."""

    def __init__(self) -> None:
        self._mutex = Lock()
        self._owner: int | None = None
        self._depth = 0
        self._queue: deque[tuple[Lock, int]] = deque()

    def acquire(self, timeout: float = -1) -> float:
        """Wait for the lock. Returns how many seconds that took. Raises TimeoutError after `timeout` seconds; -1 waits
        for ever."""
        me = get_ident()
        with self._mutex:
            if self._owner in (None, me):
                self._owner = me
                self._depth += 1
                return 0.0
            turn = Lock()
            turn.acquire()
            self._queue.append((turn, me))
        started = time.monotonic()
        try:
            # Released by `_hand_on`, which made this thread the owner.
            if not turn.acquire(timeout=timeout):
                raise TimeoutError
        except BaseException:  # also Ctrl-C in the main thread
            with self._mutex:
                if (turn, me) in self._queue:
                    self._queue.remove((turn, me))
                else:
                    self._hand_on()
            raise
        return time.monotonic() - started

    def release(self) -> None:
        with self._mutex:
            if self._owner != get_ident():
                raise RuntimeError("This thread does not have the lock that it releases.")
            self._depth -= 1
            if not self._depth:
                self._hand_on()

    @property
    def waiting(self) -> int:
        """How many threads queue."""
        return len(self._queue)

    def _hand_on(self) -> None:
        if self._queue:
            turn, self._owner = self._queue.popleft()
            self._depth = 1
            turn.release()
        else:
            self._owner = None
            self._depth = 0


_gates: dict[str, FairLock] = {}

if hasattr(os, "register_at_fork"):
    # A child has none of the threads that hold or wait for its parent's gates.
    os.register_at_fork(after_in_child=_gates.clear)


@contextmanager
def write_gate(alias: str) -> Iterator[float]:
    """Have the only writing thread of this process in the block, on SQLite. Gives the seconds that it waited.

    Never enter it inside a transaction: who is at the gate may wait for that transaction's lock. `engine_atomic`
    knows this.
    """
    gate = _gate(alias)
    if gate is None:
        yield 0.0
        return
    waited = _pass(gate)
    try:
        yield waited
    finally:
        gate.release()


@contextmanager
def engine_atomic(alias: str) -> Iterator[None]:
    """A transaction of the engine.

    Inside a transaction of the caller it is a savepoint: an error rolls back what the engine wrote and leaves the
    caller's transaction usable. Outside, on SQLite, it passes the gate and takes SQLite's write lock at once,
    whatever `transaction_mode` the project has: a lock that is taken later fails instead of waiting. Raises
    OperationalError when another thread of this process has kept the gate for GATE_SECONDS.
    """
    connection = connections[alias]
    gate = _gate(alias)
    if gate is None or connection.in_atomic_block or not connection.get_autocommit():
        with transaction.atomic(using=alias):
            yield
        return
    _pass(gate)
    held, began = True, None

    def leave() -> None:
        nonlocal held
        if held:
            held = False
            gate.release()
            if began is not None and (watcher := meter()) is not None:
                watcher.wrote(time.monotonic() - began)

    try:
        with ExitStack() as stack:
            _begin_immediate(connection, stack)
            if meter() is not None:
                began = time.monotonic()
            # Other hooks of this commit may take their time: they run behind the gate.
            transaction.on_commit(leave, using=alias)
            yield
    finally:
        leave()


def _pass(gate: FairLock) -> float:
    try:
        return gate.acquire(GATE_SECONDS)
    except TimeoutError as error:
        raise OperationalError(
            f"database is locked: another thread of this process has been writing to SQLite for {GATE_SECONDS:g} s. "
            "If it is an atomic step that waits for this thread, let the step trigger (or write) by itself, or in a "
            "step that is not atomic; if it is only slow, do the slow part in a step before it."
        ) from error


def _begin_immediate(connection: BaseDatabaseWrapper, stack: ExitStack) -> None:
    # Connecting reads the project's mode again, so it has to be done by now.
    connection.close_if_health_check_failed()
    connection.ensure_connection()
    mode = connection.transaction_mode  # type: ignore[attr-defined]
    connection.transaction_mode = "IMMEDIATE"  # type: ignore[attr-defined]
    try:
        stack.enter_context(transaction.atomic(using=connection.alias))
    finally:
        connection.transaction_mode = mode  # type: ignore[attr-defined]


def _gate(alias: str) -> FairLock | None:
    connection = connections[alias]
    if connection.vendor != "sqlite":
        return None
    # By file: several aliases may open the same one.
    name = str(connection.settings_dict["NAME"])
    return _gates.get(name) or _gates.setdefault(name, FairLock())
