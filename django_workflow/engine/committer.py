"""The committer: whatever a worker wants written goes into one queue; one thread writes what has gathered at once.

`write` is the plain function: a batch of facts becomes one transaction, and `After` says what follows its commit. An
idle engine commits at once; a busy one shares commits by itself, as facts gather while the transaction before runs.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from threading import Condition
from uuid import UUID

from django.db import InterfaceError, OperationalError, connections

from django_workflow.engine.after import After
from django_workflow.engine.facts import Answer, Emitted, Fact, Settlement
from django_workflow.engine.gate import engine_atomic
from django_workflow.engine.journal_cache import JournalCache
from django_workflow.engine.local_requests import LOOK_AGAIN, Asked, settle_all
from django_workflow.engine.meters import meter
from django_workflow.engine.publishing import start_together
from django_workflow.engine.records import Lease
from django_workflow.engine.settle import fold
from django_workflow.engine.short_deliveries import Role, Room, ShortDeliveries
from django_workflow.engine.unit_of_work import UnitOfWork
from django_workflow.engine.waiters import notify_together, read_early
from django_workflow.models import Delivery, Run
from django_workflow.protocol.requests import Batch, Notify, Wait

logger = logging.getLogger("django_workflow.engine")

LARGEST_BATCH = 256
MOST_QUEUED = 1024
"""Facts that may wait to be written before a step that emits more of them has to wait."""
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0
PATIENCE = 5


@dataclass(slots=True)
class Written:
    """What a batch came to. `busy`: facts of runs that others held locked, to be written again in their order."""

    after: After
    busy: list[Fact] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Writer:
    """How a worker's facts are written: where, by whom, and which deliveries it may go on with."""

    alias: str
    worker_key: UUID
    cache: JournalCache
    now: Callable[[], datetime]
    may_continue: Callable[[Lease], bool]
    room: Callable[[], Room] = Room
    """What the worker can begin with at once, besides what goes on."""

    def write(self, facts: Sequence[Fact], asked: Sequence[Asked] = ()) -> Written:
        """Write a batch as one transaction; if the database refuses it, run by run, and hand back what is asked for.

        A run that fails alone is settled as a failed attempt with that error. Raises OperationalError and
        InterfaceError (database away, locked, deadlock): the same facts may then be written again, as each counts
        once under its fence.
        """
        try:
            return self._write(facts, asked, careful=False)
        except (OperationalError, InterfaceError):
            raise
        except Exception:
            logger.info("A batch of %d facts was refused; writing them run by run.", len(facts), exc_info=True)
        for one in asked:
            one.hand_back()
        return self.write_by_run(facts)

    def write_by_run(self, facts: Sequence[Fact]) -> Written:
        """Write each run's facts in a transaction of its own; those that find no database are left as `busy`.

        Raises the OperationalError or InterfaceError when it is the same for all of them.
        """
        written, failure = Written(After()), None
        runs = _by_run(facts)
        left = 0
        for run_facts in runs:
            try:
                alone = self._write_alone(run_facts)
                written.after.add(alone.after)
                written.busy += alone.busy
            except (OperationalError, InterfaceError) as error:
                failure = error
                left += 1
                written.busy += run_facts
                connection = connections[self.alias]
                if not connection.in_atomic_block:
                    connection.close_if_unusable_or_obsolete()
        if failure is not None and left == len(runs):
            raise failure
        return written

    def _write_alone(self, facts: Sequence[Fact]) -> Written:
        try:
            return self._write(facts, (), careful=True)
        except (OperationalError, InterfaceError):
            raise
        except Exception as error:
            logger.exception("The results of run %s cannot be written.", facts[0].lease.run_key)
            answer = Answer(status=0, error=f"The result could not be written: {type(error).__name__}: {error}")
            failed = [replace(fact, requests=(), answer=answer) for fact in facts if isinstance(fact, Settlement)]
        try:
            return self._write(failed, (), careful=True)
        except (OperationalError, InterfaceError):
            raise
        except Exception:
            # Nothing can be said about this run: its lease is given back by the duties, and rescues are counted.
            logger.exception("Not even the failure of run %s can be written.", facts[0].lease.run_key)
            return Written(After())

    def _write(self, facts: Sequence[Fact], asked: Sequence[Asked], *, careful: bool) -> Written:
        busy: list[Fact] = []
        with engine_atomic(self.alias):
            unit = UnitOfWork(self.alias, self.now(), self.cache, worker_key=self.worker_key)
            unit.may_continue = self.may_continue
            unit.careful = careful
            unit.room = self.room()
            missing = unit.open(fact.lease for fact in facts)
            busy_runs = _runs_of(facts, _still_there(self.alias, missing)) if missing else set()
            parents = _parents_of(facts, self.cache)
            if parents:
                locked = unit.lock(parents.values(), skip_locked=True)
                held = _held_by_others(self.alias, {key for key in parents.values() if not unit.has(key)} - locked)
                busy_runs |= {key for key, parent in parents.items() if parent in held}
            if asked:
                self._do(unit, asked)
            if waiting := _runs_that_wait(facts):
                read_early(unit, waiting - busy_runs)
            for fact in facts:
                if fact.lease.run_key in busy_runs:
                    busy.append(fact)
                else:
                    fold(unit, fact)
            after = unit.flush()
        return Written(after, busy)

    def _do(self, unit: UnitOfWork, asked: Sequence[Asked]) -> None:
        """What is asked for comes first: events are for those who wait already."""
        unit.is_asked = True
        notifies = [one for one in asked if isinstance(one.request, Notify)]
        starts = [one for one in asked if isinstance(one.request, Batch)]
        if notifies:
            notify_together(unit, notifies)
        if starts:
            start_together(unit, starts)
        unit.is_asked = False


def _parents_of(facts: Sequence[Fact], cache: JournalCache) -> dict[UUID, UUID]:
    """The runs that invoked those of the facts, which their end changes too."""
    parents = {}
    for key in {fact.lease.run_key for fact in facts}:
        if key is None:
            continue
        try:
            parent = cache.info(key).parent_key
        except Run.DoesNotExist:
            continue
        if parent is not None:
            parents[key] = parent
    return parents


def _still_there(alias: str, keys: set[UUID]) -> set[UUID]:
    """Of deliveries that were not locked, those that exist: others hold them or their runs. On SQLite nobody does."""
    if not connections[alias].features.has_select_for_update:
        return set()
    return set(Delivery.objects.using(alias).filter(pk__in=keys).values_list("pk", flat=True))


def _runs_of(facts: Sequence[Fact], deliveries: set[UUID]) -> set[UUID | None]:
    return {fact.lease.run_key for fact in facts if fact.lease.key in deliveries}


def _runs_that_wait(facts: Sequence[Fact]) -> set[UUID]:
    """The runs that submitted a wait for an event."""
    return {
        fact.lease.run_key
        for fact in facts
        if isinstance(fact, Settlement)
        and fact.lease.run_key is not None
        and any(isinstance(taken.request, Wait) for taken in fact.requests)
    }


def _held_by_others(alias: str, keys: set[UUID]) -> set[UUID]:
    """Of runs that were not locked, those that exist."""
    return set(Run.objects.using(alias).filter(pk__in=keys).values_list("pk", flat=True)) if keys else set()


def _by_run(facts: Sequence[Fact]) -> list[list[Fact]]:
    runs: dict[UUID, list[Fact]] = {}
    for fact in facts:  # a message outside workflows is a case of its own
        runs.setdefault(fact.lease.run_key or fact.lease.key, []).append(fact)
    return list(runs.values())


def _tell_continuations(batch: Sequence[Fact], busy: Sequence[Fact]) -> None:
    """Let invocations go on whose steps are committed."""
    waiting = {id(fact) for fact in busy}
    for fact in batch:
        if isinstance(fact, Settlement) and fact.continuation is not None and id(fact) not in waiting:
            fact.continuation.settled.set()


class Committer:
    """The thread that writes. `done` gets the After of each committed batch, on this thread.

    With `make` it makes short deliveries itself, see `short_deliveries` (on SQLite, which has one writer anyway, all of
    them), and then writes what they and the pool's left behind.
    """

    def __init__(
        self,
        writer: Writer,
        done: Callable[[After], None],
        make: Callable[[Lease], Fact | None] = lambda lease: None,
        made: Callable[[Lease], None] = lambda lease: None,
    ) -> None:
        self._writer = writer
        self._done = done
        self._facts: deque[Fact] = deque()
        self._asked: list[Asked] = []
        self._condition = Condition()
        self._stopping = False
        self._writing = False
        self._batch: list[Fact] = []
        self.short = ShortDeliveries(self._condition, make, made)
        self.role = Role("committer", self._turn)
        self.commits = 0

    @property
    def idle(self) -> bool:
        """Whether everything queued so far is written."""
        return not self._facts and not self._asked and not self._writing

    def lease_keys(self) -> set[UUID]:
        """The deliveries whose facts wait to be written."""
        with self._condition:
            return {fact.lease.key for fact in (*self._facts, *self._batch)}

    @property
    def alive(self) -> bool:
        return self.role.alive

    def start(self) -> None:
        self.role.start()

    def put(self, fact: Fact) -> None:
        """Queue a fact. A step that emits faster than the database writes waits for it, however long it is away."""
        with self._condition:
            if isinstance(fact, Emitted) and self._may_wait():
                self._condition.wait_for(lambda: len(self._facts) < MOST_QUEUED or self._stopping)
            self._facts.append(fact)
            self._condition.notify_all()

    def write_now(self, settlement: Settlement) -> bool:
        """Queue what an invocation submitted so far, and wait for its commit. False: this thread may not wait."""
        assert settlement.continuation is not None
        if not self._may_wait():
            return False
        self.put(settlement)
        while not settlement.continuation.settled.wait(LOOK_AGAIN):
            if not self.alive:
                return False
        return True

    def accept(self, asked: Asked) -> bool:
        """Write what is asked for with what else has gathered. False: this thread may not wait for that."""
        with self._condition:
            if self._stopping or not self.alive or not self._may_wait():
                return False
            self._asked.append(asked)
            self._condition.notify_all()
            return True

    def _may_wait(self) -> bool:
        """Whether this thread may wait for the committer: the committer may wait for its transaction otherwise."""
        return not self.role.is_mine and not connections[self._writer.alias].in_atomic_block

    def stop(self, timeout: float | None = None) -> bool:
        """Write what is queued, then end. False when that took longer than `timeout` seconds."""
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
        return self.role.wait_for_end(timeout)

    def _turn(self) -> bool:
        with self._condition:
            self._condition.wait_for(lambda: self._facts or self._asked or self.short or self._stopping)
            if not self._facts and not self._asked and not self.short:
                return False
        if self.short and not self.short.make_some(self.role, self.put):
            return True  # another thread has the role now
        self._write(*self._take())
        return True

    def _take(self) -> tuple[list[Fact], list[Asked]]:
        with self._condition:
            self._writing = True
            self._batch = [self._facts.popleft() for _ in range(min(len(self._facts), LARGEST_BATCH))]
            asked, self._asked = self._asked[:LARGEST_BATCH], self._asked[LARGEST_BATCH:]
            self._condition.notify_all()  # steps that wait until fewer facts do
            return self._batch, asked

    def _write(self, batch: list[Fact], asked: list[Asked]) -> None:
        """Write a batch however long the database is away: nothing is dropped. What is asked for is not kept so."""
        try:
            self._write_until_done(batch, asked)
        finally:
            for one in asked:
                if not one.is_settled:
                    one.hand_back()
            with self._condition:
                self._writing = False
                self._batch = []

    def _write_until_done(self, batch: list[Fact], asked: list[Asked]) -> None:
        pause, failures = FIRST_PAUSE, 0
        while batch or asked:
            try:
                # An error that stays may be one run's alone (a packet too large): the others need not wait for it.
                if failures < PATIENCE:
                    written = self._writer.write(batch, asked)
                else:
                    written = self._writer.write_by_run(batch)
            except (OperationalError, InterfaceError) as error:
                failures += 1
                with self._condition:
                    # Also those that queue behind: who asked may be what keeps the database from taking this batch.
                    asked, self._asked = asked + self._asked, []
                for one in asked:
                    one.hand_back()
                asked = []
                logger.warning("The database does not take results (%s); trying again in %.2f s.", error, pause)
                connections[self._writer.alias].close()
                with self._condition:
                    self._condition.wait(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
                continue
            self.commits += 1
            if (watcher := meter()) is not None:
                watcher.committed(len(batch) - len(written.busy))
            self._done(written.after)
            _tell_continuations(batch, written.busy)
            settle_all(asked)
            asked = []
            batch = self._with_newer_facts(written.busy)
            if batch:
                with self._condition:
                    self._condition.wait(pause)

    def _with_newer_facts(self, busy: list[Fact]) -> list[Fact]:
        """Facts of runs that others hold wait, without holding up the rest; their order stays."""
        if not busy:
            return []
        with self._condition:
            room = max(LARGEST_BATCH - len(busy), LARGEST_BATCH // 2)
            newer = [self._facts.popleft() for _ in range(min(len(self._facts), room))]
        return busy + newer
