"""Messages of every kind, taken in together: those of runs, those that start runs, and those outside workflows.

Called by `transport` (from this process) and by the HTTP door, inside a unit of work; all are taken, or none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from uuid import UUID

from django.db import IntegrityError, transaction

from django_workflow.engine import intake, limits, messages, rest_starts
from django_workflow.engine.leases import warn_without_worker
from django_workflow.engine.local_requests import Asked
from django_workflow.engine.records import milliseconds
from django_workflow.engine.unit_of_work import UnitOfWork
from django_workflow.errors import EngineError, MessageInvalid
from django_workflow.models import Run, Schedule
from django_workflow.protocol import headers as h
from django_workflow.protocol.identifiers import LONGEST_RUN_ID, message_id_of, uuid7
from django_workflow.protocol.invoke import decode_invoke
from django_workflow.protocol.publish import Message
from django_workflow.protocol.requests import Batch, Published

Answers = Published | tuple[Published, ...]
"""A message for a URL group is answered with one item per endpoint."""


def accept_all(
    unit: UnitOfWork,
    accepted: Sequence[Message],
    *,
    caller_ip: str = "",
    new_results_only: bool = False,
    by_rest: bool = False,
) -> tuple[Answers, ...]:
    """Take messages in; the answers stand in their order.

    `new_results_only`: a result that is there already is refused instead of dropped. `by_rest`: the runs are started
    without an SDK. Raises RunEnded, QuotaExceeded or
    another EngineError, after which the caller's transaction must be rolled back.
    """
    limits.check(accepted)
    keys = _run_keys(unit.alias, accepted)
    unit.lock(keys.values())
    return tuple(_accept(unit, message, keys, caller_ip, new_results_only, by_rest) for message in accepted)


def _accept(
    unit: UnitOfWork,
    message: Message,
    keys: dict[str, UUID],
    caller_ip: str,
    new_results_only: bool,
    by_rest: bool,
) -> Answers:
    fields = message.workflow
    if fields is None:
        return messages.publish(unit, message, caller_ip=caller_ip)
    if fields.init and not fields.invoke:
        return _start(unit, message, caller_ip, by_rest)
    if fields.invoke:
        body = decode_invoke(message.body)
        run_key = keys.get(body.workflow_run_id)
    else:
        run_key = keys.get(fields.run_id)
    if run_key is None:
        raise intake.run_ended(fields.run_id)
    key = uuid7()
    taken = intake.append_message(unit, unit.state(run_key), message, key)
    if not taken and new_results_only:
        raise EngineError(
            f"The step of run {fields.run_id} has a result already; what an atomic step wrote again is rolled back.",
            status=409,
        )
    return Published(message_id=message_id_of(key))


def _start(unit: UnitOfWork, message: Message, caller_ip: str, by_rest: bool) -> Published:
    fields = message.workflow
    assert fields is not None
    if len(fields.run_id) > LONGEST_RUN_ID:
        raise MessageInvalid(f"A run id has {LONGEST_RUN_ID} characters at most.", name=h.WORKFLOW_RUN_ID)
    known = intake.known_run(unit, fields.run_id)
    if known is None:
        unit.flush()  # what is discarded below must be nothing but this run
        try:
            with transaction.atomic(using=unit.alias):
                kind = Run.TriggerKind.API if by_rest else Run.TriggerKind.CODE
                # Of a schedule's message, which an endpoint has started a run of.
                schedule_id = h.any_case(message.headers).get(h.SCHEDULE_ID)
                if schedule_id:
                    kind = Run.TriggerKind.SCHEDULE
                    Schedule.objects.using(unit.alias).filter(schedule_id=schedule_id).update(last_run_id=fields.run_id)
                run = intake.start_run(unit, message, caller_ip=caller_ip, by_rest=by_rest, trigger_kind=kind)
                unit.flush()
        except IntegrityError:  # started by another process between the look and the insert
            unit.discard()
            known = intake.known_run(unit, fields.run_id)
            if known is None:
                raise
        else:
            warn_without_worker(unit.alias, unit.now)
            return _started(run, deduplicated=False)
    adopted = fields.trigger_by_sdk and rest_starts.adopt(unit, known.pk, message)
    return _started(known, deduplicated=not adopted)


def start_together(unit: UnitOfWork, starts: Sequence[Asked]) -> None:
    """Start the runs that a committer was asked for, and answer them; they count once the unit is committed.

    As long as the worker has room, their first calls are leased to it at once.
    """
    answers = iter(start_all(unit, [message for start in starts for message in _messages(start)], leased=True))
    for start in starts:
        start.answer = tuple(islice(answers, len(_messages(start))))


def start_all(unit: UnitOfWork, messages: Sequence[Message], *, leased: bool = False) -> tuple[Published, ...]:
    """Start a run for each message, unless there is one of that id; the answers in their order.

    An IntegrityError of the unit's flush says that another process has started one of them meanwhile.
    """
    names = [_run_id(message) for message in messages]
    rows = Run.objects.using(unit.alias).filter(run_id__in=names).only("pk", "run_id", "created_at")
    known = {run.run_id: run for run in rows}
    answers = []
    for run_id, message in zip(names, messages, strict=True):
        is_known = run_id in known
        if not is_known:
            known[run_id] = intake.start_run(unit, message, leased=leased)
        answers.append(_started(known[run_id], deduplicated=is_known))
    return tuple(answers)


def _started(run: Run, *, deduplicated: bool) -> Published:
    return Published(
        message_id=message_id_of(run.pk),
        deduplicated=deduplicated,
        workflow_run_id=run.run_id,
        workflow_created_at=milliseconds(run.created_at),
    )


def _messages(asked: Asked) -> tuple[Message, ...]:
    assert isinstance(asked.request, Batch)
    return asked.request.messages


def _run_id(message: Message) -> str:
    assert message.workflow is not None
    return message.workflow.run_id


def _run_keys(alias: str, accepted: Iterable[Message]) -> dict[str, UUID]:
    """Keys of the runs that the messages belong to, in one query; none for messages that start runs."""
    names = set()
    for message in accepted:
        fields = message.workflow
        if fields is None:
            continue
        if fields.invoke:
            names.add(decode_invoke(message.body).workflow_run_id)
        elif not fields.init:
            names.add(fields.run_id)
    if not names:
        return {}
    return dict(Run.objects.using(alias).filter(run_id__in=names).values_list("run_id", "pk"))
