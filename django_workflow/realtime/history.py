"""Reading what channels keep: the stored events, in the order in which they were committed.

Positions of a channel are taken under a lock that is held to the commit, so who goes on from the last position seen
misses nothing. The functions are synchronous; `feed` and `consumers` call them by `in_database`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ParamSpec, TypeVar

from asgiref.sync import sync_to_async
from django.db import Error as DatabaseError
from django.db import connections
from django.db.models import Q

from django_workflow.conf import get_settings
from django_workflow.models import ChannelEvent
from django_workflow.models.channel_event import ChannelEventQuerySet
from django_workflow.realtime.messages import Message

PAGE = 500
# Each channel takes two parameters of a statement (SQLite: 999 on Django 5.2) and one level of its expression.
CHANNELS_PER_STATEMENT = 200

P = ParamSpec("P")
T = TypeVar("T")


def newest(channel: str) -> int:
    """Position of the channel's newest event, 0 when it keeps none."""
    return _events().newest_position(channel)


def oldest(channel: str) -> int:
    """Position of the oldest event that the channel still keeps, 0 when it keeps none."""
    positions = _events().filter(channel=channel).order_by("position").values_list("position", flat=True)
    return positions.first() or 0


def has_gap(channel: str, position: int) -> bool:
    """Whether events after a position may have been trimmed: everything the channel keeps is younger.

    True also for a position from before the channel's first event, where nothing is missing: the two look alike.
    """
    return position > 0 and not _events().filter(channel=channel, position__lte=position).exists()


def page_after(channel: str, position: int, limit: int = PAGE) -> list[Message]:
    """Events of a channel above a position, oldest first."""
    return _messages(_events().after(channel, position), limit)


def pages_after(positions: Mapping[str, int], limit: int = PAGE) -> list[Message]:
    """Events of many channels, each above its own position; of each channel the oldest first, without holes.

    A full page (`limit`) may leave channels out: ask again from the positions reached.
    """
    found: list[Message] = []
    pairs = list(positions.items())
    for start in range(0, len(pairs), CHANNELS_PER_STATEMENT):
        wanted = Q()
        for channel, position in pairs[start : start + CHANNELS_PER_STATEMENT]:
            wanted |= Q(channel=channel, position__gt=position)
        found += _messages(_events().filter(wanted).order_by("channel", "position"), limit - len(found))
        if len(found) == limit:
            break
    return found


async def in_database(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function that reads the database in the thread where such work is done.

    The connection is kept between calls (the store is asked every second while anybody listens) and dropped when it
    broke. Under `async_to_sync`, as in Django's asynchronous tests, the thread is the caller's, with its transaction.
    """
    return await sync_to_async(_drop_broken_connection, thread_sensitive=True)(function, *args, **kwargs)


def _drop_broken_connection(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    try:
        return function(*args, **kwargs)
    except DatabaseError:
        connection = connections[get_settings().database]
        if not connection.in_atomic_block:
            connection.close()
        raise


def _events() -> ChannelEventQuerySet:
    events = ChannelEvent.objects.using(get_settings().database)
    assert isinstance(events, ChannelEventQuerySet)
    return events


def _messages(events: ChannelEventQuerySet, limit: int) -> list[Message]:
    rows = events.values_list("channel", "position", "event", "data")[:limit]
    return [Message(*row) for row in rows]
