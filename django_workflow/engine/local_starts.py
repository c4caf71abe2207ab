"""Runs that are started in a worker's own process: its committer writes them, together with what else has gathered.

`transport` asks here; who asks goes on when the transaction is committed. A second writer beside the committer would
cost a commit of its own and, on SQLite, its turn at the write lock; and a run that the worker writes itself is leased
to it at once. Whatever is not as usual (a transaction of the caller's, limits, a refusal) goes the caller's own way.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from threading import Event
from typing import Protocol

from django.db import connections

from django_workflow.protocol import headers as h
from django_workflow.protocol.identifiers import LONGEST_RUN_ID
from django_workflow.protocol.publish import Message
from django_workflow.protocol.requests import Published

LOOK_AGAIN = 1.0
"""Seconds after which somebody who waits looks whether the committer still lives."""


class Start:
    """Messages that start runs, on their way to a committer and back."""

    __slots__ = ("answers", "messages", "settled")

    def __init__(self, messages: Sequence[Message]) -> None:
        self.messages = messages
        self.answers: tuple[Published, ...] | None = None
        self.settled = Event()

    def hand_back(self) -> None:
        """Nothing of it was written: who asked does it."""
        self.answers = None
        self.settled.set()


class Starter(Protocol):
    """A worker that starts runs for others of its process."""

    def accept(self, start: Start) -> bool:
        """Take the messages over; False when it cannot just now."""

    @property
    def accepts(self) -> bool:
        """Whether what it has accepted is going to be settled."""


_starters: dict[str, Starter] = {}

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_starters.clear)  # a child has none of its parent's workers


def offer(alias: str, starter: Starter) -> None:
    _starters[alias] = starter


def withdraw(alias: str, starter: Starter) -> None:
    if _starters.get(alias) is starter:
        del _starters[alias]


def start_runs(alias: str, messages: Sequence[Message]) -> tuple[Published, ...] | None:
    """Have this process's worker start these runs; their answers once they are committed.

    None: nothing was written, and the caller has to do it. A start may be repeated: its run id is in use then.
    """
    starter = _starters.get(alias)
    if starter is None or not all(map(_is_usual, messages)):
        return None
    connection = connections[alias]
    if connection.in_atomic_block or (connection.connection is not None and not connection.get_autocommit()):
        return None
    start = Start(messages)
    if not starter.accept(start):
        return None
    while not start.settled.wait(LOOK_AGAIN):
        if not starter.accepts:
            return None  # nobody knows what became of it
    return start.answers


def _is_usual(message: Message) -> bool:
    fields = message.workflow
    return (
        fields is not None
        and fields.init
        and not fields.invoke
        and not fields.trigger_by_sdk
        and message.flow_control is None
        and len(fields.run_id) <= LONGEST_RUN_ID
        and h.SCHEDULE_ID not in message.headers
    )
