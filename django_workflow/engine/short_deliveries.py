"""Short deliveries: those that take a millisecond at most are made one after the other on one thread.

For them a pool of threads is only in the way: each hand-over from thread to thread costs more than the delivery, and
threads that fight for the interpreter keep whoever writes from going on. A delivery counts as short when it was the
last time, by destination and position; a new one goes to the pool. When one blocks all the same, the thread's role
goes to another thread: `Role`.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from threading import Condition, Lock, Thread, get_ident

from django.db import connections

from django_workflow.engine.facts import Fact
from django_workflow.engine.records import Lease
from django_workflow.models import Delivery

SHORT = 0.001
"""Seconds that a short delivery takes at most."""

MOST_TOGETHER = 64
LONGEST_TOGETHER = 0.01
"""Short deliveries that are made before their facts are written: so many, or for so many seconds."""

BLOCKED = 0.02
"""A "short" delivery that takes so many seconds costs its thread the role."""

MOST_READY = 256
"""Short deliveries that may wait for their thread: those of new runs, events and branches begin without a claim."""

REMEMBERED = 20_000

logger = logging.getLogger("django_workflow.worker")


class Durations:
    """How long deliveries took of late, in seconds. Safe to use from several threads."""

    def __init__(self) -> None:
        self._seconds: OrderedDict[tuple[str, int], float] = OrderedDict()
        self._lock = Lock()

    def note(self, lease: Lease, seconds: float) -> None:
        """One that was faster counts at once, one that was slower by and by: other threads slow down any."""
        key = (lease.destination, lease.position)
        with self._lock:
            known = self._seconds.get(key)
            if known is not None and seconds > known and seconds < BLOCKED:
                seconds = known + (seconds - known) / 4
            self._seconds[key] = seconds
            if len(self._seconds) > REMEMBERED:
                self._seconds.popitem(last=False)

    def is_short(self, lease: Lease) -> bool:
        if lease.kind != Delivery.Kind.STEP or lease.rescues:
            return False
        return self._seconds.get((lease.destination, lease.position), SHORT) < SHORT


@dataclass(slots=True)
class Room:
    """How many more deliveries a worker can begin with: a queue of short ones is soon done, others block a thread."""

    short: int = 0
    others: int = 0
    is_short: Callable[[Lease], bool] = lambda lease: False

    def take(self, lease: Lease) -> bool:
        """Have a place for this one. False: there is none."""
        if self.is_short(lease):
            self.short -= 1
            return self.short >= 0
        self.others -= 1
        return self.others >= 0


class Role:
    """A duty that one thread has at a time, and that another takes over when a call of the first one blocks.

    `turn` does a piece of the duty; False ends it. Around calls that may block its thread says `begin` and `end`.
    """

    def __init__(self, name: str, turn: Callable[[], bool]) -> None:
        self._name = name
        self._turn = turn
        self._condition = Condition()
        self._holder: int | None = None
        self._since: float | None = None
        self._idle = 0
        self._ended = self._failed = False
        self._threads: list[Thread] = []

    def start(self) -> None:
        """Two threads: none can be made any more while an interpreter shuts down."""
        for _ in range(2):
            self._spawn()

    def begin(self) -> None:
        self._since = time.monotonic()

    def end(self) -> bool:
        """False: the call took so long that this thread has the role no more."""
        with self._condition:
            if self._holder != get_ident():
                return False
            self._since = None
            return True

    def watch(self) -> None:
        """Give the role to another thread if a call blocks its holder. Called by somebody else, now and then."""
        with self._condition:
            if self._since is None or time.monotonic() - self._since < BLOCKED:
                return
            self._holder = self._since = None
            self._condition.notify_all()
            if self._idle:
                return
        self._spawn()

    def wait_for_end(self, timeout: float | None) -> bool:
        with self._condition:
            return self._condition.wait_for(lambda: self._ended, timeout)

    @property
    def is_mine(self) -> bool:
        return self._holder == get_ident()

    @property
    def alive(self) -> bool:
        """False once the duty has raised: nobody does it any more."""
        return not self._failed and any(thread.is_alive() for thread in self._threads)

    def _spawn(self) -> None:
        thread = Thread(target=self._run, name=f"workflow-{self._name}-{len(self._threads)}", daemon=True)
        self._threads = [other for other in self._threads if other.is_alive()] + [thread]
        thread.start()

    def _run(self) -> None:
        try:
            while self._take_over():
                while self._holder == get_ident():
                    if not self._turn():
                        self._end()
        except BaseException:
            self._failed = True
            raise
        finally:
            connections.close_all()

    def _take_over(self) -> bool:
        with self._condition:
            self._idle += 1
            self._condition.wait_for(lambda: self._holder is None or self._ended)
            self._idle -= 1
            if self._ended:
                return False
            self._holder = get_ident()
            return True

    def _end(self) -> None:
        with self._condition:
            self._ended = True
            self._holder = None
            self._condition.notify_all()


class ShortDeliveries:
    """Those that wait for the thread that makes them; `condition` is what it waits at.

    `make` gives the fact that a delivery leaves behind, if any, and raises nothing; `made` is told when that fact is
    in good hands.
    """

    def __init__(
        self, condition: Condition, make: Callable[[Lease], Fact | None], made: Callable[[Lease], None]
    ) -> None:
        self._condition = condition
        self._make = make
        self._made = made
        self._ready: deque[Lease] = deque()

    def __len__(self) -> int:
        return len(self._ready)

    def add(self, leases: list[Lease]) -> None:
        with self._condition:
            self._ready.extend(leases)
            self._condition.notify_all()

    def take_all(self) -> list[Lease]:
        """Those that were not begun: they are not made any more."""
        with self._condition:
            leases = list(self._ready)
            self._ready.clear()
            return leases

    def make_some(self, role: Role, put: Callable[[Fact], None]) -> bool:
        """Make what is ready, up to a limit. False when this thread has lost its role meanwhile."""
        until = time.monotonic() + LONGEST_TOGETHER
        for _ in range(MOST_TOGETHER):
            try:
                lease = self._ready.popleft()
            except IndexError:
                break
            role.begin()
            fact = self._make(lease)
            still_mine = role.end()
            if fact is not None:
                put(fact)
            self._made(lease)
            if not still_mine:
                logger.info("A delivery to %s took longer than the last time.", lease.destination)
                return False
            if time.monotonic() > until:
                break
        return True


class Runner:
    """A thread that makes short deliveries while another one writes: round trips to the database overlap with them."""

    def __init__(
        self, make: Callable[[Lease], Fact | None], made: Callable[[Lease], None], put: Callable[[Fact], None]
    ) -> None:
        self._condition = Condition()
        self._put = put
        self._stopping = False
        self.short = ShortDeliveries(self._condition, make, made)
        self.role = Role("runner", self._make_some)

    def stop(self, timeout: float) -> bool:
        """End once everything that was added is made. False when that took longer than `timeout` seconds."""
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
        return self.role.wait_for_end(timeout)

    def _make_some(self) -> bool:
        with self._condition:
            self._condition.wait_for(lambda: self.short or self._stopping)
            if not self.short:
                return False
        self.short.make_some(self.role, self._put)
        return True
