"""Events in Redis streams, one per channel, through the project's django-redis connection.

Redis gives the ids: they grow within a stream whatever the clock does. A transaction that is open when an event is
emitted has no part in it; `channel` and `relay` therefore append after the commit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import cached_property, wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from django_workflow.conf import get_settings
from django_workflow.errors import Misconfigured
from django_workflow.models.channel_event import format_position, parse_position
from django_workflow.realtime.messages import Message
from django_workflow.realtime.stores import History, NewEvent, StoreUnavailable
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
