"""Flow-control keys: what is in flight and what waits, and changes by hand.

Clients put keys into the path as they are, without encoding them: so a key may have slashes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from urllib.parse import unquote

import msgspec
from django.db.models import Sum

from django_workflow.conf import get_settings
from django_workflow.engine import flow_control
from django_workflow.engine.clock import current_clock
from django_workflow.engine.http_api.filters import Filters
from django_workflow.engine.http_api.request import ApiRequest, Route
from django_workflow.engine.unit_of_work import UnitOfWork
from django_workflow.engine.writing import write
from django_workflow.errors import EngineError, MessageInvalid
from django_workflow.models import Delivery, FlowKey, Worker
from django_workflow.protocol.durations import to_seconds
from django_workflow.protocol.publish import LONGEST_FLOW_PERIOD

MOST = 2**31 - 1
"""Of a limit: what a column holds."""


class KeyInfo(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A key. A limit of 0 does not limit. `rate_period` is in seconds, `rate_period_start` a Unix second, 0 before the
    first window; `wait_list_size` counts what is not in flight, delayed messages included."""

    flow_control_key: str
    wait_list_size: int
    parallelism_max: int
    parallelism_count: int
    rate_max: int
    rate_count: int
    rate_period: int
    rate_period_start: int
    is_paused: bool
    is_pinned_parallelism: bool
    is_pinned_rate: bool


class Parallelism(msgspec.Struct, frozen=True, rename="camel"):
    """How many deliveries all workers can make at a time, and how many they hold."""

    parallelism_max: int
    parallelism_count: int


def listing(request: ApiRequest) -> list[KeyInfo]:
    """The keys in their order; `search` is a part of their names."""
    search = Filters(request, ("search",)).one("search")
    keys = FlowKey.objects.using(get_settings().database)
    found = list((keys.filter(key__contains=search) if search else keys.all()).order_by("key"))
    return _infos(found, None if search is None else [key.key for key in found])


def get(request: ApiRequest, key: str) -> KeyInfo:
    name = unquote(key.partition("?")[0])
    found = list(FlowKey.objects.using(get_settings().database).filter(key=name))
    if not found:
        raise EngineError(f"There is no flow-control key {name[:255]!r}.", status=404)
    return _infos(found, [name])[0]


def _infos(keys: list[FlowKey], names: list[str] | None) -> list[KeyInfo]:
    alias, now = get_settings().database, current_clock().now()
    running, waiting = flow_control.in_flight(alias, names), flow_control.waiting(alias, names)
    return [
        KeyInfo(
            flow_control_key=key.key,
            wait_list_size=waiting.get(key.key, 0),
            parallelism_max=key.parallelism or 0,
            parallelism_count=running.get(key.key, 0),
            rate_max=key.rate or 0,
            rate_count=0 if flow_control.is_over(key, now) else key.window_count,
            rate_period=key.period_seconds,
            rate_period_start=int(key.window_started_at.timestamp()) if key.window_started_at else 0,
            is_paused=key.paused,
            is_pinned_parallelism=key.pinned_parallelism,
            is_pinned_rate=key.pinned_rate,
        )
        for key in keys
    ]


# Changes


def pause(request: ApiRequest, key: str) -> dict[str, str]:
    return _change(lambda unit: flow_control.pause(unit, key))


def resume(request: ApiRequest, key: str) -> dict[str, str]:
    return _change(lambda unit: flow_control.resume(unit, key))


def reset_rate(request: ApiRequest, key: str) -> dict[str, str]:
    return _change(lambda unit: flow_control.reset_rate(unit, key))


def reset(request: ApiRequest, key: str) -> dict[str, str]:
    return _change(lambda unit: flow_control.reset(unit, key))


def pin(request: ApiRequest, key: str) -> dict[str, str]:
    """Hold `parallelism`, and `rate` with its `period` (seconds or a duration, one second by default)."""
    given = Filters(request, ("parallelism", "rate", "period"))
    parallelism, rate, period = _limit(given, "parallelism"), _limit(given, "rate"), _period(given)
    if rate is None and period is not None:
        raise MessageInvalid("A period is that of a rate; give the rate as well.", name="rate")
    if parallelism is None and rate is None:
        raise MessageInvalid("Say what to pin: parallelism, or rate (with its period), or both.", name="parallelism")
    return _change(lambda unit: flow_control.pin(unit, key, parallelism=parallelism, rate=rate, period=period or 1))


def unpin(request: ApiRequest, key: str) -> dict[str, str]:
    given = Filters(request, ("parallelism", "rate"))
    parallelism, rate = given.flag("parallelism"), given.flag("rate")
    if not (parallelism or rate):
        raise MessageInvalid("Say what to unpin: parallelism=true, rate=true, or both.", name="parallelism")
    return _change(lambda unit: flow_control.unpin(unit, key, parallelism=parallelism, rate=rate))


def _change(change: Callable[[UnitOfWork], None]) -> dict[str, str]:
    write(get_settings().database, change)
    return {}


def _limit(given: Filters, name: str) -> int | None:
    number = given.whole(name)
    if number is not None and not 1 <= number <= MOST:
        raise MessageInvalid(f"{name} must be from 1 to {MOST}, not {number}.", name=name, value=str(number))
    return number


def _period(given: Filters) -> int | None:
    text = given.one("period")
    if text is None:
        return None
    try:
        seconds = math.ceil(to_seconds(text))
    except ValueError as error:
        raise MessageInvalid(f"period: {error}", name="period", value=text) from error
    if not 1 <= seconds <= LONGEST_FLOW_PERIOD:
        raise MessageInvalid("period must be from one second to seven days.", name="period", value=text)
    return seconds


# All keys


def global_parallelism(request: ApiRequest) -> Parallelism:
    alias = get_settings().database
    return Parallelism(
        parallelism_max=Worker.objects.using(alias).aggregate(all=Sum("concurrency", default=0))["all"],
        parallelism_count=Delivery.objects.using(alias).filter(worker__isnull=False).count(),
    )


_KEY = "/v2/flowControl/{key...}"

ROUTES: tuple[Route, ...] = (
    Route("GET", "/v2/flowControl", listing, "The flow-control keys.", query=("search",), answer=list[KeyInfo]),
    Route("GET", _KEY, get, "One flow-control key.", answer=KeyInfo),
    Route("POST", f"{_KEY}/pause", pause, "Deliver nothing of a key; the key needs no messages to be known."),
    Route("POST", f"{_KEY}/resume", resume, "Deliver what waits, as the limits allow."),
    Route(
        "POST",
        f"{_KEY}/pin",
        pin,
        "Hold limits whatever messages say, and end the rate's window.",
        query=("parallelism", "rate", "period"),
    ),
    Route("POST", f"{_KEY}/unpin", unpin, "Let messages set limits again.", query=("parallelism", "rate")),
    Route("POST", f"{_KEY}/resetRate", reset_rate, "Begin a window of the rate now."),
    Route("POST", f"{_KEY}/reset", reset, "Forget the rate's window."),
    Route("GET", "/v2/globalParallelism", global_parallelism, "What all workers do.", answer=Parallelism),
)
