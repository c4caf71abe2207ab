"""Schedules, as calls of the client. Workers make those that workflows declare in code: they need none of these."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django_workflow.client.options import TriggerOptions
from django_workflow.client.urls import workflow_url
from django_workflow.protocol import headers as h
from django_workflow.protocol.cron import check_cron, with_timezone
from django_workflow.protocol.publish import Message
from django_workflow.protocol.schedules import (
    CreateSchedule,
    DeleteSchedule,
    FetchSchedule,
    ListSchedules,
    PauseSchedule,
    ResumeSchedule,
    ScheduleInfo,
)

if TYPE_CHECKING:
    from django_workflow.client.transports import Transport

DEFAULT_OPTIONS = TriggerOptions()


class ScheduleCalls:
    """A part of `Client`."""

    __slots__ = ()

    transport: Transport

    def schedule(
        self,
        workflow: str,
        cron: str,
        body: bytes = b"",
        options: TriggerOptions = DEFAULT_OPTIONS,
        *,
        timezone: str = "UTC",
        schedule_id: str | None = None,
    ) -> str:
        """Have a run of `workflow` started whenever `cron` says, with the JSON `body`; gives the schedule's id.

        A schedule of the same id is overwritten. Of the options headers, labels, retries, retry_delay, timeout and
        delay are kept: they are the message's that starts the run. Raises ValueError for a bad expression.
        """
        return self.transport.send(_create(workflow, cron, body, options, timezone, schedule_id))

    async def aschedule(
        self,
        workflow: str,
        cron: str,
        body: bytes = b"",
        options: TriggerOptions = DEFAULT_OPTIONS,
        *,
        timezone: str = "UTC",
        schedule_id: str | None = None,
    ) -> str:
        return await self.transport.asend(_create(workflow, cron, body, options, timezone, schedule_id))

    def schedules(self) -> tuple[ScheduleInfo, ...]:
        """The engine's schedules, those of others too."""
        return self.transport.send(ListSchedules())

    async def aschedules(self) -> tuple[ScheduleInfo, ...]:
        return await self.transport.asend(ListSchedules())

    def find_schedule(self, schedule_id: str) -> ScheduleInfo:
        """Raises EngineError (404)."""
        return self.transport.send(FetchSchedule(schedule_id=schedule_id))

    async def afind_schedule(self, schedule_id: str) -> ScheduleInfo:
        return await self.transport.asend(FetchSchedule(schedule_id=schedule_id))

    def delete_schedule(self, schedule_id: str) -> None:
        """Forget a schedule; the runs that it has started go on. Raises EngineError (404)."""
        self.transport.send(DeleteSchedule(schedule_id=schedule_id))

    async def adelete_schedule(self, schedule_id: str) -> None:
        await self.transport.asend(DeleteSchedule(schedule_id=schedule_id))

    def pause_schedule(self, schedule_id: str) -> None:
        """Skip a schedule's occurrences until it is resumed. Raises EngineError (404)."""
        self.transport.send(PauseSchedule(schedule_id=schedule_id))

    async def apause_schedule(self, schedule_id: str) -> None:
        await self.transport.asend(PauseSchedule(schedule_id=schedule_id))

    def resume_schedule(self, schedule_id: str) -> None:
        """Go on with a schedule's next occurrence. Raises EngineError (404)."""
        self.transport.send(ResumeSchedule(schedule_id=schedule_id))

    async def aresume_schedule(self, schedule_id: str) -> None:
        await self.transport.asend(ResumeSchedule(schedule_id=schedule_id))


def _create(
    workflow: str, cron: str, body: bytes, options: TriggerOptions, timezone: str, schedule_id: str | None
) -> CreateSchedule:
    check_cron(cron, timezone)
    headers = dict(options.headers)
    if options.labels:
        headers[h.LABEL] = ",".join(options.labels)  # an engine keeps a message's labels to itself otherwise
    message = Message(
        destination=workflow_url(workflow),
        body=body,
        content_type="application/json",
        headers=headers,
        delay=options.delay,
        retries=options.retries,
        retry_delay=options.retry_delay,
        timeout=options.timeout,
        labels=options.labels,
        redact=options.redact,
    )
    return CreateSchedule(message=message, cron=with_timezone(cron, timezone), schedule_id=schedule_id)
