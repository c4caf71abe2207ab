"""What follows the commit of a unit of work."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.dispatch import Signal

from django_workflow.engine.records import Lease, RunInfo
from django_workflow.protocol.steps import JournalMessage


@dataclass(slots=True)
class After:
    """What follows the commit: journals to remember, deliveries to go on with, channels and signals to announce.

    `events` (channel, name, JSON) are those that a store outside the database takes.
    """

    followups: list[Lease] = field(default_factory=list)
    started: list[RunInfo] = field(default_factory=list)
    remembered: list[tuple[UUID, int, JournalMessage]] = field(default_factory=list)
    forgotten: list[UUID] = field(default_factory=list)
    channels: dict[str, int] = field(default_factory=dict)
    events: list[tuple[str, str, str]] = field(default_factory=list)
    signals: list[tuple[Signal, dict[str, Any]]] = field(default_factory=list)
    wake: bool = False

    def add(self, later: After) -> None:
        """Have what follows a later commit as well."""
        self.followups += later.followups
        self.started += later.started
        self.remembered += later.remembered
        self.forgotten += later.forgotten
        self.events += later.events
        self.signals += later.signals
        self.channels.update(later.channels)
        self.wake = self.wake or later.wake
