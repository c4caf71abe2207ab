"""What is recorded of live runs, for replaying them: from the database, or from a file that another machine wrote.

A file has one JSON object per line, a run each. It is made for carrying journals to where code is tested, so what is
secret is hidden in it: `hidden` then says that a replay meets other values than the run did.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import TextIO

import msgspec

from django_workflow.authoring.context_base import RunDetails
from django_workflow.engine.journal_cache import info_of
from django_workflow.engine.records import milliseconds, raw
from django_workflow.models import JournalEntry, Run, Step
from django_workflow.models.run import RunQuerySet
from django_workflow.presentation import values
from django_workflow.protocol.secrets import shown_out
from django_workflow.protocol.steps import CallType, StepType, decode_step
from django_workflow.protocol.steps import Step as WireStep

AT_ONCE = 50
WAITS = (StepType.WAIT, StepType.WAIT_FOR_WEBHOOK)
ANNOUNCED = (*WAITS, StepType.CALL, StepType.INVOKE)
"""Steps that are shown before they have a result."""


class RecordedRun(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One live run. `steps` are its journal without the payload, in its order; `pending` those that the engine does.

    `own`: its endpoint belongs to this project. `created_at` is Unix milliseconds.
    """

    run_id: str
    workflow: str
    url: str
    own: bool
    status: str
    payload: str = ""
    payload_is_base64: bool = False
    labels: tuple[str, ...] = ()
    headers: dict[str, str] = {}
    created_at: int
    first_run_id: str = ""
    steps: tuple[WireStep, ...] = ()
    pending: tuple[WireStep, ...] = ()
    hidden: bool = False

    def details(self) -> RunDetails:
        """The run's facts, as a delivery brings them."""
        return RunDetails(
            run_id=self.run_id,
            url=self.url,
            payload=raw(self.payload, self.payload_is_base64),
            headers=self.headers,
            labels=self.labels,
            created_at=self.created_at,
            first_run_id=self.first_run_id,
        )


class FileInvalid(ValueError):
    """A line of a file is no recorded run. The text says which line, and why."""


def recorded_runs(runs: RunQuerySet, *, hide: bool = False) -> Iterator[RecordedRun]:
    """The runs of a queryset, oldest first: three queries for each 50 of them. `hide`: without their secrets."""
    keys = list(runs.order_by("created_at", "pk").values_list("pk", flat=True))
    for start in range(0, len(keys), AT_ONCE):
        some = keys[start : start + AT_ONCE]
        found = {run.pk: run for run in runs.filter(pk__in=some).select_related("first_run")}
        entries, shown = defaultdict(list), defaultdict(list)
        for entry in JournalEntry.objects.using(runs.db).filter(run__in=some, call_type=CallType.STEP, position__gt=0):
            entries[entry.run_id].append(entry)
        for step in Step.objects.using(runs.db).filter(run__in=some, position=None).order_by("step_id"):
            shown[step.run_id].append(step)
        for key in some:
            if key in found:  # not pruned meanwhile
                recorded = _recorded(found[key], entries[key], shown[key])
                yield _without_secrets(recorded, found[key]) if hide else recorded


def _recorded(run: Run, entries: Iterable[JournalEntry], shown: Iterable[Step]) -> RecordedRun:
    info = info_of(run)
    steps = [decode_step(entry.body) for entry in sorted(entries, key=lambda entry: entry.position)]
    planned = {step.target_step for step in steps if step.is_plan}
    pending = []
    for row in shown:
        if row.concurrent > 1 and row.step_id not in planned:
            # Of hosted runs only results are kept; the branches without one are known by their rows.
            steps.append(_as_wire(row, step_id=0, target_step=row.step_id))
        elif row.concurrent == 1 and row.step_type in ANNOUNCED and row.status in Step.OPEN:
            pending.append(_as_wire(row, step_id=row.step_id))
    return RecordedRun(
        run_id=run.run_id,
        workflow=run.workflow,
        url=run.url,
        own=info.own,
        status=run.status,
        payload=run.payload,
        payload_is_base64=run.payload_is_base64,
        labels=info.labels,
        headers=info.config.headers,
        created_at=milliseconds(run.created_at),
        first_run_id=info.first_run_id,
        steps=tuple(steps),
        pending=tuple(pending),
    )


def _without_secrets(recorded: RecordedRun, run: Run) -> RecordedRun:
    redacted = values.is_redacted(run)
    payload = values.payload_of(run)
    safe = msgspec.structs.replace(
        recorded,
        payload="" if payload is None else json.dumps(payload, ensure_ascii=False),
        payload_is_base64=False,
        headers=values.headers_of(run),
        steps=tuple(_without_secret(step, hide=redacted) for step in recorded.steps),
    )
    has_secrets = redacted or bool(values.secrets_of(run)) or any(step.secret for step in recorded.steps)
    return msgspec.structs.replace(safe, hidden=True) if has_secrets else safe


def _without_secret(step: WireStep, *, hide: bool) -> WireStep:
    out = shown_out(step, hide=hide)
    if out is not None and out is not step.out and step.step_type in WAITS:
        out = b64encode(out.encode()).decode()  # what an event brought is kept so
    return msgspec.structs.replace(step, out=out)


def _as_wire(row: Step, *, step_id: int, target_step: int | None = None) -> WireStep:
    return WireStep(
        step_id=step_id,
        step_name=row.name,
        step_type=row.step_type,
        concurrent=row.concurrent,
        target_step=target_step,
        wait_event_id=row.event_id or None,
    )


def write(runs: Iterable[RecordedRun], file: TextIO) -> int:
    """Write runs, one a line; gives their number."""
    number = 0
    for run in runs:
        file.write(_encoder.encode(run).decode() + "\n")
        number += 1
    return number


def read(file: Iterable[str]) -> Iterator[RecordedRun]:
    """The runs of a file. Raises FileInvalid."""
    for number, line in enumerate(file, 1):
        if line.strip():
            try:
                yield _decoder.decode(line)
            except msgspec.MsgspecError as error:
                raise FileInvalid(f"Line {number} is no run that workflow_check has exported: {error}.") from error


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(RecordedRun)
