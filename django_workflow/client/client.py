"""The client: one typed method per thing that can be asked of an engine.

Called by the decorator (`checkout.trigger(...)`), by `serve` for every step, by admin and API. It builds the request
and hands it to a transport; which engine that reaches is the transport's business. The `a`-twins await.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import msgspec

from django_workflow.client.control import ControlCalls
from django_workflow.client.dead_letters import DeadLetterCalls
from django_workflow.client.handle import RunHandle
from django_workflow.client.logs import LogCalls
from django_workflow.client.messages import init_message
from django_workflow.client.options import TriggerOptions
from django_workflow.client.schedules import ScheduleCalls
from django_workflow.client.transports import Transport, current_transport
from django_workflow.client.urls import workflow_url
from django_workflow.conf import get_settings
from django_workflow.protocol.identifiers import RUN_PREFIX, new_run_id, prefixed_run_id
from django_workflow.protocol.publish import Message
from django_workflow.protocol.requests import (
    Batch,
    CancelRun,
    CancelRuns,
    FetchRun,
    FinishRun,
    GetWaiters,
    Notified,
    Notify,
    Publish,
    Published,
    WaiterInfo,
)
from django_workflow.protocol.steps import JournalMessage
from django_workflow.replay.instruments import instrument, with_trace
from django_workflow.replay.step_call import current_step
from django_workflow.replay.values import encode_value

logger = logging.getLogger("django_workflow.client")

DEFAULT_OPTIONS = TriggerOptions()
ENGINE_DEFAULT_RETRIES = 3


class Trigger(NamedTuple):
    """One of many runs to start: see `Client.trigger_many`."""

    workflow: str
    body: bytes = b""
    options: TriggerOptions = DEFAULT_OPTIONS


class Client(ControlCalls, DeadLetterCalls, LogCalls, ScheduleCalls):
    """An engine, as Python calls. Every method raises EngineError or one of its subclasses when the engine refuses.

    Inside a step, what is triggered or notified gets an id that the step's next attempt gives again: a step that runs
    twice starts no second run.
    """

    __slots__ = ("transport",)

    def __init__(self, transport: Transport | None = None) -> None:
        self.transport = transport or current_transport()

    def __repr__(self) -> str:
        return f"Client({self.transport!r})"

    # Runs

    def trigger(
        self,
        workflow: str,
        body: bytes = b"",
        options: TriggerOptions = DEFAULT_OPTIONS,
        *,
        decode: Callable[[bytes], Any] = msgspec.json.decode,
    ) -> RunHandle:
        """Start a run of `workflow` (a name of this project, or the URL of a foreign endpoint) with the JSON `body`.

        `decode` turns the result's JSON into what `handle.wait()` returns.
        """
        message = self._init(Trigger(workflow, body, options))
        return self._handle(message, self.batch((message,))[0], decode)

    async def atrigger(
        self,
        workflow: str,
        body: bytes = b"",
        options: TriggerOptions = DEFAULT_OPTIONS,
        *,
        decode: Callable[[bytes], Any] = msgspec.json.decode,
    ) -> RunHandle:
        message = self._init(Trigger(workflow, body, options))
        return self._handle(message, (await self.abatch((message,)))[0], decode)

    def trigger_many(
        self, triggers: Iterable[Trigger], *, decode: Callable[[bytes], Any] = msgspec.json.decode
    ) -> list[RunHandle]:
        """Start several runs with one request: all are taken, or none."""
        messages = tuple(map(self._init, triggers))
        return self._handles(messages, self.batch(messages), decode)

    async def atrigger_many(
        self, triggers: Iterable[Trigger], *, decode: Callable[[bytes], Any] = msgspec.json.decode
    ) -> list[RunHandle]:
        messages = tuple(map(self._init, triggers))
        return self._handles(messages, await self.abatch(messages), decode)

    def handle(self, run_id: str) -> RunHandle:
        """A handle of a run that exists."""
        return RunHandle(run_id, self)

    def cancel(
        self,
        run_ids: Iterable[str] | None = None,
        *,
        workflow: str | None = None,
        url_prefix: str | None = None,
        label: str | None = None,
        everything: bool = False,
        count: int | None = None,
    ) -> int:
        """Cancel runs by id, by workflow, by the start of their URL or by label; gives how many were canceled.

        Unknown and ended runs are skipped. To cancel every run say `everything=True`; an empty list cancels none.
        """
        request = _cancel_request(run_ids, workflow, url_prefix, label, everything, count)
        return 0 if request is None else self.transport.send(request)

    async def acancel(
        self,
        run_ids: Iterable[str] | None = None,
        *,
        workflow: str | None = None,
        url_prefix: str | None = None,
        label: str | None = None,
        everything: bool = False,
        count: int | None = None,
    ) -> int:
        request = _cancel_request(run_ids, workflow, url_prefix, label, everything, count)
        return 0 if request is None else await self.transport.asend(request)

    # Events

    def notify(
        self, event_id: str, data: object = None, *, run_id: str | None = None, deduplication_id: str | None = None
    ) -> tuple[Notified, ...]:
        """Tell an event to the runs that wait for it; gives one entry per run that was reached.

        `data` is anything that JSON holds (bytes go as they are, None is no data). With `run_id` the event is kept
        for that run when it does not wait yet; without it, an event that nobody waits for is lost.
        """
        return self.transport.send(_notify_request(event_id, data, run_id, deduplication_id))

    async def anotify(
        self, event_id: str, data: object = None, *, run_id: str | None = None, deduplication_id: str | None = None
    ) -> tuple[Notified, ...]:
        return await self.transport.asend(_notify_request(event_id, data, run_id, deduplication_id))

    def waiters(self, event_id: str) -> tuple[WaiterInfo, ...]:
        """The runs that wait for an event."""
        return self.transport.send(GetWaiters(event_id=_not_empty(event_id, "event id")))

    async def awaiters(self, event_id: str) -> tuple[WaiterInfo, ...]:
        return await self.transport.asend(GetWaiters(event_id=_not_empty(event_id, "event id")))

    # Messages, and a run's own endpoint: what `serve` uses

    def publish(self, message: Message) -> Published:
        """Hand over one message."""
        return self.transport.send(Publish(message=message))

    async def apublish(self, message: Message) -> Published:
        return await self.transport.asend(Publish(message=message))

    def batch(self, messages: Sequence[Message]) -> tuple[Published, ...]:
        """Hand over messages together; gives the answers in their order, nothing for nothing.

        A body that is no text cannot stand in a batch: then each message goes by itself.
        """
        if not all(map(_is_text, messages)):
            return tuple(map(self.publish, messages))
        return self.transport.send(Batch(messages=tuple(messages))) if messages else ()

    async def abatch(self, messages: Sequence[Message]) -> tuple[Published, ...]:
        if not all(map(_is_text, messages)):
            return tuple([await self.apublish(message) for message in messages])
        return await self.transport.asend(Batch(messages=tuple(messages))) if messages else ()

    def fetch_run(self, run_id: str, message_id: str | None = None) -> tuple[JournalMessage, ...]:
        """The messages of a run up to `message_id`. Raises RunEnded when it is over."""
        return self.transport.send(FetchRun(run_id=run_id, message_id=message_id))

    def finish(self, run_id: str, result: bytes | None = None) -> None:
        """The run returned `result` (JSON)."""
        self.transport.send(FinishRun(run_id=run_id, result=result))

    def cancel_run(self, run_id: str) -> None:
        """The run cancels itself."""
        self.transport.send(CancelRun(run_id=run_id))

    # Inside

    def _init(self, trigger: Trigger) -> Message:
        options = trigger.options
        if instrument() is not None:
            options = replace(options, headers=with_trace(options.headers, trigger.workflow))
        return init_message(
            run_id=_run_id(trigger),
            url=workflow_url(trigger.workflow),
            body=trigger.body,
            options=with_default_retries(options),
        )

    def _handles(
        self, messages: Sequence[Message], answers: Sequence[Published], decode: Callable[[bytes], Any]
    ) -> list[RunHandle]:
        return [self._handle(message, answer, decode) for message, answer in zip(messages, answers, strict=True)]

    def _handle(self, message: Message, answer: Published, decode: Callable[[bytes], Any]) -> RunHandle:
        assert message.workflow is not None
        run_id = answer.workflow_run_id or message.workflow.run_id
        if answer.deduplicated:
            logger.info("run %s exists already; no new one was made", run_id, extra={"run_id": run_id})
        return RunHandle(run_id, self, deduplicated=answer.deduplicated, decode=decode)


def get_client() -> Client:
    """A client over the transport in use."""
    return Client(current_transport())


def with_default_retries(options: TriggerOptions) -> TriggerOptions:
    """The options with the retries and retry delay of the settings where the trigger says nothing.

    What equals the engine's own default stays unsaid, as in the official SDKs.
    """
    settings = get_settings()
    retries, retry_delay = options.retries, options.retry_delay
    if retries is None and settings.retries != ENGINE_DEFAULT_RETRIES:
        retries = settings.retries
    if retry_delay is None:
        retry_delay = settings.retry_delay
    if retries == options.retries and retry_delay == options.retry_delay:
        return options
    return replace(options, retries=retries, retry_delay=retry_delay)


def _run_id(trigger: Trigger) -> str:
    """The id that was asked for; inside a step one that every attempt of the step gives again; else a new one."""
    if trigger.options.run_id:
        return prefixed_run_id(trigger.options.run_id)
    step = current_step.get()
    return new_run_id() if step is None else RUN_PREFIX + step.derive(f"trigger {trigger.workflow}")


def _cancel_request(
    run_ids: Iterable[str] | None,
    workflow: str | None,
    url_prefix: str | None,
    label: str | None,
    everything: bool,
    count: int | None,
) -> CancelRuns | None:
    """None when a list of ids is empty: then there is nothing to ask."""
    ids = (run_ids,) if isinstance(run_ids, str) else tuple(run_ids or ())
    if any(not run_id for run_id in ids):
        raise ValueError("A run id to cancel is empty.")
    if workflow and url_prefix:
        raise ValueError(f"Cancel by workflow ({workflow!r}) or by url_prefix ({url_prefix!r}), not by both.")
    if not (ids or workflow or url_prefix or label or everything):
        if run_ids is None:
            raise ValueError("cancel() does not say which runs: give ids, a filter, or everything=True.")
        return None
    return CancelRuns(
        run_ids=ids,
        workflow_url=workflow_url(workflow) if workflow else url_prefix,
        exact_url=bool(workflow),
        label=label,
        count=count,
    )


def _notify_request(event_id: str, data: object, run_id: str | None, deduplication_id: str | None) -> Notify:
    if data is None or isinstance(data, bytes):
        body = data or b""
    else:
        body = encode_value(data, f"data of event {event_id!r}")
    step = current_step.get()
    if deduplication_id is None and step is not None:
        deduplication_id = step.derive(f"notify {run_id or ''} {event_id}")
    return Notify(
        event_id=_not_empty(event_id, "event id"), body=body, run_id=run_id, deduplication_id=deduplication_id
    )


def _is_text(message: Message) -> bool:
    body = message.body
    if body.isascii():
        return True
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def _not_empty(value: str, what: str) -> str:
    if not value:
        raise ValueError(f"The {what} is empty.")
    return value
