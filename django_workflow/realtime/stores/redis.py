"""Events in Redis streams, one per channel, through the project's django-redis connection.

Redis gives the ids: they grow within a stream whatever the clock does. A transaction that is open when an event is
emitted has no part in it; `channel` and `relay` therefore append after the commit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import cached_property, wraps
from itertools import islice
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from django_workflow.conf import get_settings
from django_workflow.errors import Misconfigured
from django_workflow.models.channel_event import format_position, parse_position
from django_workflow.realtime.messages import Message
from django_workflow.realtime.stores import ChannelInfo, History, NewEvent, StoreUnavailable
from django_workflow.redis_client import key_prefix, quick_client, redis_alias

if TYPE_CHECKING:
    import redis

P = ParamSpec("P")
T = TypeVar("T")


def _answered(method: Callable[P, T]) -> Callable[P, T]:
    """Say StoreUnavailable for whatever keeps Redis from answering."""

    @wraps(method)
    def ask(*args: P.args, **kwargs: P.kwargs) -> T:
        from redis import RedisError

        try:
            return method(*args, **kwargs)
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"Redis does not answer: {error}") from error

    return ask


LOOKED_AT = 5000
"""Streams that a list of channels looks at."""

_GLOB = re.compile(r"([*?\[\]\\^])")

Entry = tuple[bytes | str, dict[bytes | str, bytes | str]]


class RedisStore:
    transactional = False

    def __init__(self) -> None:
        alias = redis_alias()
        if alias is None:
            raise Misconfigured(
                'realtime_store is "redis", but no cache of django-redis is called "django_workflow" or "default".'
            )
        self._alias = alias
        self._prefix = f"{key_prefix(alias)}django_workflow:events:"

    @cached_property
    def _redis(self) -> redis.Redis:
        return quick_client(self._alias)

    @_answered
    def append(self, events: Sequence[NewEvent], keep: History) -> list[int]:
        ttl = keep.expire_after or get_settings().retention
        pipeline = self._redis.pipeline(transaction=False)
        for channel, event, data in events:
            key = self._prefix + channel
            pipeline.xadd(key, {"event": event, "data": data}, maxlen=keep.max_length, approximate=False)
            pipeline.pexpire(key, max(ttl, timedelta(milliseconds=1)))
        return [parse_position(_text(answer)) for answer in pipeline.execute()[::2]]

    @_answered
    def forget(self, channels: Sequence[str]) -> None:
        if channels:
            self._redis.delete(*(self._prefix + channel for channel in channels))

    @_answered
    def newest(self, channel: str) -> int:
        entries = self._redis.xrevrange(self._prefix + channel, count=1)
        return _position(entries)

    @_answered
    def oldest(self, channel: str) -> int:
        return _position(self._redis.xrange(self._prefix + channel, count=1))

    @_answered
    def page_after(self, channel: str, position: int, limit: int) -> list[Message]:
        entries = self._redis.xrange(self._prefix + channel, min=f"({format_position(position)}", count=limit)
        return _messages(channel, entries)

    @_answered
    def pages_after(self, positions: Mapping[str, int], limit: int) -> list[Message]:
        pipeline = self._redis.pipeline(transaction=False)
        for channel, position in positions.items():
            pipeline.xrange(self._prefix + channel, min=f"({format_position(position)}", count=limit)
        found: list[Message] = []
        for channel, entries in zip(positions, pipeline.execute(), strict=True):
            found += _messages(channel, entries)[: limit - len(found)]
        return found

    @_answered
    def between(self, channel: str, first: int, last: int, limit: int, *, newest: bool) -> list[Message]:
        key, low, high = self._prefix + channel, format_position(first), format_position(last)
        if newest:
            return _messages(channel, self._redis.xrevrange(key, max=high, min=low, count=limit))[::-1]
        return _messages(channel, self._redis.xrange(key, min=low, max=high, count=limit))

    @_answered
    def channels(self, search: str, limit: int) -> list[ChannelInfo]:
        pattern = f"{_literal(self._prefix)}*{_literal(search)}*"
        names = [_text(key) for key in islice(self._redis.scan_iter(match=pattern, count=1000), LOOKED_AT)]
        pipeline = self._redis.pipeline(transaction=False)
        for name in names:
            pipeline.xlen(name)
            pipeline.xrevrange(name, count=1)
        answers: list[Any] = pipeline.execute()
        found = [
            ChannelInfo(name.removeprefix(self._prefix), length, _position(entries))
            for name, length, entries in zip(names, answers[::2], answers[1::2], strict=True)
            if length
        ]
        return sorted(found, key=lambda info: -info.newest)[:limit]


def _literal(text: str) -> str:
    """The text as a pattern that it alone matches."""
    return _GLOB.sub(r"\\\1", text)


def _messages(channel: str, entries: Any) -> list[Message]:
    found = []
    for entry_id, fields in cast("list[Entry]", entries):
        values = {_text(name): _text(value) for name, value in fields.items()}
        found.append(Message(channel, parse_position(_text(entry_id)), values["event"], values["data"]))
    return found


def _position(entries: Any) -> int:
    return parse_position(_text(entries[0][0])) if entries else 0


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
