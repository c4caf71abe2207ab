"""Readers of the captured traffic; README.md says what it is."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent

CURRENT_SIGNING_KEY = "sig_7kYjw48mhY7kAjqNGcy6cr29RJ6r"
NEXT_SIGNING_KEY = "sig_5ZB6DVzB1wjE8S6rZ7eenA8Pdnhs"
ENGINE = "http://127.0.0.1:18080"


@dataclass(frozen=True)
class Exchange:
    """One request and its response. `name` is that of the file, such as `js/run`."""

    name: str
    seq: int
    kind: str
    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes
    status: int
    answer: bytes
    raw: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.name}-{self.seq}"


def names() -> list[str]:
    """`js/api`, …, `py/submit_400_cancelled`."""
    return sorted(f"{path.parent.name}/{path.stem}" for path in FOLDER.glob("*/*.json"))


@cache
def load(name: str) -> tuple[Exchange, ...]:
    """The exchanges of one file, in order."""
    content = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
    return tuple(
        Exchange(
            name=name,
            seq=raw["seq"],
            kind=raw["kind"],
            method=raw["request"]["method"],
            url=raw["request"]["url"],
            headers=raw["request"]["headers"],
            body=(raw["request"]["body"] or "").encode(),
            status=raw["response"]["status"],
            answer=(raw["response"]["body"] or "").encode(),
            raw=raw,
        )
        for raw in content["exchanges"]
    )


def exchanges(*kinds: str) -> Iterator[Exchange]:
    """All exchanges of these kinds, over all files."""
    return (exchange for name in names() for exchange in load(name) if exchange.kind in kinds)
