"""The event log of messages outside workflows: what happened to each, computed when it is read.

Nothing is written for it: a message's row knows its instants, its failed attempts know theirs. Each kind of instant is
read in its order, with a limit; merged, they are a page. Called by the HTTP door, which gives entries their form.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from django.db.models import Q, QuerySet
from django.db.models.functions import Length

from django_workflow.models import Attempt, Delivery, MessageLog
from django_workflow.protocol.states import MessageState

LARGEST_PAGE = 4 * 1024 * 1024
"""Bodies of so many characters end a page early: it has fewer entries than asked for, and a cursor."""

_FINAL = {
    MessageLog.State.DELIVERED: MessageState.DELIVERED,
    MessageLog.State.FAILED: MessageState.FAILED,
    MessageLog.State.CANCELED: MessageState.CANCELED,
}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

# An event's place among those of its message: what happens in one instant has an order as well.
_PER_ATTEMPT = 4
_ACTIVE, _ERROR, _RETRY = 1, 2, 3
_CANCEL_REQUESTED, _END = 1 << 40, (1 << 40) + 1


class Place(NamedTuple):
    """Where an event stands in the log: Unix microseconds, its message, its place among that message's events."""

    at: int
    key: UUID
    rank: int

    @property
    def instant(self) -> datetime:
        return _EPOCH + self.at * _MICROSECOND


@dataclass(frozen=True, slots=True)
class Event:
    """One entry. `attempt` is the failed one that it tells of, if any."""

    place: Place
    state: MessageState
    message: MessageLog
    attempt: Attempt | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """`following` is the place after which the next page goes on; None on the last one."""

    events: list[Event]
    following: Place | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventQuery:
    """Which entries: of these messages, in these states, between these instants (both included), after that place."""

    messages: Q = field(default_factory=Q)
    states: Collection[MessageState] = frozenset(MessageState)
    since: datetime | None = None
    until: datetime | None = None
    earliest_first: bool = False
    after: Place | None = None
    count: int = 100


class _Mark(NamedTuple):
    """An event as the database's indexes give it: without what it tells."""

    place: Place
    state: MessageState
    attempt_key: UUID | None


def read(alias: str, query: EventQuery) -> Page:
    """A page of the log."""
    sources = [source(alias, query) for states, source in _SOURCES if not states.isdisjoint(query.states)]
    merged = heapq.merge(*sources, key=lambda mark: mark.place, reverse=not query.earliest_first)
    marks = [mark for _, mark in zip(range(query.count + 1), merged, strict=False)]
    chosen = _within_budget(alias, marks[: query.count])
    following = chosen[-1].place if chosen and len(chosen) < len(marks) else None
    return Page(list(_events(alias, chosen)), following)


# Each kind of instant


def _created(alias: str, query: EventQuery) -> Iterator[_Mark]:
    return _of_messages(alias, query, "created_at", lambda attempt, state: (MessageState.CREATED, 0))


def _active(alias: str, query: EventQuery) -> Iterator[_Mark]:
    """The attempt that is under way, or a finished message's last one."""
    return _of_messages(
        alias, query, "active_at", lambda attempt, state: (MessageState.ACTIVE, _rank(attempt + 1, _ACTIVE))
    )


def _cancel_requested(alias: str, query: EventQuery) -> Iterator[_Mark]:
    return _of_messages(
        alias, query, "cancel_requested_at", lambda attempt, state: (MessageState.CANCEL_REQUESTED, _CANCEL_REQUESTED)
    )


def _finished(alias: str, query: EventQuery) -> Iterator[_Mark]:
    wanted = [stored for stored, state in _FINAL.items() if state in query.states]
    return _of_messages(alias, query, "finished_at", lambda attempt, state: (_FINAL[state], _END), Q(state__in=wanted))


def _attempt_started(alias: str, query: EventQuery) -> Iterator[_Mark]:
    return _of_attempts(alias, query, "started_at", ((MessageState.ACTIVE, _ACTIVE),))


def _attempt_finished(alias: str, query: EventQuery) -> Iterator[_Mark]:
    kinds = ((MessageState.ERROR, _ERROR), (MessageState.RETRY, _RETRY))
    return _of_attempts(alias, query, "finished_at", [kind for kind in kinds if kind[0] in query.states])


_SOURCES: tuple[tuple[frozenset[MessageState], Callable[[str, EventQuery], Iterator[_Mark]]], ...] = (
    (frozenset({MessageState.CREATED}), _created),
    (frozenset({MessageState.ACTIVE}), _active),
    (frozenset({MessageState.ACTIVE}), _attempt_started),
    (frozenset({MessageState.ERROR, MessageState.RETRY}), _attempt_finished),
    (frozenset({MessageState.CANCEL_REQUESTED}), _cancel_requested),
    (frozenset(_FINAL.values()), _finished),
)


def _of_messages(
    alias: str,
    query: EventQuery,
    column: str,
    event: Callable[[int, Any], tuple[MessageState, int]],
    which: Q | None = None,
) -> Iterator[_Mark]:
    """The events at one of the instants of messages."""
    chosen = MessageLog.objects.using(alias).filter(query.messages, which or Q())
    rows = _bounded(chosen, query, column, ("pk",), ())
    for at, key, attempt, stored in rows.values_list(column, "pk", "attempt", "state")[: query.count + 2]:
        state, rank = event(attempt, stored)
        yield from _unread(query, Place(microseconds(at), key, rank), state, None)


def _of_attempts(
    alias: str, query: EventQuery, column: str, kinds: Collection[tuple[MessageState, int]]
) -> Iterator[_Mark]:
    """The events at one of the instants of failed attempts that are followed by others: the last one is its message's
    own end."""
    rows = Attempt.objects.using(alias).filter(kind=Delivery.Kind.MESSAGE, retry_at__isnull=False)
    if query.messages:
        rows = rows.filter(message_key__in=MessageLog.objects.using(alias).filter(query.messages).values("pk"))
    number = query.after.rank // _PER_ATTEMPT if query.after else 0
    rows = _bounded(rows, query, column, ("message_key", "number"), (number,))
    order = 1 if query.earliest_first else -1
    for at, key, number, pk in rows.values_list(column, "message_key", "number", "pk")[: query.count + 2]:
        for state, kind in list(kinds)[::order]:
            yield from _unread(query, Place(microseconds(at), key, _rank(number, kind)), state, pk)


def _bounded(
    rows: QuerySet[Any], query: EventQuery, column: str, ties: tuple[str, ...], rest: tuple[int, ...]
) -> QuerySet[Any]:
    """The rows in the order of the log, from where the page before ended. `ties` are the columns that order what
    happened in one instant, `rest` the values of all but the first of them there."""
    bounds: dict[str, Any] = {f"{column}__isnull": False}
    if query.since is not None:
        bounds[f"{column}__gte"] = query.since
    if query.until is not None:
        bounds[f"{column}__lte"] = query.until
    rows = rows.filter(**bounds)
    beyond = "gt" if query.earliest_first else "lt"
    if query.after is not None:
        # Not beyond but at the first tie's end as well: whether those were read is seen by their rank.
        values = (query.after.instant, query.after.key, *rest)
        names = (column, *ties)
        at, more = Q(), Q()
        for name, value in zip(names, values, strict=True):
            more |= at & Q(**{f"{name}__{beyond}": value})
            at &= Q(**{name: value})
        rows = rows.filter(more | at, **{f"{column}__{beyond}e": query.after.instant})
    sign = "" if query.earliest_first else "-"
    return rows.order_by(*(f"{sign}{name}" for name in (column, *ties)))


def _unread(query: EventQuery, place: Place, state: MessageState, attempt_key: UUID | None) -> Iterator[_Mark]:
    after = query.after
    if after is None or (place > after if query.earliest_first else place < after):
        yield _Mark(place, state, attempt_key)


def _rank(number: int, kind: int) -> int:
    return number * _PER_ATTEMPT + kind


def microseconds(at: datetime) -> int:
    return (at - _EPOCH) // _MICROSECOND


# What they tell


def _within_budget(alias: str, marks: list[_Mark]) -> list[_Mark]:
    """As many of these as a page may hold: one at least."""
    messages = MessageLog.objects.using(alias).order_by().filter(pk__in={mark.place.key for mark in marks})
    attempts = (
        Attempt.objects.using(alias).order_by().filter(pk__in={mark.attempt_key for mark in marks if mark.attempt_key})
    )
    sizes: dict[UUID | None, int] = dict(messages.values_list("pk", Length("body") + Length("response_body")))
    if any(mark.attempt_key for mark in marks):
        sizes |= dict(attempts.values_list("pk", Length("response_body")))
    total = 0
    for index, mark in enumerate(marks):
        total += sizes.get(mark.place.key, 0) + sizes.get(mark.attempt_key, 0)
        if total > LARGEST_PAGE and index:
            return marks[:index]
    return marks


def _events(alias: str, marks: Iterable[_Mark]) -> Iterator[Event]:
    marks = list(marks)
    messages = MessageLog.objects.using(alias).order_by().in_bulk({mark.place.key for mark in marks})
    attempt_keys = {mark.attempt_key for mark in marks if mark.attempt_key}
    attempts = Attempt.objects.using(alias).order_by().in_bulk(attempt_keys) if attempt_keys else {}
    for place, state, attempt_key in marks:
        message = messages.get(place.key)
        if message is not None:  # else it was pruned meanwhile
            yield Event(place, state, message, attempts.get(attempt_key) if attempt_key else None)
