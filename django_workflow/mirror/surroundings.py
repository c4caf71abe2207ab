"""What the mirror needs of its surroundings; the composition root says what stands behind each door.

The embedded engine's clock, its transactions (which queue up before SQLite's one writer), its backoff and its pruner
serve here too, but the two engines do not know each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.db import transaction

RetryDelay = Callable[[int, str | None, Mapping[str, Sequence[str]], datetime], timedelta]


def _system_now() -> datetime:
    return datetime.now(UTC)


def _atomic(alias: str) -> AbstractContextManager[None]:
    return transaction.atomic(using=alias)


def _unknown_delay(retried: int, expression: str | None, headers: object, now: datetime) -> timedelta:
    return timedelta()


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    now: Callable[[], datetime] = _system_now
    """The present, aware UTC."""

    atomic: Callable[[str], AbstractContextManager[None]] = _atomic
    """A transaction on a database; inside another one a savepoint."""

    retry_delay: RetryDelay = _unknown_delay
    """When an engine tries again: after which retry, by which expression, told by which headers of the answer."""

    prune: Callable[[datetime], object] = lambda now: None
    """Delete some of what retention no longer keeps."""

    chore: Callable[[], bool] = lambda: False
    """Do a piece of what the layers above leave to a worker. Whether there is more."""


_surroundings = Surroundings()


def use_surroundings(surroundings: Surroundings) -> None:
    """Done once, by the composition root."""
    global _surroundings
    _surroundings = surroundings


def surroundings() -> Surroundings:
    return _surroundings
