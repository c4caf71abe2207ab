"""What the engine keeps of a run and of a delivery, as structs; and how bodies stand in text columns."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec

from django_workflow.protocol.bodies import printable as printable
from django_workflow.protocol.bodies import raw as raw
from django_workflow.protocol.bodies import stored as stored
from django_workflow.protocol.headers import CONTENT_TYPE, header_lists
from django_workflow.protocol.identifiers import message_id_of
from django_workflow.protocol.publish import CallbackConfig, FlowControl, Message
from django_workflow.protocol.steps import Step

if TYPE_CHECKING:
    from django_workflow.models import Delivery


class Invoker(msgspec.Struct, frozen=True, omit_defaults=True):
    """The run that waits for this one: where its result step goes and with which message headers."""

    run_id: str
    url: str
    step: Step
    headers: dict[str, str] = {}


class RunConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A run's trigger-time configuration, applied to all its deliveries. Lengths in seconds."""

    headers: dict[str, str] = {}
    content_type: str | None = None
    retries: int | None = None
    retry_delay: str | None = None
    timeout: float | None = None
    flow_control: FlowControl | None = None
    redact: tuple[str, ...] = ()
    secret: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    failure_callback: CallbackConfig | None = None
    invoker: Invoker | None = None
    awaits_sdk: bool = False
    """Started by REST: the endpoint has not said yet which SDK serves it. See `rest_starts`."""


class StoredMessage(Message, frozen=True, kw_only=True, omit_defaults=True):
    """A message as the engine keeps it: with what it knows of its sender. `topic` is the URL group that it came by."""

    topic: str = ""
    endpoint: str = ""
    schedule_id: str = ""
    caller_ip: str = ""


def as_stored(message: Message, **sender: str) -> StoredMessage:
    """A message with what is known of its sender."""
    return StoredMessage(**{name: getattr(message, name) for name in message.__struct_fields__} | sender)


def sent_headers(message: Message) -> dict[str, list[str]]:
    """What a message's destination gets, as resources show it."""
    content_type = {CONTENT_TYPE: message.content_type} if message.content_type else {}
    return header_lists({**message.headers, **content_type})


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What never changes about a run."""

    key: UUID
    run_id: str
    workflow: str
    url: str
    own: bool
    payload: str
    payload_is_base64: bool
    created_ms: int
    labels: tuple[str, ...]
    parent_key: UUID | None
    first_run_id: str
    config: RunConfig


@dataclass(slots=True)
class Lease:
    """A delivery that a worker holds, in memory. `fence` proves the holding; `chain` counts steps since the claim.

    A claim sets `claimed_at`; `started_at` is when the call itself begins.
    `window` is the window of its key's rate that counted its start, which has to come by `start_by`.
    """

    key: UUID
    run_key: UUID | None
    kind: str
    message_key: UUID
    position: int
    solo: bool
    step_id: int | None
    step_name: str
    destination: str
    method: str
    config: StoredMessage | None
    body: str
    body_is_base64: bool
    attempt: int
    max_retries: int
    flow_key: str
    created_at: datetime
    worker_key: UUID
    fence: int
    rescues: int
    queue: str = ""
    queue_key: UUID | None = None
    chain: int = 0
    window: int | None = None
    start_by: datetime | None = None
    claimed_at: datetime | None = None
    started_at: datetime | None = None
    running: Step | None = None
    start_written: bool = False
    events: list[tuple[str, str]] = field(default_factory=list)

    @property
    def message_id(self) -> str:
        return message_id_of(self.message_key)

    def go_on_as(self, following: Lease, now: datetime) -> None:
        """Become the lease of the run's next call, which the same invocation makes."""
        self.message_key = following.message_key
        self.position = following.position
        self.fence = following.fence
        self.chain = following.chain
        self.attempt = self.rescues = 0
        self.step_id, self.step_name = None, ""
        self.running, self.start_written = None, False
        self.started_at = now


_config_decoder = msgspec.json.Decoder(RunConfig)
_message_decoder = msgspec.json.Decoder(StoredMessage)
_encoder = msgspec.json.Encoder()


def encode_config(config: RunConfig | Message) -> str:
    return _encoder.encode(config).decode()


def decode_config(text: str) -> RunConfig:
    return _config_decoder.decode(text)


def decode_message_config(text: str) -> StoredMessage | None:
    """A delivery's own configuration; None when its run's applies."""
    return _message_decoder.decode(text) if text else None


def lease_of(row: Delivery, worker_key: UUID) -> Lease:
    return Lease(
        key=row.pk,
        run_key=row.run_id,
        kind=row.kind,
        message_key=row.message_key,
        position=row.position,
        solo=row.solo,
        step_id=row.step_id,
        step_name=row.step_name,
        destination=row.destination,
        method=row.method,
        config=decode_message_config(row.config),
        body=row.body,
        body_is_base64=row.body_is_base64,
        attempt=row.attempt,
        max_retries=row.max_retries,
        flow_key=row.flow_key,
        created_at=row.created_at,
        worker_key=worker_key,
        fence=row.fence,
        rescues=row.rescues,
        queue=row.queue,
        queue_key=row.queue_key,
    )


def milliseconds(instant: datetime) -> int:
    return int(instant.timestamp() * 1000)


def from_unix(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
