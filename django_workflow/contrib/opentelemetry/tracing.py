"""The spans of a run: one for each call of the workflow, one for each step's function, one for the trigger.

Names and attributes follow OpenTelemetry's conventions for messaging where there are any: the trigger is a producer, a
delivery a consumer. What comes back on replay makes no spans: only a step whose function runs has one.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TracerProvider,
)

from django_workflow.protocol.headers import any_case
from django_workflow.replay.instruments import RunningCall
from django_workflow.replay.outcome import Cancelled, Failed, Finished, Outcome, Submitted

logger = logging.getLogger("django_workflow.opentelemetry")

OUTCOMES = {Finished: "finished", Cancelled: "canceled", Submitted: "submitted", Failed: "failed"}


class Tracing:
    """Implements `replay.instruments.Instrument` by the tracer of `provider`; None: the global one."""

    def __init__(self, provider: TracerProvider | None = None) -> None:
        self._tracer = trace.get_tracer("django_workflow", tracer_provider=provider)

    @contextmanager
    def call(self, call: RunningCall) -> Iterator[Callable[[Outcome], None]]:
        attributes: dict[str, Any] = {
            "workflow.name": call.workflow,
            "workflow.run_id": call.run_id,
            "workflow.attempt": call.retried + 1,
        }
        with self._tracer.start_as_current_span(
            f"workflow {call.workflow}", _parent(call), SpanKind.CONSUMER, attributes
        ) as span:
            yield lambda outcome: _conclude(span, outcome)

    @contextmanager
    def step(self, name: str, step_id: int) -> Iterator[None]:
        attributes: dict[str, Any] = {"workflow.step": name, "workflow.step_id": step_id}
        with self._tracer.start_as_current_span(f"step {name}", attributes=attributes):
            yield

    def headers(self, workflow: str) -> dict[str, str]:
        headers: dict[str, str] = {}
        if not workflow:
            propagate.inject(headers)
            return headers
        with self._tracer.start_as_current_span(
            f"trigger {workflow}", kind=SpanKind.PRODUCER, attributes={"workflow.name": workflow}
        ):
            propagate.inject(headers)
        return headers


def _parent(call: RunningCall) -> Context | None:
    """Where a call's span belongs: to the request's own span when that is of the run's trace, else to the trigger's.

    A run that nobody traced (a schedule's, one of another SDK) gets a trace that is made from its id, the same for all
    of its calls.
    """
    found = trace.get_current_span(propagate.extract(_Carrier(call.headers), Context()))
    context = found.get_span_context()
    if not context.is_valid:
        context = _context_of(call.run_id)
        found = NonRecordingSpan(context)
    current = trace.get_current_span().get_span_context()
    if current.is_valid and current.trace_id == context.trace_id:
        return None
    return trace.set_span_in_context(found, Context())


def _context_of(run_id: str) -> SpanContext:
    digest = hashlib.sha256(run_id.encode()).digest()
    trace_id, span_id = int.from_bytes(digest[:16], "big"), int.from_bytes(digest[16:24], "big")
    return SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))


class _Carrier(dict[str, str]):
    """The headers of a delivery, looked up in any letter case, as propagators want them."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        super().__init__({name.lower(): value for name, value in any_case(headers).items()})


def _conclude(span: Span, outcome: Outcome) -> None:
    span.set_attribute("workflow.outcome", OUTCOMES.get(type(outcome), "nothing"))
    if isinstance(outcome, Submitted):
        span.set_attribute("workflow.step", outcome.step_name)
    elif isinstance(outcome, Failed):
        if outcome.step_name:
            span.set_attribute("workflow.step", outcome.step_name)
        span.record_exception(outcome.error)
        span.set_status(Status(StatusCode.ERROR, f"{type(outcome.error).__name__}: {outcome.error}"))
