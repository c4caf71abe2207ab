"""Runs whose endpoint is elsewhere: what it submits comes by the HTTP door while its call is still under way, and of a
step that failed it tells the name alone."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from django_workflow.engine.facts import Answer, Settlement
from django_workflow.engine.transport import EngineTransport
from django_workflow.models import Attempt, Delivery, Run, Step
from django_workflow.protocol.publish import Message
from django_workflow.protocol.requests import Batch, GetWaiters, Wait
from django_workflow.testing import WorkflowClock
from tests.engine.deliveries import OK, Hand, message, result, start, step

pytestmark = pytest.mark.django_db

URL = "https://elsewhere.example/flow"
FAILED = Answer(status=500, headers={"Upstash-Error-Step-Name": ["charge"]}, body=b'{"message":"no money"}')


@pytest.fixture
def hand(workflow_clock: WorkflowClock) -> Hand:
    return Hand(workflow_clock)


def submit(run: Run, *steps: Any) -> None:
    EngineTransport().send(result(run, *steps, url=URL))


def told(run: Run) -> list[tuple[Any, ...]]:
    return list(run.steps.values_list("step_id", "name", "status", "attempts", "concurrent"))


def test_a_step_that_failed_is_shown_by_the_name_that_the_endpoint_told(hand: Hand) -> None:
    run = start(url=URL, retries=1, retry_delay="0")
    (first,) = hand.claim()
    submit(run, step(1))
    hand.settle(first)
    (second,) = hand.claim()
    hand.settle(second, answer=FAILED)
    assert told(run) == [(1, "step 1", "success", 1, 1), (2, "charge", "retrying", 1, 1)]
    (third,) = hand.claim()
    hand.settle(third, answer=FAILED)
    assert told(run) == [(1, "step 1", "success", 1, 1), (2, "charge", "failed", 2, 1)]
    run.refresh_from_db()
    assert (run.status, run.error_step, run.error) == ("failed", "charge", "no money")
    assert list(Attempt.objects.values_list("step_id", "step_name", "number")) == [(2, "charge", 1), (2, "charge", 2)]


def test_a_step_that_succeeds_at_last_has_all_its_attempts(hand: Hand) -> None:
    run = start(url=URL, retries=3, retry_delay="0")
    for _ in range(2):
        (lease,) = hand.claim()
        hand.settle(lease, answer=FAILED)
    (lease,) = hand.claim()
    submit(run, step(1, step_name="charge"))
    hand.settle(lease)
    assert told(run) == [(1, "charge", "success", 3, 1)]
    (lease,) = hand.claim()
    submit(run, step(2))
    assert told(run)[1:] == [(2, "step 2", "success", 1, 1)]


def test_a_branch_that_failed_stays_a_branch(hand: Hand) -> None:
    run = start(url=URL, retries=1, retry_delay="0")
    (lease,) = hand.claim()
    plans = [step(0, None, target_step=number, concurrent=2, step_name=name) for number, name in enumerate("ab", 1)]
    submit(run, *plans)
    hand.settle(lease)
    first, _ = sorted(hand.claim(), key=lambda lease: lease.position)
    hand.settle(first, answer=Answer(status=500, headers={"Upstash-Error-Step-Name": ["a"]}))
    submit(run, step(2, concurrent=2, step_name="b"))
    assert told(run) == [(1, "a", "retrying", 1, 2), (2, "b", "success", 1, 2)]
    again = next(lease for lease in hand.claim() if lease.step_id == 1)
    submit(run, step(1, concurrent=2, step_name="a"))
    hand.settle(again)
    assert told(run)[0] == (1, "a", "success", 2, 2)


@pytest.mark.parametrize("branches", [False, True], ids=["sequence", "branch"])
def test_a_result_that_arrived_counts_although_the_answer_was_lost(hand: Hand, branches: bool) -> None:
    run = start(url=URL, retries=0)
    (lease,) = hand.claim()
    if branches:
        submit(run, *(step(0, None, target_step=n, concurrent=2, step_name=f"step {n}") for n in (1, 2)))
        hand.settle(lease)
        lease, _ = sorted(hand.claim(), key=lambda lease: lease.position)
    submit(run, step(1, concurrent=1 + branches))
    hand.settle(lease, answer=Answer(status=0, error="The connection broke."))
    run.refresh_from_db()
    assert not run.is_finished
    assert run.steps.get(step_id=1).status == "success"
    assert not run.deliveries.filter(pk=lease.key).exists()
    assert not Attempt.objects.exists()


def test_an_error_outside_of_steps_makes_no_step(hand: Hand) -> None:
    run = start(url=URL, retries=0)
    (lease,) = hand.claim()
    hand.settle(lease, answer=Answer(status=500, body=b'{"message":"no money"}'))
    assert not Step.objects.filter(run=run).exists()


def test_the_delay_of_the_settings_holds_where_nobody_asks_for_another(
    hand: Hand, workflow_clock: WorkflowClock, settings: Any
) -> None:
    settings.DJANGO_WORKFLOW = {"retry_delay": "5000 * (1 + retried)"}
    for own, seconds in ((None, 5), ("3000", 3)):
        run = start(url=URL, retries=1, retry_delay=own)
        (lease,) = hand.claim()
        hand.settle(lease, answer=FAILED)
        assert run.deliveries.get().due_at - workflow_clock.now() == timedelta(seconds=seconds)
    EngineTransport().send(Batch(messages=(Message(destination=URL, body=b"1", retries=1),)))
    (lease,) = hand.claim()
    hand.settle(lease, answer=FAILED)
    assert Delivery.objects.get(run=None).due_at - workflow_clock.now() == timedelta(seconds=5)


def test_a_waiter_is_told_with_the_headers_of_what_will_be_sent(hand: Hand, workflow_clock: WorkflowClock) -> None:
    run = start(url=URL)
    (lease,) = hand.claim()
    wait = Wait(
        event_id="approved", timeout=60, step=step(1, None, step_type="Wait"), message=message(run.run_id, url=URL)
    )
    EngineTransport().send(wait)
    hand.settle(lease)
    (waiter,) = EngineTransport().send(GetWaiters(event_id="approved"))
    assert (waiter.url, waiter.timeout_url) == (URL, URL)
    assert waiter.deadline == int(workflow_clock.now().timestamp()) + 60
    assert waiter.headers["Upstash-Workflow-Runid"] == [run.run_id]
    assert waiter.headers == waiter.timeout_headers


def test_a_step_began_with_the_call_that_ran_it(hand: Hand, workflow_clock: WorkflowClock) -> None:
    run = start(url=URL)
    (lease,) = hand.claim()
    began = workflow_clock.now()
    workflow_clock.advance(3)
    submit(run, step(1))
    settlement = Settlement(lease, (), OK, began, workflow_clock.now())
    hand.write(settlement)
    (shown,) = run.steps.all()
    assert (shown.started_at, shown.duration) == (began, timedelta(seconds=3))


def test_a_branch_began_with_its_own_call(hand: Hand, workflow_clock: WorkflowClock) -> None:
    run = start(url=URL)
    (lease,) = hand.claim()
    submit(run, *(step(0, None, target_step=number, concurrent=2, step_name=f"b{number}") for number in (1, 2)))
    hand.settle(lease)
    first, second = sorted(hand.claim(), key=lambda lease: lease.position)
    for lease, number, seconds in ((second, 2, 2), (first, 1, 5)):
        began = workflow_clock.now()
        workflow_clock.advance(seconds)
        submit(run, step(number, concurrent=2, step_name=f"b{number}"))
        hand.write(Settlement(lease, (), OK, began, workflow_clock.now()))
    assert [shown.duration for shown in run.steps.order_by("step_id")] == [timedelta(seconds=5), timedelta(seconds=2)]
