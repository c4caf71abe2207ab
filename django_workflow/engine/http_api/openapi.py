"""The API's own description, OpenAPI 3.1, made from the routes: what is served is what is described."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

import msgspec

from django_workflow.engine.http_api.request import ApiRequest, ApiResponse, Route, answer

_ERROR = {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}
_REFUSALS = {
    "400": "Something in the request cannot be read, or does not fit what is there.",
    "401": "The token is missing or wrong.",
    "403": "The token may only read.",
    "404": "There is no such thing.",
    "412": "More is asked for than the engine gives.",
    "413": "The body is too large.",
}


def document(routes: Iterable[Route]) -> dict[str, Any]:
    """The OpenAPI document of these routes. Paths start at `/v2`; where that is mounted is the reader's business."""
    routes = [route for route in routes if not route.path.startswith("/v2/openapi")]
    types = [kind for route in routes for kind in (route.body, route.answer) if kind is not None]
    _, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    paths: dict[str, Any] = {}
    for route in routes:
        operations = paths.setdefault(route.path.replace("...}", "}"), {})
        for method in ("POST",) if route.methods == "*" else route.methods.split():
            operations[method.lower()] = _operation(route, method)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Engine API of django_workflow", "version": "2", "description": __doc__},
        "paths": paths,
        "components": {
            "schemas": {**components, "Error": _ERROR},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}],
    }


def _operation(route: Route, method: str) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": route.summary,
        "operationId": f"{method.lower()} {route.path}",
        "parameters": [*_path_parameters(route), *map(_query_parameter, route.query), *map(_header, route.headers)],
        "responses": {
            "2XX": _content("Done.", _schema(route.answer)),
            **{status: _content(text, {"$ref": "#/components/schemas/Error"}) for status, text in _REFUSALS.items()},
        },
    }
    if method in ("POST", "PUT", "PATCH", "DELETE"):
        kind = {"application/json": {"schema": _schema(route.body)}} if route.body else _ANY_BODY
        operation["requestBody"] = {"required": False, "content": kind}
    if route.public:
        operation["security"] = []
    return operation


_ANY_BODY = {"text/plain": {"schema": {"type": "string"}}, "application/json": {"schema": {}}}


def _path_parameters(route: Route) -> Iterable[dict[str, Any]]:
    for piece in route.path.split("/"):
        if piece.startswith("{"):
            name = piece.strip("{}").removesuffix("...")
            yield {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}


def _query_parameter(name: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": {"type": "string"}}


def _header(name: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "schema": {"type": "string"}}


def _schema(kind: Any) -> dict[str, Any]:
    if kind is None:
        return {}
    (schema,), _ = msgspec.json.schema_components([kind], ref_template="#/components/schemas/{name}")
    return schema


def _content(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def describe(request: ApiRequest) -> ApiResponse:
    return answer(_document())


@cache
def _document() -> dict[str, Any]:
    from django_workflow.engine.http_api.routes import routes  # they list this module's route as well

    return document(routes())


ROUTES: tuple[Route, ...] = (Route("GET", "/v2/openapi.json", describe, "This description.", public=True),)
