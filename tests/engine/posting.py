"""Messages published by their headers, as clients do, and what became of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db.models import Q

from django_workflow.engine import event_log
from django_workflow.engine.event_log import EventQuery
from django_workflow.engine.publishing import accept_all
from django_workflow.engine.writing import write
from django_workflow.models import MessageLog
from django_workflow.protocol.identifiers import message_key_of
from django_workflow.protocol.publish import decode_message
from django_workflow.protocol.requests import Published
from django_workflow.testing.calls import Call, CallAnswer

ALIAS = "default"
URL = "https://hooks.example/in"
DOWN = CallAnswer(503, "later")


def publish(
    destination: str = URL,
    body: bytes | str = b"",
    *,
    queue: str | None = None,
    caller_ip: str = "",
    headers: dict[str, str] | None = None,
    **config: str,
) -> tuple[Published, ...]:
    """Publish one message; `config` are `Upstash-*` headers: `retry_delay="100"`. One answer for each endpoint."""
    named = {f"Upstash-{name.replace('_', '-')}": value for name, value in config.items()} | (headers or {})
    raw = body.encode() if isinstance(body, str) else body
    message = decode_message(destination, named, raw, queue=queue)
    (answer,) = write(ALIAS, lambda unit: accept_all(unit, [message], caller_ip=caller_ip))
    return answer if isinstance(answer, tuple) else (answer,)


def post(*args: Any, **kwargs: Any) -> MessageLog:
    """The same for one URL: the row of what was published."""
    (published,) = publish(*args, **kwargs)
    return log_of(published)


def log_of(published: Published) -> MessageLog:
    return MessageLog.objects.get(pk=message_key_of(published.message_id))


def states_of(log: MessageLog) -> list[str]:
    """What the event log tells of a message, the earliest first."""
    page = event_log.read(ALIAS, EventQuery(messages=Q(pk=log.pk), earliest_first=True, count=1000))
    return [event.state.value for event in page.events]


def answers(*found: CallAnswer) -> Callable[[Call], CallAnswer]:
    """A destination that gives these answers in turn, and the last one from then on."""
    left = list(found)
    return lambda call: left.pop(0) if len(left) > 1 else left[0]
