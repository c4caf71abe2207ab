"""What comes into an endpoint and what goes out of it, without Django's request and response."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from django_workflow.protocol.headers import utf8_value


@dataclass(frozen=True, slots=True)
class EndpointRequest:
    """One request to a workflow. `url` is the workflow's own URL, as the engine knows it."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class EndpointResponse:
    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class MetaHeaders(Mapping[str, str]):
    """The headers in a request's META, read only when asked for; names in any letter case.

    A delivery asks for some ten of them. Django's own mapping copies all of META first, which costs more than that.
    """

    __slots__ = ("_meta",)

    def __init__(self, meta: Mapping[str, Any]) -> None:
        self._meta = meta

    def __getitem__(self, name: str) -> str:
        return utf8_value(self._meta[_meta_key(name)])

    def get(self, name: str, default: Any = None) -> Any:
        value = self._meta.get(_meta_key(name))
        return default if value is None else utf8_value(value)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and _meta_key(name) in self._meta

    def __iter__(self) -> Iterator[str]:
        for key, value in self._meta.items():
            if key.startswith("HTTP_"):
                yield key[5:].replace("_", "-").title()
            elif key in _UNPREFIXED and value:
                yield key.replace("_", "-").title()

    def __len__(self) -> int:
        return sum(1 for _ in self)


_UNPREFIXED = ("CONTENT_TYPE", "CONTENT_LENGTH")


@lru_cache(maxsize=512)
def _meta_key(name: str) -> str:
    key = name.replace("-", "_").upper()
    return key if key in _UNPREFIXED else f"HTTP_{key}"
