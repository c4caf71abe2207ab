"""The engine against a model of it: whatever happens to runs in whatever order, its rows say what the model says.

Calls are made, results held back, written late or twice; workers die and leases are lost; people cancel, send events,
resume and restart; the clock jumps forwards and backwards. A short form runs always, the same each time; the long one
looks further (`make test-faults`).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from django.db import connection, transaction
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from django_workflow import WorkflowContext, step, workflow
from django_workflow.client.client import get_client
from django_workflow.engine import cycle
from django_workflow.engine.after import After
from django_workflow.engine.clock import use_clock
from django_workflow.engine.committer import Writer
from django_workflow.engine.dispatch import Dispatcher
from django_workflow.engine.facts import Fact
from django_workflow.engine.leases import MAX_RESCUES, claim
from django_workflow.engine.records import Lease
from django_workflow.engine.shared import remember, shared_cache
from django_workflow.errors import RunEnded
from django_workflow.models import DeadLetter, Delivery, JournalEntry, Run, Waiter
from django_workflow.models import Worker as WorkerRow
from django_workflow.testing import WorkflowClock, send_event
from django_workflow.testing.calls import RefusingNetwork
from django_workflow.testing.factories import make_worker
from tests.effects.models import Effect
from tests.faults.invariants import assert_sound
from tests.faults.model import RETRIES, RETRY_SECONDS, Call, ModelRun, Op, Outcome, Script, Sleep, Wait, Work

ALIAS = "default"
LETTERS, EVENTS = "abc", ("e1", "e2")
MOST_RUNS = 6

broken: set[str] = set()


def work(run_id: str, name: str, letter: str, is_atomic: bool) -> str:
    Effect.objects.create(run_id=run_id, step=name, atomic=is_atomic)
    if letter in broken:
        raise ConnectionError(f"{letter} is broken")
    return letter


@workflow(name="scripted", retries=RETRIES, retry_delay=RETRY_SECONDS)
def scripted(ctx: WorkflowContext[Any]) -> list[Any]:
    script = [_ops(item) for item in ctx.request_payload]
    out: list[Any] = []
    for place, ops in enumerate(script):
        calls = [_call(ctx, f"{place}.{branch}", *op) for branch, op in enumerate(ops)]
        values = ctx.parallel(*calls) if len(calls) > 1 else [ctx.parallel(calls[0])[0]]
        values = [
            [value.event_data, value.timeout] if op[0] == "wait" else value
            for op, value in zip(ops, values, strict=True)
        ]
        out.append(values if len(ops) > 1 else values[0])
    return out


def _ops(item: Any) -> list[Any]:
    return item if isinstance(item[0], list) else [item]


def _call(ctx: WorkflowContext[Any], name: str, kind: str, *values: Any) -> Any:
    if kind == "work":
        letter, is_atomic = values
        name = f"{'atomic' if is_atomic else 'plain'} {name}"
        return step.run(name, work, ctx.workflow_run_id, name, letter, is_atomic, atomic=is_atomic)
    if kind == "sleep":
        return step.sleep(f"sleep {name}", values[0])
    return step.wait_for_event(f"wait {name}", values[0], timeout=values[1])


def payload(script: Script) -> list[Any]:
    def plain(op: Op) -> list[Any]:
        if isinstance(op, Work):
            return ["work", op.letter, op.atomic]
        return ["sleep", op.seconds] if isinstance(op, Sleep) else ["wait", op.event, op.seconds]

    return [[plain(branch) for branch in op] if isinstance(op, tuple) else plain(op) for op in script]


ops = st.one_of(
    st.builds(Work, st.sampled_from(LETTERS), st.booleans()),
    st.builds(Sleep, st.sampled_from((1, 5))),
    st.builds(Wait, st.sampled_from(EVENTS), st.sampled_from((2, 20))),
)
scripts = st.lists(ops | st.lists(ops, min_size=2, max_size=3).map(tuple), min_size=1, max_size=4).map(tuple)
numbers = st.integers(0, 11)


class Held:
    """A call that was made; what it came to is not written yet."""

    def __init__(self, lease: Lease, facts: list[Fact], run: ModelRun, call: Call | None, outcome: Outcome) -> None:
        self.lease, self.facts, self.run, self.call, self.outcome = lease, facts, run, call, outcome


class Hands:
    """A worker that is driven by hand."""

    def __init__(self, machine: Machine) -> None:
        self.row = make_worker()
        self.key = self.row.pk
        self.leases: list[Lease] = []
        self.held: list[Held] = []
        cache = shared_cache(ALIAS)
        self.writer = Writer(ALIAS, self.key, cache, machine.clock.now, lambda lease: True)
        self.dispatcher = Dispatcher(ALIAS, cache, machine.clock.now, RefusingNetwork())  # type: ignore[arg-type]


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        broken.clear()
        self.clock = WorkflowClock()
        self._clock = use_clock(self.clock)
        self._clock.__enter__()
        self._transaction = transaction.atomic()
        self._transaction.__enter__()
        self.runs: list[ModelRun] = []
        self.workers: list[Hands] = []
        self.lost: list[tuple[Hands, Lease | Held]] = []
        self.sent = 0

    def teardown(self) -> None:
        try:
            if self.workers:
                self.come_to_rest()
        finally:
            transaction.set_rollback(True)
            self._transaction.__exit__(None, None, None)
            self._clock.__exit__(None, None, None)

    @initialize(first=st.lists(scripts, min_size=2, max_size=3), wrong=st.sets(st.sampled_from(LETTERS), max_size=2))
    def begin(self, first: list[Script], wrong: set[str]) -> None:
        self.workers = [Hands(self), Hands(self)]
        broken.update(wrong)
        for script in first:
            self.trigger(script, 0)

    # Runs

    def alive(self) -> list[ModelRun]:
        return [run for run in self.runs if run.alive]

    @precondition(lambda self: len(self.alive()) < MOST_RUNS)
    @rule(script=scripts, delay=st.sampled_from((0, 0, 3)))
    def trigger(self, script: Script, delay: int) -> None:
        handle = scripted.using(delay=delay).trigger(payload(script))
        call = Call(None, self.clock.now() + timedelta(seconds=delay))
        run = ModelRun(handle.id, script, [call], delayed=delay > 0)
        self.runs.append(run)

    @precondition(lambda self: self.runs)
    @rule(number=numbers)
    def cancel(self, number: int) -> None:
        run = self.runs[number % len(self.runs)]
        assert get_client().cancel(run.run_id) == int(run.alive)
        if run.alive:
            run.end("canceled")

    @rule(event=st.sampled_from(EVENTS))
    def broadcast(self, event: str) -> None:
        told = send_event(event, data := self.data())
        assert len(told) == sum(run.notify(event, data, self.clock.now()) for run in self.alive())

    @precondition(lambda self: self.runs)
    @rule(event=st.sampled_from(EVENTS), number=numbers)
    def address(self, event: str, number: int) -> None:
        run = self.runs[number % len(self.runs)]
        data, target = self.data(), run
        while target.status == "failed" and target.follower is not None:
            target = target.follower
        if not target.alive:
            with pytest.raises(RunEnded):
                send_event(event, data, run=run.run_id)
            return
        assert send_event(event, data, run=run.run_id)
        if not target.notify(event, data, self.clock.now()):
            target.early.append((event, data))

    def data(self) -> int:
        self.sent += 1
        return self.sent

    @precondition(lambda self: self.failed())
    @rule(number=numbers, resumed=st.booleans())
    def start_again(self, number: int, resumed: bool) -> None:
        failed = self.failed()[number % len(self.failed())]
        letter = str(DeadLetter.objects.get(run__run_id=failed.run_id).pk)
        started = get_client().resume(letter) if resumed else get_client().restart(letter)
        run_id = started.workflow_runs[0].workflow_run_id
        begin = failed.resume if resumed else failed.restart
        self.runs.append(begin(run_id, self.clock.now()))

    def failed(self) -> list[ModelRun]:
        return [run for run in self.runs if run.status == "failed" and run.follower is None]

    @rule(letter=st.sampled_from(LETTERS))
    def break_or_mend(self, letter: str) -> None:
        broken.symmetric_difference_update(letter)

    # Workers

    @rule(which=st.integers(0, 1), limit=st.integers(1, 4))
    def claim(self, which: int, limit: int) -> None:
        worker, now = self.workers[which], self.clock.now()
        leased = self.leased()
        free: list[tuple[str, int | str | None]] = [
            (run.run_id, call.branch)
            for run in self.alive()
            for call in run.calls
            if call.due_at <= now and (run.run_id, call.branch) not in leased
        ]
        failures = Delivery.objects.filter(kind=Delivery.Kind.FAILURE).due(now).unleased()
        free += [(run_id, "failure") for run_id in failures.values_list("run__run_id", flat=True)]
        leases = claim(ALIAS, worker.key, now, limit).leases
        got = [self.names(lease) for lease in leases]
        assert len(got) == min(limit, len(free))
        assert set(got) <= set(free)
        worker.leases += leases

    def names(self, lease: Lease) -> tuple[str, int | str | None]:
        assert lease.run_key is not None
        branch = None if lease.solo else lease.step_id
        if lease.kind == Delivery.Kind.FAILURE:
            return shared_cache(ALIAS).info(lease.run_key).run_id, "failure"
        return shared_cache(ALIAS).info(lease.run_key).run_id, branch

    def leased(self) -> set[tuple[str, int | str | None]]:
        mine = [lease for worker in self.workers for lease in worker.leases]
        mine += [held.lease for worker in self.workers for held in worker.held]
        rows = dict(Delivery.objects.values_list("pk", "fence"))
        return {self.names(lease) for lease in mine if rows.get(lease.key) == lease.fence}

    @rule(which=st.integers(0, 1), calls=st.integers(1, 6), seconds=st.sampled_from((0, 1, 1)))
    def work(self, which: int, calls: int, seconds: int) -> None:
        """A worker makes some calls in a row, undisturbed, a while later."""
        self.clock.advance(seconds)
        worker = self.workers[which]
        for number in range(calls):
            if not worker.leases:
                self.claim(which, 3)
            if worker.leases:
                self.make_one(worker, worker.leases[number % len(worker.leases)], now=True)

    @precondition(lambda self: any(worker.leases for worker in self.workers))
    @rule(number=numbers, now=st.booleans())
    def make(self, number: int, now: bool) -> None:
        """Make a call, and write what it came to: at once, or later."""
        every = [(worker, lease) for worker in self.workers for lease in worker.leases]
        self.make_one(*every[number % len(every)], now=now)

    def make_one(self, worker: Hands, lease: Lease, *, now: bool) -> None:
        worker.leases.remove(lease)
        held = self.dispatch(worker, lease)
        if held is None:
            return
        worker.held.append(held)
        if now:
            self.write(worker, twice=False)

    def dispatch(self, worker: Hands, lease: Lease) -> Held | None:
        run_id, branch = self.names(lease)
        run = next(run for run in self.runs if run.run_id == run_id)
        holds = Delivery.objects.filter(pk=lease.key, fence=lease.fence, worker_id=lease.worker_key).exists()
        call = next((call for call in run.calls if call.branch == branch), None) if holds else None
        outcome = run.make(call, broken) if call is not None else Outcome("nothing")
        facts: list[Fact] = []
        dispatched = worker.dispatcher.dispatch(lease, facts.append)
        if dispatched.after is not None:  # an atomic step has written its result by itself
            assert call is not None
            self.follow(worker, dispatched.after)
            run.settle(call, outcome, self.clock.now())
            return None
        return Held(lease, [*facts, dispatched.settlement], run, call, outcome)

    @precondition(lambda self: any(worker.held for worker in self.workers))
    @rule(which=st.integers(0, 1), twice=st.booleans())
    def commit(self, which: int, twice: bool) -> None:
        self.write(self.workers[which], twice)

    def write(self, worker: Hands, twice: bool) -> None:
        """Write all that a worker has in hand as one batch; `twice`: as after a commit whose answer was lost."""
        batch, worker.held = worker.held, []
        if not batch:
            return
        holding = [held for held in batch if self.holds(held.lease)]
        facts = [fact for held in batch for fact in held.facts]
        written = worker.writer.write(facts)
        assert not written.busy
        self.follow(worker, written.after)
        for held in holding:
            if held.call is not None:
                held.run.settle(held.call, held.outcome, self.clock.now())
        if twice:
            again = worker.writer.write(facts)
            assert again.after.followups == []

    @staticmethod
    def holds(lease: Lease) -> bool:
        return Delivery.objects.filter(pk=lease.key, fence=lease.fence, worker_id=lease.worker_key).exists()

    def follow(self, worker: Hands, after: After) -> None:
        remember(ALIAS, after)
        worker.leases += after.followups

    @precondition(lambda self: not Delivery.objects.filter(rescues__gte=MAX_RESCUES - 1).exists())
    @rule(which=st.integers(0, 1))
    def lose_worker(self, which: int) -> None:
        """It is taken for dead, and another takes its place; what it had in hand may still come."""
        worker = self.workers[which]
        cycle.rescue_dead(ALIAS, self.clock.now(), [worker.key])
        self.lost += [(worker, lease) for lease in worker.leases]
        self.lost += [(worker, held) for held in worker.held]
        self.workers[which] = Hands(self)
        assert not WorkerRow.objects.filter(pk=worker.key).exists()

    @precondition(lambda self: self.lost)
    @rule(number=numbers)
    def awake_from_the_dead(self, number: int) -> None:
        """A worker that was only frozen makes the call, or writes what it had: nothing changes."""
        worker, what = self.lost.pop(number % len(self.lost))
        held = what if isinstance(what, Held) else self.dispatch(worker, what)
        if held is None:
            return
        written = worker.writer.write(held.facts)
        assert (written.after.followups, written.busy) == ([], [])

    # Time

    @rule(seconds=st.sampled_from((1, 1, 5, 30)))
    def pass_time(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule(seconds=st.sampled_from((1, 3600)))
    def set_the_clock_back(self, seconds: int) -> None:
        self.clock._now -= timedelta(seconds=seconds)

    @rule()
    def end_waits(self) -> None:
        after = cycle.end_overdue_waits(ALIAS, self.clock.now())
        if after is not None:
            remember(ALIAS, after)
        for run in self.alive():
            run.time_out(self.clock.now())

    # What must hold

    @invariant()
    def rows_are_as_the_model_says(self) -> None:
        if not self.workers:
            return
        assert dict(Run.objects.values_list("run_id", "status")) == {run.run_id: run.shown() for run in self.runs}
        fields = ("run__run_id", "solo", "step_id", "due_at", "attempt", "kind", "worker_id", "pk", "fence")
        deliveries = list(Delivery.objects.values_list(*fields, named=True))
        assert Counter(
            (call.run__run_id, None if call.solo else call.step_id, call.due_at, call.attempt)
            for call in deliveries
            if call.kind == Delivery.Kind.STEP
        ) == Counter((run.run_id, call.branch, call.due_at, call.attempt) for run in self.runs for call in run.calls)
        results = JournalEntry.objects.exclude(step_id=None).values_list("run__run_id", "step_id")
        assert Counter(results) == Counter((run.run_id, number) for run in self.runs for number in run.results)
        waits = Waiter.objects.waiting().values_list("run__run_id", "step_id", "event_id", "deadline_at")
        assert Counter(waits) == Counter(
            (run.run_id, number, *wait) for run in self.runs for number, wait in run.waits.items()
        )
        letters = DeadLetter.objects.values_list("run__run_id", flat=True)
        assert Counter(letters) == Counter(run.run_id for run in self.failed())
        known = {(lease.key, lease.fence) for worker in self.workers for lease in worker.leases}
        known |= {(held.lease.key, held.lease.fence) for worker in self.workers for held in worker.held}
        leased = {(call.pk, call.fence) for call in deliveries if call.worker_id is not None}
        assert leased <= known, "a lease that its worker does not know of"

    def come_to_rest(self) -> None:
        """Everything works from now on: each run ends, with the results that its script has."""
        broken.clear()
        for _ in range(200):
            for which, worker in enumerate(self.workers):
                self.write(worker, twice=True)
                while worker.leases:
                    self.make_one(worker, worker.leases[0], now=True)
                self.claim(which, 4)
            if any(worker.leases for worker in self.workers):
                continue
            instants = [call.due_at for run in self.alive() for call in run.calls]
            instants += [deadline for run in self.alive() for _, deadline in run.waits.values()]
            # Of runs that are over; later than now when the clock was set back.
            instants += Delivery.objects.filter(kind=Delivery.Kind.FAILURE).values_list("due_at", flat=True)
            if not instants:
                break
            self.clock.move_to(max(min(instants), self.clock.now()))
            self.end_waits()
        self.rows_are_as_the_model_says()
        assert not self.alive()
        for run in self.runs:
            if run.status == "success":
                assert msgspec.json.decode(Run.objects.get(run_id=run.run_id).result or "") == run.output()
        assert_sound(workers=True)


def explore(examples: int, steps: int, **options: Any) -> None:
    bounds = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        **options,
    )
    run_state_machine_as_test(Machine, settings=bounds)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Steps fail by the thousand here, and each would be told with its traceback."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.django_db
def test_rows_are_as_the_model_says() -> None:
    explore(6, 40, derandomize=True)


@pytest.mark.slow
@pytest.mark.django_db
def test_rows_are_as_the_model_says_however_far_one_looks() -> None:
    # What may happen in which order is looked for on SQLite; a server's own statements have all been used much sooner.
    explore(400 if connection.vendor == "sqlite" else 100, 80, print_blob=True)
