"""What must hold in the engine's rows whatever happened to its processes.

`assert_sound()` after everything came to rest; `broken_rules()` at any moment in which no transaction is open: the
rules that hold then too. Both look at all runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from django.db.models import Count, Exists, F, Max, Min, OuterRef, Q
from django.db.models.functions import Coalesce

from django_workflow.engine.records import decode_config
from django_workflow.models import (
    ChannelEvent,
    DeadLetter,
    Delivery,
    JournalEntry,
    Run,
    Step,
    Waiter,
    Worker,
)
from tests.effects.models import Effect
from tests.effects.workflows import EVERY_RESULT

SHOWN = 5
"""How many rows of one kind are named."""


def assert_sound(*, workers: bool = False) -> None:
    """Every run ended in the right state or is a dead letter with its reason, each atomic effect is there once, no
    delivery is left or leased, no row belongs to nothing. `workers`: some are still up, and may be listed."""
    found = [*broken_rules(), *_left_over(workers)]
    assert not found, "\n".join(found)


def all_over() -> bool:
    """Whether every run has ended."""
    return not Run.objects.active().exists()


def assert_all_done(handles: Iterable[Any]) -> None:
    """Each of these runs of `every_kind` succeeded with its result, and all is sound."""
    runs = list(Run.objects.filter(run_id__in=[handle.id for handle in handles]))
    ends = {(run.status, run.error, run.result) for run in runs}
    assert ends == {(Run.Status.SUCCESS, "", EVERY_RESULT)}, ends
    assert_sound()


def broken_rules() -> list[str]:
    """What is wrong, a line each; nothing, at every moment between two transactions."""
    return [*_journals(), *_steps(), *_ends(), *_ways_on(), *_leases(), *_events(), *_effects(), *_invoked()]


def _left_over(workers: bool) -> Iterator[str]:
    yield from _each("run is not over", Run.objects.active(), "run_id", "status", "why")
    yield from _each("delivery is left", Delivery.objects.all(), "run__run_id", "kind", "worker_id")
    if not workers:
        yield from _each("worker is still listed", Worker.objects.all(), "host", "pid")


def _journals() -> Iterator[str]:
    """Positions 1, 2, 3 … without a hole; each step's result once."""
    entries = JournalEntry.objects.order_by().values("run__run_id")
    spans = entries.annotate(number=Count("pk"), first=Min("position"), last=Max("position"))
    holes = spans.exclude(first=1, last=F("number"))
    yield from _each("journal has a hole", holes, "run__run_id", "number", "first", "last")
    results = JournalEntry.objects.order_by().exclude(step_id=None).values("run__run_id", "step_id")
    twice = results.annotate(times=Count("pk")).filter(times__gt=1)
    yield from _each("step has several results", twice, "run__run_id", "step_id", "times")


def _steps() -> Iterator[str]:
    """A finished step points to its result, a result has its finished step."""
    mine = {"run": OuterRef("run"), "step_id": OuterRef("step_id")}
    done = Step.objects.filter(status=Step.Status.SUCCESS)
    lost = done.exclude(Exists(JournalEntry.objects.filter(**mine)))
    yield from _each("step is done, and its result is not in the journal", lost, "run__run_id", "step_id", "name")
    slept = Q(step_type__startswith="Sleep")  # its result is written when it begins; its run may end before it is over
    right = Q(status=Step.Status.SUCCESS) | slept & Q(status__in=(Step.Status.SLEEPING, Step.Status.CANCELED))
    shown = Step.objects.filter(right, **mine)
    unshown = JournalEntry.objects.exclude(step_id=None).exclude(Exists(shown))
    yield from _each("result's step is not shown as done", unshown, "run__run_id", "step_id")


def _ends() -> Iterator[str]:
    """What belongs to a run that is over: a true end, and nothing open."""
    over = Q(run__status__in=Run.FINAL)
    finished = Run.objects.finished()
    yield from _each("run is over, and has no end", finished.filter(finished_at=None), "run_id", "status")
    yield from _each("run is over, and a group is open", finished.exclude(group_open=0), "run_id", "group_open")
    alive = Run.objects.active().exclude(finished_at=None)
    yield from _each("run goes on after its end", alive, "run_id", "status")
    open_steps = Step.objects.filter(over, status__in=Step.OPEN)
    yield from _each("step is open in a run that is over", open_steps, "run__run_id", "name", "status")
    waiting = Waiter.objects.waiting().filter(over)
    yield from _each("wait is open in a run that is over", waiting, "run__run_id", "event_id")
    deliveries = Delivery.objects.filter(over).exclude(kind=Delivery.Kind.FAILURE)
    yield from _each("delivery of a run that is over", deliveries, "run__run_id", "kind")
    failed = Run.objects.filter(status=Run.Status.FAILED, resumed_as=None)
    untold = failed.filter(Q(dead_letter=None) | Q(error="") | ~Q(dead_letter__error=F("error")))
    yield from _each("run failed without its reason in the DLQ", untold, "run_id", "error")
    alive_letters = DeadLetter.objects.exclude(run=None).exclude(run__status=Run.Status.FAILED)
    yield from _each("dead letter of a run that did not fail", alive_letters, "run__run_id", "error")


def _ways_on() -> Iterator[str]:
    """A run that is not over has something that will take it on: a call to make, a wait, or a run that it invoked."""
    ways = (
        Delivery.objects.filter(run=OuterRef("pk")),
        Waiter.objects.waiting().filter(run=OuterRef("pk")),
        Run.objects.active().filter(parent=OuterRef("pk")),
    )
    stuck = Run.objects.active().filter(check_at=None)
    for way in ways:
        stuck = stuck.exclude(Exists(way))
    yield from _each("run has no way on", stuck, "run_id", "status", "why")


def _leases() -> Iterator[str]:
    """A lease belongs to a worker that is listed: others free it when that one dies."""
    unknown = Delivery.objects.exclude(worker_id=None).exclude(worker_id__in=Worker.objects.values("pk"))
    yield from _each("lease of a worker that nobody knows", unknown, "run__run_id", "kind", "worker_id")


def _events() -> Iterator[str]:
    """A run's channel tells its beginning, its end and each step's result once."""
    told: Counter[tuple[str, ...]] = Counter()
    events = ChannelEvent.objects.filter(event="workflow.update").values_list("channel", "data")
    for channel, data in events.iterator():
        update = msgspec.json.decode(data)
        if update["type"] in ("runStart", "runFinish", "stepFinish"):
            told[channel, update["type"], str(update.get("stepId", ""))] += 1
    for key, times in told.items():
        if times > 1:
            yield f"event was told {times} times: {' '.join(key)}"
    finished = set(Run.objects.finished().values_list("run_id", flat=True))
    with_events = {key[0] for key in told}
    for run_id in finished & with_events:
        if not told[run_id, "runFinish", ""]:
            yield f"run's end was not told: {run_id}"


def _effects() -> Iterator[str]:
    """An atomic step's rows are there once if its result is, and not at all if it is not. A resumed run keeps the
    results, and so the effects, of those before it."""
    first = dict(Run.objects.values_list("run_id", Coalesce("first_run__run_id", "run_id")))
    atomic = Effect.objects.filter(atomic=True).values_list("run_id", "step")
    effects = Counter((first.get(run_id, run_id), step) for run_id, step in atomic)
    finished = Step.objects.filter(name__in={step for _, step in effects}, status=Step.Status.SUCCESS)
    done = {(first[run_id], name) for run_id, name in finished.values_list("run__run_id", "name")}
    yield from _named("atomic effect happened several times", {key for key, times in effects.items() if times > 1})
    yield from _named("atomic effect without its result", effects.keys() - done)
    yield from _named("atomic effect lost, although its result is kept", done - effects.keys())


def _invoked() -> Iterator[str]:
    """A step that invokes starts one run, however often its call was made; a run that goes on for it is no other."""
    children = Run.objects.exclude(parent=None).filter(resumed_from=None).values_list("parent__run_id", "config")
    started = Counter((parent, _invoking_step(config)) for parent, config in children)
    yield from _named("step invoked several runs", {key for key, times in started.items() if times > 1})


def _invoking_step(config: str) -> str:
    invoker = decode_config(config).invoker
    return invoker.step.step_name if invoker is not None else ""


def _named(what: str, keys: Iterable[tuple[str, str]]) -> Iterator[str]:
    for run_id, name in sorted(keys)[:SHOWN]:
        yield f"{what}: {run_id} {name}"


def _each(what: str, rows: object, *fields: str) -> Iterator[str]:
    found = list(rows.values_list(*fields)[: SHOWN + 1])  # type: ignore[attr-defined]
    for row in found[:SHOWN]:
        yield f"{what}: {' '.join(str(value) for value in row)}"
    if len(found) > SHOWN:
        yield f"{what}: and more"
