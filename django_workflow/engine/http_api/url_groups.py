"""URL groups, which the API calls topics: their endpoints and the default headers of their messages."""

from __future__ import annotations

import msgspec

from django_workflow.conf import get_settings
from django_workflow.engine import url_groups
from django_workflow.engine.http_api.request import ApiRequest, Route
from django_workflow.engine.records import milliseconds
from django_workflow.engine.url_groups import Endpoint, read_endpoints, read_headers
from django_workflow.engine.writing import write
from django_workflow.models import UrlGroup


class GroupInfo(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A URL group. Instants are Unix milliseconds; `headers` are the defaults of its messages."""

    name: str
    created_at: int
    updated_at: int
    endpoints: tuple[Endpoint, ...]
    headers: dict[str, str] = {}


class EndpointsToAdd(msgspec.Struct, frozen=True):
    endpoints: tuple[Endpoint, ...]


class EndpointToRemove(msgspec.Struct, frozen=True):
    """Named by its URL, by its name, or by both."""

    url: str | None = None
    name: str | None = None


class EndpointsToRemove(msgspec.Struct, frozen=True):
    endpoints: tuple[EndpointToRemove, ...]


class DefaultHeaders(msgspec.Struct, frozen=True):
    """Publish headers; several values of one are joined as HTTP does."""

    headers: dict[str, str | list[str]]


def listing(request: ApiRequest) -> list[GroupInfo]:
    return [_info(row) for row in UrlGroup.objects.using(get_settings().database).order_by("name")]


def get(request: ApiRequest, name: str) -> GroupInfo:
    return _info(url_groups.find(get_settings().database, name))


def delete(request: ApiRequest, name: str) -> dict[str, str]:
    write(get_settings().database, lambda unit: url_groups.delete(unit, name))
    return {}


def set_headers(request: ApiRequest, name: str) -> dict[str, str]:
    given = request.json(DefaultHeaders).headers
    headers = {header: value if isinstance(value, str) else ", ".join(value) for header, value in given.items()}
    write(get_settings().database, lambda unit: url_groups.set_headers(unit, name, headers))
    return {}


def add_endpoints(request: ApiRequest, name: str) -> dict[str, str]:
    endpoints = request.json(EndpointsToAdd).endpoints
    write(get_settings().database, lambda unit: url_groups.add_endpoints(unit, name, endpoints))
    return {}


def remove_endpoints(request: ApiRequest, name: str) -> dict[str, str]:
    wanted = [(endpoint.url, endpoint.name) for endpoint in request.json(EndpointsToRemove).endpoints]
    write(get_settings().database, lambda unit: url_groups.remove_endpoints(unit, name, wanted))
    return {}


def _info(row: UrlGroup) -> GroupInfo:
    return GroupInfo(
        name=row.name,
        created_at=milliseconds(row.created_at),
        updated_at=milliseconds(row.updated_at),
        endpoints=read_endpoints(row),
        headers=read_headers(row),
    )


ROUTES: tuple[Route, ...] = (
    Route("GET", "/v2/topics", listing, "The URL groups.", answer=list[GroupInfo]),
    Route("GET", "/v2/topics/{name}", get, "One URL group.", answer=GroupInfo),
    Route("DELETE", "/v2/topics/{name}", delete, "Delete a URL group, if there is one."),
    Route(
        "PATCH",
        "/v2/topics/{name}",
        set_headers,
        "Set what messages to a URL group default to.",
        body=DefaultHeaders,
    ),
    Route(
        "POST",
        "/v2/topics/{name}/endpoints",
        add_endpoints,
        "Add endpoints to a URL group, or change them; the group is made if there is none.",
        body=EndpointsToAdd,
    ),
    Route(
        "DELETE",
        "/v2/topics/{name}/endpoints",
        remove_endpoints,
        "Remove endpoints from a URL group; it goes with the last one.",
        body=EndpointsToRemove,
    ),
)
