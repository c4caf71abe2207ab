"""The rows of hosted runs before anything has happened to them: made of a trigger, of a delivery, or of a log."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from django_workflow.client.urls import code_version_of, workflow_name
from django_workflow.models import Run
from django_workflow.protocol.bodies import stored
from django_workflow.protocol.headers import CONTENT_TYPE, context_headers, forwardable
from django_workflow.protocol.publish import Message

CHECK_AFTER = timedelta(minutes=10)
"""How long a run may be silent before the engine is asked about it; one that sleeps or waits is due anyway."""

_encode = msgspec.json.Encoder().encode


def run_of_message(
    message: Message, now: datetime, *, kind: str, payload: bytes | None = None, parent_key: UUID | None = None
) -> Run:
    """The row of the run that a message starts. `kind` is a Run.TriggerKind, `parent_key` the key of its invoker."""
    fields = message.workflow
    assert fields is not None
    due = due_at(message.delay, message.not_before, now)
    body, is_base64 = stored(message.body if payload is None else payload)
    return Run(
        run_id=fields.run_id,
        workflow=workflow_name(fields.url or message.destination),
        url=message.destination,
        status=Run.Status.SCHEDULED if due > now else Run.Status.QUEUED,
        payload=body,
        payload_is_base64=is_base64,
        flow_key=message.flow_control.key if message.flow_control else "",
        labels=wrapped(message.labels),
        trigger_kind=kind,
        parent_id=parent_key,
        code_version=code_version_of(message.destination),
        created_at=now,
        due_at=due if due > now else None,
        engine=Run.Engine.HOSTED,
        check_at=due + CHECK_AFTER,
        # The names of a message's options are those of the embedded engine's configuration.
        config=_encode(msgspec.structs.replace(message, body=b"", attributes=None)).decode(),
    )


def discovered_run(
    run_id: str,
    url: str,
    now: datetime,
    *,
    created_ms: int | None = None,
    payload: bytes = b"",
    labels: tuple[str, ...] = (),
    headers: Mapping[str, str] | None = None,
    kind: str = Run.TriggerKind.API,
) -> Run:
    """The row of a run that somebody else has started: its first delivery, or its log, is what is known of it."""
    body, is_base64 = stored(payload)
    own = forwardable(context_headers(headers or {}))
    users = {name: value for name, value in own.items() if not name.lower().startswith("upstash-")}
    config: dict[str, Any] = {"headers": users}
    if content_type := (headers or {}).get(CONTENT_TYPE):
        config["content_type"] = content_type
    return Run(
        run_id=run_id,
        workflow=workflow_name(url),
        url=url,
        payload=body,
        payload_is_base64=is_base64,
        labels=wrapped(labels),
        trigger_kind=kind,
        created_at=from_ms(created_ms) or now,
        engine=Run.Engine.HOSTED,
        check_at=now + CHECK_AFTER,
        config=_encode(config).decode(),
    )


def due_at(delay: float | None, not_before: float | None, now: datetime) -> datetime:
    """When a message may be delivered; not-before wins over the delay."""
    if not_before is not None:
        return max(now, datetime.fromtimestamp(not_before, UTC))
    return now + timedelta(seconds=delay) if delay else now


def from_ms(milliseconds: int | None) -> datetime | None:
    """None for what is no instant, 0 included."""
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC) if milliseconds else None
    except (ValueError, OverflowError, OSError):
        return None


def wrapped(labels: tuple[str, ...]) -> str:
    """Labels as the column holds them: `,vip,eu,`."""
    return f",{','.join(labels)}," if labels else ""
