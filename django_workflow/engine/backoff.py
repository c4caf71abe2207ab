"""Backoff: how long a failed delivery waits for its next attempt. Pure.

`settle` asks with what the failed answer said; the delivery is due again that much later.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from django_workflow.protocol.durations import parse_retry_after
from django_workflow.protocol.headers import RETRY_AFTER_FAMILY
from django_workflow.protocol.retry_delay import parse_expression

LONGEST_DELAY = timedelta(days=1)

logger = logging.getLogger("django_workflow.engine")


def default_delay(retry: int) -> timedelta:
    """How long to wait before retry number `retry` (the first is 1).

    Grows as e^(2.5 * retry) seconds up to one day. Raises ValueError below 1.
    Source: QStash documentation, "Retry".
    """
    if retry < 1:
        raise ValueError(f"The first retry is number 1, not {retry}.")
    exponent = min(2.5 * retry, math.log(LONGEST_DELAY.total_seconds()))
    return min(timedelta(seconds=math.exp(exponent)), LONGEST_DELAY)


def retry_delay(retried: int, expression: str | None, headers: Mapping[str, Sequence[str]], now: datetime) -> timedelta:
    """How long to wait after a failed answer, from 0 to one day.

    `retried` counts the retries made so far: 0 after the first attempt. What the answer's `headers` ask for goes
    before `expression` (milliseconds, see `protocol.retry_delay`), and that before the default. An expression
    without a value (it divides by zero, say) gives the default too: a delivery is never lost for it.
    """
    asked = _asked_by(headers, now)
    if asked is not None:
        return asked
    if expression:
        try:
            return timedelta(milliseconds=parse_expression(expression)(retried))
        except ValueError as error:
            logger.warning("%s The default backoff applies.", error)
    return default_delay(retried + 1)


def _asked_by(headers: Mapping[str, Sequence[str]], now: datetime) -> timedelta | None:
    """What the first usable header of the `Retry-After` family asks for; more than a day is not usable.

    Source: QStash documentation, "Retry-After headers". A Unix time in `X-RateLimit-Reset` is such a large number.
    """
    values = {name.lower(): found for name, found in headers.items()}
    for name in RETRY_AFTER_FAMILY:
        for value in values.get(name.lower(), ())[:1]:
            try:
                seconds = parse_retry_after(value, now.timestamp())
            except ValueError:
                continue
            if seconds <= LONGEST_DELAY.total_seconds():
                return timedelta(seconds=seconds)
    return None
