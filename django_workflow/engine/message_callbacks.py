"""Callbacks of messages outside workflows: what they tell, as messages of their own. Pure.

`messages` asks after each attempt; what is given back is taken in like any other message.
"""

from __future__ import annotations

from typing import Any

import msgspec

from django_workflow.engine.facts import Answer
from django_workflow.engine.records import Lease, StoredMessage, as_stored, milliseconds, raw, sent_headers
from django_workflow.engine.runs import due_at
from django_workflow.protocol.callbacks import CallbackBody, FailureBody, encode_callback
from django_workflow.protocol.publish import CallbackConfig, callback_message


def callback_of(lease: Lease, answer: Answer) -> StoredMessage | None:
    """What tells of this attempt; None when nobody asked to be told."""
    message = lease.config
    if message is None or not _is_wanted(message.callback):
        return None
    return _parcel(lease, message, message.callback, CallbackBody(**_told(lease, message, answer)))


def failure_callback_of(lease: Lease, answer: Answer, dlq_id: str) -> StoredMessage | None:
    """What tells that the message was given up; None when nobody asked to be told."""
    message = lease.config
    if message is None or not _is_wanted(message.failure_callback):
        return None
    body = FailureBody(**_told(lease, message, answer), dlq_id=dlq_id)
    return _parcel(lease, message, message.failure_callback, body)


def _is_wanted(config: CallbackConfig | None) -> bool:
    return config is not None and config.url is not None


def _parcel(lease: Lease, message: StoredMessage, config: CallbackConfig | None, body: CallbackBody) -> StoredMessage:
    assert config is not None
    callback = callback_message(config, encode_callback(body), retries=lease.max_retries)
    # It repeats the message, so it must not show what the message hides.
    hidden = ("body",) if message.redact and "body" not in callback.redact else ()
    callback = msgspec.structs.replace(callback, redact=(*callback.redact, *hidden))
    return as_stored(callback, caller_ip=message.caller_ip)


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
        "source_header": sent_headers(message),
        "source_body": raw(lease.body, lease.body_is_base64),
        "not_before": milliseconds(due_at(message, lease.created_at)),
        "created_at": milliseconds(lease.created_at),
        "schedule_id": message.schedule_id,
        "caller_ip": message.caller_ip,
    }
