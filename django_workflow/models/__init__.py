"""The rows. `Run` and `Step` are what people see, in both modes; the rest is the embedded engine's and realtime's."""

from django_workflow.models.attempt import Attempt
from django_workflow.models.bulk_operation import BulkChunk, BulkOperation
from django_workflow.models.channel import Channel
from django_workflow.models.channel_event import ChannelEvent
from django_workflow.models.dead_letter import DeadLetter
from django_workflow.models.delivery import Delivery
from django_workflow.models.flow_key import FlowKey
from django_workflow.models.input_request import InputRequest
from django_workflow.models.journal_entry import JournalEntry
from django_workflow.models.message_log import MessageLog
from django_workflow.models.objects import RunsRelation, WorkflowRunsMixin
from django_workflow.models.outbox import Outbox
from django_workflow.models.queue import Queue
from django_workflow.models.registered_workflow import RegisteredWorkflow
from django_workflow.models.run import Run
from django_workflow.models.schedule import Schedule
from django_workflow.models.signing_key import SigningKey
from django_workflow.models.step import Step
from django_workflow.models.url_group import UrlGroup
from django_workflow.models.waiter import Waiter
from django_workflow.models.worker import Worker

__all__ = [
    "Attempt",
    "BulkChunk",
    "BulkOperation",
    "Channel",
    "ChannelEvent",
    "DeadLetter",
    "Delivery",
    "FlowKey",
    "InputRequest",
    "JournalEntry",
    "MessageLog",
    "Outbox",
    "Queue",
    "RegisteredWorkflow",
    "Run",
    "RunsRelation",
    "Schedule",
    "SigningKey",
    "Step",
    "UrlGroup",
    "Waiter",
    "Worker",
    "WorkflowRunsMixin",
]
