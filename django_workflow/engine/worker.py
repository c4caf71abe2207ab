"""The worker: threads around the engine's cycle. Claims what is due, dispatches it, hands facts to the committer.

One thread claims and keeps the timers, a fixed pool makes the deliveries, the committer writes, one has the duties
(heartbeat, rescue, step starts that take a while), and one the chores of the layers above. Deliveries that were short
the last time do not go to the pool: on SQLite the committer makes them itself, elsewhere a runner, or the committer if
there is nothing else to do. All threads are made before the first delivery, for none can be made while an interpreter
shuts down.
"""

from __future__ import annotations

import logging
import queue
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from threading import Event, Lock, Thread
from uuid import UUID

from django.db import Error as DatabaseError
from django.db import InterfaceError, OperationalError, connections

from django_workflow.conf import HEARTBEAT_SECONDS, get_settings
from django_workflow.engine import cycle, local_requests, scheduler
from django_workflow.engine.after import After
from django_workflow.engine.announcements import Announcements
from django_workflow.engine.chores import CHORE_SECONDS, do_chore
from django_workflow.engine.clock import SystemClock
from django_workflow.engine.committer import Committer, Writer
from django_workflow.engine.dispatch import Dispatcher, NotStarted, blocked_by
from django_workflow.engine.facts import Answer, Fact, Settlement
from django_workflow.engine.flow_control import start_late
from django_workflow.engine.leases import (
    SUSPECT_RESCUES,
    Observer,
    beat,
    claim,
    count_start,
    enlist,
    enlist_again,
    free,
    orphans,
    release,
    retire,
)
from django_workflow.engine.local_requests import Asked
from django_workflow.engine.network import Network
from django_workflow.engine.pruner import Pruner
from django_workflow.engine.records import Lease
from django_workflow.engine.session import Session
from django_workflow.engine.shared import remember, send_signals, shared_cache
from django_workflow.engine.short_deliveries import MOST_READY, Durations, Room, Runner, ShortDeliveries
from django_workflow.engine.timers import Timers
from django_workflow.engine.wake import Bell, Listeners
from django_workflow.kept_connections import KeptConnections

logger = logging.getLogger("django_workflow.worker")

TELL_STARTS_AFTER = 0.05
DUTY_INTERVAL = 0.025
BUSY_POLL, IDLE_POLL = 0.02, 1.0
LONGEST_CHAIN = 16
PRUNE_INTERVAL = 60.0


class Worker:
    """A worker of this process. `start()` returns at once; `drain()` ends it in good order."""

    def __init__(self, *, concurrency: int | None = None) -> None:
        settings = get_settings()
        self.alias = settings.database
        self.concurrency = concurrency or settings.concurrency
        self.key: UUID | None = None
        self._clock = SystemClock()
        self._bell = Bell(self.alias)
        self._listeners = Listeners(self.alias)
        self._leases: queue.SimpleQueue[Lease | None] = queue.SimpleQueue()
        self._durations = Durations()
        self._timers = Timers(self.alias)
        self._announcements = Announcements(self._tell)
        self._lock = Lock()
        self._connections = KeptConnections()
        self._orphans: set[tuple[UUID, int]] = set()
        self._in_flight = 0
        self._running: dict[UUID, Session] = {}
        self._held: dict[int, Lease] = {}  # by identity: a call of several steps moves on with its lease
        self._overdue: set[UUID] = set()
        # Deliveries that lost workers again and again are made one at a time: if one of them ends its process each
        # time, those beside it are not lost with it.
        self._suspects: deque[Lease] = deque()
        self._suspect: Lease | None = None
        self._backlog = False
        """There was more to claim than the last claim could take."""
        self._no_hand_free = False
        """The last time that something was to be claimed, there was no room for any."""
        self._draining = Event()
        self._stopped = Event()
        self._threads: list[Thread] = []
        self.committer: Committer | None = None
        self._runner: Runner | None = None
        self._dispatcher: Dispatcher | None = None

    # Life

    def start(self) -> None:
        """Register the worker and start its threads. Raises DatabaseError when the database does not answer."""
        scheduler.reconcile(self.alias, self._clock.now())
        # What may fail comes before: nobody would take a worker off the list that did not start.
        self._row = worker = enlist(self.alias, self._clock.now(), self.concurrency)
        self.key = worker.pk
        cache = shared_cache(self.alias)
        cache.expects_deliveries = True
        self._network = Network(self.concurrency)
        self._dispatcher = Dispatcher(self.alias, cache, self._clock.now, self._network, may_start=self._may_start)
        writer = Writer(self.alias, worker.pk, cache, self._clock.now, self._may_continue, self._room)
        self.committer = Committer(writer, self._committed, self._make, self._delivered)
        self.committer.start()
        if connections[self.alias].vendor != "sqlite":
            self._runner = Runner(self._make, self._delivered, self.committer.put)
            self._runner.role.start()
        self._listeners.start()
        if get_settings().base_url is None and (reason := blocked_by()):
            logger.error("Deliveries in this process do not reach their workflows: %s.", reason)
        self._spawn("claims", self._claim_loop)
        self._spawn("duties", self._duty_loop)
        self._spawn("announcer", self._announcements.run)
        self._spawn("chores", self._chore_loop)
        for number in range(self.concurrency):
            self._spawn(f"pool-{number}", self._pool_loop)
        local_requests.offer(self.alias, self)
        logger.info("Worker %s started with %d threads.", worker, self.concurrency)

    def drain(self, timeout: float = 30.0) -> bool:
        """Take nothing new, finish what runs, write it, and leave. False when that took longer than `timeout`."""
        deadline = time.monotonic() + timeout
        self._draining.set()
        local_requests.withdraw(self.alias, self)
        self._bell.ring()
        if not connections[self.alias].in_atomic_block:
            connections[self.alias].close()  # idle since the start: the server may have been started anew meanwhile
        committer = self.committer
        assert committer is not None
        assert self.key is not None
        self._threads[0].join(max(deadline - time.monotonic(), 0.1))  # no claim is under way any more
        with suppress(DatabaseError):  # what stays leased is freed when the worker retires
            self._give_back_queued()
        clean = self._wait_until(lambda: self._in_flight == 0 and committer.idle, deadline)
        if self._runner is not None:
            clean = self._runner.stop(max(deadline - time.monotonic(), 0.1)) and clean
        clean = committer.stop(max(deadline - time.monotonic(), 0.1)) and clean
        self._stopped.set()
        self._bell.ring()
        for _ in range(self.concurrency):
            self._leases.put(None)
        self._announcements.stop()
        self._listeners.stop()
        self._bell.close()
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0.1))
        self._network.close()
        if clean:
            self._retire(self.key)
        logger.info("Worker %s stopped%s.", self.key, "" if clean else " with deliveries under way; others take them")
        return clean

    def _retire(self, key: UUID) -> None:
        """Leave the list; with a new connection if the old one was cut. Whom that fails is found dead by others."""
        for _ in range(2):
            try:
                retire(self.alias, key)
            except DatabaseError as error:
                self._note("retirements", error)
            else:
                return

    @property
    def healthy(self) -> bool:
        """False when half of the pool is stuck in deliveries past their timeout, or a thread has ended."""
        if self.committer is None or not self.committer.alive:
            return False
        if self._runner is not None and not self._runner.role.alive:
            return False
        alive = all(thread.is_alive() for thread in self._threads)
        return alive and len(self._overdue) * 2 < self.concurrency

    def _spawn(self, name: str, target: Callable[[], None]) -> None:
        def run() -> None:
            try:
                target()
            finally:
                connections.close_all()

        thread = Thread(target=run, name=f"workflow-{name}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _wait_until(self, done: Callable[[], bool], deadline: float) -> bool:
        while not done() and time.monotonic() < deadline:
            self._stopped.wait(0.01)
        return done()

    def _give_back_queued(self) -> None:
        leases = [lease for short in self._short for lease in short.take_all()]
        with suppress(queue.Empty):
            while (lease := self._leases.get_nowait()) is not None:
                leases.append(lease)
        with self._lock:
            leases += self._suspects
            self._suspects.clear()
            self._in_flight -= len(leases)
            for lease in leases:
                self._held.pop(id(lease), None)
        assert self.key is not None
        release(self.alias, self.key, leases)

    # Claims

    def _claim_loop(self) -> None:
        poll = BUSY_POLL
        while not self._draining.is_set():
            self._bell.clear()  # before the claim: what rings meanwhile is seen by the next wait
            try:
                pause, found = self._claim_once()
            except Exception as error:
                self._note("claims", error)
                pause, found = IDLE_POLL, False
            poll = BUSY_POLL if found else min(poll * 2, IDLE_POLL)
            self._bell.wait(min(pause, poll))

    def _note(self, what: str, error: Exception) -> None:
        """A thread of the worker goes on whatever happens; with a new connection, if it was the database."""
        if isinstance(error, DatabaseError):
            logger.warning("The database does not take %s (%s).", what, error)
            connections[self.alias].close()
        else:
            logger.error("The worker's %s failed.", what, exc_info=error)

    def _claim_once(self) -> tuple[float, bool]:
        now = self._clock.now()
        for after in self._timers.keep(now):
            self._committed(after)
        free = self.concurrency * 2 - self._in_flight
        assert self.key is not None
        claimed = claim(self.alias, self.key, now, free)
        self._no_hand_free = free <= 0
        if free > 0:
            self._backlog = len(claimed.leases) == free
        with suppress(DatabaseError):  # then each delivery reads its own
            shared_cache(self.alias).load(lease.run_key for lease in claimed.leases if lease.run_key is not None)
        self._take(claimed.leases)
        instants = [at for at in (claimed.next_due_at, self._timers.next_at) if at is not None]
        pause = min(((at - self._clock.now()).total_seconds() for at in instants), default=IDLE_POLL)
        pause = IDLE_POLL if free <= 0 else max(pause, 0.001)
        return min(pause, self._timers.again_in or IDLE_POLL), bool(claimed.leases)

    def _take(self, leases: list[Lease]) -> None:
        with self._lock:
            self._in_flight += len(leases)
            self._held.update({id(lease): lease for lease in leases})
        short = []
        for lease in leases:
            if lease.rescues >= SUSPECT_RESCUES:
                self._suspects.append(lease)
            elif self._durations.is_short(lease):
                short.append(lease)
            else:
                self._leases.put(lease)
        if short:
            self._short_for(short).add(short)
        if self._suspects:
            self._start_suspect()

    @property
    def _short(self) -> list[ShortDeliveries]:
        """Where short deliveries wait."""
        assert self.committer is not None
        return [self.committer.short] + ([] if self._runner is None else [self._runner.short])

    def _short_for(self, leases: list[Lease]) -> ShortDeliveries:
        """Where these are made. A step of a lone run: where its facts are written, for two threads would take turns."""
        assert self.committer is not None
        is_alone = self.committer.role.is_mine and self._in_flight == len(leases) == 1
        return self.committer.short if self._runner is None or is_alone else self._runner.short

    def _start_suspect(self) -> None:
        with self._lock:
            if self._suspect is not None or not self._suspects:
                return
            self._suspect = suspect = self._suspects.popleft()
        self._leases.put(suspect)

    def accept(self, asked: Asked) -> bool:
        """Write for this process: see `local_requests`."""
        return not self._draining.is_set() and self.committer is not None and self.committer.accept(asked)

    @property
    def accepts(self) -> bool:
        return self.committer is not None and self.committer.alive

    def _room(self) -> Room:
        """For deliveries that nobody has to claim; none while older ones wait for that."""
        if self._draining.is_set() or self._backlog:
            return Room()
        short = sum(map(len, self._short))
        others = self.concurrency * 2 - (self._in_flight - short)
        return Room(MOST_READY - short, others, self._durations.is_short)

    def _may_continue(self, lease: Lease) -> bool:
        return not self._draining.is_set() and (lease.chain + 1 < LONGEST_CHAIN or not self._backlog)

    # Deliveries

    def _pool_loop(self) -> None:
        assert self.committer is not None
        while (lease := self._leases.get()) is not None:
            try:
                fact = self._make(lease)
                if fact is not None:
                    self.committer.put(fact)
            finally:
                self._delivered(lease)

    def _may_start(self, lease: Lease) -> bool:
        """False when the pool was busy for so long that the lease's key has no rate left for it: it is given back."""
        now = self._clock.now()
        if lease.start_by is None or now <= lease.start_by:
            return True
        assert self.key is not None
        try:
            if start_late(self.alias, lease, now):
                return True
            release(self.alias, self.key, [lease])
        except DatabaseError as error:  # it stays leased; the duties give it back
            self._note("late starts", error)
        self._bell.ring()
        return False

    def _delivered(self, lease: Lease) -> None:
        with self._lock:
            session = self._running.get(lease.key)
            if session is not None and session.lease is lease:  # the next delivery of the same row may have opened
                del self._running[lease.key]
                self._overdue.discard(lease.key)
            self._held.pop(id(lease), None)
            self._in_flight -= 1
            if self._suspect is lease:
                self._suspect = None
            hungry = (self._backlog or self._no_hand_free) and self._in_flight < self.concurrency
        if hungry:
            self._bell.ring()
        if self._suspects:
            self._start_suspect()

    def _make(self, lease: Lease) -> Fact | None:
        """Make a delivery; the fact that it leaves behind, None when there is nothing left to write. Raises nothing."""
        assert self._dispatcher is not None
        assert self.committer is not None
        started_at, started = self._clock.now(), time.monotonic()
        try:
            self._connections.drop_broken()
            if lease.rescues and not count_start(self.alias, lease):
                return None
            dispatched = self._dispatcher.dispatch(lease, self.committer.put, self._opened, self._write_now)
        except NotStarted:
            return None
        except (OperationalError, InterfaceError) as error:
            # The journal could not be read: the endpoint was not called, so this was no attempt.
            self._note("journals", error)
            return None
        except BaseException as error:
            logger.exception("Delivery %s could not be made.", lease.key)
            answer = Answer(status=0, error=f"{type(error).__name__}: {error}")
            return Settlement(lease, (), answer, started_at, self._clock.now())
        finally:
            self._durations.note(lease, time.monotonic() - started)
            self._leave_no_transaction()
        if dispatched.after is not None:
            self._committed(dispatched.after)
            return None
        return dispatched.settlement

    def _leave_no_transaction(self) -> None:
        """A function that began a transaction by hand and did not end it would take others' writes into it."""
        connection = connections[self.alias]
        if connection.in_atomic_block or (connection.connection is not None and not connection.get_autocommit()):
            logger.error("A step left its database connection inside a transaction; what it did not commit is undone.")
            connection.close()
            del connections[self.alias]

    def _write_now(self, settlement: Settlement) -> bool:
        """Commit a step whose invocation goes on. False on the threads for short deliveries: they must not wait."""
        assert self.committer is not None
        if self._runner is not None and self._runner.role.is_mine:
            return False
        return self.committer.write_now(settlement)

    def _opened(self, session: Session) -> None:
        with self._lock:
            self._running[session.lease.key] = session

    def _committed(self, after: After) -> None:
        """A batch is durable: go on with its runs at once, then tell whoever listens."""
        remember(self.alias, after)
        if after.followups and self._draining.is_set():
            assert self.key is not None
            with suppress(DatabaseError):  # what stays leased is freed when the worker retires
                release(self.alias, self.key, after.followups)
        else:
            self._take(after.followups)
        if after.wake:
            self._bell.ring()
        if after.channels or after.events or after.signals:
            self._announcements.put(after)

    def _tell(self, after: After) -> None:
        try:
            send_signals(self.alias, after)
        except Exception as error:
            self._note("announcements", error)

    # Duties

    def _chore_loop(self) -> None:
        pause = CHORE_SECONDS
        while not self._draining.wait(pause):
            try:
                pause = 0.0 if do_chore() else CHORE_SECONDS
            except Exception as error:
                self._note("chores", error)
                pause = CHORE_SECONDS

    def _duty_loop(self) -> None:
        observer, pruner = Observer(get_settings().worker_timeout), Pruner()
        next_beat, next_prune = 0.0, time.monotonic() + PRUNE_INTERVAL
        while not self._stopped.wait(DUTY_INTERVAL):
            self._watch_roles()
            self._tell_starts()
            if time.monotonic() < next_beat:
                continue
            next_beat = time.monotonic() + HEARTBEAT_SECONDS
            try:
                self._beat(observer)
                if time.monotonic() >= next_prune:
                    next_prune = time.monotonic() + PRUNE_INTERVAL
                    if pruner.prune_batch(self._clock.now(), get_settings().retention).is_full:
                        next_prune = 0.0
            except Exception as error:
                self._note("heartbeat", error)

    def _watch_roles(self) -> None:
        assert self.committer is not None
        self.committer.role.watch()
        if self._runner is not None:
            self._runner.role.watch()

    def _beat(self, observer: Observer) -> None:
        assert self.key is not None
        now = self._clock.now()
        if not beat(self.alias, self.key, now, draining=self._draining.is_set()):
            logger.error("Worker %s was taken for dead by others; its deliveries are theirs now.", self.key)
            enlist_again(self.alias, self._row, now)
        self._note_overdue()
        self._free_orphans()
        after = cycle.rescue_dead(self.alias, now, observer.dead(self.alias, self.key, time.monotonic()))
        if after is not None:
            self._committed(after)

    def _free_orphans(self) -> None:
        """Give back what is leased to this worker but unknown to it: the answer of a commit was lost on its way."""
        assert self.key is not None
        assert self.committer is not None
        with self._lock:
            known = {lease.key for lease in self._held.values()}
        found = orphans(self.alias, self.key, known | self.committer.lease_keys())
        again = found & self._orphans  # seen twice: not just on its way from a commit to the pool
        if again:
            logger.warning("%d deliveries were leased to this worker without its knowledge; given back.", len(again))
            free(self.alias, self.key, again)
            self._bell.ring()
        self._orphans = found - again

    def _tell_starts(self) -> None:
        assert self.committer is not None
        now = self._clock.now()
        with self._lock:
            sessions = list(self._running.values())
        for session in sessions:
            lease = session.lease
            if lease.running is None or session.start_told or session.atomic:
                continue
            if (now - session.step_started_at).total_seconds() >= TELL_STARTS_AFTER:
                session.start_told = True
                self.committer.put(session.start_fact())

    def _note_overdue(self) -> None:
        limit = get_settings().request_timeout + timedelta(seconds=1)
        now = self._clock.now()
        with self._lock:
            sessions = list(self._running.values())
        for session in sessions:
            lease = session.lease
            if lease.key in self._overdue or lease.started_at is None or now - lease.started_at < limit:
                continue
            self._overdue.add(lease.key)
            name = lease.running.step_name if lease.running else lease.step_name
            logger.error(
                "Step %r of run %s is past request_timeout; its thread cannot be stopped.", name, session.run_id
            )
