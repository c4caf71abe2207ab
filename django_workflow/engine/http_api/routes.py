"""The HTTP API as one function: an ApiRequest in, an ApiResponse out, whatever was asked.

Each module of resources lists its routes; the first that fits in their order is taken. Paths are matched undecoded, as
a destination stands raw in them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import parse_qsl, unquote

from django_workflow.engine.http_api.request import ApiRequest, ApiResponse, MethodNotAllowed, Route, answer, refusal
from django_workflow.errors import RequestUnknown, WorkflowError


@cache
def routes() -> tuple[Route, ...]:
    """Every route, in the order in which they are tried."""
    from django_workflow.engine.http_api import (
        events,
        flow_control,
        keys,
        message_dead_letters,
        messages,
        openapi,
        publishing,
        queues,
        run_dead_letters,
        run_logs,
        runs,
        schedules,
        url_groups,
    )

    return (
        *publishing.ROUTES,
        *runs.ROUTES,
        *run_logs.ROUTES,
        *run_dead_letters.ROUTES,
        *messages.ROUTES,
        *message_dead_letters.ROUTES,
        *events.ROUTES,
        *queues.ROUTES,
        *url_groups.ROUTES,
        *schedules.ROUTES,
        *flow_control.ROUTES,
        *keys.ROUTES,
        *openapi.ROUTES,
    )


def handle(request: ApiRequest) -> ApiResponse:
    """Answer a call. Raises nothing for what a caller did; the database's errors pass."""
    try:
        route, pieces = find(request.method, request.target)
    except WorkflowError as error:
        return refusal(error)
    return perform(route, pieces, request)


def perform(route: Route, pieces: dict[str, str], request: ApiRequest) -> ApiResponse:
    """Answer a call whose route was found."""
    try:
        result = route.handler(request, **pieces)
    except WorkflowError as error:
        return refusal(error)
    return result if isinstance(result, ApiResponse) else answer(result)


def find(method: str, target: str) -> tuple[Route, dict[str, str]]:
    """The route of a call and the pieces of its path. Raises RequestUnknown, or MethodNotAllowed."""
    path = target.partition("?")[0]
    others: set[str] = set()
    for pattern in _patterns():
        match = pattern.regex.fullmatch(path)
        if match is None or not _is_given(pattern.route, target):
            continue
        if method.upper() not in pattern.methods:
            others |= pattern.methods
            continue
        pieces = {name: unquote(value) for name, value in match.groupdict().items()}
        if pattern.rest:
            pieces[pattern.rest] = target[match.start(pattern.rest) :]
        return pattern.route, pieces
    if others:
        allowed = ", ".join(sorted(others))
        raise MethodNotAllowed(f"{path[:200]} takes {allowed}, not {method[:20]}.", methods=others)
    raise RequestUnknown(f"The engine has no {method[:20]} {path[:200]}.")


def _is_given(route: Route, target: str) -> bool:
    return route.given is None or route.given in parse_qsl(target.partition("?")[2])


@dataclass(frozen=True)
class _Pattern:
    route: Route
    methods: frozenset[str]
    regex: re.Pattern[str]
    rest: str | None


@cache
def _patterns() -> tuple[_Pattern, ...]:
    return tuple(map(_pattern, routes()))


def _pattern(route: Route) -> _Pattern:
    rest: str | None = None
    pieces = []
    for piece in route.path.split("/"):
        if piece.endswith("...}"):
            name = piece[1:-4]
            rest = name if route.path.endswith(piece) else None
            pieces.append(f"(?P<{name}>.+)")
        elif piece.startswith("{"):
            pieces.append(f"(?P<{piece[1:-1]}>[^/]+)")
        else:
            pieces.append(re.escape(piece))
    return _Pattern(route, _methods(route), re.compile("/".join(pieces), re.DOTALL), rest)


ANY_METHOD = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))


def _methods(route: Route) -> frozenset[Any]:
    """`"GET"`, several with a blank between, or `"*"`."""
    return ANY_METHOD if route.methods == "*" else frozenset(route.methods.split())
