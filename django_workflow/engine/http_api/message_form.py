"""Messages outside workflows as resources show them, and which of them a call's filters mean.

Shared by the resources of messages, their events and their dead letters. What a publisher hides is hidden here.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import Any

import msgspec
from django.db.models import Q

from django_workflow.engine.http_api.filters import Filters
from django_workflow.engine.records import StoredMessage, decode_message_config, milliseconds, raw, sent_headers
from django_workflow.engine.redaction import hides_body, redact_body, redact_headers
from django_workflow.models import Delivery, MessageLog
from django_workflow.protocol.headers import header_lists
from django_workflow.protocol.identifiers import message_key_of
from django_workflow.protocol.publish import CallbackConfig, callback_message

HeaderLists = dict[str, list[str]]

LARGEST_PAGE = 4 * 1024 * 1024
"""Bodies of so many characters end a page early: it has fewer items than asked for, and a cursor."""


class MessageInfo(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A message. Instants are Unix milliseconds; `timeout` and `period` are seconds. `header` is what its destination
    gets. A body that is no text stands in `bodyBase64`."""

    message_id: str
    url: str
    method: str
    max_retries: int
    not_before: int
    created_at: int
    topic_name: str | None = None
    endpoint_name: str | None = None
    header: HeaderLists = {}
    body: str | None = None
    body_base64: str | None = msgspec.field(default=None, name="bodyBase64")
    retry_delay_expression: str | None = None
    callback: str | None = None
    callback_header: HeaderLists = {}
    failure_callback: str | None = None
    failure_callback_header: HeaderLists = {}
    queue_name: str | None = None
    schedule_id: str | None = None
    caller_ip: str | None = msgspec.field(default=None, name="callerIP")
    label: str | None = None
    labels: tuple[str, ...] = ()
    flow_control_key: str | None = None
    parallelism: int | None = None
    rate: int | None = None
    period: int | None = None
    timeout: int | None = None


def config_of(log: MessageLog) -> StoredMessage:
    """The message's settings."""
    message = decode_message_config(log.config)
    return message if message is not None else StoredMessage(destination=log.url, method=log.method)


def message_fields(log: MessageLog) -> dict[str, Any]:
    """The fields of a MessageInfo."""
    message = config_of(log)
    body, body_base64 = shown_body(raw(log.body, log.body_is_base64), message.redact)
    return {
        **common_fields(log, message),
        "not_before": milliseconds(log.due_at),
        "created_at": milliseconds(log.created_at),
        "body": body,
        "body_base64": body_base64,
        "retry_delay_expression": message.retry_delay,
        "callback_header": callback_headers(message, message.callback),
        "failure_callback_header": callback_headers(message, message.failure_callback),
        "timeout": None if message.timeout is None else math.ceil(message.timeout),
    }


def common_fields(log: MessageLog, message: StoredMessage) -> dict[str, Any]:
    """What a message and each entry of its log have in common."""
    control = message.flow_control
    return {
        "message_id": log.message_id,
        "url": log.url,
        "method": log.method,
        "max_retries": log.max_retries,
        "topic_name": log.topic or None,
        "endpoint_name": log.endpoint or None,
        "header": redact_headers(sent_headers(message), message.redact),
        "callback": message.callback.url if message.callback else None,
        "failure_callback": message.failure_callback.url if message.failure_callback else None,
        "queue_name": log.queue or None,
        "schedule_id": log.schedule_id or None,
        "caller_ip": log.caller_ip or None,
        "label": message.labels[0] if message.labels else None,
        "labels": message.labels,
        "flow_control_key": control.key if control else None,
        "parallelism": control.parallelism if control else None,
        "rate": control.rate if control else None,
        "period": control.period if control else None,
    }


def callback_headers(message: StoredMessage, config: CallbackConfig | None) -> HeaderLists:
    """Headers that the callback's own destination gets."""
    if config is None:
        return {}
    headers = callback_message(config, b"", destination=message.destination).headers
    return redact_headers(header_lists(headers), message.redact)


def shown_body(body: bytes, redact: Sequence[str]) -> tuple[str | None, str | None]:
    """A body as text and as base64; the one that it is not is None. Both are, when there is none."""
    if not body:
        return None, None
    shown = redact_body(body, redact)
    try:
        return (shown if isinstance(shown, str) else shown.decode()), None
    except UnicodeDecodeError:
        return None, base64.b64encode(body).decode()


def shown_error(error: str, status: int, redact: Sequence[str]) -> str | None:
    """Why an attempt failed. The text is the answer's own when there was one: then it is hidden with the bodies."""
    return f"HTTP status {status}" if status and hides_body(redact) and error else error or None


# Filters

FILTERS = (
    "messageId",
    "messageIds",
    "url",
    "host",
    "path",
    "topicName",
    "queueName",
    "scheduleId",
    "callerIp",
    "label",
    "flowControlKey",
)

_COLUMNS = {
    "topicName": "topic",
    "queueName": "queue",
    "scheduleId": "schedule_id",
    "callerIp": "caller_ip",
    "flowControlKey": "flow_key",
}


def chosen(filters: Filters, prefix: str = "") -> Q:
    """The messages that the filters mean. `prefix` leads to them from another model's rows.

    Raises MessageInvalid for a filter that names nothing.
    """
    found = Q()
    for name, column in _COLUMNS.items():
        if name in filters:
            found &= Q(**{f"{prefix}{column}__in": filters.ids(name)})
    for name in ("url", "path"):
        if name in filters:
            found &= Q(**{f"{prefix}{name}__in": filters.urls(name)})
    if "host" in filters:
        found &= Q(**{f"{prefix}host__in": [host.lower() for host in filters.ids("host")]})
    if "label" in filters:
        found &= reduce(or_, (Q(**{f"{prefix}labels__contains": f",{label},"}) for label in filters.ids("label")))
    if "messageId" in filters or "messageIds" in filters:
        found &= Q(**{f"{prefix}pk__in": message_keys(filters)})
    return found


def message_keys(filters: Filters) -> list[Any]:
    """The keys of the messages that are named; ids of others have none."""
    ids = dict.fromkeys([*filters.ids("messageIds"), *filters.ids("messageId")])
    return [key for message_id in ids if (key := message_key_of(message_id)) is not None]


def unfinished(alias: str) -> Any:
    """Messages that may still be delivered: a delivery carries each, and nobody has canceled it."""
    carried = Delivery.objects.using(alias).filter(kind=Delivery.Kind.MESSAGE).values("pk")
    rows = MessageLog.objects.using(alias).unfinished()
    return rows.filter(pk__in=carried, cancel_requested_at=None)
