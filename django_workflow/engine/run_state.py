"""A run as a unit of work has locked it."""

from __future__ import annotations

from typing import Any

from django_workflow.models import Run


class RunState:
    """A run's row as locked in this unit, and its changes so far."""

    __slots__ = (
        "changes",
        "group_open",
        "in_group",
        "key",
        "length",
        "newest",
        "parent_key",
        "run_id",
        "started_at",
        "status",
        "why",
    )

    def __init__(self, row: tuple[Any, ...], newest: int) -> None:
        self.key, self.run_id, self.status, self.group_open, self.started_at, self.parent_key, self.why = row
        self.newest = newest
        self.length: int | None = None
        self.in_group = False
        self.changes: dict[str, Any] = {}

    @property
    def alive(self) -> bool:
        return self.status not in Run.FINAL

    @property
    def paused(self) -> bool:
        return bool(self.status == Run.Status.PAUSED)

    def set(self, **values: Any) -> None:
        """Change columns of the run; what stays as it is costs nothing. A paused run shows as that until its end."""
        if self.paused and values.get("status") not in Run.FINAL:
            values = {name: value for name, value in values.items() if name not in ("status", "why", "due_at")}
        for name, value in values.items():
            if name not in self.__slots__ or getattr(self, name) != value:
                self.changes[name] = value
            if name in self.__slots__:
                setattr(self, name, value)
