"""Starting runs again: resumed where they failed or were canceled, restarted with nothing but their payload, or forked.

All make a new run; but for forks, the dead letter goes. A fork has the results up to a step, and leaves the run as it
is. A restarted run knows nothing of the one before; a resumed one gets its finished steps (see `resumption`), and its
idempotency keys derive from the first run of the chain. Headers and configuration are the old ones unless they are
overridden. Events for the failed run reach the run that goes on in its place. A run that a step invoked answers that
step, unless it was told of the failure already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from uuid import UUID

import msgspec

from django_workflow.client.urls import code_version_of
from django_workflow.engine import failed_runs, limits
from django_workflow.engine.flow_control import note_limits
from django_workflow.engine.intake import known_run, run_ended
from django_workflow.engine.journal_cache import info_of
from django_workflow.engine.leases import warn_without_worker
from django_workflow.engine.records import Invoker, RunConfig, decode_config, encode_config, milliseconds, stored
from django_workflow.engine.resumption import Children, Resumption, first_call
from django_workflow.engine.unit_of_work import UnitOfWork
from django_workflow.errors import EngineError
from django_workflow.models import DeadLetter, JournalEntry, Run
from django_workflow.protocol import headers as h
from django_workflow.protocol.identifiers import new_run_id
from django_workflow.protocol.publish import CallbackConfig, Message, encode_flow_control
from django_workflow.protocol.requests import RestartRuns, ResumeRuns, RunOverrides, StartAgain
from django_workflow.protocol.resources import StartedRun, StartedRuns
from django_workflow.protocol.steps import CallType

AT_ONCE = 50


def resume(unit: UnitOfWork, request: ResumeRuns) -> StartedRuns:
    """Go on with failed runs. Raises EngineError with status 404 when one of the ids is unknown."""
    runs, letters, cursor = _choose(unit, request)
    children = _lock(unit, runs)

    def again(failed: Run) -> Run:
        run = _successor(unit, failed, request.overrides, Run.TriggerKind.RESUME)
        run.first_run = failed.first_run or failed
        run.progress_done, run.progress_total = failed.progress_done, failed.progress_total
        state = unit.add_run(run, info_of(run))
        Resumption(unit, failed, run, state, children.get(failed.pk, {}), request.overrides.retries).perform()
        return run

    return _start_again(unit, request, zip(runs, letters, strict=True), again, cursor)


def restart(unit: UnitOfWork, request: RestartRuns) -> StartedRuns:
    """Begin failed runs anew. Raises as `resume`."""
    runs, letters, cursor = _choose(unit, request)
    unit.lock([run.pk for run in runs])

    def again(failed: Run) -> Run:
        run = _successor(unit, failed, request.overrides, Run.TriggerKind.RESTART)
        unit.add_run(run, info_of(run))
        unit.add_delivery(first_call(unit, run))
        return run

    return _start_again(unit, request, zip(runs, letters, strict=True), again, cursor)


def start_again(unit: UnitOfWork, request: StartAgain) -> StartedRun:
    """Make a new run of one, whether or not there is a dead letter of it. Raises EngineError: see the request."""
    alias, overrides = unit.alias, request.overrides
    old = Run.objects.using(alias).filter(run_id=request.run_id).first()
    if old is None:
        raise run_ended(request.run_id)
    if old.forgotten_at is not None:
        raise EngineError(f"The payload and results of run {old.run_id} were erased: start a new run.", status=409)
    _check(unit, overrides, request.payload or b"")
    kind = _kind(request)
    resumed = kind == Run.TriggerKind.RESUME
    children = _lock(unit, [old]) if resumed else {}
    if not resumed:
        unit.lock([old.pk])
    old.refresh_from_db(using=alias)
    if not request.aside:
        _begin_again_once(unit, old, only_once=resumed)
    if request.new_run_id and known_run(unit, request.new_run_id) is not None:
        raise EngineError(f"There is a run {request.new_run_id} already.", status=409)
    run = _successor(unit, old, overrides, kind, run_id=request.new_run_id)
    if request.payload is not None:
        run.payload, run.payload_is_base64 = stored(request.payload)
    if resumed:
        run.first_run = old.first_run or old
        run.progress_done, run.progress_total = old.progress_done, old.progress_total
    state = unit.add_run(run, info_of(run))
    if resumed or request.steps:
        upto = request.steps if request.aside else None
        Resumption(unit, old, run, state, children.get(old.pk, {}), overrides.retries, upto=upto).perform()
    else:
        unit.add_delivery(first_call(unit, run))
    unit.after.wake = True
    warn_without_worker(alias, unit.now)
    return StartedRun(workflow_run_id=run.run_id, workflow_created_at=milliseconds(run.created_at))


def _kind(request: StartAgain) -> Run.TriggerKind:
    if request.aside:
        return Run.TriggerKind.FORK
    return Run.TriggerKind.RESUME if request.steps is None else Run.TriggerKind.RESTART


def _begin_again_once(unit: UnitOfWork, old: Run, *, only_once: bool) -> None:
    """A run that is over is gone on with once, and then its failure is dealt with."""
    if not old.is_finished:
        raise EngineError(f"Run {old.run_id} is not over ({old.status}): cancel it first.", status=409)
    if only_once and old.status == Run.Status.SUCCESS:
        raise EngineError(f"Run {old.run_id} has succeeded: there is nothing to go on with.", status=409)
    follower = Run.objects.using(unit.alias).filter(resumed_from=old.pk, trigger_kind=Run.TriggerKind.RESUME).first()
    if only_once and follower is not None:
        raise EngineError(f"Run {follower.run_id} goes on in place of run {old.run_id} already.", status=409)
    DeadLetter.objects.using(unit.alias).filter(run=old.pk).delete()


def _choose(unit: UnitOfWork, request: ResumeRuns | RestartRuns) -> tuple[list[Run], list[DeadLetter], str | None]:
    chosen = failed_runs.choose(unit.alias, request, default=AT_ONCE, most=AT_ONCE)
    if chosen.missing:
        raise failed_runs.unknown(chosen.missing)
    _check(unit, request.overrides)
    return [letter.run for letter in chosen.letters if letter.run is not None], chosen.letters, chosen.cursor


def _check(unit: UnitOfWork, overrides: RunOverrides, payload: bytes = b"") -> None:
    """Raise QuotaExceeded, or EngineError with status 413, for what is too much; note the limits of the key."""
    limits.check((Message(destination="", body=payload, retries=overrides.retries, delay=overrides.delay),))
    if overrides.flow_control is not None:
        note_limits(unit.alias, overrides.flow_control)


def _lock(unit: UnitOfWork, runs: Iterable[Run]) -> dict[UUID, Children]:
    """Lock failed runs and the runs that their steps invoked, in one go; the latter by run and step."""
    keys = [run.pk for run in runs]
    invoked = Run.objects.using(unit.alias).filter(parent_id__in=keys)
    unit.lock([*keys, *invoked.values_list("pk", flat=True)])
    # Read under the lock. One that failed and was started again itself is spoken for by its successor.
    found: dict[UUID, Children] = {}
    for child in invoked.filter(resumed_as=None).order_by("created_at", "pk"):
        invoker = decode_config(child.config).invoker
        if invoker is not None and child.parent_id is not None:
            found.setdefault(child.parent_id, {}).setdefault(invoker.step.step_id, []).append(child)
    return found


def _start_again(
    unit: UnitOfWork,
    request: ResumeRuns | RestartRuns,
    failed: Iterable[tuple[Run, DeadLetter]],
    again: Callable[[Run], Run],
    cursor: str | None,
) -> StartedRuns:
    started = []
    for run, letter in failed:
        # Whoever removes the dead letter starts its run again, and nobody else does.
        if DeadLetter.objects.using(unit.alias).filter(pk=letter.pk).delete()[0]:
            started.append(again(run))
        elif request.dlq_ids:
            raise failed_runs.unknown((str(letter.pk),))
    if started:
        unit.after.wake = True
        warn_without_worker(unit.alias, unit.now)
    return StartedRuns(
        workflow_runs=tuple(
            StartedRun(workflow_run_id=run.run_id, workflow_created_at=milliseconds(run.created_at)) for run in started
        ),
        cursor=cursor,
    )


# The new run


def _successor(
    unit: UnitOfWork, failed: Run, overrides: RunOverrides, kind: Run.TriggerKind, run_id: str | None = None
) -> Run:
    """The row of the run that follows another; not written yet. A fork answers nobody: the other run does."""
    run_id = run_id or new_run_id()
    forked = kind == Run.TriggerKind.FORK
    config = _config(unit.alias, failed, overrides, run_id)
    if forked:
        config = msgspec.structs.replace(config, invoker=None)
    labels = overrides.labels or tuple(failed.label_list)
    due = unit.now + timedelta(seconds=overrides.delay) if overrides.delay else None
    return Run(
        run_id=run_id,
        workflow=failed.workflow,
        url=failed.url,
        status=Run.Status.SCHEDULED if due else Run.Status.QUEUED,
        payload=failed.payload,
        payload_is_base64=failed.payload_is_base64,
        flow_key=config.flow_control.key if config.flow_control else "",
        labels=f",{','.join(labels)}," if labels else "",
        owner_id=failed.owner_id,
        trigger_kind=kind,
        parent_id=None if forked else failed.parent_id,
        resumed_from=failed,
        created_at=unit.now,
        due_at=due,
        caller_ip=failed.caller_ip,
        code_version=code_version_of(failed.url),
        content_type_id=failed.content_type_id,
        object_id=failed.object_id,
        config=encode_config(config),
    )


def _config(alias: str, failed: Run, overrides: RunOverrides, run_id: str) -> RunConfig:
    config = decode_config(failed.config)
    headers = config.headers
    if overrides.labels:
        headers = _with(headers, h.LABEL, ",".join(overrides.labels))
    return msgspec.structs.replace(
        config,
        headers=headers,
        retries=config.retries if overrides.retries is None else overrides.retries,
        retry_delay=overrides.retry_delay or config.retry_delay,
        flow_control=overrides.flow_control or config.flow_control,
        failure_callback=_failure_callback(config.failure_callback, overrides, failed.url, run_id),
        invoker=config.invoker if _waits(alias, failed, config.invoker) else None,
    )


def _waits(alias: str, failed: Run, invoker: Invoker | None) -> bool:
    """Whether the step that invoked this run has no result yet: then it was not told of the failure."""
    if invoker is None or failed.parent_id is None:
        return False
    entries = JournalEntry.objects.using(alias).filter(run_id=failed.parent_id, step_id=invoker.step.step_id)
    return not entries.exists()


def _failure_callback(
    stored: CallbackConfig | None, overrides: RunOverrides, url: str, run_id: str
) -> CallbackConfig | None:
    """Where the new run's failure is told: as before, for another run id and with what is overridden."""
    if stored is None:
        if overrides.failure_url is None:
            return None
        stored = CallbackConfig(url=None, headers=_FAILURE_HEADERS | {h.WORKFLOW_URL: url})
    headers = _with(stored.headers, h.WORKFLOW_RUN_ID, run_id)
    if overrides.labels:
        headers = _with(headers, h.FORWARD_PREFIX + h.LABEL, ",".join(overrides.labels))
    if overrides.flow_control is not None:
        headers = _with(headers, h.FLOW_CONTROL_KEY, overrides.flow_control.key)
        headers = _with(headers, h.FLOW_CONTROL_VALUE, encode_flow_control(overrides.flow_control))
    return CallbackConfig(url=overrides.failure_url or stored.url, headers=headers)


_FAILURE_HEADERS = {
    h.FORWARD_PREFIX + h.WORKFLOW_IS_FAILURE: "true",
    h.FORWARD_PREFIX + h.WORKFLOW_FAILURE_CALLBACK: "true",
    h.WORKFLOW_INIT: "false",
    h.WORKFLOW_CALL_TYPE: CallType.FAILURE_CALL.value,
}


def _with(headers: dict[str, str], name: str, value: str) -> dict[str, str]:
    """The headers with one set anew, whatever its letter case was."""
    return {key: text for key, text in headers.items() if key.lower() != name.lower()} | {name: value}
