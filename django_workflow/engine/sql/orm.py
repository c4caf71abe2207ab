"""Any other database, by the ORM: the meaning of the hot statements, which the other modules are tested against."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.db import connections
from django.db.models import OuterRef, Subquery

from django_workflow.engine.records import Lease
from django_workflow.engine.sql.changes import RUN_COLUMNS, Change, Held, Kind, Row
from django_workflow.models import ChannelEvent, Delivery, Run


class Statements:
    def __init__(self, alias: str) -> None:
        self._alias = alias

    def read(self, leases: Sequence[Lease]) -> list[Held]:
        runs: Any = Run.objects.using(self._alias)
        keys = {lease.run_key for lease in leases if lease.run_key is not None}
        locked = {row[0]: row for row in runs.locked(keys, skip_locked=True).values_list(*RUN_COLUMNS)}
        # Statements of their own: what they see is younger than the locks, so no event is missed.
        deliveries: Any = Delivery.objects.using(self._alias).filter(pk__in=[lease.key for lease in leases])
        features = connections[self._alias].features
        if features.has_select_for_update:
            deliveries = deliveries.select_for_update(skip_locked=features.has_select_for_update_skip_locked)
        rows = deliveries.filter(run_id__in=list(locked)).values_list("pk", "fence", "worker_id", "run_id")
        newest = newest_events(self._alias, list(locked))
        return [
            Held(key, fence, worker_key, locked[run_key], newest.get(run_key) or 0)
            for key, fence, worker_key, run_key in rows
        ]

    def lock(self, keys: Sequence[UUID], *, skip_locked: bool) -> list[tuple[Row, int | None]]:
        runs: Any = Run.objects.using(self._alias)
        rows = list(runs.locked(keys, skip_locked=skip_locked).values_list(*RUN_COLUMNS))
        # A statement of its own: what it sees is younger than the locks, so no event is missed.
        newest = newest_events(self._alias, [row[0] for row in rows])
        return [(row, newest.get(row[0]) or 0) for row in rows]

    def write(self, changes: Sequence[Change]) -> dict[str, int]:
        for change in changes:
            rows: Any = change.table.model._default_manager.using(self._alias)
            if change.kind is Kind.DELETE:
                rows.filter(pk__in=[key for (key,) in change.rows]).delete()
            elif change.kind is Kind.UPDATE:
                # Not bulk_update, which makes a CASE of each column and takes ten times as long.
                for *values, key in change.rows:
                    rows.filter(pk=key).update(**dict(zip(change.names, values, strict=False)))
            else:
                self._insert(rows, change)
        return {}

    def _insert(self, rows: Any, change: Change) -> None:
        model = change.table.model
        instances = [model(**dict(zip(change.names, row, strict=True))) for row in change.rows]
        if not change.updates:
            rows.bulk_create(instances)
            return
        targeted = connections[self._alias].features.supports_update_conflicts_with_target
        unique = change.unique if targeted else None
        rows.bulk_create(instances, update_conflicts=True, unique_fields=unique, update_fields=change.updates)


def newest_events(alias: str, run_keys: Sequence[UUID]) -> dict[UUID, int]:
    """Position of the newest event of each run's channel; None of those without one."""
    events = ChannelEvent.objects.filter(channel=OuterRef("run_id")).order_by("-position").values("position")
    return dict(Run.objects.using(alias).filter(pk__in=run_keys).values_list("pk", Subquery(events[:1])))
