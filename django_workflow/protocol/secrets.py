"""Secret parts of payloads and results: how they are named, and how they are hidden wherever a value is shown.

A *path* leads to one: keys joined by `/`, as in `card/number`. `*` stands for every item of a list and every value of
an object, `**` for any depth (types that contain themselves); `$` is the whole value. Keys are percent-encoded, so that
a path fits a header. The paths of a payload and of a run's result travel with the message that starts the run, under
`payload/` and `result/`; those of a step's result travel in the step.
"""

from __future__ import annotations

import json
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote, unquote

from django_workflow.protocol.steps import Step, StepType

REDACTED = "REDACTED"
WHOLE = "$"
EACH = "*"
ANY_DEPTH = "**"
PAYLOAD, RESULT = "payload", "result"

SHORTEST_SCRUBBED = 4
"""Shorter secrets are left in texts: `7` or `no` would be hidden everywhere, and tell more than they hide."""

_WAITS = (StepType.WAIT, StepType.WAIT_FOR_WEBHOOK)

Paths = tuple[str, ...]


def path_of(keys: Iterable[str]) -> str:
    """The path of these keys, of which `*` and `**` keep their meaning; of none it is the whole."""
    return "/".join(key if key in (EACH, ANY_DEPTH) else quote(key, safe="") for key in keys) or WHOLE


def below(prefix: str, paths: Iterable[str]) -> Paths:
    """Paths of a part as paths of what it is a part of."""
    return tuple(prefix if path == WHOLE else f"{prefix}/{path}" for path in paths)


def within(prefix: str, paths: Iterable[str]) -> Paths:
    """The inverse of `below`; paths of other parts are left out."""
    start = prefix + "/"
    return tuple(
        WHOLE if path == prefix else path[len(start) :] for path in paths if path == prefix or path.startswith(start)
    )


def mask(value: Any, paths: Iterable[str]) -> Any:
    """A copy of a JSON value with what is secret replaced by `REDACTED`. None stays: it tells that there is nothing."""
    for path in paths:
        value = _masked(value, _keys(path))
    return value


def secret_texts(value: Any, paths: Iterable[str]) -> set[str]:
    """The secrets of a JSON value as they may stand in a text; short ones are left out."""
    found: set[str] = set()
    for path in paths:
        for part in _parts(value, _keys(path)):
            found.update(text for text in _leaves(part) if len(text) >= SHORTEST_SCRUBBED)
    return found


def scrub(text: str, secrets: Iterable[str]) -> str:
    """A text without these secrets, also where they stand as JSON or Python write them."""
    for secret in sorted(secrets, key=len, reverse=True):
        for form in {secret, json.dumps(secret)[1:-1], repr(secret)[1:-1]}:
            text = text.replace(form, REDACTED)
    return text


def shown_out(step: Step, *, hide: bool = False) -> str | None:
    """A step's `out` as it may be shown. `hide`: nothing of the run's bodies may.

    A secret part of something that cannot be read hides all of it.
    """
    if step.out is None or not (hide or step.secret):
        return step.out
    if hide or WHOLE in step.secret:
        return f'"{REDACTED}"'
    try:
        text: str | bytes = b64decode(step.out, validate=True) if step.step_type in _WAITS else step.out
        return json.dumps(mask_result(step.step_type, json.loads(text), step.secret), ensure_ascii=False)
    except (ValueError, RecursionError, Base64Error):
        return f'"{REDACTED}"'


def mask_result(step_type: str, value: Any, paths: Iterable[str]) -> Any:
    """`mask` for the result of a step. What an invoked run gave back is JSON text in the `body` of the result."""
    if (
        step_type != StepType.INVOKE
        or not paths
        or not isinstance(value, dict)
        or not isinstance(value.get("body"), str)
    ):
        return mask(value, paths)
    try:
        body = mask(json.loads(value["body"]), paths)
    except (ValueError, RecursionError):
        body = REDACTED
    return {**value, "body": json.dumps(body, ensure_ascii=False)}


def _keys(path: str) -> list[str]:
    return [] if path == WHOLE else path.split("/")


def _masked(value: Any, keys: list[str]) -> Any:
    if not keys:
        return None if value is None else REDACTED
    if not isinstance(value, dict | list):
        return value
    key, rest = keys[0], keys[1:]
    if key == ANY_DEPTH:
        value = _masked(value, rest)
        return _each(value, keys)
    if key == EACH:
        return _each(value, rest)
    key = unquote(key)
    if isinstance(value, dict):
        return {name: _masked(part, rest) if name == key else part for name, part in value.items()}
    return value


def _each(value: Any, keys: list[str]) -> Any:
    if isinstance(value, dict):
        return {name: _masked(part, keys) for name, part in value.items()}
    if isinstance(value, list):
        return [_masked(part, keys) for part in value]
    return value


def _parts(value: Any, keys: list[str]) -> Iterator[Any]:
    """The parts of a value to which a path leads."""
    if not keys:
        yield value
        return
    if not isinstance(value, dict | list):
        return
    inside = list(value.values()) if isinstance(value, dict) else value
    key, rest = keys[0], keys[1:]
    if key == ANY_DEPTH:
        yield from _parts(value, rest)
        for part in inside:
            yield from _parts(part, keys)
    elif key == EACH:
        for part in inside:
            yield from _parts(part, rest)
    elif isinstance(value, dict) and unquote(key) in value:
        yield from _parts(value[unquote(key)], rest)


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for part in value.values():
            yield from _leaves(part)
    elif isinstance(value, list):
        for part in value:
            yield from _leaves(part)
    elif isinstance(value, str):
        yield value
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield str(value)
