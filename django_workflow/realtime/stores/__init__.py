"""Where events are kept: in the project's database, in Redis streams, or in this process's memory.

`current_store()` is the one that the setting `realtime_store` names. All of them keep a channel's events in one order,
under positions that only grow; only the database's are written with the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import NamedTuple, Protocol

from django.core.signals import setting_changed

from django_workflow.conf import get_settings
from django_workflow.errors import WorkflowError
from django_workflow.realtime.messages import Message

__all__ = ["RUN_HISTORY", "ChannelInfo", "History", "NewEvent", "Store", "StoreUnavailable", "current_store"]


class NewEvent(NamedTuple):
    """An event to keep; `data` is JSON text."""

    channel: str
    event: str
    data: str


class ChannelInfo(NamedTuple):
    """A channel that keeps events: how many, and the position of the newest."""

    name: str
    kept: int
    newest: int


@dataclass(frozen=True)
class History:
    """How much a channel keeps: the newest `max_length` events (None: all), until `expire_after` has passed since the
    last one (None: the setting `retention`)."""

    max_length: int | None = 1000
    expire_after: timedelta | None = timedelta(days=1)

    def __post_init__(self) -> None:
        if self.max_length is not None and self.max_length < 1:
            raise ValueError(f"max_length is {self.max_length}, but a channel keeps at least one event.")
        if self.expire_after is not None and self.expire_after <= timedelta():
            raise ValueError(f"expire_after is {self.expire_after}, but must be longer than nothing.")


RUN_HISTORY = History(max_length=None, expire_after=None)
"""A run's channel keeps all events, as long as the run is kept."""


class StoreUnavailable(WorkflowError):
    """The store does not answer; it may in a moment."""


class Store(Protocol):
    transactional: bool
    """Whether `append` writes with the transaction that the caller is in: kept with its commit, gone with its end."""

    def append(self, events: Sequence[NewEvent], keep: History) -> list[int]:
        """Keep events in this order; the position of each."""

    def newest(self, channel: str) -> int:
        """Position of the channel's newest event, 0 when it has none."""

    def oldest(self, channel: str) -> int:
        """Position of the oldest event that the channel keeps, 0 when it keeps none."""

    def page_after(self, channel: str, position: int, limit: int) -> list[Message]:
        """Events above a position, oldest first."""

    def pages_after(self, positions: Mapping[str, int], limit: int) -> list[Message]:
        """Events of many channels, each above its own position; of each channel the oldest first, without holes.

        A full page may leave channels out: ask again from the positions reached.
        """

    def between(self, channel: str, first: int, last: int, limit: int, *, newest: bool) -> list[Message]:
        """Events from one position to another (both inclusive), oldest first: the newest `limit` of them or the
        oldest."""

    def channels(self, search: str, limit: int) -> list[ChannelInfo]:
        """Channels that keep events, those with the newest ones first, at most `limit`; with `search` those whose name
        has it (of runs' channels: begins with it). For people to look at: of very many channels some may be missing."""

    def forget(self, channels: Sequence[str]) -> None:
        """Drop all events of these channels. Who follows them notices nothing."""


def current_store() -> Store:
    """The store that the settings name. Raises Misconfigured for one that cannot work."""
    return _make(get_settings().realtime_store)


@lru_cache(maxsize=1)
def _make(name: str) -> Store:
    # Imported here: a store that is not used needs none of its packages.
    if name == "redis":
        from django_workflow.realtime.stores.redis import RedisStore

        return RedisStore()
    if name == "memory":
        from django_workflow.realtime.stores.memory import MemoryStore

        return MemoryStore()
    from django_workflow.realtime.stores.database import DatabaseStore

    return DatabaseStore()


def _forget(*, setting: str, **kwargs: object) -> None:
    if setting in ("DJANGO_WORKFLOW", "CACHES"):
        _make.cache_clear()


setting_changed.connect(_forget, dispatch_uid="django_workflow.realtime.stores")
