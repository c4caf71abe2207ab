"""Durations: "10s", "1d10h30m", 90 or a timedelta; on the wire always whole seconds, "90s".

Users and headers give durations in any of these forms; everything inside the package is seconds or a timedelta.
`parse_go_duration` and `parse_retry_after` read the finer forms that answers of an endpoint may carry.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

SECONDS_BY_UNIT = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}

_NUMBER = r"(?:\d+(?:\.\d*)?|\.\d+)"
_NUMBER_RE = re.compile(_NUMBER, re.ASCII)
_TEXT_RE = re.compile(rf"(?:{_NUMBER}[dhms])+", re.ASCII)
_PIECE_RE = re.compile(rf"({_NUMBER})([dhms])", re.ASCII)

# "µ" has two code points: the micro sign and the Greek letter. Days are not Go's, but SDKs let users write them.
_GO_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3} | SECONDS_BY_UNIT
_GO_UNIT = "ns|us|µs|μs|ms|s|m|h|d"
_GO_TEXT_RE = re.compile(rf"[+-]?(?:{_NUMBER}(?:{_GO_UNIT}))+", re.ASCII)
_GO_PIECE_RE = re.compile(rf"({_NUMBER})({_GO_UNIT})", re.ASCII)

_LONGEST_TEXT = 64
_HINT = 'Give a timedelta, seconds, or numbers with the units d, h, m, s such as "1d10h30m".'


def parse_duration(value: timedelta | int | float | str) -> timedelta:
    """The duration as a timedelta; text without a unit is seconds.

    Raises ValueError for text that is no duration and for negative or endless lengths, TypeError for other types
    (a bool is no number of seconds). Source: QStash documentation, "Delay".
    """
    if isinstance(value, timedelta):
        result = value
    elif isinstance(value, str):
        result = _from_seconds(_parse_text(value), value)
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"A duration cannot be a {type(value).__name__} ({value!r}). {_HINT}")
    else:
        result = _from_seconds(value, value)
    if result < timedelta(0):
        raise ValueError(f"A duration cannot be negative ({value!r}). {_HINT}")
    return result


def to_seconds(value: timedelta | int | float | str) -> float:
    """`parse_duration` as seconds, with its errors."""
    return parse_duration(value).total_seconds()


def format_duration(seconds: float) -> str:
    """Seconds in the wire form `"90s"`. Fractions are rounded up, so that a wait is never shorter than asked for."""
    if not math.isfinite(seconds) or seconds < 0:
        raise ValueError(f"A duration cannot be {seconds!r} seconds. {_HINT}")
    # Rounded first: 0.1 + 0.2 style noise must not add a second.
    return f"{math.ceil(round(seconds, 6))}s"


def parse_go_duration(text: str) -> float:
    """Seconds of a Go duration: `"6m5s"`, `"1.5s"`, `"120ms"`, `"-3s"`, `"0"`. Raises ValueError.

    Source: Go, time.ParseDuration.
    """
    stripped = text.strip()
    if stripped in ("0", "+0", "-0"):
        return 0.0
    if len(stripped) > _LONGEST_TEXT or not _GO_TEXT_RE.fullmatch(stripped):
        raise ValueError(f"{text[:_LONGEST_TEXT]!r} is no Go duration such as '6m5s' or '120ms'.")
    seconds = math.fsum(float(number) * _GO_SECONDS[unit] for number, unit in _GO_PIECE_RE.findall(stripped))
    return -seconds if stripped.startswith("-") else seconds


def parse_retry_after(text: str, now: float) -> float:
    """Seconds to wait from `now` (Unix seconds) by a `Retry-After`-like header: seconds, an HTTP date, a Go duration.

    An instant in the past gives 0. Raises ValueError when it is none of the three.
    """
    stripped = text.strip()
    if len(stripped) <= _LONGEST_TEXT:
        if _NUMBER_RE.fullmatch(stripped):
            return float(stripped)
        if _GO_TEXT_RE.fullmatch(stripped):
            return max(0.0, parse_go_duration(stripped))
        try:
            instant = parsedate_to_datetime(stripped)
        except (ValueError, OverflowError):
            pass
        else:
            return max(0.0, _as_utc(instant).timestamp() - now)
    raise ValueError(
        f"{text[:_LONGEST_TEXT]!r} does not say when to try again: expected seconds, an HTTP date or a duration."
    )


def _as_utc(instant: datetime) -> datetime:
    # "-0000" parses to a naive datetime, which the mail format defines as UTC.
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant


def _parse_text(text: str) -> float:
    stripped = text.strip()
    if len(stripped) <= _LONGEST_TEXT:
        if _NUMBER_RE.fullmatch(stripped):
            return float(stripped)
        if _TEXT_RE.fullmatch(stripped):
            return math.fsum(float(number) * SECONDS_BY_UNIT[unit] for number, unit in _PIECE_RE.findall(stripped))
    raise ValueError(f"{text[:_LONGEST_TEXT]!r} is no duration. {_HINT}")


def _from_seconds(seconds: float, value: object) -> timedelta:
    try:
        return timedelta(seconds=seconds)
    except (OverflowError, ValueError) as error:  # too long; NaN
        raise ValueError(f"A duration cannot be {value!r} seconds long. {_HINT}") from error
