"""Messages outside workflows: taken in, delivered, told of by callbacks, kept in the log.

Comes from the HTTP door and from schedules (`publish`), and from `settle` (what a destination answered). A message is
a `MessageLog` row and, until it is finished, the `Delivery` row that carries it. Its callbacks are messages as well.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import msgspec
from django.db import IntegrityError, transaction

from django_workflow.conf import get_settings
from django_workflow.engine import queues
from django_workflow.engine.backoff import retry_delay
from django_workflow.engine.facts import Answer, Settlement
from django_workflow.engine.flow_control import note_limits
from django_workflow.engine.records import (
    Lease,
    StoredMessage,
    encode_config,
    milliseconds,
    printable,
    raw,
    stored,
)
from django_workflow.engine.runs import due_at
from django_workflow.engine.unit_of_work import UnitOfWork
from django_workflow.engine.url_groups import Endpoint, find_group
from django_workflow.models import Attempt, DeadLetter, Delivery, MessageLog
from django_workflow.protocol import headers as h
from django_workflow.protocol.callbacks import CallbackBody, FailureBody, encode_callback
from django_workflow.protocol.publish import CallbackConfig, Message, callback_message
from django_workflow.protocol.requests import Published

DEDUPLICATION_WINDOW = timedelta(minutes=10)
NON_RETRYABLE_STATUS = 489


def is_url(destination: str) -> bool:
    return destination.lower().startswith(("http://", "https://"))


# Taking in


def publish(
    unit: UnitOfWork, message: Message, *, caller_ip: str = "", schedule_id: str = ""
) -> Published | tuple[Published, ...]:
    """Take a message in. One for a URL group becomes a message per endpoint, and the answer is a tuple.

    Raises EngineError (404) for a group that does not exist.
    """
    sender = {"caller_ip": caller_ip, "schedule_id": schedule_id}
    if is_url(message.destination):
        return _accept(unit, _stored(message, **sender), deduplication_of(message))
    group = find_group(unit.alias, message.destination)
    shared = deduplication_of(message)
    answers = []
    for endpoint in group.endpoints:
        parcel = _stored(group.configure(message, endpoint), topic=group.name, endpoint=endpoint.name or "", **sender)
        answers.append(_accept(unit, parcel, _per_endpoint(shared, endpoint)))
    return tuple(answers)


def _stored(message: Message, **values: Any) -> StoredMessage:
    return StoredMessage(**{name: getattr(message, name) for name in message.__struct_fields__}, **values)


def _accept(unit: UnitOfWork, message: StoredMessage, deduplication_key: str | None) -> Published:
    """Write one message, unless one with its deduplication id came within the window."""
    if deduplication_key is None:
        log = add_message(unit, message)
    else:
        known = _known(unit, deduplication_key)
        if known is not None:
            return known
        try:
            with transaction.atomic(using=unit.alias):
                log = add_message(unit, message, deduplication_key=deduplication_key)
                unit.flush()
        except IntegrityError:  # published by another process between the look and the insert
            unit.discard()
            known = _known(unit, deduplication_key)
            if known is None:
                raise
            return known
    return Published(message_id=log.message_id, url=log.url if message.topic else None)


def _known(unit: UnitOfWork, deduplication_key: str) -> Published | None:
    """The answer for a message that came already. The key of one whose window is over is free again."""
    unit.flush()
    rows = MessageLog.objects.using(unit.alias).filter(deduplication_key=deduplication_key)
    row = rows.only("pk", "created_at", "url", "topic").first()
    if row is None:
        return None
    if row.created_at <= unit.now - DEDUPLICATION_WINDOW:
        rows.filter(pk=row.pk).update(deduplication_key=None)
        return None
    return Published(message_id=row.message_id, url=row.url if row.topic else None, deduplicated=True)


def deduplication_of(message: Message) -> str | None:
    """The key under which a second message is a duplicate: of its id, else (when asked for) of its content."""
    if message.deduplication_id is not None:
        return _digest(b"id", message.deduplication_id.encode())
    if not message.content_based_deduplication:
        return None
    forwarded = sorted((name.lower(), value) for name, value in message.headers.items())
    parts = [message.destination, message.content_type or "", *(text for pair in forwarded for text in pair)]
    return _digest(b"content", *(part.encode() for part in parts), message.body)


def _per_endpoint(key: str | None, endpoint: Endpoint) -> str | None:
    return None if key is None else _digest(b"endpoint", key.encode(), endpoint.url.encode())


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def add_message(
    unit: UnitOfWork,
    message: StoredMessage,
    *,
    kind: MessageLog.Kind = MessageLog.Kind.MESSAGE,
    source: Lease | None = None,
    deduplication_key: str | None = None,
) -> MessageLog:
    """The rows of a message; its queue is made when it does not exist. `source` is what a callback tells of."""
    due = due_at(message, unit.now)
    body, is_base64 = stored(message.body)
    flow_key = message.flow_control.key if message.flow_control else ""
    if message.flow_control is not None:
        note_limits(unit.alias, message.flow_control)
    queue, queue_key = message.queue or "", None
    if queue:
        queues.ensure(unit.alias, queue, unit.now)
    parts = urlsplit(message.destination)
    log = MessageLog(
        kind=kind,
        source_key=source.message_key if source else None,
        url=message.destination,
        host=(parts.hostname or "")[:255],
        path=parts.path,
        method=message.method,
        config=encode_config(msgspec.structs.replace(message, body=b"")),
        body=body,
        body_is_base64=is_base64,
        topic=message.topic,
        endpoint=message.endpoint,
        queue=queue,
        schedule_id=message.schedule_id,
        caller_ip=message.caller_ip,
        flow_key=flow_key,
        labels=f",{','.join(message.labels)}," if message.labels else "",
        deduplication_key=deduplication_key,
        max_retries=get_settings().retries if message.retries is None else message.retries,
        created_at=unit.now,
        due_at=due,
    )
    if source is not None and source.queue:  # the next message waits for the callbacks of the one before it
        queue, queue_key = source.queue, source.queue_key
    unit.add_message(log)
    unit.add_delivery(
        Delivery(
            kind=Delivery.Kind.MESSAGE,
            message_key=log.pk,
            destination=log.url,
            method=log.method,
            config=log.config,
            body=body,
            body_is_base64=is_base64,
            max_retries=log.max_retries,
            flow_key=flow_key,
            queue=queue,
            queue_key=queue_key or (log.pk if queue else None),
            due_at=due,
            created_at=unit.now,
        )
    )
    unit.after.wake = True
    return log


# What became of it


def settle(unit: UnitOfWork, fact: Settlement) -> None:
    """Delivered, to be tried again, or given up; each attempt is told to the message's callback."""
    lease, answer = fact.lease, fact.answer
    if answer.ok:
        if unit.finish_delivery(lease):
            _close(unit, fact, MessageLog.State.DELIVERED)
            _call_back(unit, lease, answer)
        return
    final = answer.status == NON_RETRYABLE_STATUS and answer.header(h.NON_RETRYABLE_ERROR) == "true"
    if final or lease.attempt >= lease.max_retries:
        give_up(unit, fact)
        return
    expression = lease.config.retry_delay if lease.config else None
    retry_at = unit.now + retry_delay(lease.attempt, expression, answer.headers, unit.now)
    if unit.advance(lease, release=True, attempt=lease.attempt + 1, due_at=retry_at):
        _note_attempt(unit, fact, retry_at)
        unit.change_message(
            lease.message_key,
            state=MessageLog.State.RETRY,
            attempt=lease.attempt + 1,
            active_at=fact.started_at,
            due_at=retry_at,
            error=error_text(answer),
        )
        _call_back(unit, lease, answer)
        unit.after.wake = True


def give_up(unit: UnitOfWork, fact: Settlement) -> None:
    """The message failed: it goes to the dead letters, and its failure callback is sent."""
    lease, answer = fact.lease, fact.answer
    if not unit.finish_delivery(lease):
        return
    _note_attempt(unit, fact, None)
    _close(unit, fact, MessageLog.State.FAILED)
    letter = DeadLetter(
        message_id=lease.message_key,
        message_key=lease.message_key,
        destination=lease.destination,
        status=answer.status,
        error=error_text(answer),
        response_headers=msgspec.json.encode(answer.headers).decode(),
        response_body=printable(answer.body.decode("utf-8", "replace")),
        created_at=unit.now,
    )
    unit.add_dead_letter(letter)
    _call_back(unit, lease, answer)
    _call_back_failure(unit, lease, answer, letter)


def _close(unit: UnitOfWork, fact: Settlement, state: MessageLog.State) -> None:
    answer = fact.answer
    body, is_base64 = stored(answer.body)
    unit.change_message(
        fact.lease.message_key,
        state=state,
        attempt=fact.lease.attempt,
        active_at=fact.started_at,
        finished_at=unit.now,
        status=answer.status,
        error="" if answer.ok else error_text(answer),
        response_headers=msgspec.json.encode(answer.headers).decode(),
        response_body=body,
        response_is_base64=is_base64,
    )


def _note_attempt(unit: UnitOfWork, fact: Settlement, retry_at: datetime | None) -> None:
    lease, answer = fact.lease, fact.answer
    unit.add_attempt(
        Attempt(
            message_key=lease.message_key,
            kind=lease.kind,
            number=lease.attempt + 1,
            status=answer.status,
            error=error_text(answer),
            response_headers=msgspec.json.encode(answer.headers).decode(),
            response_body=printable(answer.body.decode("utf-8", "replace")),
            started_at=fact.started_at,
            finished_at=fact.finished_at,
            retry_at=retry_at,
        )
    )


def error_text(answer: Answer) -> str:
    """Why an attempt failed, as the event log shows it: what the engine saw, else the answer's own text."""
    if answer.error:
        return printable(answer.error)
    body = printable(answer.body[:2000].decode("utf-8", "replace"))
    return body or f"HTTP status {answer.status}"


# Callbacks


def _call_back(unit: UnitOfWork, lease: Lease, answer: Answer) -> None:
    """Send what this attempt came to, if the message asks for it."""
    message = lease.config
    if message is None or message.callback is None or message.callback.url is None:
        return
    body = encode_callback(CallbackBody(**_told(lease, message, answer)))
    _send_callback(unit, message, message.callback, body, MessageLog.Kind.CALLBACK, lease)


def _call_back_failure(unit: UnitOfWork, lease: Lease, answer: Answer, letter: DeadLetter) -> None:
    message = lease.config
    if message is None or message.failure_callback is None or message.failure_callback.url is None:
        return
    body = encode_callback(FailureBody(**_told(lease, message, answer), dlq_id=str(letter.pk)))
    _send_callback(unit, message, message.failure_callback, body, MessageLog.Kind.FAILURE_CALLBACK, lease)


def _told(lease: Lease, message: StoredMessage, answer: Answer) -> dict[str, Any]:
    return {
        "status": answer.status,
        "header": answer.headers,
        "body": answer.body or answer.error.encode(),
        "retried": lease.attempt,
        "max_retries": lease.max_retries,
        "source_message_id": lease.message_id,
        "topic_name": message.topic,
        "endpoint_name": message.endpoint,
        "url": lease.destination,
        "method": lease.method,
        "source_header": h.header_lists(message.headers),
        "source_body": raw(lease.body, lease.body_is_base64),
        "not_before": milliseconds(due_at(message, lease.created_at)),
        "created_at": milliseconds(lease.created_at),
        "schedule_id": message.schedule_id,
        "caller_ip": message.caller_ip,
    }


def _send_callback(
    unit: UnitOfWork,
    message: StoredMessage,
    config: CallbackConfig,
    body: bytes,
    kind: MessageLog.Kind,
    lease: Lease,
) -> None:
    callback = callback_message(config, body, retries=lease.max_retries)
    parcel = _stored(callback, caller_ip=message.caller_ip, schedule_id=message.schedule_id)
    add_message(unit, parcel, kind=kind, source=lease)


# Ending by hand


def cancel(unit: UnitOfWork, keys: Sequence[UUID]) -> int:
    """Cancel messages that are not finished; how many. One that is under way is not tried again."""
    rows = MessageLog.objects.using(unit.alias).unfinished().filter(pk__in=list(keys))
    found = list(rows.order_by("pk").values_list("pk", flat=True))
    if not found:
        return 0
    Delivery.objects.using(unit.alias).filter(kind=Delivery.Kind.MESSAGE, message_key__in=found).delete()
    canceled: int = rows.filter(pk__in=found).update(
        state=MessageLog.State.CANCELED, cancel_requested_at=unit.now, finished_at=unit.now
    )
    unit.after.wake = True  # a queue goes on with its next message
    return canceled
