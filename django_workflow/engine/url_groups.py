"""URL groups: names under which a message goes to several endpoints, with default settings for their messages.

`messages` asks for a group when a destination is no URL; the HTTP door makes and changes them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
from django.db import connections
from django.db.models import QuerySet

from django_workflow.engine import limits
from django_workflow.engine.addresses import check_destination
from django_workflow.engine.unit_of_work import UnitOfWork
from django_workflow.engine.writing import make_once
from django_workflow.errors import EngineError, MessageInvalid, QuotaExceeded
from django_workflow.models import UrlGroup
from django_workflow.protocol import headers as h
from django_workflow.protocol.publish import Message, decode_message, encode_headers

LONGEST_NAME = 255

_NAME_RE = re.compile(rf"[A-Za-z0-9._-]{{1,{LONGEST_NAME}}}", re.ASCII)


class Endpoint(msgspec.Struct, frozen=True, omit_defaults=True):
    url: str
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Group:
    name: str
    endpoints: tuple[Endpoint, ...]
    headers: dict[str, str]

    def configure(self, message: Message, endpoint: Endpoint) -> Message:
        """The message for one endpoint: the group's default settings hold where the message says nothing.

        Raises MessageInvalid when both together make no sense.
        """
        if not self.headers:
            return msgspec.structs.replace(message, destination=endpoint.url)
        own = encode_headers(message)
        if message.method == "POST":  # which it is for one that says nothing
            del own[h.METHOD]
        names = {name.lower() for name in own}
        defaults = {name: value for name, value in self.headers.items() if name.lower() not in names}
        return decode_message(endpoint.url, {**defaults, **own}, message.body, queue=message.queue)

    @property
    def forwards_all(self) -> bool:
        """Whether all headers of a publishing request go on to the endpoints."""
        return h.Headers(self.headers).get(h.HEADER_FORWARD, "").lower() in ("true", "1")


_endpoints_decoder = msgspec.json.Decoder(tuple[Endpoint, ...])
_headers_decoder = msgspec.json.Decoder(dict[str, str])


def read_endpoints(row: UrlGroup) -> tuple[Endpoint, ...]:
    return _endpoints_decoder.decode(row.endpoints)


def read_headers(row: UrlGroup) -> dict[str, str]:
    return _headers_decoder.decode(row.headers)


def find(alias: str, name: str) -> UrlGroup:
    """Raises EngineError (404) when there is none."""
    row = UrlGroup.objects.using(alias).filter(name=name).first()
    if row is None:
        raise EngineError(
            f"There is no URL group {name[:200]!r}. A destination is an http(s) URL or a group's name.",
            status=404,
        )
    return row


def find_group(alias: str, name: str) -> Group:
    """The group of that name. Raises EngineError (404) when there is none."""
    row = find(alias, name)
    return Group(row.name, read_endpoints(row), read_headers(row))


def with_incoming(alias: str, message: Message, headers: Mapping[str, str]) -> Message:
    """A message to a group that wants all headers of the request which publishes: with those."""
    if "://" in message.destination:
        return message
    row = UrlGroup.objects.using(alias).filter(name=message.destination).first()
    if row is None or not Group(row.name, (), read_headers(row)).forwards_all:
        return message
    plain = {name: value for name, value in headers.items() if not name.lower().startswith(h.PREFIX.lower())}
    incoming = decode_message("", {**plain, h.HEADER_FORWARD: "true"}).headers
    return msgspec.structs.replace(message, headers={**incoming, **message.headers})


# Changes


def add_endpoints(unit: UnitOfWork, name: str, endpoints: Sequence[Endpoint]) -> None:
    """Add endpoints to a group, which is made if there is none; one of the same name or URL is replaced.

    Raises MessageInvalid, QuotaExceeded.
    """
    check_name(name)
    if not endpoints:
        raise MessageInvalid("endpoints names no endpoint.", name="endpoints")
    for endpoint in endpoints:
        _check_endpoint(endpoint)
    row = _locked(unit, name) or _make(unit, name)
    found = list(read_endpoints(row))
    for endpoint in endpoints:
        found = _with(found, endpoint)
    if len(found) > limits.MOST_ENDPOINTS:
        raise QuotaExceeded(f"URL group {name} would have {len(found)} endpoints; the most is {limits.MOST_ENDPOINTS}.")
    _save(unit, row, found)


def remove_endpoints(unit: UnitOfWork, name: str, endpoints: Iterable[tuple[str | None, str | None]]) -> None:
    """Remove the endpoints of these URLs and names (None: any); the group goes with its last one. What is not there
    is passed over. Raises MessageInvalid for an item that names neither."""
    wanted = list(endpoints)
    if not wanted or any(url is None and own is None for url, own in wanted):
        raise MessageInvalid("An endpoint is removed by its url or by its name.", name="endpoints")
    row = _locked(unit, name)
    if row is None:
        return
    left = [
        endpoint
        for endpoint in read_endpoints(row)
        if not any(url in (None, endpoint.url) and own in (None, endpoint.name) for url, own in wanted)
    ]
    if left:
        _save(unit, row, left)
    else:
        delete(unit, name)


def set_headers(unit: UnitOfWork, name: str, headers: Mapping[str, str]) -> None:
    """Set the default settings of messages to a group. Raises EngineError (404), MessageInvalid."""
    for header, value in headers.items():
        if not h.is_header_name(header) or not h.is_safe_value(value):
            raise MessageInvalid(f"{header[:200]!r} cannot be a header, or its value cannot.", name=header)
    decode_message("https://endpoint.example/", headers)
    row = _locked(unit, name) or find(unit.alias, name)
    row.headers = msgspec.json.encode(dict(headers)).decode()
    row.updated_at = unit.now
    row.save(update_fields=["headers", "updated_at"])


def delete(unit: UnitOfWork, name: str) -> None:
    """Delete a group, if there is one; messages that were published to it go on."""
    UrlGroup.objects.using(unit.alias).filter(name=name).delete()


def check_name(name: str) -> None:
    """Raise MessageInvalid for what cannot be a group's name."""
    if not _NAME_RE.fullmatch(name):
        raise MessageInvalid(
            f"{name[:LONGEST_NAME]!r} cannot be a URL group's name: use 1 to {LONGEST_NAME} letters, digits, hyphens, "
            "underscores and periods.",
            name="topicName",
            value=name,
        )


def _check_endpoint(endpoint: Endpoint) -> None:
    if not endpoint.url.lower().startswith(("http://", "https://")):
        raise MessageInvalid(f"{endpoint.url[:200]!r} is no http(s) URL.", name="url", value=endpoint.url)
    check_destination(endpoint.url)
    if endpoint.name is not None and not _NAME_RE.fullmatch(endpoint.name):
        raise MessageInvalid(
            f"{endpoint.name[:LONGEST_NAME]!r} cannot be an endpoint's name: use letters, digits, hyphens, underscores "
            "and periods.",
            name="name",
            value=endpoint.name,
        )


def _with(endpoints: list[Endpoint], new: Endpoint) -> list[Endpoint]:
    """The endpoints with a new one, in the place of that whose name or URL it has."""
    same = [endpoint for endpoint in endpoints if _is_same(endpoint, new)]
    if not same:
        return [*endpoints, new]
    if new.name is None:
        new = Endpoint(new.url, same[0].name)
    at = endpoints.index(same[0])
    others = [endpoint for endpoint in endpoints[at + 1 :] if not _is_same(endpoint, new)]
    return [*endpoints[:at], new, *others]


def _is_same(one: Endpoint, new: Endpoint) -> bool:
    return one.url == new.url or (new.name is not None and one.name == new.name)


def _locked(unit: UnitOfWork, name: str) -> UrlGroup | None:
    rows: QuerySet[UrlGroup] = UrlGroup.objects.using(unit.alias).filter(name=name)
    return (rows.select_for_update() if connections[unit.alias].features.has_select_for_update else rows).first()


def _make(unit: UnitOfWork, name: str) -> UrlGroup:
    if UrlGroup.objects.using(unit.alias).count() >= limits.MOST_URL_GROUPS:
        raise QuotaExceeded(f"There are {limits.MOST_URL_GROUPS} URL groups, which is the most; delete one first.")
    group = UrlGroup(name=name, created_at=unit.now, updated_at=unit.now)
    make_once(unit.alias, group, unique="name", touch="updated_at")
    row = _locked(unit, name)
    return row if row is not None else find(unit.alias, name)


def _save(unit: UnitOfWork, row: UrlGroup, endpoints: Sequence[Endpoint]) -> None:
    row.endpoints = msgspec.json.encode(endpoints).decode()
    row.updated_at = unit.now
    row.save(update_fields=["endpoints", "updated_at"])
