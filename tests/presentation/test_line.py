"""The place of a run in the line of its flow-control key, and the sentence that tells it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from django_workflow.models import Delivery, FlowKey, Run
from django_workflow.presentation.line import place_in_line
from django_workflow.presentation.words import why_text
from django_workflow.testing.factories import make_delivery, make_run, make_worker

pytestmark = pytest.mark.django_db

NOW = datetime(2030, 5, 1, 12, 0, tzinfo=UTC)


def line_of(number: int, **values: Any) -> list[Delivery]:
    """Deliveries of one key, each of a run of its own; the one first that is due longest."""
    return [
        make_delivery(flow_key="user-7", due_at=NOW - timedelta(seconds=number - place), **values)
        for place in range(number)
    ]


def said(delivery: Delivery) -> str:
    assert delivery.run is not None
    with timezone.override(UTC):
        return why_text(delivery.run, NOW, deliveries=[delivery], place=place_in_line([delivery], NOW))


def test_a_full_key_lets_wait_in_line() -> None:
    FlowKey.objects.create(key="user-7", parallelism=1)
    make_delivery(flow_key="user-7", due_at=NOW - timedelta(minutes=1), worker=make_worker())
    make_delivery(flow_key="user-7", due_at=NOW + timedelta(hours=1))  # later, so not in line
    make_delivery(flow_key="user-8", due_at=NOW - timedelta(hours=1))
    sentences = [said(delivery) for delivery in line_of(3)]
    assert sentences == [
        f"Waits for flow-control key “user-7” (1 at a time); number {number} in line" for number in (1, 2, 3)
    ]


def test_a_paused_key_and_one_whose_rate_is_used_up_say_so() -> None:
    key = FlowKey.objects.create(
        key="user-7", rate=3, period_seconds=60, window_count=3, window_ends_at=NOW + timedelta(seconds=40)
    )
    second = line_of(2)[1]
    assert said(second) == "Waits for flow-control key “user-7” (3 in 1 min) until 12:00:40; number 2 in line"
    key.paused = True
    key.save()
    assert said(second) == "Waits for flow-control key “user-7”, which is paused; number 2 in line"


def test_what_no_key_holds_waits_for_a_worker(django_assert_num_queries: DjangoAssertNumQueries) -> None:
    FlowKey.objects.create(key="user-7", parallelism=1)
    (free,) = line_of(1)
    assert said(free) == "Waits for a worker"
    plain = make_delivery(due_at=NOW)
    with django_assert_num_queries(0):
        assert place_in_line([plain], NOW) is None


def test_a_run_with_a_call_under_way_does_not_wait() -> None:
    FlowKey.objects.create(key="user-7", paused=True)
    run = make_run(status=Run.Status.RUNNING)
    waiting = make_delivery(run, flow_key="user-7", due_at=NOW)
    busy = make_delivery(run, due_at=NOW, worker=make_worker())
    assert place_in_line([waiting, busy], NOW) is None
