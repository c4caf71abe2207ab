"""Work of the layers above that the worker sees to, a piece at a time: what no request is there for.

The composition root says what it is; the worker has a thread for it, so that a long piece keeps no delivery waiting.
"""

from __future__ import annotations

from collections.abc import Callable

CHORE_SECONDS = 2.0
"""How often the worker looks whether there is something to do."""

_chore: Callable[[], bool] | None = None


def use_chore(chore: Callable[[], bool]) -> None:
    """`chore` does a piece of its work, and says whether there is more. Done once, by the composition root."""
    global _chore
    _chore = chore


def do_chore() -> bool:
    """A piece of it. False: there is nothing more to do now."""
    return _chore is not None and _chore()
