"""Deliveries inside the process: do they reach the views, and what is said when something is in their way."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from datetime import timedelta

import msgspec
import pytest
from django.http import HttpRequest, HttpResponse

from django_workflow import WorkflowContext, workflow
from django_workflow.engine import dispatch, leases, limits, transport
from django_workflow.engine.network import HttpAnswer
from django_workflow.engine.shared import shared_cache
from django_workflow.protocol.publish import FEATURES, Message, WorkflowFields
from django_workflow.protocol.requests import Batch
from django_workflow.protocol.steps import encode_step
from django_workflow.testing import WorkflowClock, run_workflows
from django_workflow.testing.factories import make_worker
from tests.engine.deliveries import ALIAS, Hand, start, step

URL = "https://elsewhere.example/flow"


def wall(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """A middleware that lets nobody in."""
    return lambda request: HttpResponse("log in first", status=403)


@pytest.fixture
def _fresh_handler():
    dispatch.handler.cache_clear()
    yield
    dispatch.handler.cache_clear()


@pytest.mark.usefixtures("_fresh_handler")
def test_deliveries_reach_the_views_of_this_project() -> None:
    assert dispatch.blocked_by() is None


@pytest.mark.usefixtures("_fresh_handler")
def test_a_middleware_that_answers_instead_is_told(settings) -> None:
    settings.MIDDLEWARE = ["tests.engine.test_dispatch.wall"]
    reason = dispatch.blocked_by()
    assert reason is not None
    assert "403" in reason
    assert "tests.engine.test_dispatch.wall" in reason


@pytest.mark.django_db
def test_a_long_atomic_step_is_warned_about(
    workflow_clock: WorkflowClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    @workflow(name="long-atomic")
    def long_atomic(ctx: WorkflowContext[None]) -> None:
        ctx.run("slow", lambda: None, atomic=True)

    monkeypatch.setattr(transport, "LONGEST_ATOMIC_STEP", -1.0)
    long_atomic.trigger()
    with caplog.at_level(logging.WARNING, "django_workflow.engine"):
        run_workflows()
    assert "The atomic step 'slow'" in caplog.text


@pytest.mark.django_db
def test_a_trigger_says_when_no_worker_was_seen(
    workflow_clock: WorkflowClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(leases, "_looked_for_workers", None)

    def trigger() -> str:
        caplog.clear()
        leases.warn_without_worker("default", workflow_clock.now())
        return caplog.text

    assert not trigger()
    workflow_clock.advance(121)
    assert "No worker has been seen" in trigger()
    workflow_clock.advance(60)
    assert not trigger()
    workflow_clock.advance(61)
    make_worker(heartbeat_at=workflow_clock.now() - timedelta(seconds=5))
    assert not trigger()


class Listening:
    """A network that keeps the headers of its last call."""

    def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, timeout: float, *, guarded: bool
    ) -> HttpAnswer:
        self.headers, self.body = headers, body
        return HttpAnswer(status=200)


@pytest.mark.django_db
def test_a_header_of_a_delivery_is_there_once_however_it_was_spelled(workflow_clock: WorkflowClock) -> None:
    run = start(headers={"upstash-workflow-sdk-version": "1", "x-user": "ada"}, url=URL)
    (lease,) = Hand(workflow_clock).claim()
    network = Listening()
    dispatcher = dispatch.Dispatcher(ALIAS, shared_cache(ALIAS), workflow_clock.now, network)  # type: ignore[arg-type]
    dispatcher.dispatch(lease, lambda fact: None)
    names = ("upstash-workflow-sdk-version", "x-user")
    told = [(name, value) for name, value in network.headers.items() if name.lower() in names]
    assert told == [("Upstash-Workflow-Sdk-Version", "1"), ("X-User", "ada")]
    assert network.headers["Upstash-Workflow-RunId"] == run.run_id


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("features", "size", "fetched"),
    [
        (FEATURES, 1000, True),
        (FEATURES, 10, False),  # it fits
        (("LazyFetch", "InitialBody", "WF_DetectTrigger"), 1000, False),  # the Python SDK, which only says that it can
        (("WF_TriggerOnConfig",), 1000, False),
    ],
)
def test_a_large_journal_is_left_to_endpoints_that_fetch_it(
    workflow_clock: WorkflowClock,
    monkeypatch: pytest.MonkeyPatch,
    features: tuple[str, ...],
    size: int,
    fetched: bool,
) -> None:
    monkeypatch.setattr(limits, "LARGEST_INLINE_BYTES", 1000)
    hand, network = Hand(workflow_clock), Listening()
    dispatcher = dispatch.Dispatcher(ALIAS, shared_cache(ALIAS), workflow_clock.now, network)  # type: ignore[arg-type]
    fields = WorkflowFields(run_id="wfr_large", url=URL, features=features, sdk_version="1")
    begun = msgspec.structs.replace(fields, init=True)
    body = encode_step(step(1, json.dumps("x" * size)))
    transport.EngineTransport().send(Batch(messages=(Message(destination=URL, body=b"1", workflow=begun),)))
    (first,) = hand.claim()
    dispatcher.dispatch(first, lambda fact: None)
    transport.EngineTransport().send(Batch(messages=(Message(destination=URL, body=body, workflow=fields),)))
    hand.settle(first)
    (second,) = hand.claim()
    dispatcher.dispatch(second, lambda fact: None)
    assert (network.body == b"") is fetched
    assert network.headers["Content-Type"] == "application/json"
