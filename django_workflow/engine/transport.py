"""The engine's door for this process: a transport that answers requests on the caller's database connection.

Inside an in-process delivery it finds that delivery's session: submissions of the run itself are taken into it and
written with the acknowledgement. So are those of a delivery whose answer carries them (`client.carried`). Everything
else is written at once, in the caller's transaction if there is one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import Any, TypeVar, cast
from uuid import UUID

import msgspec
from asgiref.sync import sync_to_async
from django.core.exceptions import SynchronousOnlyOperation
from django.db import IntegrityError, connections
from django.utils.asyncio import async_unsafe

from django_workflow.client.carried import current_carried
from django_workflow.client.session import current_session
from django_workflow.conf import get_settings
from django_workflow.engine import (
    dead_letters,
    failed_runs,
    intake,
    limits,
    pausing,
    resuming,
    run_events,
    run_logs,
    scheduler,
    waiters,
)
from django_workflow.engine.clock import current_clock
from django_workflow.engine.facts import Answer, Settlement
from django_workflow.engine.gate import engine_atomic
from django_workflow.engine.http_api.schedules import infos as schedule_infos
from django_workflow.engine.journal_cache import JournalCache
from django_workflow.engine.leases import warn_without_worker
from django_workflow.engine.local_requests import aask, ask, is_offered, starts_runs
from django_workflow.engine.publishing import accept_all, start_all
from django_workflow.engine.records import from_unix
from django_workflow.engine.run_state import RunState
from django_workflow.engine.runs import end_run, show_progress, wake_up
from django_workflow.engine.session import Session
from django_workflow.engine.settle import fold
from django_workflow.engine.shared import shared_cache
from django_workflow.engine.unit_of_work import UnitOfWork
from django_workflow.engine.writing import write
from django_workflow.errors import EngineError, MessageInvalid, RunEnded
from django_workflow.models import Run, Schedule, Waiter
from django_workflow.models.run import RunQuerySet
from django_workflow.protocol.requests import (
    Batch,
    CancelFailureCallback,
    CancelRun,
    CancelRuns,
    DeleteDeadLetters,
    EngineRequest,
    FetchDeadLetter,
    FetchDeadLetters,
    FetchRun,
    FetchRunEvents,
    FetchRunLogs,
    FinishRun,
    GetWaiters,
    Notified,
    Notify,
    PauseRun,
    Publish,
    Published,
    RerunFailureCallback,
    RestartRuns,
    ResumeRuns,
    RetryNow,
    StartAgain,
    UnpauseRun,
    Wait,
    WaiterInfo,
)
from django_workflow.protocol.schedules import (
    CreateSchedule,
    DeleteSchedule,
    FetchSchedule,
    ListSchedules,
    PauseSchedule,
    ResumeSchedule,
)
from django_workflow.protocol.steps import JournalMessage, Step
from django_workflow.replay.port import PROGRESS_EVENT

R = TypeVar("R")

LONGEST_ATOMIC_STEP = 10.0

logger = logging.getLogger("django_workflow.engine")

_all_or_nothing: ContextVar[bool] = ContextVar("django_workflow_atomic_step", default=False)
"""Whether an atomic step without a session submits: a result that is dropped must take the step's rows with it."""


class EngineTransport:
    """Implements `client.transports.Transport` over the embedded engine."""

    def __init__(self) -> None:
        self._handlers: dict[type, Callable[[UnitOfWork, Any], Any]] = {
            Batch: _batch,
            Publish: _publish,
            Wait: _wait,
            Notify: _notify,
            FinishRun: _finish,
            CancelRun: _cancel,
            CancelRuns: _cancel_many,
            DeleteDeadLetters: dead_letters.delete,
            ResumeRuns: resuming.resume,
            RestartRuns: resuming.restart,
            RerunFailureCallback: dead_letters.rerun_failure_callback,
            CancelFailureCallback: dead_letters.cancel_failure_callback,
            StartAgain: resuming.start_again,
            PauseRun: pausing.pause,
            UnpauseRun: pausing.unpause,
            RetryNow: pausing.retry_now,
            CreateSchedule: _create_schedule,
            DeleteSchedule: lambda unit, request: scheduler.delete(unit, request.schedule_id),
            PauseSchedule: lambda unit, request: scheduler.pause(unit, request.schedule_id),
            ResumeSchedule: lambda unit, request: scheduler.resume(unit, request.schedule_id),
        }
        self._readers: dict[type, Callable[[str, Any], Any]] = {
            GetWaiters: _waiters,
            FetchDeadLetters: failed_runs.fetch,
            FetchDeadLetter: failed_runs.fetch_one,
            FetchRunLogs: run_logs.fetch,
            FetchRunEvents: run_events.fetch,
            ListSchedules: lambda alias, request: tuple(schedule_infos(Schedule.objects.using(alias).all())),
            FetchSchedule: lambda alias, request: schedule_infos([scheduler.find(alias, request.schedule_id)])[0],
        }

    @property
    def alias(self) -> str:
        return get_settings().database

    def send(self, request: EngineRequest[R]) -> R:
        try:
            return self._send(request)
        except SynchronousOnlyOperation as error:
            raise SynchronousOnlyOperation(
                "You cannot call this from async code. Await the twin with an a in front: `await workflow.atrigger()`, "
                "`await client.anotify()`, `await handle.acancel()`."
            ) from error

    def _send(self, request: EngineRequest[R]) -> R:
        session = current_session.get()
        if isinstance(session, Session):
            _check_limits(request)
            if isinstance(request, FetchRun) and request.run_id == session.run_id:
                return cast(R, tuple(session.journal))
            if session.takes(request):
                taken, answer = session.take(request)
                session.requests.append(taken)
                if session.atomic:
                    self._write_session(session)
                return cast(R, answer)
        carried = current_carried.get()
        if carried is not None and not _all_or_nothing.get():  # an atomic step's submission is of its transaction
            _check_limits(request)
            if (accepted := carried.take(request)) is not None:
                return cast(R, accepted.answer)
        if isinstance(request, FetchRun):
            # Inside a transaction the journal may hold what will be rolled back: nobody else may see that.
            private = connections[self.alias].in_atomic_block
            cache = JournalCache(self.alias) if private else shared_cache(self.alias)
            return cast(R, _fetch(self.alias, cache, request))
        reader = self._readers.get(type(request))
        if reader is not None:
            return cast(R, reader(self.alias, request))
        if session is None and (answer := self._ask(request)) is not None:
            return cast(R, answer)
        if isinstance(request, Batch) and starts_runs(request) and (started := self._start(request)) is not None:
            return cast(R, started)
        handler = self._handlers.get(type(request))
        if handler is None:
            raise EngineError(f"The embedded engine does not know {type(request).__name__}.", status=404)
        return cast(R, write(self.alias, lambda unit: handler(unit, request)))

    async def asend(self, request: EngineRequest[R]) -> R:
        if current_session.get() is None and isinstance(request, Batch | Notify) and is_offered(self.alias):
            _check_limits(request)
            if (answer := await aask(self.alias, request)) is not None:
                return cast(R, answer)
        return await sync_to_async(self.send)(request)

    @async_unsafe
    def _ask(self, request: EngineRequest[Any]) -> Any:
        """Have a worker of this process do it, if it may; None when nothing was written. Raises QuotaExceeded etc.

        Refused in async code, as the ORM is: the wait would hold up the event loop, and where the worker is a process
        of its own, as on most sites, the same code would meet the ORM.
        """
        if isinstance(request, Batch | Notify):
            _check_limits(request)
        found = ask(self.alias, request)
        return None if found is None else found[0].wait(found[1])

    def _start(self, request: Batch) -> tuple[Published, ...] | None:
        """Start runs, all in one go. None: it has to be done one by one, as another process is about the same."""

        def change(unit: UnitOfWork) -> tuple[Published, ...]:
            answers = start_all(unit, request.messages)
            warn_without_worker(self.alias, unit.now)
            return answers

        _check_limits(request)
        try:
            return write(self.alias, change)
        except IntegrityError:
            return None

    @contextmanager
    def atomic(self) -> Iterator[None]:
        """Around an atomic step: its function's writes and its submission are committed together."""
        session = current_session.get()
        if not isinstance(session, Session):
            token = _all_or_nothing.set(True)
            try:
                with engine_atomic(self.alias):
                    yield
            finally:
                _all_or_nothing.reset(token)
            return
        session.atomic = True
        started = time.monotonic()
        try:
            with engine_atomic(self.alias):
                yield
        except BaseException as error:
            # The abort that ends the invocation comes after the submission was written: it is no reason to undo it.
            session.requests.clear()
            session.written = None
            session.held_back()
            raise error
        finally:
            session.atomic = False
            _warn_when_long(session, time.monotonic() - started)

    def kept(self, run_id: str, step: Step) -> Step | None:
        """Nothing is kept apart: a result that was committed is in the journal."""
        return None

    def _write_session(self, session: Session) -> None:
        """Write an atomic step's submission on this connection, inside its transaction."""
        alias, now = self.alias, current_clock().now()
        lease = session.lease
        unit = UnitOfWork(alias, now, shared_cache(alias), worker_key=lease.worker_key)
        unit.may_continue = lambda held: held.chain < 16
        assert lease.run_key is not None
        unit.lock([lease.run_key])
        for fact in session.held_back():
            fold(unit, fact)
        started_at = lease.started_at or now
        answer = Answer(status=200, headers={"Upstash-Workflow-Sdk-Version": ["1"]})
        settled = Settlement(lease, tuple(session.requests), answer, started_at, now)
        before = len(unit.after.remembered)
        fold(unit, settled)
        if len(unit.after.remembered) == before:
            # Not RunEnded: that would acknowledge a delivery which, with the rollback, may still be there to make.
            raise EngineError(
                f"The lease of run {session.run_id} was lost while an atomic step ran, so its writes are rolled back. "
                "Another worker runs the step again, or the run is over.",
                status=409,
            )
        session.written = unit.flush()
        session.requests.clear()


def _check_limits(request: EngineRequest[Any]) -> None:
    """Refuse now what the endpoint must hear of: what a session takes is written after its invocation."""
    if isinstance(request, Batch):
        limits.check(request.messages)
    elif isinstance(request, Publish):
        limits.check((request.message,))
    elif isinstance(request, Wait | Notify):
        limits.check_event(request)


def emit(run_id: str, event: str, data: Any) -> None:
    """Append an event (or progress) of a run whose delivery came over the network. Runs that are over take none."""

    def change(unit: UnitOfWork, state: RunState) -> None:
        if not state.alive:
            return
        wake_up(unit, state, unit.now)
        if event == PROGRESS_EVENT:
            show_progress(unit, state, data["done"], data["total"])
        else:
            unit.emit(state, event, _encode(data))

    _in_run(run_id, change)


def emit_from_outside(run_id: str, event: str, data: Any) -> None:
    """Append an event to a run's channel for somebody else than the run, also when it is over."""
    _in_run(run_id, lambda unit, state: unit.emit(state, event, _encode(data)))


def _in_run(run_id: str, change: Callable[[UnitOfWork, RunState], None]) -> None:
    alias = get_settings().database
    run_key = Run.objects.using(alias).filter(run_id=run_id).values_list("pk", flat=True).first()
    if run_key is None:
        return

    def locked(unit: UnitOfWork) -> None:
        if unit.lock([run_key]):
            change(unit, unit.state(run_key))

    write(alias, locked)


def _encode(data: Any) -> str:
    return msgspec.json.encode(data).decode()


def _warn_when_long(session: Session, seconds: float) -> None:
    if seconds > LONGEST_ATOMIC_STEP:
        step = session.lease.running
        logger.warning(
            "The atomic step %r of run %s held its transaction for %.0f s. Nobody else writes to SQLite meanwhile, and "
            "locks are held on every database: do the slow part in a step before it.",
            step.step_name if step else "",
            session.run_id,
            seconds,
        )


# Handlers: a unit of work and a request in, the request's answer out.


def _batch(unit: UnitOfWork, request: Batch) -> tuple[Published, ...]:
    answers = accept_all(unit, request.messages, new_results_only=_all_or_nothing.get())
    return tuple(answer if isinstance(answer, Published) else answer[0] for answer in answers)


def _publish(unit: UnitOfWork, request: Publish) -> Published:
    return _batch(unit, Batch(messages=(request.message,)))[0]


def _lock_one(unit: UnitOfWork, run_id: str) -> UUID:
    """Lock a run, and the run that invoked it. Raises RunEnded when there is no such run."""
    row = Run.objects.using(unit.alias).filter(run_id=run_id).values_list("pk", "parent_id").first()
    if row is None:
        raise intake.run_ended(run_id)
    unit.lock(key for key in row if key is not None)
    return cast(UUID, row[0])


def register_wait(unit: UnitOfWork, request: Wait) -> UUID | None:
    """Let a run wait; the key of the waiter, or of the message when its event was there already."""
    assert request.message.workflow is not None
    limits.check_event(request)
    key = _lock_one(unit, request.message.workflow.run_id)
    return waiters.wait(unit, unit.state(key), request)


def _wait(unit: UnitOfWork, request: Wait) -> None:
    register_wait(unit, request)


def _notify(unit: UnitOfWork, request: Notify) -> tuple[Notified, ...]:
    limits.check_event(request)
    return waiters.notify(unit, request)


def _create_schedule(unit: UnitOfWork, request: CreateSchedule) -> str:
    return scheduler.create(unit, request.message, request.cron, schedule_id=request.schedule_id)


def _finish(unit: UnitOfWork, request: FinishRun) -> None:
    state = unit.state(_lock_one(unit, request.run_id))
    if state.alive:
        wake_up(unit, state, unit.now)
    end_run(unit, state, Run.Status.SUCCESS, result=request.result.decode() if request.result is not None else None)


def _cancel(unit: UnitOfWork, request: CancelRun) -> None:
    end_run(unit, unit.state(_lock_one(unit, request.run_id)), Run.Status.CANCELED)


def _cancel_many(unit: UnitOfWork, request: CancelRuns) -> int:
    runs = Run.objects.using(unit.alias).active()
    runs = runs.filter(run_id__in=request.run_ids) if request.run_ids else _filtered(runs, request)
    found = list(runs.order_by("pk").values_list("pk", "parent_id")[: request.count])
    unit.lock({key for pair in found for key in pair if key is not None})
    cancelled = 0
    for key, _ in found:
        if unit.has(key) and unit.state(key).alive:
            end_run(unit, unit.state(key), Run.Status.CANCELED)
            cancelled += 1
    return cancelled


def _instant(name: str, milliseconds: int) -> datetime:
    try:
        return from_unix(milliseconds / 1000)
    except (OverflowError, ValueError, OSError) as error:
        raise MessageInvalid(f"{name}: {milliseconds} is no instant.", name=name) from error


def _filtered(runs: RunQuerySet, request: CancelRuns) -> RunQuerySet:
    if request.workflow_url:
        runs = runs.filter(**{"url" if request.exact_url else "url__startswith": request.workflow_url})
    if request.label:
        runs = runs.with_any_label(request.label.split(","))
    if request.flow_control_key:
        runs = runs.filter(flow_key=request.flow_control_key)
    if request.from_date is not None:
        runs = runs.filter(created_at__gte=_instant("fromDate", request.from_date))
    if request.to_date is not None:
        runs = runs.filter(created_at__lte=_instant("toDate", request.to_date))
    if request.caller_ip:
        runs = runs.filter(caller_ip=request.caller_ip)
    return runs


def _fetch(alias: str, cache: JournalCache, request: FetchRun) -> tuple[JournalMessage, ...]:
    run = Run.objects.using(alias).filter(run_id=request.run_id).only("pk", "status").first()
    if run is None or run.is_finished:
        raise RunEnded(f"Run {request.run_id} is over or unknown.", run_id=request.run_id, status=404)
    last = run.journal.using(alias).order_by("-position").values_list("position", flat=True).first() or 0
    messages = cache.journal(run.pk, last + 1)
    if request.message_id is not None and len(messages) > 1:
        ids = [message.message_id for message in messages]
        messages = messages[: ids.index(request.message_id) + 1] if request.message_id in ids else []
    return tuple(messages)


def _waiters(alias: str, request: GetWaiters) -> tuple[WaiterInfo, ...]:
    rows = Waiter.objects.using(alias).waiting().filter(event_id=request.event_id).order_by("created_at")
    return tuple(waiters.waiter_info(row) for row in rows)
