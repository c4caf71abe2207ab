"""Reading what channels keep, from whatever store the settings name.

Positions of a channel only grow in the order in which readers see its events, so who goes on from the last position
seen misses nothing. The functions are synchronous; `feed` and `consumers` call them by `in_database`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ParamSpec, TypeVar

from asgiref.sync import sync_to_async
from django.db import Error as DatabaseError
from django.db import connections

from django_workflow.conf import get_settings
from django_workflow.realtime.messages import Message
from django_workflow.realtime.stores import ChannelInfo, current_store

PAGE = 500
_LAST_POSITION = (1 << 63) - 1

P = ParamSpec("P")
T = TypeVar("T")


def newest(channel: str) -> int:
    """Position of the channel's newest event, 0 when it keeps none."""
    return current_store().newest(channel)


def oldest(channel: str) -> int:
    """Position of the oldest event that the channel still keeps, 0 when it keeps none."""
    return current_store().oldest(channel)


def channels(search: str = "", limit: int = PAGE) -> list[ChannelInfo]:
    """Channels that keep events, those with the newest ones first; see `Store.channels`."""
    return current_store().channels(search, limit)


def page_before(channel: str, position: int | None, limit: int = PAGE) -> list[Message]:
    """The newest events below a position (None: of all), oldest first."""
    last = _LAST_POSITION if position is None else position - 1
    return current_store().between(channel, 0, last, limit, newest=True)


def has_gap(channel: str, position: int) -> bool:
    """Whether events after a position may have been trimmed: everything the channel keeps is younger.

    True also for a position from before the channel's first event, where nothing is missing: the two look alike.
    """
    return position > 0 and not 0 < oldest(channel) <= position


def page_after(channel: str, position: int, limit: int = PAGE) -> list[Message]:
    """Events of a channel above a position, oldest first."""
    return current_store().page_after(channel, position, limit)


def pages_after(positions: Mapping[str, int], limit: int = PAGE) -> list[Message]:
    """Events of many channels, each above its own position; of each channel the oldest first, without holes.

    A full page (`limit`) may leave channels out: ask again from the positions reached.
    """
    return current_store().pages_after(positions, limit)


async def in_database(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function that reads the store or the database in the thread where such work is done.

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
