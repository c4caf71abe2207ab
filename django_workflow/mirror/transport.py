"""The hosted engine's transport: what belongs to a transaction goes through the outbox, the rest over the network.

Triggers are written with their caller's rows and sent after the commit; a trigger outside of a transaction is sent at
once, and stays in the outbox when the engine is away. Results of atomic steps become receipts. What is canceled or
answered here shows on the mirror's rows at once, not only when the engine calls again.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar, cast

import msgspec
from asgiref.sync import sync_to_async
from django.db import Error as DatabaseError
from django.db import connections, transaction

from django_workflow.client.transports import Transport, close_transport
from django_workflow.conf import get_settings
from django_workflow.errors import EngineError, WorkflowError
from django_workflow.mirror import outbox, receipts
from django_workflow.mirror.change import changing
from django_workflow.mirror.failures import forget_dead_letters
from django_workflow.mirror.recorder import ask_soon
from django_workflow.mirror.resumed import note_started_again
from django_workflow.mirror.run_rows import from_ms
from django_workflow.mirror.schedules import note_deleted, note_made, note_paused
from django_workflow.mirror.surroundings import surroundings
from django_workflow.models import Run, Waiter
from django_workflow.protocol.publish import Message
from django_workflow.protocol.requests import (
    Batch,
    CancelRuns,
    DeleteDeadLetters,
    EngineRequest,
    Notified,
    Notify,
    Publish,
    Published,
    RestartRuns,
    ResumeRuns,
    Wait,
)
from django_workflow.protocol.resources import StartedRuns
from django_workflow.protocol.schedules import CreateSchedule, DeleteSchedule, PauseSchedule, ResumeSchedule
from django_workflow.protocol.steps import CallType, Step, decode_step

R = TypeVar("R")

logger = logging.getLogger("django_workflow.mirror")


class HostedTransport:
    """Implements `client.transports.Transport` over `inner`, which reaches the engine."""

    def __init__(self, inner: Transport) -> None:
        self.inner = inner
        self._kept: dict[tuple[str, int], bool] = {}

    def __repr__(self) -> str:
        return f"<HostedTransport {self.inner!r}>"

    def send(self, request: EngineRequest[R]) -> R:
        messages = _messages(request)
        if messages and all(map(_starts_run, messages)):
            return _as_answer(request, self._trigger(messages))
        receipt = receipts.open_receipt.get()
        if receipt is not None and any(map(_is_result, messages)):
            return _as_answer(request, receipts.fill_in(receipt, messages))
        if isinstance(request, CancelRuns):
            return cast(R, self._cancel(request))
        again = self._sent_again(messages) if self._kept else None
        if again is not None and self._kept.pop(again):  # the engine has it, and this delivery is an old one
            return _as_answer(request, (Published(message_id=f"receipt-{again[0]}-{again[1]}"),))
        if isinstance(request, Wait):  # what people are asked is kept here; to the engine it would be an unknown field
            return self.inner.send(cast("EngineRequest[R]", msgspec.structs.replace(request, prompt=None, form=None)))
        answer = self.inner.send(request)
        if isinstance(request, Notify):
            _note_notified(request, cast("tuple[Notified, ...]", answer))
        elif isinstance(request, ResumeRuns | RestartRuns):
            note_started_again(request, cast(StartedRuns, answer))
        elif isinstance(request, DeleteDeadLetters) and request.dlq_ids:
            forget_dead_letters(request.dlq_ids)
        elif isinstance(request, PauseSchedule | ResumeSchedule):
            note_paused(request.schedule_id, isinstance(request, PauseSchedule))
        elif isinstance(request, CreateSchedule):
            note_made(request, cast(str, answer))
        elif isinstance(request, DeleteSchedule):
            note_deleted(request.schedule_id)
        elif again is not None:
            receipts.note_resent(*again)
        return answer

    async def asend(self, request: EngineRequest[R]) -> R:
        # On the thread that has the caller's connection: what is kept must be part of its transaction.
        return await sync_to_async(self.send)(request)

    @contextmanager
    def atomic(self) -> Iterator[None]:
        """A transaction; the result of a step that is submitted inside it is committed with it, and sent then.

        Raises the EngineError of that sending. The result is kept, and the engine's next delivery sends it again.
        """
        alias, receipt = get_settings().database, receipts.OpenReceipt()
        token = receipts.open_receipt.set(receipt)
        try:
            with surroundings().atomic(alias):
                yield
        finally:
            receipts.open_receipt.reset(token)
        if receipt.kept is not None:
            self._after_commit(receipt.kept)

    def kept(self, run_id: str, step: Step) -> Step | None:
        receipt = receipts.open_receipt.get()
        if receipt is None:
            raise EngineError(f"kept() of step {step.step_name!r} was asked outside of atomic().")
        result = receipts.take_place(receipt, run_id, step)
        if result is None:
            return None
        self._kept[run_id, step.step_id] = result.taken
        return result.step

    def close(self) -> None:
        close_transport(self.inner)

    # Triggers and receipts

    def _trigger(self, messages: tuple[Message, ...]) -> tuple[Published, ...]:
        answers, kept = outbox.keep_triggers(messages)
        if kept is not None:
            self._after_commit(kept)
        return answers

    def _after_commit(self, kept: outbox.Kept) -> None:
        """Send a batch now, or when the transaction that it is part of commits."""
        connection = connections[get_settings().database]
        if connection.in_atomic_block:
            transaction.on_commit(lambda: self._send_quietly(kept), using=connection.alias, robust=True)
        elif connection.get_autocommit():
            self._send(kept)
        # else the project commits by hand, and tells nobody when: a worker sends it

    def _send(self, kept: outbox.Kept) -> None:
        """Raises what the engine refuses for good; what may go well later is left to the next one who sends.

        Of a receipt every error is raised: the engine then delivers again, whoever sends it first.
        """
        rows = outbox.claim(kept.batch, kept=kept.due_at)
        if not rows:
            return
        try:
            outbox.send(self.inner, rows)
        except WorkflowError as error:
            if rows[0].step_id is not None or outbox.is_permanent(error):
                raise

    def _send_quietly(self, kept: outbox.Kept) -> None:
        try:
            self._send(kept)
        except WorkflowError:  # noted on the rows
            logger.debug("Batch %s of the outbox was not taken after its commit.", kept.batch, exc_info=True)

    def _sent_again(self, messages: tuple[Message, ...]) -> tuple[str, int] | None:
        """Run and step of a result that was kept, when it is what these messages are."""
        if len(messages) != 1 or not _is_result(messages[0]):
            return None
        assert messages[0].workflow is not None
        key = (messages[0].workflow.run_id, decode_step(messages[0].body).step_id)
        return key if key in self._kept else None

    # Cancel

    def _cancel(self, request: CancelRuns) -> int:
        """Cancel runs that the engine has, and those that are still on their way to it."""
        wanted = _matching(request)
        unsent = set(outbox.unsent_run_ids())
        withdrawn = outbox.withdraw(run_id for run_id in wanted if run_id in unsent) if unsent else []
        left = tuple(run_id for run_id in request.run_ids if run_id not in withdrawn)
        if request.run_ids and not left:
            return len(withdrawn)
        canceled = self.inner.send(msgspec.structs.replace(request, run_ids=left))
        _note_canceled([run_id for run_id in wanted if run_id not in withdrawn], canceled)
        return canceled + len(withdrawn)


def network_of(transport: Transport) -> Transport:
    """What a transport reaches the engine by, past the outbox. Others than this one have none."""
    return transport.inner if isinstance(transport, HostedTransport) else transport


def _messages(request: EngineRequest[R]) -> tuple[Message, ...]:
    if isinstance(request, Batch):
        return request.messages
    return (request.message,) if isinstance(request, Publish) else ()


def _starts_run(message: Message) -> bool:
    """Whether this is a trigger of this site. Invocations are steps; and a run that was started by REST knows of the
    engine already, which waits for this very answer."""
    fields = message.workflow
    return fields is not None and fields.init and not fields.invoke and not fields.trigger_by_sdk


def _is_result(message: Message) -> bool:
    fields = message.workflow
    return fields is not None and not fields.init and fields.call_type == CallType.STEP


def _as_answer(request: EngineRequest[R], answers: tuple[Published, ...]) -> R:
    return cast(R, answers[0] if isinstance(request, Publish) else answers)


def _matching(request: CancelRuns) -> list[str]:
    """Ids of the living runs, as far as they are known here, that a cancelation means."""
    runs = Run.objects.using(get_settings().database).hosted().active()
    if request.run_ids:
        return list(runs.filter(run_id__in=request.run_ids).values_list("run_id", flat=True))
    if request.workflow_url:
        runs = runs.filter(**{"url" if request.exact_url else "url__startswith": request.workflow_url})
    if request.label:
        runs = runs.with_any_label(request.label.split(","))
    if request.flow_control_key:
        runs = runs.filter(flow_key=request.flow_control_key)
    if request.from_date is not None:
        runs = runs.filter(created_at__gte=from_ms(request.from_date))
    if request.to_date is not None:
        runs = runs.filter(created_at__lte=from_ms(request.to_date))
    return list(runs.order_by("pk").values_list("run_id", flat=True)[: request.count])


def _note_canceled(run_ids: list[str], canceled: int) -> None:
    """Show a cancelation. Only a number is told: when it is another one than expected, the engine is asked."""
    try:
        if canceled != len(run_ids):
            ask_soon(run_ids)
            return
        for run_id in run_ids:
            with changing(run_id) as change:
                if change is not None:
                    change.finish(Run.Status.CANCELED)
    except DatabaseError:
        logger.exception("The engine has canceled %d runs, but their rows do not show it yet.", canceled)


def _note_notified(request: Notify, told: tuple[Notified, ...]) -> None:
    """Whoever was reached waits no more: a second answer shall find that out before the engine calls again."""
    reached = [notified for notified in told if notified.waiter is not None]
    run_ids = {notified.workflow_run_id or request.run_id for notified in reached} - {None}
    if not reached:
        return
    alias = get_settings().database
    waiters = Waiter.objects.using(alias).filter(event_id=request.event_id, state=Waiter.State.WAITING)
    if run_ids:
        waiters = waiters.filter(run__run_id__in=run_ids)
    values = {"resolved_at": surroundings().now(), "event_data": base64.b64encode(request.body).decode()}
    try:
        with surroundings().atomic(alias):
            # In two steps: MySQL updates no table that it joins.
            keys = list(waiters.values_list("pk", flat=True))
            Waiter.objects.using(alias).filter(pk__in=keys).update(state=Waiter.State.RESOLVED, **values)
    except DatabaseError:
        logger.exception("Event %r was delivered, but the rows of those who waited do not show it.", request.event_id)
