"""Reading the parameters of lists and bulk calls: ids and filters in the query or in a JSON body, counts, cursors.

The values of one filter are alternatives, different filters must all hold. Ids come as a repeated parameter, as one
list with commas, or as an array in the body; where ids are given, no other filter counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from django_workflow.engine.cursors import decode_cursor
from django_workflow.engine.cursors import encode_cursor as encode_cursor
from django_workflow.engine.http_api.request import ApiRequest
from django_workflow.engine.records import from_unix
from django_workflow.errors import MessageInvalid

MOST_IDS = 1000


class Filters:
    """The parameters of one call. `names` are those that it knows; an unknown one is refused, as passing over a filter
    would list, cancel or delete more than was asked for. Names are compared without regard to case."""

    def __init__(self, request: ApiRequest, names: Iterable[str], *, with_body: bool = False) -> None:
        known = {name.lower(): name for name in names}
        self._found: dict[str, list[str]] = {}
        pairs: list[tuple[str, str]] = list(request.query)
        if with_body and request.body.strip():
            pairs += _pairs(request.json(dict[str, str | bool | int | list[str] | None]))
        for given, value in pairs:
            name = known.get(given.lower())
            if name is None:
                raise MessageInvalid(
                    f"There is no parameter {given[:100]!r} here; known are {', '.join(known.values())}.",
                    name=given,
                    value=value,
                )
            self._found.setdefault(name, []).append(value)

    def __contains__(self, name: str) -> bool:
        return name in self._found

    def __bool__(self) -> bool:
        return bool(self._found)

    def all(self, name: str) -> list[str]:
        """Every value of a filter, lists with commas taken apart; empty when it was not given."""
        values = (part.strip() for value in self._found.get(name, []) for part in value.split(","))
        return [value for value in values if value]

    def urls(self, name: str) -> list[str]:
        """The values of a filter that are URLs or paths: a comma in one is its own, unless another one follows it."""
        values = (part.strip() for value in self._found.get(name, []) for part in _BETWEEN_RE.split(value))
        return self._some(name, [value for value in values if value])

    def one(self, name: str) -> str | None:
        """The only value; None when it was not given or is empty. Raises MessageInvalid for several."""
        values = self._found.get(name, [])
        if len(values) > 1:
            raise MessageInvalid(f"{name} may be given once, not {len(values)} times.", name=name, value=values[1])
        return values[0] or None if values else None

    def ids(self, name: str) -> list[str]:
        """The same. Raises MessageInvalid when the parameter is there but names nothing: nobody means all by that."""
        return self._some(name, self.all(name))

    def _some(self, name: str, values: list[str]) -> list[str]:
        if name in self._found and not values:
            raise MessageInvalid(f"{name} names nothing; leave it away to mean all.", name=name)
        if len(values) > MOST_IDS:
            raise MessageInvalid(f"{name} names {len(values)}; at most {MOST_IDS} are taken at once.", name=name)
        return values

    def whole(self, name: str) -> int | None:
        text = self.one(name)
        if text is None:
            return None
        if not (text.isascii() and text.isdecimal() and len(text) < 16):
            raise MessageInvalid(f"{name}: {text[:50]!r} is no whole number.", name=name, value=text)
        return int(text)

    def count(self, default: int, most: int) -> int:
        """How many are wanted: at least one, `most` at most."""
        count = self.whole("count")
        if count == 0:
            raise MessageInvalid("count must be at least 1.", name="count", value="0")
        return min(default if count is None else count, most)

    def flag(self, name: str) -> bool:
        return (self.one(name) or "").lower() in ("true", "1")

    def instant(self, name: str) -> datetime | None:
        """An instant given in Unix milliseconds. Raises MessageInvalid for one that no calendar has."""
        milliseconds = self.whole(name)
        if milliseconds is None:
            return None
        try:
            return from_unix(milliseconds / 1000)
        except (OverflowError, ValueError, OSError) as error:
            raise MessageInvalid(f"{name}: {milliseconds} is no instant.", name=name) from error

    def until(self, name: str) -> datetime | None:
        """The last instant of a millisecond, as an upper bound that includes it."""
        at = self.instant(name)
        return None if at is None else at.replace(microsecond=at.microsecond // 1000 * 1000 + 999)

    def cursor(self, kind: type[Any]) -> Any:
        """Where the page before ended, as `encode_cursor` wrote it; None for the first page. Raises MessageInvalid."""
        text = self.one("cursor")
        return None if text is None else decode_cursor(text, kind)


_BETWEEN_RE = re.compile(r",(?=https?://|/)")


def _pairs(body: dict[str, Any]) -> Iterable[tuple[str, str]]:
    for name, value in body.items():
        if isinstance(value, list):
            yield from ((name, item) for item in value or [""])
        elif isinstance(value, bool):
            yield name, "true" if value else "false"
        elif value is not None:
            yield name, str(value)
