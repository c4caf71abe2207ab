"""Logs of runs and their dead letters, as HTTP calls: requests to paths, queries and headers, and back.

A part of `wire`, which is what clients and engines use. Paths are undecoded and start at `/v2`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode

import msgspec

from django_workflow.errors import MessageInvalid
from django_workflow.protocol import headers as h
from django_workflow.protocol import queries, resources
from django_workflow.protocol.publish import CallbackConfig, Message, decode_message, encode_headers
from django_workflow.protocol.requests import (
    NO_OVERRIDES,
    CancelFailureCallback,
    DeleteDeadLetters,
    EngineRequest,
    FetchDeadLetter,
    FetchDeadLetters,
    FetchRunEvents,
    FetchRunLogs,
    RerunFailureCallback,
    RestartRuns,
    ResumeRuns,
    RunOverrides,
)

_LOGS = ("/v2/workflows/events", "/v2/workflows/logs")
_DEAD_LETTERS = "/v2/workflows/dlq"

Call = tuple[str, str, dict[str, str]]
"""Method, path with query, headers."""


# Requests: struct -> HTTP


def _encode_fetch_logs(request: FetchRunLogs | FetchRunEvents) -> Call:
    pairs = queries.encode_query(request, queries.LOGS)
    if isinstance(request, FetchRunLogs):
        pairs.insert(0, ("groupBy", "workflowRunId"))
    return "GET", _with_query(_LOGS[0], pairs), {}


def _encode_fetch_dead_letters(request: FetchDeadLetters) -> Call:
    pairs = queries.encode_query(request, queries.DEAD_LETTERS)
    return "GET", _with_query("/v2/dlq", [*pairs, ("source", "workflow")]), {}


def _encode_fetch_dead_letter(request: FetchDeadLetter) -> Call:
    return "GET", f"{_DEAD_LETTERS}/{quote(request.dlq_id, safe='')}", {}


def _encode_delete_dead_letters(request: DeleteDeadLetters) -> Call:
    pairs = queries.encode_query(request, queries.DEAD_LETTER_ACTIONS)
    return "DELETE", _with_query(_DEAD_LETTERS, pairs), {}


def _encode_start_again(request: ResumeRuns | RestartRuns) -> Call:
    action = "resume" if isinstance(request, ResumeRuns) else "restart"
    pairs = queries.encode_query(request, queries.DEAD_LETTER_ACTIONS)
    return "POST", _with_query(f"{_DEAD_LETTERS}/{action}", pairs), _override_headers(request.overrides)


def _override_headers(overrides: RunOverrides) -> dict[str, str]:
    failure = None if overrides.failure_url is None else CallbackConfig(url=overrides.failure_url)
    headers = encode_headers(
        Message(
            destination="",
            retries=overrides.retries,
            delay=overrides.delay,
            retry_delay=overrides.retry_delay,
            flow_control=overrides.flow_control,
            labels=overrides.labels,
            failure_callback=failure,
        )
    )
    del headers[h.METHOD]
    return headers


def _encode_failure_callback(request: RerunFailureCallback | CancelFailureCallback) -> Call:
    method = "POST" if isinstance(request, RerunFailureCallback) else "DELETE"
    return method, f"{_DEAD_LETTERS}/callback/{quote(request.dlq_id, safe='')}", {}


def _with_query(path: str, pairs: queries.Pairs) -> str:
    return f"{path}?{urlencode(pairs)}" if pairs else path


ENCODERS: dict[type[EngineRequest[Any]], Callable[[Any], Call]] = {
    FetchRunLogs: _encode_fetch_logs,
    FetchRunEvents: _encode_fetch_logs,
    FetchDeadLetters: _encode_fetch_dead_letters,
    FetchDeadLetter: _encode_fetch_dead_letter,
    DeleteDeadLetters: _encode_delete_dead_letters,
    ResumeRuns: _encode_start_again,
    RestartRuns: _encode_start_again,
    RerunFailureCallback: _encode_failure_callback,
    CancelFailureCallback: _encode_failure_callback,
}


# Requests: HTTP -> struct


def decode(method: str, path: str, query: str, headers: Mapping[str, str], body: bytes) -> EngineRequest[Any] | None:
    """The request that is asked for; None when it is none of these. Raises MessageInvalid."""
    if path in _LOGS and method == "GET":
        return _decode_fetch_logs(query)
    if path == "/v2/dlq" and method == "GET" and ("source", "workflow") in parse_qsl(query):
        pairs = queries.query_pairs(query, "source")
        return FetchDeadLetters(**queries.decode_query(pairs, queries.DEAD_LETTERS))
    if path == _DEAD_LETTERS or path.startswith(_DEAD_LETTERS + "/"):
        return _decode_dead_letters(method, path[len(_DEAD_LETTERS) :], query, headers, body)
    return None


def _decode_fetch_logs(query: str) -> FetchRunLogs | FetchRunEvents:
    grouped = [value for name, value in queries.query_pairs(query) if name == "groupBy"]
    if grouped not in ([], ["workflowRunId"]):
        raise MessageInvalid("groupBy: logs are grouped by workflowRunId, or not at all.", name="groupBy")
    fields = queries.decode_query(queries.query_pairs(query, "groupBy"), queries.LOGS)
    return FetchRunLogs(**fields) if grouped else FetchRunEvents(**fields)


def _decode_dead_letters(
    method: str, rest: str, query: str, headers: Mapping[str, str], body: bytes
) -> EngineRequest[Any] | None:
    """The request at `/v2/workflows/dlq` and below; None when there is no such call."""
    action, _, dlq_id = (unquote(piece) for piece in rest.removeprefix("/").partition("/"))
    if method == "POST" and action in ("resume", "restart"):
        fields = _chosen(query, body, dlq_id) | {"overrides": _decode_overrides(headers)}
        return ResumeRuns(**fields) if action == "resume" else RestartRuns(**fields)
    if action == "callback" and dlq_id and method in ("POST", "DELETE"):
        return RerunFailureCallback(dlq_id=dlq_id) if method == "POST" else CancelFailureCallback(dlq_id=dlq_id)
    if dlq_id or (rest and not action):
        return None
    if method == "DELETE":
        return DeleteDeadLetters(**_chosen(query, body, action))
    if method != "GET":
        return None
    if action:
        return FetchDeadLetter(dlq_id=action)
    return FetchDeadLetters(**queries.decode_query(queries.query_pairs(query), queries.DEAD_LETTERS))


def _chosen(query: str, body: bytes, dlq_id: str) -> dict[str, Any]:
    """The dead letters that are meant: the one in the path, else those that query and body name."""
    if dlq_id:
        return {"dlq_ids": (dlq_id,)}
    pairs = [*queries.query_pairs(query), *queries.body_pairs(body)]
    return queries.decode_query(pairs, queries.DEAD_LETTER_ACTIONS)


def _decode_overrides(headers: Mapping[str, str]) -> RunOverrides:
    message = decode_message("", {name: value for name, value in headers.items() if name.lower() in _OVERRIDES})
    failure = message.failure_callback
    overrides = RunOverrides(
        retries=message.retries,
        delay=message.delay,
        retry_delay=message.retry_delay,
        flow_control=message.flow_control,
        labels=message.labels,
        failure_url=None if failure is None else failure.url,
    )
    return NO_OVERRIDES if overrides == NO_OVERRIDES else overrides


OVERRIDES = (
    h.RETRIES,
    h.DELAY,
    h.RETRY_DELAY,
    h.FLOW_CONTROL_KEY,
    h.FLOW_CONTROL_VALUE,
    h.LABEL,
    h.FAILURE_CALLBACK,
)
"""Headers that say what a run which is started again has otherwise than before."""

_OVERRIDES = frozenset(map(str.lower, OVERRIDES))


# Answers: HTTP -> value


def resource_answer(kind: type[Any]) -> Callable[[EngineRequest[Any], bytes], Any]:
    """Reads an answer that is one of `resources`."""
    return lambda request, body: resources.decode_resource(body, kind)


def _rerun_answer(request: RerunFailureCallback, body: bytes) -> resources.StartedRun:
    """Documented as one object; engines also answer it as a list of one."""
    try:
        return resources.decode_resource(body, resources.StartedRun)
    except msgspec.ValidationError:
        runs = resources.decode_resource(body, resources.StartedRuns).workflow_runs
    if len(runs) != 1:
        raise MessageInvalid(f"{len(runs)} runs for one failure callback", name="body")
    return runs[0]


ANSWERS: dict[type[EngineRequest[Any]], Callable[[Any, bytes], Any]] = {
    FetchRunLogs: resource_answer(resources.RunLogs),
    FetchRunEvents: resource_answer(resources.RunEvents),
    FetchDeadLetters: resource_answer(resources.RunDeadLetters),
    FetchDeadLetter: resource_answer(resources.RunDeadLetter),
    DeleteDeadLetters: resource_answer(resources.Deleted),
    ResumeRuns: resource_answer(resources.StartedRuns),
    RestartRuns: resource_answer(resources.StartedRuns),
    RerunFailureCallback: _rerun_answer,
    CancelFailureCallback: lambda request, body: None,
}
