"""Points at which a process of the tests ends as by a power cut: `install("before-commit", 3)`.

Called in a forked child before its worker or server starts; nothing of this is in the product. Commits are those of
all threads but the one for duties, whose heartbeats come at any time: a lone run's are then numbered the same way
each time.
"""

from __future__ import annotations

import os
import signal
from itertools import count
from random import Random
from threading import Event, Thread, current_thread
from typing import Any, NoReturn

POINTS = ("before-commit", "during-commit", "after-commit", "before-response", "after-response")
REFUSALS = ("deadlock", "serialization", "unanswered")
"""Instead of an end: of n commits one is refused; `unanswered`: is made, and its answer is lost on the way."""


def end() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("SIGKILL cannot be survived.")


def install(point: str, number: int) -> None:
    """End this process at the `number`th time that it comes to `point`; or refuse one commit of `number`."""
    if point in REFUSALS:
        # At random: a worker whose turn is three commits would have the same one of them refused for ever.
        dice = Random(number)
        _refuse_commits(point, lambda: dice.randrange(number) == 0)
        return
    numbers = count(1)
    assert point in POINTS
    when, what = point.split("-")
    if what == "commit":
        _crash_at_commit(when, lambda: next(numbers) == number)
    else:
        _crash_at_response(when, lambda: next(numbers) == number)


def _crash_at_commit(when: str, is_due: Any) -> None:
    from django.db.backends.base.base import BaseDatabaseWrapper

    commit = BaseDatabaseWrapper._commit

    def crash(self: BaseDatabaseWrapper) -> None:
        if current_thread().name == "workflow-duties" or not is_due():
            commit(self)
            return
        if when == "before":
            end()
        if when == "during":
            _end_while(commit, self)
        try:
            commit(self)
        finally:
            end()  # also when it was refused: it would not come to this number again

    BaseDatabaseWrapper._commit = crash  # type: ignore[method-assign]


def _refuse_commits(how: str, is_due: Any) -> None:
    from django.db import OperationalError
    from django.db.backends.base.base import BaseDatabaseWrapper

    commit = BaseDatabaseWrapper._commit
    said = {"deadlock": "deadlock detected", "serialization": "could not serialize access", "unanswered": "gone away"}

    def refuse(self: BaseDatabaseWrapper) -> None:
        due = is_due()
        if not due or how == "unanswered":
            commit(self)
        if due:
            raise OperationalError(said[how])

    BaseDatabaseWrapper._commit = refuse  # type: ignore[method-assign]


def _end_while(function: Any, *arguments: Any) -> None:
    """End the process once `function` has given this thread's turn away: while the database works."""
    begun = Event()

    def wait_and_end() -> None:
        begun.wait()
        end()

    Thread(target=wait_and_end, daemon=True).start()
    begun.set()
    function(*arguments)
    end()


def _crash_at_response(when: str, is_due: Any) -> None:
    from tests.faults import nursery

    def application(environ: Any, start_response: Any) -> Any:
        answer = project(environ, start_response)
        if "/serve/" not in environ["PATH_INFO"] or not is_due():
            return answer
        if when == "before":
            end()
        return _EndAfter(answer)

    project = nursery.application()
    nursery.application = lambda: application


class _EndAfter:
    """A response after which the process ends: the server closes it when it has sent everything."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def __iter__(self) -> Any:
        return iter(self._answer)

    def close(self) -> None:
        end()
