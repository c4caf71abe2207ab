"""Whether the engine works: workers, what is due, the outbox, signing keys, realtime. In a handful of queries.

`read_health(now)` gives the facts; `problems` of them are sentences with a remedy, the worst first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from channels.layers import InMemoryChannelLayer, get_channel_layer
from django.db.models import Count, Min, Q
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from django_workflow.conf import get_settings
from django_workflow.engine.signing_keys import KeySource, key_source
from django_workflow.models import Delivery, Outbox, Worker
from django_workflow.presentation.lookup import is_alive
from django_workflow.realtime.lengths import length_text

OVERDUE = timedelta(minutes=1)
"""For how long something may be due before that is worth a word: workers look every second."""

SILENCE_SHOWN = timedelta(days=7)


class Level(Enum):
    """How grave a problem is."""

    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Problem:
    level: Level
    text: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Workers:
    """`slots` is how many deliveries the living ones can have in flight, `in_flight` how many there are."""

    alive: int
    draining: int
    silent: int
    slots: int
    in_flight: int
    last_heartbeat_at: datetime | None


@dataclass(frozen=True, slots=True)
class Due:
    """Deliveries that could start now. `held` of them wait for a flow-control key or a queue, so they are not late;
    `overdue` are those of the others that have been due for over a minute, `oldest_at` since when the oldest is."""

    ready: int
    overdue: int
    held: int
    oldest_at: datetime | None


@dataclass(frozen=True, slots=True)
class OutboxState:
    unsent: int
    oldest_at: datetime | None
    given_up: int


@dataclass(frozen=True, slots=True)
class Realtime:
    """`layer` is the name of the channel layer's class, "" without one; `is_shared`: it reaches other processes."""

    store: str
    layer: str
    is_shared: bool


@dataclass(frozen=True, slots=True)
class Health:
    at: datetime
    is_hosted: bool
    workers: Workers
    due: Due
    outbox: OutboxState
    keys: KeySource
    realtime: Realtime

    @property
    def problems(self) -> list[Problem]:
        found = [*_worker_problems(self), *_outbox_problems(self), *_key_problems(self)]
        return sorted(found, key=lambda problem: problem.level is not Level.ERROR)


def read_health(now: datetime) -> Health:
    return Health(
        at=now,
        is_hosted=get_settings().is_hosted,
        workers=_workers(now),
        due=_due(now),
        outbox=_outbox(),
        keys=key_source(),
        realtime=_realtime(),
    )


def _workers(now: datetime) -> Workers:
    alias = get_settings().database
    found = list(Worker.objects.using(alias).filter(heartbeat_at__gt=now - SILENCE_SHOWN).order_by("-heartbeat_at"))
    alive = [worker for worker in found if is_alive(worker, now)]
    return Workers(
        alive=len(alive),
        draining=sum(worker.draining for worker in alive),
        silent=len(found) - len(alive),
        slots=sum(worker.concurrency for worker in alive if not worker.draining),
        in_flight=Delivery.objects.using(alias).filter(worker__isnull=False).count(),
        last_heartbeat_at=found[0].heartbeat_at if found else None,
    )


def _due(now: datetime) -> Due:
    is_free = Q(flow_key="", queue="")
    due = Delivery.objects.using(get_settings().database).unleased().due(now).order_by()
    counted = due.aggregate(
        ready=Count("pk", filter=is_free),
        overdue=Count("pk", filter=is_free & Q(due_at__lte=now - OVERDUE)),
        held=Count("pk", filter=~is_free),
        oldest_at=Min("due_at", filter=is_free),
    )
    return Due(**counted)


def _outbox() -> OutboxState:
    rows = Outbox.objects.using(get_settings().database)
    counted = rows.unsent().order_by().aggregate(unsent=Count("pk"), oldest_at=Min("created_at"))
    return OutboxState(**counted, given_up=rows.filter(given_up_at__isnull=False, sent_at=None).count())


def _realtime() -> Realtime:
    layer = get_channel_layer()
    return Realtime(
        store=get_settings().realtime_store,
        layer="" if layer is None else type(layer).__name__,
        is_shared=layer is not None and not isinstance(layer, InMemoryChannelLayer),
    )


# What is wrong


def _worker_problems(health: Health) -> Iterator[Problem]:
    workers, due = health.workers, health.due
    if not workers.alive:
        last = workers.last_heartbeat_at
        waiting = ngettext("%d delivery is due.", "%d deliveries are due.", due.ready) % due.ready
        silent = (
            _("No worker has reported for %s.") % length_text(health.at - last)
            if last is not None
            else _("No worker has reported in the last days.")
        )
        remedy = _("Start one: `manage.py workflow_worker`, or an ASGI server with worker_autostart.")
        yield Problem(
            Level.ERROR if due.ready or not health.is_hosted else Level.WARNING, f"{silent} {waiting}", remedy
        )
    elif due.overdue:
        text = ngettext(
            "%d delivery has been due for over a minute.", "%d deliveries have been due for over a minute.", due.overdue
        )
        remedy = (
            _("All slots are busy: start more workers, or raise concurrency.")
            if workers.in_flight >= workers.slots
            else _("The workers do not keep up: look at their logs, and at the database's load.")
        )
        yield Problem(Level.WARNING, text % due.overdue, remedy)


def _outbox_problems(health: Health) -> Iterator[Problem]:
    outbox = health.outbox
    if outbox.given_up:
        text = ngettext(
            "%d message could not be handed to the hosted engine.",
            "%d messages could not be handed to the hosted engine.",
            outbox.given_up,
        )
        yield Problem(Level.ERROR, text % outbox.given_up, _("Their rows in the outbox say why."))
    if outbox.oldest_at is not None and health.at - outbox.oldest_at > OVERDUE:
        text = _("A message has waited in the outbox for %s.") % length_text(health.at - outbox.oldest_at)
        yield Problem(
            Level.WARNING, text, _("Look whether the hosted engine can be reached, and whether a worker runs.")
        )


def _key_problems(health: Health) -> Iterator[Problem]:
    if health.is_hosted and not health.keys.number:
        text = _("There are no signing keys: calls of the hosted engine are not trusted.")
        yield Problem(Level.ERROR, text, _("Set QSTASH_CURRENT_SIGNING_KEY and QSTASH_NEXT_SIGNING_KEY."))
