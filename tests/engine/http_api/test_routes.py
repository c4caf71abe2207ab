"""Which handler takes a call, and that the API as a whole keeps its promises."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import pytest

from django_workflow.engine.http_api.request import ApiRequest, MethodNotAllowed
from django_workflow.engine.http_api.routes import find, handle, routes
from django_workflow.errors import RequestUnknown


@pytest.mark.parametrize(
    ("method", "target", "path", "pieces"),
    [
        (
            "POST",
            "/v2/publish/https://h/a%2Fb//c?x=1&y=%20",
            "/v2/publish/{destination...}",
            {"destination": "https://h/a%2Fb//c?x=1&y=%20"},
        ),
        ("GET", "/v2/publish/group", "/v2/publish/{destination...}", {"destination": "group"}),
        (
            "POST",
            "/v2/enqueue/my%20queue/https://h/?x",
            "/v2/enqueue/{queue}/{destination...}",
            {"queue": "my queue", "destination": "https://h/?x"},
        ),
        ("POST", "/v2/batch", "/v2/batch", {}),
        ("POST", "/v2/batch/trigger", "/v2/batch/trigger", {}),
        ("post", "/v2/trigger/https://h/", "/v2/trigger/{destination...}", {"destination": "https://h/"}),
        ("GET", "/v2/workflows/runs/wfr_1?x=1", "/v2/workflows/runs/{run_id}", {"run_id": "wfr_1"}),
        ("DELETE", "/v2/workflows/runs?count=1", "/v2/workflows/runs", {}),
        ("POST", "/v2/notify/a/b", "/v2/notify/{event_id...}", {"event_id": "a/b"}),
        (
            "PUT",
            "/v2/workflows/hooks/u/r/e%C3%BC?q",
            "/v2/workflows/hooks/{user_id}/{run_id}/{event_id}",
            {"user_id": "u", "run_id": "r", "event_id": "eü"},
        ),
    ],
)
def test_a_call_finds_its_route(method: str, target: str, path: str, pieces: dict[str, str]) -> None:
    route, found = find(method, target)
    assert (route.path, found) == (path, pieces)


@pytest.mark.parametrize(
    "target", ["/", "/v1/publish/x", "/v2/publish/", "/v2/batch/", "/v2/workflows/runs/a/b", "/v2/batch\n"]
)
def test_what_is_no_call_is_unknown(target: str) -> None:
    with pytest.raises(RequestUnknown):
        find("POST", target)


def test_another_method_is_told_from_another_path() -> None:
    with pytest.raises(MethodNotAllowed) as refused:
        find("PUT", "/v2/workflows/runs")
    assert refused.value.methods == ["DELETE"]
    assert refused.value.status_code == 405


def test_answers_are_the_same_without_django() -> None:
    response = handle(ApiRequest("PUT", "/v2/batch"))
    assert (response.status, response.headers["Allow"]) == (405, "POST")
    assert handle(ApiRequest("POST", "/v2/batch", body=b"{")).status == 400


def test_only_what_needs_no_token_is_public() -> None:
    public = {route.path for route in routes() if route.public}
    assert public <= {
        "/v2/openapi.json",
        "/v2/readiness",
        "/v2/workflows/hooks/{user_id}/{run_id}/{event_id}",
    }


def test_no_route_hides_another() -> None:
    """The first that fits is taken: a template must be found by its own path."""
    for route in routes():
        target = "/".join(_example(piece) for piece in route.path.split("/"))
        if route.given is not None:
            target += "?" + urlencode([route.given])
        for method in ("POST",) if route.methods == "*" else route.methods.split():
            assert find(method, target)[0] is route, f"{method} {target}"


def _example(piece: str) -> Any:
    if piece.endswith("...}"):
        return "https://host/path"
    return "some" if piece.startswith("{") else piece
