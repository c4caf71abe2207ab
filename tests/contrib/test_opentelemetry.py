"""Traces: a run is one trace, from its trigger over every delivery and step to the calls that it makes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from django_workflow import AsyncWorkflowContext, WorkflowContext, workflow
from django_workflow.authoring.registry import registry
from django_workflow.models import Run
from django_workflow.replay import instruments
from django_workflow.testing import CallAnswer, mock_calls, run_workflows, workflow_clock

REASON = "opentelemetry-sdk is not installed: pip install -c constraints.txt -e '.[dev,otel]'"
trace_sdk = pytest.importorskip("opentelemetry.sdk.trace", reason=REASON)

from opentelemetry import trace  # noqa: E402
from opentelemetry.sdk.trace.export import SimpleSpanProcessor  # noqa: E402
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter  # noqa: E402

from django_workflow.contrib.opentelemetry.tracing import Tracing  # noqa: E402

pytestmark = pytest.mark.django_db


class Spans:
    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = trace_sdk.TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    @property
    def all(self) -> list[Any]:
        return list(self.exporter.get_finished_spans())

    @property
    def names(self) -> list[str]:
        return [span.name for span in self.all]

    def of(self, name: str) -> Any:
        (span,) = [span for span in self.all if span.name == name]
        return span

    @property
    def traces(self) -> set[int]:
        return {span.context.trace_id for span in self.all}


@pytest.fixture
def spans() -> Iterator[Spans]:
    made = Spans()
    instruments.use_instrument(Tracing(made.provider))
    with registry.isolated():
        yield made
    instruments.use_instrument(None)


def test_a_run_is_one_trace_with_a_span_for_each_call_and_step(spans: Spans) -> None:
    @workflow
    def ship(ctx: WorkflowContext[Any]) -> None:
        ctx.run("pack", lambda: None)
        ctx.sleep("rest", "1h")
        ctx.run("send", lambda: None)

    with workflow_clock():
        handle = ship.trigger()
        run_workflows(skip_delays=True)
    assert Run.objects.get().status == "success"
    assert spans.names == [
        "trigger ship",
        "step pack",
        "workflow ship",
        "workflow ship",  # hands the sleep to the engine
        "step send",
        "workflow ship",
        "workflow ship",  # returns
    ]
    assert len(spans.traces) == 1
    trigger, calls = spans.of("trigger ship"), [span for span in spans.all if span.name == "workflow ship"]
    assert {span.parent.span_id for span in calls} == {trigger.context.span_id}
    assert spans.of("step pack").parent.span_id == calls[0].context.span_id
    assert calls[0].attributes["workflow.run_id"] == handle.id
    assert [span.attributes["workflow.outcome"] for span in calls] == [
        "submitted",
        "submitted",
        "submitted",
        "finished",
    ]
    assert calls[1].attributes["workflow.step"] == "rest"


def test_the_trace_goes_on_from_where_the_run_was_triggered(spans: Spans) -> None:
    @workflow
    def ship(ctx: WorkflowContext[Any]) -> None:
        ctx.run("pack", lambda: None)

    with spans.provider.get_tracer("shop").start_as_current_span("checkout") as checkout:
        ship.trigger()
    run_workflows()
    assert spans.traces == {checkout.get_span_context().trace_id}


def test_spans_of_the_projects_own_code_hang_below_the_step(spans: Spans) -> None:
    tracer = spans.provider.get_tracer("shop")

    def pack() -> None:
        with tracer.start_as_current_span("fold the box"):
            pass

    @workflow
    def ship(ctx: WorkflowContext[Any]) -> None:
        ctx.run("pack", pack)

    ship.trigger()
    run_workflows()
    assert spans.of("fold the box").parent.span_id == spans.of("step pack").context.span_id


def test_async_steps_each_have_their_own_span(spans: Spans) -> None:
    tracer = spans.provider.get_tracer("shop")

    async def work(name: str) -> None:
        await asyncio.sleep(0)
        with tracer.start_as_current_span(f"inside {name}"):
            pass

    @workflow
    async def ship(ctx: AsyncWorkflowContext[Any]) -> None:
        await asyncio.gather(ctx.run("left", work, "left"), ctx.run("right", work, "right"))

    ship.trigger()
    run_workflows()
    assert Run.objects.get().status == "success"
    assert len(spans.traces) == 1
    for name in ("left", "right"):
        assert spans.of(f"inside {name}").parent.span_id == spans.of(f"step {name}").context.span_id


def test_a_failure_marks_the_step_and_the_call(spans: Spans) -> None:
    @workflow(retries=1)
    def ship(ctx: WorkflowContext[Any]) -> None:
        ctx.run("pack", pack)

    def pack() -> None:
        raise ValueError("no box")

    with workflow_clock():
        ship.trigger()
        run_workflows(skip_delays=True)
    calls = [span for span in spans.all if span.name == "workflow ship"]
    assert [span.attributes["workflow.attempt"] for span in calls] == [1, 2]
    for span in spans.all[1:]:
        assert not span.status.is_ok
        assert span.events[0].attributes["exception.message"] == "no box"
        assert span.attributes["workflow.step"] == "pack"


def test_a_step_that_ends_the_call_is_no_error(spans: Spans) -> None:
    """`ctx.cancel()` leaves the function by an exception of its own."""

    @workflow
    def ship(ctx: WorkflowContext[Any]) -> None:
        ctx.run("pack", ctx.cancel)

    ship.trigger()
    run_workflows()
    assert Run.objects.get().status == "canceled"
    assert spans.of("workflow ship").status.is_ok or spans.of("workflow ship").status.is_unset
    assert spans.of("step pack").status.is_unset


def test_calls_and_invoked_runs_carry_the_trace_on(spans: Spans) -> None:
    @workflow
    def inner(ctx: WorkflowContext[Any]) -> None:
        ctx.run("work", lambda: None)

    @workflow
    def outer(ctx: WorkflowContext[Any]) -> None:
        ctx.call("pay", url="https://pay.example.com/", method="POST", headers={"X-Own": "1"})
        ctx.invoke("inner", inner)

    with workflow_clock(), mock_calls(CallAnswer(200)) as calls:
        outer.trigger()
        run_workflows(skip_delays=True)
    assert set(Run.objects.values_list("status", flat=True)) == {"success"}
    assert len(spans.traces) == 1
    (called,) = calls.calls
    sent = {name.lower(): value for name, value in called.headers.items()}
    assert f"{next(iter(spans.traces)):032x}" in sent["traceparent"]
    assert sent["x-own"] == "1"


def test_what_a_caller_sets_himself_stays() -> None:
    class Loud:
        def headers(self, workflow: str) -> dict[str, str]:
            return {"traceparent": "00-new", "tracestate": "a=b"}

    instruments.use_instrument(Loud())  # type: ignore[arg-type]
    try:
        assert instruments.with_trace({"Traceparent": "mine"}) == {"Traceparent": "mine", "tracestate": "a=b"}
    finally:
        instruments.use_instrument(None)


def test_a_run_that_nobody_traced_is_one_trace_all_the_same(spans: Spans) -> None:
    @workflow
    def ship(ctx: WorkflowContext[Any]) -> None:
        ctx.run("pack", lambda: None)
        ctx.run("send", lambda: None)

    instruments.use_instrument(None)
    ship.trigger()
    instruments.use_instrument(Tracing(spans.provider))
    run_workflows()
    assert len(spans.all) == 5
    assert len(spans.traces) == 1


def test_nothing_is_traced_and_no_header_is_added_without_the_app() -> None:
    assert instruments.instrument() is None
    assert instruments.with_trace({"a": "b"}) == {"a": "b"}
    assert trace.get_current_span().get_span_context().is_valid is False
