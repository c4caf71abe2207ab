"""URL groups: names under which a message goes to several endpoints, with default settings for their messages."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from django_workflow.errors import EngineError
from django_workflow.models import UrlGroup
from django_workflow.protocol.publish import Message, decode_message, encode_headers


class Endpoint(msgspec.Struct, frozen=True, omit_defaults=True):
    url: str
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Group:
    name: str
    endpoints: tuple[Endpoint, ...]
    headers: dict[str, str]

    def configure(self, message: Message, endpoint: Endpoint) -> Message:
        """The message for one endpoint: the group's default settings hold where the message says nothing."""
        if not self.headers:
            return msgspec.structs.replace(message, destination=endpoint.url)
        own = encode_headers(message)
        names = {name.lower() for name in own}
        defaults = {name: value for name, value in self.headers.items() if name.lower() not in names}
        return decode_message(endpoint.url, {**defaults, **own}, message.body, queue=message.queue)


_endpoints_decoder = msgspec.json.Decoder(tuple[Endpoint, ...])
_headers_decoder = msgspec.json.Decoder(dict[str, str])


def read_endpoints(row: UrlGroup) -> tuple[Endpoint, ...]:
    return _endpoints_decoder.decode(row.endpoints)


def find_group(alias: str, name: str) -> Group:
    """The group of that name. Raises EngineError (404) when there is none."""
    row = UrlGroup.objects.using(alias).filter(name=name).first()
    if row is None:
        raise EngineError(
            f"There is no URL group {name[:200]!r}. A destination is an http(s) URL or a group's name.",
            status=404,
        )
    return Group(row.name, read_endpoints(row), _headers_decoder.decode(row.headers))
