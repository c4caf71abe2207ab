"""Requests and answers, of both directions, and the network that deliveries are made over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class HttpRequest:
    """`target` is an absolute URL for deliveries, an undecoded path with its query for calls of the API."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    def header(self, name: str) -> str | None:
        return next((value for each, value in self.headers if each.lower() == name.lower()), None)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, list[str]] = field(default_factory=dict)
    body: bytes = b""

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    def header(self, name: str) -> str | None:
        for each, values in self.headers.items():
            if each.lower() == name.lower() and values:
                return values[0]
        return None


class NoAnswer(Exception):
    """The destination could not be reached or did not answer in time; the text says why.

    `taken`: it did what it was asked to, and only its answer was lost.
    """

    def __init__(self, text: str, *, taken: bool = False) -> None:
        super().__init__(text)
        self.taken = taken


class Network(Protocol):
    def __call__(self, request: HttpRequest, timeout: float) -> Answer:
        """The destination's answer. Raises NoAnswer."""


def canonical(name: str) -> str:
    """`x-foo` -> `X-Foo`, as Go writes the names of headers."""
    return "-".join(part[:1].upper() + part[1:].lower() for part in name.split("-"))


def header_map(headers: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """`{"X-Foo": ["v1", "v2"]}`: the form of headers in payloads and resources."""
    found: dict[str, list[str]] = {}
    for name, value in headers:
        found.setdefault(canonical(name), []).append(value)
    return found
