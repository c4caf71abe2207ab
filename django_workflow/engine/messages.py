"""Messages outside workflows: taken in, delivered, told of by callbacks, kept in the log.

Comes from the HTTP door and from schedules (`publish`), and from `settle` (what a destination answered). A message is
a `MessageLog` row and, until it is finished, the `Delivery` row of the same key. Its callbacks are messages as well.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import msgspec
from django.db import IntegrityError, connections, transaction

from django_workflow.conf import get_settings
from django_workflow.engine import limits, queues
from django_workflow.engine.addresses import check_destination
from django_workflow.engine.backoff import retry_delay
from django_workflow.engine.facts import Answer, Settlement
from django_workflow.engine.flow_control import check_key, note_limits
from django_workflow.engine.gate import engine_atomic
from django_workflow.engine.message_callbacks import callback_of, failure_callback_of
from django_workflow.engine.records import (
    Lease,
    StoredMessage,
    as_stored,
    encode_config,
    printable,
    stored,
)
from django_workflow.engine.runs import due_at
from django_workflow.engine.unit_of_work import UnitOfWork
from django_workflow.engine.url_groups import Endpoint, find_group
from django_workflow.engine.writing import write
from django_workflow.errors import MessageInvalid, QuotaExceeded
from django_workflow.models import Attempt, DeadLetter, Delivery, MessageLog
from django_workflow.models.dead_letter import kind_of_error
from django_workflow.protocol import headers as h
from django_workflow.protocol.publish import Message, callback_message
from django_workflow.protocol.requests import Published

DEDUPLICATION_WINDOW = timedelta(minutes=10)
NON_RETRYABLE_STATUS = 489
LONGEST_METHOD = 8
CANCELED_AT_ONCE = 200


def is_url(destination: str) -> bool:
    return destination.lower().startswith(("http://", "https://"))


# Taking in


def publish(
    unit: UnitOfWork, message: Message, *, caller_ip: str = "", schedule_id: str = ""
) -> Published | tuple[Published, ...]:
    """Take a message in. One for a URL group becomes a message per endpoint, and the answer is a tuple.

    Raises EngineError (404) for a group that does not exist, MessageInvalid and QuotaExceeded for what cannot be done.
    """
    sender = {"caller_ip": caller_ip, "schedule_id": schedule_id}
    if is_url(message.destination):
        check(message, unit.now)
        return _accept(unit, as_stored(message, **sender), deduplication_of(message))
    group = find_group(unit.alias, message.destination)
    shared = deduplication_of(message)
    answers = []
    for endpoint in group.endpoints:
        own = group.configure(message, endpoint)
        check(own, unit.now)
        parcel = as_stored(own, **sender, topic=group.name, endpoint=endpoint.name or "")
        answers.append(_accept(unit, parcel, _per_endpoint(shared, endpoint)))
    return tuple(answers)


def check(message: Message, now: datetime) -> None:
    """Raise MessageInvalid or QuotaExceeded for what could not be delivered, the message's callbacks included: who
    publishes is there to hear it, who settles is not."""
    check_destination(message.destination)
    limits.check((message,))
    if message.not_before is not None and message.not_before > now.timestamp() + limits.LONGEST_DELAY_SECONDS:
        raise QuotaExceeded(f"{h.NOT_BEFORE} is more than {limits.LONGEST_DELAY_SECONDS} s (366 days) ahead.")
    if len(message.method) > LONGEST_METHOD:
        raise MessageInvalid(f"{message.method[:50]} is no HTTP method that is delivered.", name=h.METHOD)
    if message.queue is not None:
        queues.check_name(message.queue)
    if message.flow_control is not None:
        check_key(message.flow_control.key)
    for config in (message.callback, message.failure_callback):
        if config is not None and config.url is not None:
            check(callback_message(config, b""), now)


def _accept(unit: UnitOfWork, message: StoredMessage, deduplication_key: str | None) -> Published:
    """Write one message, unless one with its deduplication id came within the window."""
    if deduplication_key is None:
        return _published(add_message(unit, message))
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
    return _published(log)


def _published(log: MessageLog, *, deduplicated: bool = False) -> Published:
    url = log.url if log.topic else None
    return Published(message_id=log.message_id, url=url, deduplicated=deduplicated)


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
    return _published(row, deduplicated=True)


def forget_duplicates(alias: str, now: datetime, most: int) -> int:
    """Free deduplication keys whose window is over, so that their index stays small; how many."""
    logs = MessageLog.objects.using(alias)
    # Found by that index: after `""` come all that are set.
    over = logs.filter(deduplication_key__gt="", created_at__lte=now - DEDUPLICATION_WINDOW)
    keys = list(over.order_by().values_list("pk", flat=True)[:most])
    if not keys:
        return 0
    with engine_atomic(alias):
        return logs.filter(pk__in=keys).update(deduplication_key=None)


def deduplication_of(message: Message) -> str | None:
    """The key under which a second message is a duplicate: of its id, else (when asked for) of its content."""
    if message.deduplication_id is not None:
        return _digest(b"id", message.deduplication_id.encode("utf-8", "surrogatepass"))
    if not message.content_based_deduplication:
        return None
    forwarded = sorted((name.lower(), value) for name, value in message.headers.items())
    parts = [message.destination, message.content_type or "", *(text for pair in forwarded for text in pair)]
    return _digest(b"content", *(part.encode("utf-8", "surrogatepass") for part in parts), message.body)


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
    kind: str = MessageLog.Kind.MESSAGE,
    source: Lease | None = None,
    deduplication_key: str | None = None,
) -> MessageLog:
    """The rows of a message; its queue is made when it does not exist. `source` is what a callback tells of."""
    due = due_at(message, unit.now)
    body, is_base64 = stored(message.body)
    flow_key = message.flow_control.key if message.flow_control else ""
    if message.flow_control is not None:
        note_limits(unit.alias, message.flow_control)
    if message.queue:
        queues.ensure(unit.alias, message.queue, unit.now)
    host, path = _host_and_path(message.destination)
    log = MessageLog(
        kind=kind,
        source_key=source.message_key if source else None,
        url=message.destination,
        host=host,
        path=path,
        method=message.method,
        config=encode_config(msgspec.structs.replace(message, body=b"")),
        body=body,
        body_is_base64=is_base64,
        topic=message.topic,
        endpoint=message.endpoint,
        queue=message.queue or "",
        schedule_id=message.schedule_id,
        caller_ip=message.caller_ip,
        flow_key=flow_key,
        labels=f",{','.join(message.labels)}," if message.labels else "",
        deduplication_key=deduplication_key,
        max_retries=get_settings().retries if message.retries is None else message.retries,
        created_at=unit.now,
        due_at=due,
    )
    # The next message of a queue waits for the callbacks of the one before it.
    queue, place = (log.queue, log.pk) if source is None else queues.place_of(unit.alias, source)
    unit.add_message(log)
    unit.add_delivery(
        Delivery(
            id=log.pk,
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
            queue_key=place if queue else None,
            begun=1 if source is not None and queue else 0,
            due_at=due,
            created_at=unit.now,
        )
    )
    unit.after.wake = True
    return log


def _host_and_path(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return (parts.hostname or "")[:255], parts.path


def publish_again(unit: UnitOfWork, log: MessageLog, message: StoredMessage) -> Published:
    """Take a message that failed in once more, as a new one that is due at once unless `message` says otherwise."""
    check(message, unit.now)
    return _published(add_message(unit, message, kind=log.kind))


# What became of it


def show_active(alias: str, rows: Sequence[Delivery], now: datetime) -> list[Delivery]:
    """Log the attempts that begin with the claim of these deliveries. Gives those that are still wanted: a message
    that was canceled under way, and lost its worker then, ends here."""
    keys = [row.pk for row in rows if row.kind == Delivery.Kind.MESSAGE]
    if not keys:
        return list(rows)
    logs = MessageLog.objects.using(alias).filter(pk__in=keys)
    wanted = logs.filter(cancel_requested_at=None)
    if wanted.update(state=MessageLog.State.ACTIVE, active_at=now) == len(keys):
        return list(rows)
    ended = set(keys) - set(wanted.values_list("pk", flat=True))
    Delivery.objects.using(alias).filter(pk__in=ended).delete()
    logs.filter(pk__in=ended).update(state=MessageLog.State.CANCELED, finished_at=now)
    return [row for row in rows if row.pk not in ended]


def settle(unit: UnitOfWork, fact: Settlement) -> None:
    """Delivered, to be tried again, or given up; each attempt is told to the message's callback."""
    lease, answer = fact.lease, fact.answer
    if answer.ok:
        if unit.finish_delivery(lease):
            _close(unit, fact, MessageLog.State.DELIVERED)
            _call_back(unit, lease, answer)
            _make_room(unit, lease)
        return
    final = answer.status == NON_RETRYABLE_STATUS and answer.header(h.NON_RETRYABLE_ERROR) == "true"
    if final or lease.attempt >= lease.max_retries:
        give_up(unit, fact)
    else:
        _try_again(unit, fact)


def _try_again(unit: UnitOfWork, fact: Settlement) -> None:
    lease, answer = fact.lease, fact.answer
    expression = lease.config.retry_delay if lease.config else None
    retry_at = unit.now + retry_delay(lease.attempt, expression or get_settings().retry_delay, answer.headers, unit.now)
    if not unit.advance(lease, release=True, attempt=lease.attempt + 1, due_at=retry_at):
        return
    if _is_canceled(unit, lease):
        Delivery.objects.using(unit.alias).filter(pk=lease.key).delete()
        _close(unit, fact, MessageLog.State.CANCELED)
    else:
        _note_attempt(unit, fact, retry_at)
        unit.change_message(
            lease.message_key,
            state=MessageLog.State.RETRY,
            attempt=lease.attempt + 1,
            active_at=None,
            error=error_text(answer),
        )
        _call_back(unit, lease, answer)
    unit.after.wake = True


def give_up(unit: UnitOfWork, fact: Settlement) -> None:
    """The message failed: it goes to the dead letters, and its failure callback is sent."""
    lease, answer = fact.lease, fact.answer
    if not unit.finish_delivery(lease):
        return
    _make_room(unit, lease)
    if _is_canceled(unit, lease):
        _close(unit, fact, MessageLog.State.CANCELED)
        return
    _note_attempt(unit, fact, None)
    _close(unit, fact, MessageLog.State.FAILED)
    letter = DeadLetter(
        message_id=lease.message_key,
        message_key=lease.message_key,
        destination=lease.destination,
        status=answer.status,
        error=error_text(answer),
        # The text is what the destination answered, which its publisher may hide.
        error_kind=kind_of_error(answer.error, answer.status),
        response_headers=_headers_json(answer),
        response_body=_shown_body(answer),
        created_at=unit.now,
    )
    unit.add_dead_letter(letter)
    _call_back(unit, lease, answer)
    failure = failure_callback_of(lease, answer, str(letter.pk))
    if failure is not None:
        add_message(unit, failure, kind=MessageLog.Kind.FAILURE_CALLBACK, source=lease)


def _is_canceled(unit: UnitOfWork, lease: Lease) -> bool:
    """Whether the message was canceled while it was under way. Asked after the delivery's row is locked, as `cancel`
    locks that first: either it sees the attempt's end, or the attempt's end sees it."""
    logs = MessageLog.objects.using(unit.alias).filter(pk=lease.message_key)
    return logs.filter(cancel_requested_at__isnull=False).exists()


def _make_room(unit: UnitOfWork, lease: Lease) -> None:
    """Have workers look again when this delivery may have held others up."""
    if lease.queue or lease.flow_key:
        unit.after.wake = True


def _call_back(unit: UnitOfWork, lease: Lease, answer: Answer) -> None:
    callback = callback_of(lease, answer)
    if callback is not None:
        add_message(unit, callback, kind=MessageLog.Kind.CALLBACK, source=lease)


def _close(unit: UnitOfWork, fact: Settlement, state: MessageLog.State) -> None:
    answer = fact.answer
    body, is_base64 = stored(answer.body)
    unit.change_message(
        fact.lease.message_key,
        state=state,
        attempt=fact.lease.attempt,
        finished_at=unit.now,
        status=answer.status,
        error="" if answer.ok else error_text(answer),
        response_headers=_headers_json(answer),
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
            response_headers=_headers_json(answer),
            response_body=_shown_body(answer),
            started_at=lease.claimed_at or fact.started_at,  # as the log showed it while it was under way
            finished_at=fact.finished_at,
            retry_at=retry_at,
        )
    )


def _headers_json(answer: Answer) -> str:
    return msgspec.json.encode(answer.headers).decode()


def _shown_body(answer: Answer) -> str:
    return printable(answer.body.decode("utf-8", "replace"))


def error_text(answer: Answer) -> str:
    """Why an attempt failed, as the event log shows it: what the engine saw, else the answer's own text."""
    if answer.error:
        return printable(answer.error)
    body = printable(answer.body[:2000].decode("utf-8", "replace"))
    return body or f"HTTP status {answer.status}"


# Ending by hand


def cancel(alias: str, keys: Sequence[UUID]) -> int:
    """Cancel messages that are not finished; how many. One that is under way is not tried again when it fails."""
    canceled = 0
    for start in range(0, len(keys), CANCELED_AT_ONCE):
        some = set(keys[start : start + CANCELED_AT_ONCE])
        count, seen = write(alias, partial(_cancel, keys=some))
        canceled += count
        # What others hold is waited for one by one, with nothing else locked: so nobody waits in a circle.
        held = Delivery.objects.using(alias).filter(pk__in=some - seen)
        for key in list(held.values_list("pk", flat=True)):
            canceled += write(alias, partial(_cancel, keys={key}, wait=True))[0]
    return canceled


def _cancel(unit: UnitOfWork, keys: Collection[UUID], *, wait: bool = False) -> tuple[int, set[UUID]]:
    """How many of these were canceled, and which have been looked at."""
    deliveries = Delivery.objects.using(unit.alias).filter(pk__in=keys, kind=Delivery.Kind.MESSAGE)
    features = connections[unit.alias].features
    rows = deliveries.order_by("pk")
    if features.has_select_for_update:
        rows = rows.select_for_update(skip_locked=not wait and features.has_select_for_update_skip_locked)
    workers = dict(rows.values_list("pk", "worker_id"))
    under_way = {key for key, worker in workers.items() if worker is not None}
    deliveries.filter(pk__in=workers.keys() - under_way).delete()
    logs = MessageLog.objects.using(unit.alias).unfinished().filter(cancel_requested_at=None)
    ended: dict[str, Any] = {"state": MessageLog.State.CANCELED, "finished_at": unit.now}
    canceled = logs.filter(pk__in=workers.keys() - under_way).update(cancel_requested_at=unit.now, **ended)
    canceled += logs.filter(pk__in=under_way).update(cancel_requested_at=unit.now)
    unit.after.wake = unit.after.wake or bool(canceled)  # a queue goes on with its next message
    return canceled, set(workers)
