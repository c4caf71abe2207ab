"""Receipts of atomic steps: a result stored with the business rows of its step, and sent after their commit.

The first attempt of a step takes its place in the outbox before the function runs, in the transaction of both. Another
attempt waits at that place until the first has committed or rolled back: then it finds the result, which is sent again
and not made again, or the place free.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
from django.db import IntegrityError, connections, transaction

from django_workflow.client.session import current_region
from django_workflow.conf import get_settings
from django_workflow.errors import EngineError
from django_workflow.mirror.outbox import HANDOVER, Kept
from django_workflow.mirror.surroundings import surroundings
from django_workflow.models import Outbox
from django_workflow.protocol.identifiers import uuid7
from django_workflow.protocol.publish import Message
from django_workflow.protocol.requests import Published
from django_workflow.protocol.steps import Step, decode_step

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Message).decode


@dataclass(slots=True)
class OpenReceipt:
    """The receipt of the transaction that is open: `row` is its place, `kept` is set once there is a result."""

    row: Outbox | None = None
    kept: Kept | None = None


open_receipt: ContextVar[OpenReceipt | None] = ContextVar("django_workflow_receipt", default=None)


class KeptResult(NamedTuple):
    """The result of an earlier attempt; `taken`: the engine has it."""

    step: Step
    taken: bool


def take_place(receipt: OpenReceipt, run_id: str, step: Step) -> KeptResult | None:
    """Take a step's place. Gives the result of whoever had it, or None when the step is this attempt's to run.

    Blocks while another attempt's transaction holds the place.
    """
    alias, now = get_settings().database, surroundings().now()
    row = Outbox(
        kind=Outbox.Kind.RECEIPT,
        batch=uuid7(),
        run_id=run_id,
        step_id=step.step_id,
        region=current_region.get() or "",
        created_at=now,
    )
    try:
        with transaction.atomic(using=alias):
            row.save(using=alias, force_insert=True)
    except IntegrityError:
        return _kept(alias, run_id, step)
    receipt.row = row
    return None


def _kept(alias: str, run_id: str, step: Step) -> KeptResult:
    rows = Outbox.objects.using(alias).filter(kind=Outbox.Kind.RECEIPT, run_id=run_id, step_id=step.step_id)
    if connections[alias].features.has_select_for_update:
        rows = rows.select_for_update()  # reads what was committed since this transaction began
    row = rows.first()
    if row is None:
        raise EngineError(
            f"Step {step.step_name!r} of run {run_id} is run by another attempt just now; this one is given up.",
            status=409,
        )
    return KeptResult(decode_step(_decode(row.message).body), row.is_sent)


def fill_in(receipt: OpenReceipt, messages: tuple[Message, ...]) -> tuple[Published, ...]:
    """Keep the result that an atomic step submits, in its transaction."""
    row = receipt.row
    if row is None or len(messages) != 1:
        raise EngineError(
            f"{len(messages)} messages were submitted inside the transaction of an atomic step, which has room for its "
            "own result alone. Send others outside of it.",
            status=409,
        )
    row.message = _encode(messages[0]).decode()
    due = row.due_at = surroundings().now() + HANDOVER
    row.save(using=get_settings().database, update_fields=["message", "due_at"])
    receipt.kept = Kept(row.batch, due)
    return (Published(message_id=f"receipt-{row.pk}"),)


def note_resent(run_id: str, step_id: int) -> None:
    """A receipt's result was taken by the engine in a later delivery: nobody has to send it any more."""
    rows = Outbox.objects.using(get_settings().database).filter(
        kind=Outbox.Kind.RECEIPT, run_id=run_id, step_id=step_id, due_at__isnull=False
    )
    rows.update(sent_at=surroundings().now(), due_at=None, error="")
