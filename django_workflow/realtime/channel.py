"""Channels of the project's own: `Realtime` and what it emits, keeps and hands to subscribers.

    updates = Realtime(schema={"notification": {"alert": Alert}})
    updates.channel("user-42").emit("notification.alert", Alert("hi"))

An event goes through the schema to the store, and is announced after the commit. Browsers follow a channel by the
transports of this package, as far as `realtime_authorize` lets them; the server by `subscribe`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import msgspec
from asgiref.sync import sync_to_async
from django.db import connections, transaction

from django_workflow import signals
from django_workflow.conf import get_settings
from django_workflow.errors import WorkflowError
from django_workflow.models.channel_event import format_position, parse_position, position_at
from django_workflow.protocol.identifiers import RUN_PREFIX
from django_workflow.realtime import history
from django_workflow.realtime.feed import current_feed
from django_workflow.realtime.history import in_database
from django_workflow.realtime.messages import Message, check_channel
from django_workflow.realtime.schema import Schema
from django_workflow.realtime.stores import History, NewEvent, current_store

DEFAULT_CHANNEL = "default"
MOST_HISTORY = 1000
_LAST_POSITION = (1 << 63) - 1

RunEmitter = Callable[[str, str, Any], None]

_run_emitter: RunEmitter | None = None


def use_run_emitter(emitter: RunEmitter | None) -> None:
    """`emitter(run_id, event, data)` writes an event of a run's channel, under the lock of the run. Set by `apps`."""
    global _run_emitter
    _run_emitter = emitter


class CursorUnavailable(WorkflowError):
    """Events after a cursor are no longer kept, so a subscriber would miss some. `channel`, `cursor`."""

    def __init__(self, channel: str, cursor: str) -> None:
        super().__init__(
            f"Cursor {cursor} is unavailable for channel {channel!r}: what followed it may have been trimmed. "
            "Read the present state anew, then subscribe without `after`."
        )
        self.channel = channel
        self.cursor = cursor


class Realtime:
    """Channels with one schema and one history. The object itself is the channel "default"."""

    def __init__(
        self, schema: Mapping[str, Any] | None = None, *, history: History | None = None, strict: bool = True
    ) -> None:
        """`schema`: see `realtime.schema`; without one any event may be emitted. `strict=False` lets unknown events
        pass unchecked."""
        self._schema = Schema(schema, strict=strict)
        self._history = history or History()
        default = self.channel(DEFAULT_CHANNEL)
        self.emit, self.aemit = default.emit, default.aemit
        self.history, self.ahistory = default.history, default.ahistory
        self.subscribe = default.subscribe

    def channel(self, name: str) -> ChannelHandle:
        """A channel by its name, or a run's by its id. Raises RequestRejected for what no channel can be called."""
        return ChannelHandle(check_channel(name), self._schema, self._history)


class ChannelHandle:
    def __init__(self, name: str, schema: Schema, keep: History) -> None:
        self.name = name
        self._schema = schema
        self._keep = keep

    def __repr__(self) -> str:
        return f"<channel {self.name!r}>"

    def emit(self, event: str, data: Any = None, *, immediate: bool = False) -> str | None:
        """Keep an event and announce it. Gives its id where that is known at once, else None.

        In a transaction the event is kept and announced with the commit, and gone with a rollback; other emitters of
        the channel wait for it, so emit last and keep the transaction short. `immediate=True` commits it at once and on
        its own, which SQLite cannot do inside a transaction. Stores besides the database append after the commit.
        Raises EventInvalid.
        """
        new = NewEvent(self.name, event, self._schema.encode(event, data))
        if immediate:
            return self._emit_alone(new)
        if self._is_run:
            self._emit_for_run(new)
            return None
        if not current_store().transactional and connections[get_settings().database].in_atomic_block:
            transaction.on_commit(lambda: self._append(new), using=get_settings().database, robust=True)
            return None
        return self._append(new)

    async def aemit(self, event: str, data: Any = None, *, immediate: bool = False) -> str | None:
        return await sync_to_async(self.emit)(event, data, immediate=immediate)

    @property
    def _is_run(self) -> bool:
        return self.name.startswith(RUN_PREFIX) and _run_emitter is not None

    def _emit_for_run(self, new: NewEvent) -> None:
        assert _run_emitter is not None
        _run_emitter(new.channel, new.event, msgspec.Raw(new.data.encode()))

    def _append(self, new: NewEvent) -> str:
        (position,) = current_store().append([new], self._keep)
        announce_after_commit({new.channel: position})
        return format_position(position)

    def _emit_alone(self, new: NewEvent) -> str | None:
        connection = connections[get_settings().database]
        if connection.in_atomic_block and connection.vendor == "sqlite" and current_store().transactional:
            raise WorkflowError(
                f"Event {new.event!r} cannot be emitted immediately inside a transaction: SQLite has one writer, which "
                "is this transaction. Emit it before the transaction begins, or without immediate=True."
            )
        with ThreadPoolExecutor(1, thread_name_prefix="workflow-emit") as pool:  # a connection of its own
            return pool.submit(self._in_own_connection, new).result()

    def _in_own_connection(self, new: NewEvent) -> str | None:
        try:
            if not self._is_run:
                return self._append(new)
            self._emit_for_run(new)
            return None
        finally:
            connections.close_all()

    def history(
        self,
        *,
        limit: int = MOST_HISTORY,
        start: datetime | int | None = None,
        end: datetime | int | None = None,
        newest: bool = True,
    ) -> list[Message]:
        """Kept events, oldest first: the newest `limit` of them (at most 1000), or with `newest=False` the oldest.

        `start` and `end` bound the instants (aware datetimes, or Unix milliseconds), both inclusive.
        """
        if limit < 1:
            raise ValueError(f"limit is {limit}, but must be at least 1.")
        first = 0 if start is None else _position(start)
        last = _LAST_POSITION if end is None else _position(end, after=1) - 1
        return current_store().between(self.name, first, last, min(limit, MOST_HISTORY), newest=newest)

    async def ahistory(
        self,
        *,
        limit: int = MOST_HISTORY,
        start: datetime | int | None = None,
        end: datetime | int | None = None,
        newest: bool = True,
    ) -> list[Message]:
        return await in_database(self.history, limit=limit, start=start, end=end, newest=newest)

    async def subscribe(
        self, events: Collection[str] | None = None, *, after: str | None = None
    ) -> AsyncIterator[Message]:
        """Events as they are committed, without end: all, or those with these names.

        `after` goes on after the event with that id ("0-0": from the first that is kept), without loss and without
        repetition. Raises CursorUnavailable when what followed it is no longer kept. Close the iterator (leave the loop
        by `aclosing`) to unsubscribe.
        """
        newest = await in_database(history.newest, self.name)
        position = None if after is None else parse_position(after)
        subscription = current_feed().subscribe(self.name, newest, position)
        try:
            if after is not None and position and await in_database(history.has_gap, self.name, position):
                raise CursorUnavailable(self.name, after)
            while True:
                for message in await subscription.next_page():
                    if events is None or message.event in events:
                        yield message
        finally:
            subscription.close()


def announce_after_commit(newest: Mapping[str, int]) -> None:
    """Tell every process that channels have events up to these positions."""

    def announce() -> None:
        signals.channel_events_stored.send_robust(sender=None, channels=dict(newest))

    transaction.on_commit(announce, using=get_settings().database, robust=True)


def _position(instant: datetime | int, after: int = 0) -> int:
    """The first position of that millisecond, or of one `after` it."""
    if isinstance(instant, datetime):
        if instant.tzinfo is None:
            raise ValueError(f"{instant} has no time zone; give an aware datetime.")
        return position_at(instant + timedelta(milliseconds=after))
    return parse_position(f"{instant + after}-0")
