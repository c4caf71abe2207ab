"""What comes into an endpoint and what goes out of it, without Django's request and response."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


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
