"""Stored JSON as a value that can be shown: read, and written again in any form, without surprises.

Bodies are kept as they came, also from callers who mean no good: nested a thousand levels deep, with numbers that no
float holds, with halves of characters. A page that shows a run must not break on one.
"""

from __future__ import annotations

import json
import math
from typing import Any

DEEPEST = 100
"""Levels of lists and objects; those who write values again take a call for each, and Python allows a thousand."""


class TooDeep(ValueError):
    """The text is nested more than `DEEPEST` levels."""


def read_json(text: str) -> Any:
    """The value of JSON text. NaN and numbers beyond floats become text, halves of characters U+FFFD.

    Raises TooDeep, and ValueError for what is no JSON.
    """
    try:
        value = json.loads(text, parse_constant=str, parse_float=_finite)
    except RecursionError as error:
        raise TooDeep from error
    if text.count("[") + text.count("{") > DEEPEST and _is_too_deep(value):
        raise TooDeep
    return _whole(value) if "\\ud" in text or "\\uD" in text else value


def _finite(digits: str) -> float | str:
    number = float(digits)
    return number if math.isfinite(number) else digits


def _is_too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(DEEPEST):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return any(isinstance(value, dict | list) for value in level)


def _whole(value: Any) -> Any:
    """The value with its texts in characters that UTF-8 can write."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_whole(key): _whole(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return value
