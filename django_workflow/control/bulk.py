"""One action on many runs: shown first, then done in batches, by the worker, with progress and a way to stop it.

    preview(action, runs, user=user)                       # what would be done, what would not and why
    operation = start(action, runs, by=user, reason="…")   # few runs: done when it returns
    follow(operation)                                      # as it is now; helps when no worker lives
    abort(operation)

The runs are those that the query gives when the operation starts. Each is acted on in a transaction of its own, in
which the operation counts it: what a crash interrupts is gone on with, and no run is counted twice. With the hosted
engine a run that a crash caught in the middle may be acted on twice; most actions are then refused, and counted so.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.db import DataError, IntegrityError, transaction
from django.db.models import F
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from django_workflow.conf import get_settings
from django_workflow.control.action import Action, ActionRefused, may, together
from django_workflow.control.actions import ACTIONS
from django_workflow.engine.clock import current_clock
from django_workflow.engine.gate import engine_atomic
from django_workflow.errors import EngineUnavailable, WorkflowError
from django_workflow.models import BulkChunk, BulkOperation, Run
from django_workflow.presentation import lookup
from django_workflow.protocol.identifiers import uuid7

if TYPE_CHECKING:
    from django.db.models import QuerySet

    from django_workflow.models.run import RunQuerySet

SHOWN = 200
"""So many runs of each kind a preview shows; the rest it counts."""

AT_ONCE = 200
"""Up to so many runs are acted on before `start` returns."""

CHUNK = 500
BATCH, HOSTED_BATCH = 50, 10
LEASE = timedelta(minutes=2)
LATER = timedelta(seconds=15)
"""When an operation is gone on with whose engine did not answer."""

ERRORS_KEPT = 20

logger = logging.getLogger("django_workflow.control")


@dataclass(frozen=True, slots=True)
class Preview:
    """What an action would do to some runs. The lists show the first of them, the counts tell all."""

    action: Action
    will: list[Run]
    will_not: list[tuple[Run, str]]
    will_count: int
    will_not_count: int

    @property
    def total(self) -> int:
        return self.will_count + self.will_not_count


def preview(action: Action, runs: RunQuerySet, *, user: Any = None) -> Preview:
    """What `perform` would be refused for and what not: the first of each kind, and how many there are.

    A constant number of queries, and one more for each run that is shown as one that will not be touched.
    """
    runs = runs.order_by("-created_at")
    if user is not None and not may(user, action.permission):
        refused = [(run, action.why_not(run, user=user)) for run in _shown(runs)]
        return Preview(action, [], refused, 0, runs.count())
    possible = action.possible(runs)
    others = runs.exclude(pk__in=possible.order_by().values("pk"))
    return Preview(
        action,
        _shown(possible),
        [(run, action.why_not(run, user=user) or _("It may be possible by now.")) for run in _shown(others)],
        possible.count(),
        others.count(),
    )


def _shown(runs: RunQuerySet) -> list[Run]:
    return list(runs.defer("payload", "result", "config")[:SHOWN])


def start(
    action: Action,
    runs: RunQuerySet,
    *,
    by: Any,
    reason: str = "",
    name: str = "",
    key: UUID | None = None,
    **parameters: Any,
) -> BulkOperation:
    """Do an action to all runs of a query, as `by` (a user; None: code); few of them at once, many in the background.

    Without a `name` it is called after how many runs it will not pass over, as `preview` counts them. `key` makes it
    once: a second start with the same key gives the first one's operation. Raises ActionRefused without the
    permission, and for actions that are for single runs.
    """
    if not action.in_bulk:
        raise ActionRefused(_("“%s” is for single runs.") % action.title)
    if by is not None and not may(by, action.permission):
        raise ActionRefused(_("You do not have the permission “%s”.") % action.permission)
    alias = get_settings().database
    keys = list(runs.order_by("-created_at").values_list("pk", flat=True))
    operation = BulkOperation(
        id=key or uuid7(),
        name=name.replace("\0", "")[:200] or title(action, action.possible(runs).count()),
        action=action.name,
        parameters=json.dumps(parameters),
        total=len(keys),
        reason=reason.replace("\0", ""),
        by=by,
        by_name="" if by is None else by.get_username(),
        created_at=current_clock().now(),
    )
    try:
        with engine_atomic(alias), transaction.atomic(using=alias):
            operation.save(using=alias, force_insert=True)
            BulkChunk.objects.using(alias).bulk_create(_chunks(operation, keys))
    except IntegrityError:
        if key is None:
            raise
        return BulkOperation.objects.using(alias).get(pk=key)
    if len(keys) <= AT_ONCE:
        while advance(operation):
            pass
    operation.refresh_from_db()
    return operation


def visible_to(user: Any) -> QuerySet[BulkOperation]:
    """Operations that a user may see, the newest first: all with `view_bulkoperation`, else his own."""
    operations = BulkOperation.objects.using(get_settings().database).order_by("-created_at")
    return operations if may(user, "view_bulkoperation") else operations.filter(by=user.pk)


def title(action: Action, count: int) -> str:
    """What an operation is called: “Cancel 12 runs”."""
    words = {"verb": action.verb, "count": count}
    return ngettext("%(verb)s %(count)d run", "%(verb)s %(count)d runs", count) % words


def follow(operation: BulkOperation) -> BulkOperation:
    """The operation as it is now. When no worker lives, whoever looks does the next batch."""
    if not operation.is_over and not lookup.has_living_worker(current_clock().now()):
        advance(operation)
    operation.refresh_from_db()
    return operation


def abort(operation: BulkOperation) -> bool:
    """Stop before the next run; what was done stays done. False when it is over already."""
    alias = get_settings().database
    with engine_atomic(alias):
        running = BulkOperation.objects.using(alias).filter(pk=operation.pk, state=BulkOperation.State.RUNNING)
        stopped = running.update(state=BulkOperation.State.ABORTED, finished_at=current_clock().now())
        BulkChunk.objects.using(alias).filter(operation=operation.pk).delete()
    operation.refresh_from_db()
    return bool(stopped)


def advance_due() -> bool:
    """A batch of the oldest operation that nobody works on: the worker's chore. False: there is none."""
    due = BulkOperation.objects.using(get_settings().database).due(current_clock().now())
    operation = due.order_by("created_at", "pk").first()
    return operation is not None and advance(operation)


def advance(operation: BulkOperation) -> bool:
    """Do the next batch. False when it is over, when somebody else works on it, or when the engine is away."""
    alias, now = get_settings().database, current_clock().now()
    due = BulkOperation.objects.using(alias).due(now).filter(pk=operation.pk)
    with engine_atomic(alias):
        if not due.update(leased_until=now + LEASE):
            return False
    operation.refresh_from_db()
    free_at: datetime | None = None
    try:
        return _work(alias, operation)
    except EngineUnavailable as error:
        logger.warning("Bulk operation %s waits for the engine: %s", operation.pk, error)
        free_at = now + LATER
        return False
    finally:
        with engine_atomic(alias):
            BulkOperation.objects.using(alias).filter(pk=operation.pk).update(leased_until=free_at)


def _work(alias: str, operation: BulkOperation) -> bool:
    """A batch of an operation that is leased. Whether there is more to do."""
    if operation.by_name and operation.by is None:
        _remember(operation, "", _("The user who started this is gone."))
        abort(operation)
        return False
    chunk = BulkChunk.objects.using(alias).filter(operation=operation.pk).order_by("number").first()
    if chunk is None:
        running = BulkOperation.objects.using(alias).filter(pk=operation.pk, state=BulkOperation.State.RUNNING)
        with engine_atomic(alias):
            running.update(state=BulkOperation.State.DONE, finished_at=current_clock().now())
        return False
    batch = HOSTED_BATCH if get_settings().is_hosted else BATCH
    keys = list(_keys(chunk))[chunk.taken : chunk.taken + batch]
    runs = lookup.runs().in_bulk(keys)
    return all(_one(alias, operation, chunk, runs.get(key)) for key in keys)  # up to one that was stopped


def _one(alias: str, operation: BulkOperation, chunk: BulkChunk, run: Run | None) -> bool:
    """Act on one run, and count it in the same transaction. False when the operation was stopped meanwhile."""
    counted, error = "done", ""
    hosted = get_settings().is_hosted
    with together():
        running = BulkOperation.objects.using(alias).filter(pk=operation.pk, state=BulkOperation.State.RUNNING)
        if not running.update(leased_until=current_clock().now() + LEASE):
            return False
        try:
            with nullcontext() if hosted else transaction.atomic(using=alias):
                if run is None:
                    raise ActionRefused(_("The run is gone."))
                parameters = json.loads(operation.parameters)
                ACTIONS[operation.action].perform(run, by=operation.by, reason=operation.reason, **parameters)
        except ActionRefused as refusal:
            counted, error = "skipped", refusal.why
        except EngineUnavailable:
            raise
        except (WorkflowError, ValueError, TypeError, IntegrityError, DataError) as failure:
            counted, error = "failed", str(failure)
        running.update(**{counted: F(counted) + 1})
        if error:
            _remember(operation, "" if run is None else run.run_id, error)
        _take(alias, chunk)
    return True


def _take(alias: str, chunk: BulkChunk) -> None:
    chunk.taken += 1
    table = BulkChunk.objects.using(alias).filter(pk=chunk.pk)
    if chunk.taken * 32 >= len(chunk.keys):
        table.delete()
    else:
        table.update(taken=chunk.taken)


def _remember(operation: BulkOperation, run_id: str, error: str) -> None:
    """Keep an error, if it is one of the first."""
    kept: list[list[str]] = json.loads(operation.errors)
    if len(kept) >= ERRORS_KEPT:
        return
    operation.errors = json.dumps([*kept, [run_id, error[:500]]])
    operation.save(using=get_settings().database, update_fields=["errors"])


def errors_of(operation: BulkOperation) -> list[tuple[str, str]]:
    """The first runs that failed or were skipped, and why."""
    return [(run_id, error) for run_id, error in json.loads(operation.errors)]


def _chunks(operation: BulkOperation, keys: list[UUID]) -> Iterator[BulkChunk]:
    for number, at in enumerate(range(0, len(keys), CHUNK)):
        yield BulkChunk(operation=operation, number=number, keys="".join(key.hex for key in keys[at : at + CHUNK]))


def _keys(chunk: BulkChunk) -> Iterator[UUID]:
    for at in range(0, len(chunk.keys), 32):
        yield UUID(chunk.keys[at : at + 32])
