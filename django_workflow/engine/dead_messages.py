"""Messages outside workflows that were given up: found by their dead letters, published once more, forgotten.

Called by the HTTP door and the admin. Failed runs are other dead letters: see `dead_letters` and `resuming`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from uuid import UUID

import msgspec
from django.db import connections

from django_workflow.engine import messages
from django_workflow.engine.gate import engine_atomic
from django_workflow.engine.records import StoredMessage, as_stored, decode_message_config, raw
from django_workflow.engine.unit_of_work import UnitOfWork
from django_workflow.errors import EngineError
from django_workflow.models import DeadLetter, MessageLog
from django_workflow.protocol import headers as h
from django_workflow.protocol.publish import decode_message, encode_headers
from django_workflow.protocol.requests import Published

DELETED_AT_ONCE = 500


def find(alias: str, ids: Sequence[str], *, lock: bool = False) -> list[DeadLetter]:
    """The dead letters of these ids with their messages, in this order. Raises EngineError with status 404."""
    wanted = {dlq_id: key for dlq_id in ids for key in keys_of([dlq_id])}
    rows = DeadLetter.objects.using(alias).filter(message__isnull=False, pk__in=wanted.values()).order_by("pk")
    features = connections[alias].features
    if lock and features.has_select_for_update:
        list(rows.select_for_update().values_list("pk", flat=True))
    found = {letter.pk: letter for letter in rows.select_related("message")}
    missing = [dlq_id for dlq_id in ids if wanted.get(dlq_id) not in found]
    if missing:
        raise unknown(missing)
    return [found[wanted[dlq_id]] for dlq_id in ids]


def keys_of(ids: Iterable[str]) -> list[UUID]:
    """Their keys; ids of others have none."""
    keys = []
    for dlq_id in ids:
        try:
            keys.append(UUID(dlq_id))
        except ValueError:
            continue
    return keys


def unknown(ids: Iterable[str]) -> EngineError:
    names = ", ".join(sorted(ids)[:5])
    return EngineError(f"There is no dead letter {names[:300]}: retried and deleted ones are gone.", status=404)


def delete(alias: str, keys: Sequence[UUID]) -> int:
    """Forget dead letters; their messages stay in the log. How many there were."""
    deleted = 0
    for start in range(0, len(keys), DELETED_AT_ONCE):
        some = keys[start : start + DELETED_AT_ONCE]
        with engine_atomic(alias):
            deleted += DeadLetter.objects.using(alias).filter(message__isnull=False, pk__in=some).delete()[0]
    return deleted


def retry(unit: UnitOfWork, ids: Sequence[str], overrides: Mapping[str, str]) -> list[Published]:
    """Publish messages once more, as new ones that are due at once; the `Upstash-*` headers `overrides` go before
    their own settings. Their dead letters are gone then.

    Raises EngineError (404) when one is unknown, MessageInvalid and QuotaExceeded for bad overrides: then none is.
    """
    letters = find(unit.alias, ids, lock=True)
    answers = []
    for letter in letters:
        assert letter.message is not None
        message = overridden(_original(letter.message), overrides)
        answers.append(messages.publish_again(unit, letter.message, message))
    DeadLetter.objects.using(unit.alias).filter(pk__in=[letter.pk for letter in letters]).delete()
    return answers


def _original(log: MessageLog) -> StoredMessage:
    """The message as it was published, but for what held only then: its delay and its deduplication."""
    message = decode_message_config(log.config)
    assert message is not None
    return msgspec.structs.replace(
        message,
        body=raw(log.body, log.body_is_base64),
        delay=None,
        not_before=None,
        deduplication_id=None,
        content_based_deduplication=False,
    )


def overridden(message: StoredMessage, overrides: Mapping[str, str]) -> StoredMessage:
    """The message with other settings; what the headers do not say stays."""
    given = {name.lower(): value for name, value in overrides.items() if not name.lower().startswith(_NOT_SETTINGS)}
    if not given:
        return message
    own = {name: value for name, value in encode_headers(message).items() if name.lower() not in given}
    changed = decode_message(message.destination, {**own, **given}, message.body, queue=message.queue)
    return as_stored(
        changed,
        topic=message.topic,
        endpoint=message.endpoint,
        schedule_id=message.schedule_id,
        caller_ip=message.caller_ip,
    )


_NOT_SETTINGS = (f"{h.PREFIX}Workflow-".lower(), f"{h.PREFIX}Telemetry-".lower())
