"""Identifiers: of rows and messages (UUIDv7, so they sort by time), of runs, events, schedules and dead letters.

Run and event ids are unguessable: an event id is the whole secret of a webhook's URL. The prefixes and alphabets are
those of the official SDKs and of the hosted engine; readers treat every id as opaque.
"""

from __future__ import annotations

import os
import re
import secrets
import struct
import threading
import time
from uuid import UUID, SafeUUID

RUN_PREFIX = "wfr_"
_RUN_ID_RE = re.compile(r"[A-Za-z0-9._:@~+=!$*()-]+")
LONGEST_RUN_ID = 255

# A time-ordered UUID is rand_a and rand_b around two constant fields (RFC 9562, section 5.7).
_VERSION_AND_VARIANT = (7 << 76) | (2 << 62)
_LOW_62 = (1 << 62) - 1
_WORDS = struct.Struct("<512Q")

_time_ns = time.time_ns
_new_object = object.__new__
# UUID refuses assignment; its slots are set as the class itself does, without the checks of its constructor.
_set_int = UUID.__dict__["int"].__set__
_set_is_safe = UUID.__dict__["is_safe"].__set__
_UNKNOWN_SAFETY = SafeUUID.unknown


class _Clock:
    """The last tick that was given out, and random words read ahead. A tick is 1/4096 ms, about 244 ns."""

    __slots__ = ("last_tick", "lock", "words")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.last_tick = 0
        self.words: list[int] = []


_clock = _Clock()


def uuid7() -> UUID:
    """A time-ordered UUID (RFC 9562, version 7), greater than any that this process made before.

    48 bits of Unix milliseconds, 12 bits of the millisecond's fraction (section 6.2, method 3), 62 random bits. When
    the clock stands still or is set back, the tick is counted on. Thread-safe; a forked child starts afresh.
    """
    clock = _clock
    with clock.lock:
        milliseconds, rest = divmod(_time_ns(), 1_000_000)
        tick = milliseconds << 12 | (rest << 12) // 1_000_000
        if tick <= clock.last_tick:
            tick = clock.last_tick + 1
        clock.last_tick = tick
        if not clock.words:
            clock.words = list(_WORDS.unpack(os.urandom(_WORDS.size)))
        word = clock.words.pop()
    result = _new_object(UUID)
    _set_int(result, (tick >> 12) << 80 | _VERSION_AND_VARIANT | (tick & 0xFFF) << 64 | (word & _LOW_62))
    _set_is_safe(result, _UNKNOWN_SAFETY)
    return result


def _start_afresh() -> None:
    # Another thread may have held the lock while forking, and parent and child must not share random words.
    global _clock
    _clock = _Clock()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_start_afresh)


# In ASCII order, so that the text of two ids sorts like the ids themselves.
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_VALUES = {digit: value for value, digit in enumerate(_DIGITS)}
_MESSAGE_ID_RE = re.compile(r"msg_[0-9A-Za-z]{22}")
_PAIRS = tuple(high + low for high in _DIGITS for low in _DIGITS)
_HALF = 62**10


def _base62(number: int) -> str:
    """22 digits of a number below 2^128. Cut in halves first: small integers divide faster."""
    rest, low = divmod(number, _HALF)
    top, high = divmod(rest, _HALF)
    pairs = _PAIRS
    high, h5 = divmod(high, 3844)
    high, h4 = divmod(high, 3844)
    high, h3 = divmod(high, 3844)
    h1, h2 = divmod(high, 3844)
    low, l5 = divmod(low, 3844)
    low, l4 = divmod(low, 3844)
    low, l3 = divmod(low, 3844)
    l1, l2 = divmod(low, 3844)
    return (
        f"{pairs[top]}{pairs[h1]}{pairs[h2]}{pairs[h3]}{pairs[h4]}{pairs[h5]}"
        f"{pairs[l1]}{pairs[l2]}{pairs[l3]}{pairs[l4]}{pairs[l5]}"
    )


def message_id_of(key: UUID) -> str:
    """The message id that belongs to a row's key: `msg_` and 22 base62 digits, sorting like the keys."""
    return "msg_" + _base62(key.int)


def message_key_of(message_id: str) -> UUID | None:
    """The key of a row by its message id; None for what is no message id of this engine."""
    if not _MESSAGE_ID_RE.fullmatch(message_id):
        return None
    number = 0
    for digit in message_id[4:]:
        number = number * 62 + _VALUES[digit]
    return UUID(int=number) if number < 1 << 128 else None


def new_message_id() -> str:
    return "msg_" + _base62(uuid7().int)


def new_schedule_id() -> str:
    return "scd_" + _base62(uuid7().int)


def new_run_id() -> str:
    """`wfr_` and 21 characters of `A-Za-z0-9-_` (126 random bits)."""
    return RUN_PREFIX + secrets.token_urlsafe(16)[:21]


def new_event_id() -> str:
    """`evt_` and 15 characters of `A-Za-z0-9-_` (90 random bits)."""
    return "evt_" + secrets.token_urlsafe(12)[:15]


def prefixed_run_id(value: str) -> str:
    """A run id chosen by the user, with `wfr_` before it unless it is there already.

    The official SDKs always add the prefix; so an id that was read from a run would name another one. Raises
    ValueError for an id that cannot stand in a header, a path and a comma list alike.
    """
    if not _RUN_ID_RE.fullmatch(value) or len(value) > LONGEST_RUN_ID:
        raise ValueError(
            f"{value[:LONGEST_RUN_ID]!r} cannot be a run id: use 1 to {LONGEST_RUN_ID} ASCII letters, digits and "
            "characters of ._:@~+=!$*()- (no blanks, slashes or commas)."
        )
    return value if value.startswith(RUN_PREFIX) else RUN_PREFIX + value
