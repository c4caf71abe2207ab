"""Which runs a request means: the filters of logs and dead letters, as query parameters and as fields of requests.

Used by `wire` on both sides. A filter's values stand in repeated parameters or in one list with commas; the names are
compared without regard to case.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from django_workflow.errors import MessageInvalid

Pairs = list[tuple[str, str]]

TOKEN_PARAMETER = "qstash_token"
"""A token in the query: read it before anything else, it is never passed on."""


def query_pairs(query: str, *but: str) -> Pairs:
    """The parameters of a query without the token and those named."""
    pairs = parse_qsl(query, keep_blank_values=True)
    return [(name, value) for name, value in pairs if name not in (TOKEN_PARAMETER, *but)]


def body_pairs(body: bytes) -> Pairs:
    """Filters in a JSON body, as older clients send them, in the form of a query. Raises MessageInvalid."""
    if not body.strip():
        return []
    try:
        filters = msgspec.json.decode(body, type=dict[str, str | bool | int | list[str] | None])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MessageInvalid(f"The body holds no filters: {error}.", name="body") from error
    pairs: Pairs = []
    for name, value in filters.items():
        if isinstance(value, list):
            pairs += ((name, item) for item in value or [""])
        elif value is not None:
            pairs.append((name, str(value)))
    return pairs


@dataclass(frozen=True, slots=True)
class Parameter:
    """A field of a request and its query parameter; `aliases` are read as well."""

    field: str
    name: str
    read: Callable[[Parameter, list[str]], Any]
    write: Callable[[Any], list[str]]
    aliases: tuple[str, ...] = ()

    def invalid(self, value: str, reason: str) -> MessageInvalid:
        return MessageInvalid(f"{self.name}: {value[:100]!r} {reason}.", name=self.name, value=value)


def _only(parameter: Parameter, values: list[str]) -> str:
    if len(values) > 1:
        raise parameter.invalid(values[1], f"comes after another value, and {parameter.name} may be given once")
    return values[0]


def _text(parameter: Parameter, values: list[str]) -> str | None:
    return _only(parameter, values) or None


def _whole(parameter: Parameter, values: list[str]) -> int:
    text = _only(parameter, values)
    if not (text.isascii() and text.isdecimal() and len(text) < 16):
        raise parameter.invalid(text, "is no whole number")
    return int(text)


def _trim(parameter: Parameter, values: list[str]) -> int:
    return -1 if values == ["-1"] else _whole(parameter, values)


def _list(separator: re.Pattern[str]) -> Callable[[Parameter, list[str]], tuple[str, ...]]:
    def read(parameter: Parameter, values: list[str]) -> tuple[str, ...]:
        found = tuple(part for value in values for text in separator.split(value) if (part := text.strip()))
        if not found:
            # Nobody who names a filter means everything.
            raise parameter.invalid("", "names nothing; leave it away to mean all")
        return found

    return read


def _runs(parameter: Parameter, values: list[str]) -> tuple[tuple[str, int], ...]:
    pairs = []
    for text in _texts(parameter, values):
        run_id, at, created = text.rpartition("@")
        if not (run_id and at and created.isascii() and created.isdecimal() and len(created) < 16):
            raise parameter.invalid(text, "is no <run id>@<its creation in Unix milliseconds>")
        pairs.append((run_id, int(created)))
    return tuple(pairs)


_texts = _list(re.compile(","))
# A comma may be part of a URL or a path: only what goes on like one is the next.
_urls = _list(re.compile(r",(?=https?://)"))
_paths = _list(re.compile(r",(?=/)"))


def _one(value: Any) -> list[str]:
    return [str(value)]


def _write_runs(value: Iterable[tuple[str, int]]) -> list[str]:
    return [",".join(f"{run_id}@{created}" for run_id, created in value)]


_RUNS = (
    Parameter("run_ids", "workflowRunId", _texts, list),
    Parameter("workflow_urls", "workflowUrl", _urls, list, aliases=("url",)),
    Parameter("created_at", "workflowCreatedAt", _whole, _one),
    Parameter("labels", "label", _texts, lambda value: [",".join(value)]),
    Parameter("caller_ips", "callerIp", _texts, list),
    Parameter("flow_control_keys", "flowControlKey", _texts, list),
    Parameter("from_date", "fromDate", _whole, _one),
    Parameter("to_date", "toDate", _whole, _one),
    Parameter("count", "count", _whole, _one),
    Parameter("cursor", "cursor", _text, _one),
)

LOGS = (
    *_RUNS,
    Parameter("states", "state", _texts, list),
    Parameter("message_ids", "messageId", _texts, list, aliases=("messageIds",)),
    Parameter("hosts", "host", _texts, list),
    Parameter("paths", "path", _paths, list),
    Parameter("runs", "workflowRuns", _runs, _write_runs),
    Parameter("trim_body", "trimBody", _trim, _one),
)

DEAD_LETTERS = (
    *_RUNS,
    Parameter("failure_states", "failureFunctionState", _texts, list, aliases=("failureCallbackState",)),
    Parameter("response_status", "responseStatus", _whole, _one),
)

DEAD_LETTER_ACTIONS = (*DEAD_LETTERS, Parameter("dlq_ids", "dlqIds", _texts, list))


def encode_query(request: object, parameters: Iterable[Parameter]) -> Pairs:
    """The parameters that say a request's filters."""
    pairs = []
    for parameter in parameters:
        value = getattr(request, parameter.field)
        if value is not None and value != ():
            pairs += [(parameter.name, text) for text in parameter.write(value)]
    return pairs


def decode_query(pairs: Iterable[tuple[str, str]], parameters: Iterable[Parameter]) -> dict[str, Any]:
    """The request's fields. Raises MessageInvalid, also for a parameter that is not known.

    A filter that is passed over would show, delete or start more than was asked for.
    """
    known: dict[str, Parameter] = {}
    for parameter in parameters:
        known |= {name.lower(): parameter for name in (parameter.name, *parameter.aliases)}
    found: dict[str, list[str]] = {}
    for given, value in pairs:
        named = known.get(given.lower())
        if named is None:
            names = ", ".join(dict.fromkeys(parameter.name for parameter in known.values()))
            raise MessageInvalid(
                f"There is no parameter {given[:100]!r} here; known are {names}.", name=given, value=value
            )
        found.setdefault(named.name, []).append(value)
    by_name = {parameter.name: parameter for parameter in known.values()}
    return {by_name[name].field: by_name[name].read(by_name[name], values) for name, values in found.items()}
