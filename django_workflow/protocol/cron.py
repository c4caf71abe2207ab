"""Cron schedules: an expression and a time zone -> the next occurrence.

Five fields with minute resolution, or a name such as `@daily`; `CRON_TZ=Europe/Berlin 0 9 * * *` names the zone in the
expression itself, as the hosted engine wants it. At the change to summer time a time that does not exist fires when
the gap ends; at the change back a repeated time fires once. Source: QStash documentation, "Schedules"; Debian's cron.
"""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

NAMED = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_ZONE_PREFIXES = ("CRON_TZ=", "TZ=")
_LONGEST_TEXT = 512
_ANY_TIME = datetime(2000, 1, 1, tzinfo=UTC)


def next_occurrence(expression: str, after: datetime, timezone: str = "UTC") -> datetime:
    """The first occurrence later than `after` (aware), in UTC.

    A zone in the expression wins over `timezone`. Raises ValueError for a bad expression, an unknown zone, a naive
    `after`, and for a date that never comes.
    """
    if after.tzinfo is None:
        raise ValueError(f"`after` ({after}) has no time zone; give an aware datetime.")
    fields, zone = _parse(expression, timezone)
    # Around the change back from summer time the library counts on in local time, so it may name an instant that has
    # passed: the repeated hour then belongs to the first pass, and the one after it is meant.
    for occurrence in CronSim(fields, after.astimezone(zone)):
        found = occurrence.astimezone(UTC)
        if found > after:
            return found
    raise ValueError(f"The cron expression {expression!r} never occurs.")


def check_cron(expression: str, timezone: str = "UTC") -> None:
    """Raises ValueError when `next_occurrence` would, whatever its `after`."""
    next_occurrence(expression, _ANY_TIME, timezone)


def split_timezone(expression: str) -> tuple[str, str | None]:
    """`"CRON_TZ=Asia/Tokyo 0 9 * * *"` -> (`"0 9 * * *"`, `"Asia/Tokyo"`); None when no zone is named."""
    text = expression.strip()
    for prefix in _ZONE_PREFIXES:
        if text.startswith(prefix):
            zone, _, fields = text[len(prefix) :].partition(" ")
            return fields.strip(), zone
    return text, None


def with_timezone(expression: str, timezone: str) -> str:
    """The expression with its zone inside, in the form that every engine reads: five fields. UTC needs no zone."""
    fields, named = split_timezone(expression)
    fields = NAMED.get(fields.lower(), fields)
    zone = named or timezone
    return fields if zone == "UTC" else f"CRON_TZ={zone} {fields}"


@lru_cache(maxsize=512)
def _parse(expression: str, timezone: str) -> tuple[str, tzinfo]:
    """The five fields and the zone."""
    if len(expression) > _LONGEST_TEXT:
        raise ValueError(f"A cron expression may have {_LONGEST_TEXT} characters, this one has {len(expression)}.")
    fields, named = split_timezone(expression)
    if fields.startswith("@"):
        if fields.lower() not in NAMED:
            raise ValueError(f"{fields!r} is no cron expression: the names are {', '.join(NAMED)}.")
        fields = NAMED[fields.lower()]
    if len(fields.split()) != 5:
        raise ValueError(
            f"{expression!r} is no cron expression: it needs five fields (minute, hour, day, month, weekday), "
            f"this has {len(fields.split())}."
        )
    try:
        CronSim(fields, _ANY_TIME)
    except CronSimError as error:
        raise ValueError(f"{expression!r} is no cron expression ({error}).") from error
    return fields, _zone(named if named is not None else timezone)


def _zone(name: str) -> tzinfo:
    if name in ("UTC", "Etc/UTC"):
        return UTC  # without the library's care for summer time
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:  # OSError: a folder of zones such as "Europe"
        raise ValueError(f"{name!r} is no time zone; give an IANA name such as 'Europe/Berlin'.") from error
