"""Processes killed at every boundary of a commit and of a response: results are there once, and no run is lost."""

from __future__ import annotations

from typing import Any

import pytest

from django_workflow.models import Delivery, Worker
from tests.effects.workflows import every_kind
from tests.engine.workers import eventually
from tests.faults.invariants import all_over, assert_all_done, broken_rules
from tests.faults.nursery import Nursery

pytestmark = pytest.mark.django_db(transaction=True)

KILLED = -9
KILLS_IN_A_ROW = 4
"""So few that no run is given up: it would be after six workers."""
SHORT, LONG = (1, 2, 3, 5, 8), tuple(range(1, 31))
"""The commits after which the runs' workers end, counted anew in each worker."""


boundaries = pytest.mark.parametrize("point", ["before-commit", "during-commit", "after-commit"])


@boundaries
@pytest.mark.parametrize("numbers", [SHORT, pytest.param(LONG, marks=pytest.mark.slow)], ids=["short", "long"])
def test_workers_killed_at_a_commit(nursery: Nursery, point: str, numbers: tuple[int, ...]) -> None:
    handles = []
    for count, number in enumerate(numbers, 1):
        # Enough that the worker comes to that commit.
        handles += [every_kind.trigger(0.0) for _ in range(1 + number // 4)]
        assert nursery.worker(crash=(point, number)).wait() == KILLED
        assert broken_rules() == []
        if count % KILLS_IN_A_ROW == 0:
            between = nursery.worker()
            eventually(all_over)
            between.kill()
    with_last = nursery.worker()
    eventually(all_over)
    assert with_last.stop() == 0
    assert_all_done(handles)


def over_http(origin: str) -> dict[str, Any]:
    return {"base_url": origin, "request_timeout": 5, "retry_delay": 0.01}


WRITES_BY_ITSELF = {"django_workflow.client.carried:LONGEST_SECONDS": 0.0}
"""A web process that writes down every result, as it does with those that took a while."""


@pytest.mark.parametrize(
    ("point", "numbers", "patches"),
    [
        # Results come in the answers; those of atomic steps, four in a run, are committed.
        ("before-commit", (1, 3), None),
        ("after-commit", (1, 3), None),
        ("before-response", (1, 2), None),
        ("after-response", (1, 2), None),
        pytest.param("before-response", LONG[:12], None, marks=pytest.mark.slow),
        pytest.param("after-response", LONG[:12], None, marks=pytest.mark.slow),
        ("before-commit", (2, 4), WRITES_BY_ITSELF),
        ("after-commit", (1, 3), WRITES_BY_ITSELF),
        ("before-response", (1, 2), WRITES_BY_ITSELF),
        ("after-response", (1, 2), WRITES_BY_ITSELF),
        pytest.param("before-commit", LONG[:12], WRITES_BY_ITSELF, marks=pytest.mark.slow),
        pytest.param("during-commit", LONG[:12], WRITES_BY_ITSELF, marks=pytest.mark.slow),
        pytest.param("after-commit", LONG[:12], WRITES_BY_ITSELF, marks=pytest.mark.slow),
        pytest.param("before-response", LONG[:12], WRITES_BY_ITSELF, marks=pytest.mark.slow),
        pytest.param("after-response", LONG[:12], WRITES_BY_ITSELF, marks=pytest.mark.slow),
    ],
)
def test_web_processes_killed_at_a_commit_or_response(
    nursery: Nursery, settings: Any, point: str, numbers: tuple[int, ...], patches: dict[str, float] | None
) -> None:
    first = nursery.web()
    port, options = int(first.origin.rpartition(":")[2]), over_http(first.origin)
    first.kill()
    settings.DJANGO_WORKFLOW = options
    worker = nursery.worker(settings=options)
    handles = []
    for number in numbers:
        web = nursery.web(crash=(point, number), settings=options, port=port, patches=patches)
        handles.append(every_kind.trigger(0.0))
        assert web.wait() == KILLED
    nursery.web(settings=options, port=port, patches=patches)
    eventually(all_over)
    assert worker.stop() == 0
    assert_all_done(handles)


@boundaries
@pytest.mark.parametrize("numbers", [(1, 2, 3), pytest.param(LONG[:11], marks=pytest.mark.slow)], ids=["short", "long"])
def test_workers_killed_at_a_commit_while_web_processes_run_the_steps(
    nursery: Nursery, settings: Any, point: str, numbers: tuple[int, ...]
) -> None:
    """What answers carried is lost with the worker that got them, and is run again."""
    web = nursery.web()
    settings.DJANGO_WORKFLOW = options = over_http(web.origin)
    web.kill()
    nursery.web(settings=options, port=int(web.origin.rpartition(":")[2]))
    handles = []
    for count, number in enumerate(numbers, 1):
        handles += [every_kind.trigger(0.0) for _ in range(1 + number // 4)]
        assert nursery.worker(crash=(point, number), settings=options).wait() == KILLED
        if count % KILLS_IN_A_ROW == 0:
            between = nursery.worker(settings=options)
            eventually(all_over)
            between.kill()
    with_last = nursery.worker(settings=options)
    eventually(all_over)
    assert with_last.stop() == 0
    assert_all_done(handles)


def test_a_second_worker_goes_on_with_what_the_first_one_had_called_for(nursery: Nursery, settings: Any) -> None:
    web = nursery.web()
    settings.DJANGO_WORKFLOW = options = over_http(web.origin)
    web.kill()
    nursery.web(settings=options, port=int(web.origin.rpartition(":")[2]))
    handles = [every_kind.trigger(0.01) for _ in range(6)]
    first = nursery.worker(crash=("after-commit", 6), settings=options)
    eventually(Worker.objects.exists)  # on SQLite the other one stands by
    second = nursery.worker(settings=options)
    assert first.wait() == KILLED
    # A run may be over before the call of an atomic step is settled, whose result its web process wrote.
    eventually(lambda: all_over() and not Delivery.objects.exists())
    assert second.stop() == 0
    assert_all_done(handles)
