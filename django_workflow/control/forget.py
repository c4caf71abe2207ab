"""Erasing what runs hold of people: payloads, results, events, answers and errors go, states and times stay.

    forget(lookup.runs().filter(object_id="42"))

For requests to be forgotten, and for data that must not live as long as the record that something was done. Runs of a
resume chain share payload and results, so all of a chain are forgotten together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from uuid import UUID

import msgspec
from django.db.models import Exists, OuterRef, Q
from django.utils.translation import gettext as _

from django_workflow.conf import get_settings
from django_workflow.control.action import ActionRefused
from django_workflow.engine.clock import current_clock
from django_workflow.engine.gate import engine_atomic
from django_workflow.engine.records import RunConfig, encode_config
from django_workflow.models import Attempt, DeadLetter, Delivery, InputRequest, JournalEntry, Outbox, Run, Step, Waiter
from django_workflow.models.run import RunQuerySet
from django_workflow.presentation import lookup
from django_workflow.protocol.steps import CallType, decode_step, encode_step
from django_workflow.realtime.stores import current_store

BATCH = 100
NAMED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgotten:
    """How many runs were emptied, and rows of theirs emptied or deleted."""

    runs: int = 0
    steps: int = 0
    journal: int = 0
    attempts: int = 0
    waiters: int = 0
    forms: int = 0
    dead_letters: int = 0

    def __add__(self, other: Forgotten) -> Forgotten:
        mine, theirs = asdict(self), asdict(other)
        return Forgotten(**{name: mine[name] + theirs[name] for name in mine})


def chosen(runs: RunQuerySet) -> RunQuerySet:
    """The runs that are forgotten with these: each with its whole chain; those that were forgotten already are not."""
    keys = runs.values("pk")
    firsts = runs.filter(first_run__isnull=False).values("first_run")
    of_chains = Q(pk__in=firsts) | Q(first_run__in=keys) | Q(first_run__in=firsts)
    return lookup.runs().filter(Q(pk__in=keys) | of_chains, forgotten_at=None)


def living(runs: RunQuerySet) -> RunQuerySet:
    """Those that still need their values: active ones, and failed ones whose failure function is yet to be called."""
    due = Delivery.objects.using(runs.db).filter(run=OuterRef("pk"))
    return runs.filter(~Q(status__in=Run.FINAL) | Exists(due))


def forget(runs: RunQuerySet) -> Forgotten:
    """Erase what these runs and their chains hold; what is erased cannot be brought back, and no run resumed.

    Raises ActionRefused, and erases nothing, while one of them is active. In batches, each a transaction of its own:
    one that is interrupted can be repeated.
    """
    meant = chosen(runs)
    alive = list(living(meant).order_by("created_at").values_list("run_id", flat=True)[: NAMED + 1])
    if alive:
        names = ", ".join(alive[:NAMED]) + (" …" if len(alive) > NAMED else "")
        raise ActionRefused(_("Cancel them first, they are not over: %s") % names)
    total, now = Forgotten(), current_clock().now()
    keys = list(meant.order_by("pk").values_list("pk", flat=True))
    for start in range(0, len(keys), BATCH):
        total += _forget(keys[start : start + BATCH], now)
    return total


def _forget(keys: Sequence[UUID], now: datetime) -> Forgotten:
    alias = get_settings().database
    with engine_atomic(alias):
        # What came to life again meanwhile is left for the next time.
        meant = lookup.runs().filter(pk__in=keys)
        runs = list(meant.exclude(pk__in=living(meant)).only("pk", "run_id"))
        keys = [run.pk for run in runs]
        run_ids = [run.run_id for run in runs]
        told = Forgotten(
            runs=len(runs),
            steps=Step.objects.using(alias).filter(run__in=keys).update(preview="", error=""),
            journal=_empty_journal(alias, keys),
            attempts=Attempt.objects.using(alias)
            .filter(run__in=keys)
            .update(error="", response_headers="", response_body=""),
            waiters=Waiter.objects.using(alias)
            .filter(run__in=keys)
            .update(step="", prompt="", config="", event_data=""),
            forms=InputRequest.objects.using(alias).filter(run__in=keys).delete()[0],
            dead_letters=DeadLetter.objects.using(alias).filter(run__in=keys).delete()[0],
        )
        Outbox.objects.using(alias).filter(run_id__in=run_ids).delete()
        current_store().forget(run_ids)
        lookup.runs().filter(pk__in=keys).update(
            payload="",
            payload_is_base64=False,
            result=None,
            error="",
            why="",
            summary="",
            caller_ip="",
            config=encode_config(RunConfig()),
            forgotten_at=now,
        )
    return told


def _empty_journal(alias: str, keys: Sequence[UUID]) -> int:
    """Take everything out of the messages but which step each belongs to: times and order stay."""
    entries = JournalEntry.objects.using(alias).filter(run__in=keys)
    number = entries.exclude(call_type=CallType.STEP, position__gt=0).update(body="", body_is_base64=False, config="")
    results = list(entries.filter(call_type=CallType.STEP, position__gt=0).only("pk", "body"))
    for entry in results:
        entry.body = _empty(entry.body)
        entry.config = ""
    JournalEntry.objects.using(alias).bulk_update(results, ["body", "config"], batch_size=BATCH)
    return number + len(results)


def _empty(body: str) -> str:
    try:
        step = decode_step(body)
    except msgspec.MsgspecError:
        return ""
    return encode_step(msgspec.structs.replace(step, out=None, secret=())).decode()
