"""Events in this process's memory, for tests and for trying out: other processes do not see them."""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from threading import Lock

from django_workflow.models.channel_event import SEQUENCE_BITS
from django_workflow.realtime.messages import Message
from django_workflow.realtime.stores import ChannelInfo, History, NewEvent


class MemoryStore:
    transactional = False

    def __init__(self, milliseconds: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> None:
        self._milliseconds = milliseconds
        self._lock = Lock()
        self._events: dict[str, list[Message]] = {}
        self._newest: dict[str, int] = {}
        self._expires: dict[str, int] = {}

    def append(self, events: Sequence[NewEvent], keep: History) -> list[int]:
        with self._lock:
            now = self._milliseconds()
            return [self._append(event, keep, now) for event in events]

    def _append(self, event: NewEvent, keep: History, now: int) -> int:
        kept = self._kept(event.channel, now)
        position = max(now << SEQUENCE_BITS, self._newest.get(event.channel, 0) + 1)
        kept.append(Message(event.channel, position, event.event, event.data))
        if keep.max_length is not None:
            del kept[: -keep.max_length]
        self._events[event.channel] = kept
        self._newest[event.channel] = position
        if keep.expire_after is not None:
            self._expires[event.channel] = now + round(keep.expire_after.total_seconds() * 1000)
        return position

    def _kept(self, channel: str, now: int) -> list[Message]:
        if self._expires.get(channel, now) < now:
            self._events.pop(channel, None)
        return self._events.get(channel, [])

    def _read(self, channel: str) -> list[Message]:
        with self._lock:
            return list(self._kept(channel, self._milliseconds()))

    def forget(self, channels: Sequence[str]) -> None:
        with self._lock:
            for channel in channels:
                self._events.pop(channel, None)

    def newest(self, channel: str) -> int:
        kept = self._read(channel)
        return kept[-1].position if kept else 0

    def oldest(self, channel: str) -> int:
        kept = self._read(channel)
        return kept[0].position if kept else 0

    def page_after(self, channel: str, position: int, limit: int) -> list[Message]:
        kept = self._read(channel)
        start = bisect_right(kept, position, key=_position_of)
        return kept[start : start + limit]

    def pages_after(self, positions: Mapping[str, int], limit: int) -> list[Message]:
        found: list[Message] = []
        for channel, position in positions.items():
            found += self.page_after(channel, position, limit - len(found))
        return found

    def between(self, channel: str, first: int, last: int, limit: int, *, newest: bool) -> list[Message]:
        kept = self._read(channel)
        wanted = kept[bisect_left(kept, first, key=_position_of) : bisect_right(kept, last, key=_position_of)]
        return wanted[-limit:] if newest else wanted[:limit]

    def channels(self, search: str, limit: int) -> list[ChannelInfo]:
        with self._lock:
            names = [name for name in self._events if search in name]
        kept = ((name, self._read(name)) for name in names)
        found = [ChannelInfo(name, len(events), events[-1].position) for name, events in kept if events]
        return sorted(found, key=lambda info: -info.newest)[:limit]


def _position_of(message: Message) -> int:
    return message.position
