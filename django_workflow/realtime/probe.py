"""A try of the realtime path: an event is kept, read back, and sent round the channel layer. Takes a second at most.

Asked by the admin's health page. What a browser hears of it shows that the transports work too.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer

from django_workflow.realtime import history
from django_workflow.realtime.channel import Realtime
from django_workflow.realtime.stores import History, StoreUnavailable

CHANNEL = "django-workflow-health"
EVENT = "health.test"
LAYER_SECONDS = 2.0

_realtime = Realtime(history=History(max_length=10))


@dataclass(frozen=True, slots=True)
class Probe:
    """Milliseconds that keeping and reading the event took, and its way round the layer (None: no layer, or `error`
    says what went wrong)."""

    event_id: str
    store_ms: float | None
    layer_ms: float | None
    error: str = ""


def probe(by: str) -> Probe:
    """Emit a test event on CHANNEL. `by` is a name that the event carries."""
    started = time.perf_counter()
    try:
        event_id = _realtime.channel(CHANNEL).emit(EVENT, {"by": by}, immediate=False)
        kept = _realtime.channel(CHANNEL).history(limit=1)
    except StoreUnavailable as error:
        return Probe("", None, None, str(error))
    if not kept or kept[-1].event != EVENT:
        return Probe("", None, None, "The event was kept, but could not be read back.")
    store_ms = _since(started)
    layer_ms, problem = async_to_sync(_round_trip)()
    return Probe(event_id or kept[-1].id, store_ms, layer_ms, problem)


def newest_cursor() -> int:
    """From where a browser follows CHANNEL to hear the next test event."""
    return history.newest(CHANNEL)


async def _round_trip() -> tuple[float | None, str]:
    layer: Any = get_channel_layer()
    if layer is None:
        return None, ""
    started = time.perf_counter()
    try:
        name = await layer.new_channel()
        await layer.send(name, {"type": "django_workflow.probe"})
        async with asyncio.timeout(LAYER_SECONDS):
            await layer.receive(name)
    except TimeoutError:
        return None, f"The channel layer did not deliver a message within {LAYER_SECONDS:g} s."
    except Exception as error:  # whatever its server answers: this is what is to be found out
        return None, f"The channel layer failed: {type(error).__name__}: {error}"
    return _since(started), ""


def _since(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 2)
