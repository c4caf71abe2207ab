"""The timeline's numbers: what a bar is split into, the scales, the parts that are looked at."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from django.test import RequestFactory

from django_workflow.admin import timeline
from django_workflow.admin.timeline import BACKOFF, QUEUED, RUNNING, SLEEPING, WAITING, Span, Window
from django_workflow.admin.zoom import Zoom
from django_workflow.models import Attempt, Run, Step

START = datetime(2030, 5, 1, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def step(number: int = 1, start: float | None = 0, end: float | None = 1, **values: Any) -> Step:
    times = {"started_at": None if start is None else at(start), "finished_at": None if end is None else at(end)}
    defaults = {"step_id": number, "name": f"step {number}", "step_type": "Run", "status": Step.Status.SUCCESS}
    return Step(**{**defaults, **times, **values})


def attempt(start: float, end: float, retry: float | None, number: int = 1) -> Attempt:
    retry_at = None if retry is None else at(retry)
    return Attempt(step_id=number, started_at=at(start), finished_at=at(end), retry_at=retry_at)


def spans(
    one: Step, *attempts: Attempt, since: float | None = None, now: float = 100
) -> list[tuple[str, float, float]]:
    found = timeline.spans_of(one, attempts, None if since is None else at(since), at(now))
    return [(s.kind, (s.start - START).total_seconds(), (s.end - START).total_seconds()) for s in found]


def test_a_step_was_queued_and_ran() -> None:
    assert spans(step(start=2, end=3), since=0) == [(QUEUED, 0, 2), (RUNNING, 2, 3)]
    assert spans(step(start=2, end=3, queued_at=at(1))) == [(QUEUED, 1, 2), (RUNNING, 2, 3)]
    # The engine notes of a step that runs at once when its result came: that is no queue.
    assert spans(step(start=2, end=3, queued_at=at(3))) == [(RUNNING, 2, 3)]


def test_a_step_backs_off_between_its_attempts() -> None:
    done = step(start=12, end=13, attempts=3)
    assert spans(done, attempt(0, 1, 3), attempt(4, 5, 12)) == [
        (RUNNING, 0, 1),
        (BACKOFF, 1, 4),
        (RUNNING, 4, 5),
        (BACKOFF, 5, 12),
        (RUNNING, 12, 13),
    ]
    failed = step(start=4, end=5, status=Step.Status.FAILED)
    assert spans(failed, attempt(0, 1, 4), attempt(4, 5, None)) == [(RUNNING, 0, 1), (BACKOFF, 1, 4), (RUNNING, 4, 5)]
    retrying = step(start=0, end=None, status=Step.Status.RETRYING)
    assert spans(retrying, attempt(0, 1, 500), now=60) == [(RUNNING, 0, 1), (BACKOFF, 1, 60)]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("SleepFor", SLEEPING), ("Wait", WAITING), ("Invoke", WAITING), ("WaitForWebhook", WAITING), ("Call", RUNNING)],
)
def test_steps_that_do_not_work_say_so(kind: str, expected: str) -> None:
    assert spans(step(step_type=kind, end=None, status=Step.Status.WAITING), now=9) == [(expected, 0, 9)]


def test_a_step_that_has_not_begun_is_queued_until_now() -> None:
    assert spans(step(start=None, end=None, status=Step.Status.QUEUED), since=3, now=5) == [(QUEUED, 3, 5)]


def test_long_pauses_are_folded_and_every_instant_has_its_place() -> None:
    week = 7 * 86_400.0
    scale = timeline.folded_scale(
        at(0), at(week + 20), [Span(RUNNING, at(0), at(10)), Span(RUNNING, at(week), at(week + 20))]
    )
    (fold,) = scale.folds
    assert fold.text == "7 d"
    assert scale.place(at(0)) == 0
    assert scale.place(at(week + 20)) == 100
    assert scale.place(at(10)) > 25  # of a week nothing would be seen of it
    for seconds in (0, 5, 10, 1000, week, week + 20):
        assert abs((scale.instant(scale.place(at(seconds))) - at(seconds)).total_seconds()) < 0.01


def test_nothing_is_folded_where_there_is_nothing_else_or_no_long_pause() -> None:
    assert timeline.folded_scale(at(0), at(9999), []).folds == ()
    assert timeline.folded_scale(at(0), at(50), [Span(RUNNING, at(0), at(1))]).folds == ()


def test_many_pauses_leave_room_for_what_ran() -> None:
    busy = [Span(RUNNING, at(number * 1000), at(number * 1000 + 1)) for number in range(200)]
    scale = timeline.folded_scale(at(0), at(199_001), busy)
    assert sum(fold.width for fold in scale.folds) <= timeline.MOST_FOLDED + 0.001


def test_the_logarithmic_scale_shows_milliseconds_beside_weeks() -> None:
    scale = timeline.log_scale(at(0), at(7 * 86_400))
    assert scale.place(at(7 * 86_400)) == 100
    assert scale.place(at(10)) - scale.place(at(0)) > 10


def drawn(
    steps: list[Step], attempts: Sequence[Attempt] = (), scale: str = "fold", run_for: float = 100
) -> timeline.Timeline:
    run = Run(created_at=at(0), started_at=at(0), finished_at=at(run_for), status=Run.Status.SUCCESS)
    window = timeline.whole_window(run, steps, at(run_for), scale)
    return timeline.draw(run, steps, attempts, window, at(run_for), at(0))


def test_a_bar_says_in_words_what_it_shows() -> None:
    one = step(start=2, end=4.1, name="charge", status=Step.Status.FAILED, attempts=3, error="CardError: no\nmore")
    (group,) = drawn([one]).groups
    (row,) = group.rows
    assert row.label == "charge, failed, 3 attempts, 4.1 s"
    assert 'aria-label="charge, failed, 3 attempts, 4.1 s"' in row.svg
    assert "queued 2.0 s, running 2.1 s" in row.detail
    assert "from 2030-05-01 12:00:00.000 to 2030-05-01 12:00:04.100" in row.detail
    assert row.detail.endswith("CardError: no")


def test_parallel_branches_stand_in_one_box() -> None:
    steps = [step(1), *(step(number, concurrent=3) for number in (2, 3, 4)), *(step(n, concurrent=2) for n in (5, 6))]
    groups = drawn(steps).groups
    assert [(group.parallel, len(group.rows)) for group in groups] == [(1, 1), (3, 3), (2, 2)]
    assert groups[1].title == "3 steps in parallel"


@pytest.mark.parametrize("kind", [Run.TriggerKind.RESUME, Run.TriggerKind.FORK])
def test_steps_of_an_earlier_run_have_no_bar(kind: str) -> None:
    day = 86_400
    done = [step(1, 0, 2), step(2, 2, 4, concurrent=2)]
    own = [step(3, day + 5, day + 6, concurrent=2), step(4, day + 7, day + 9)]
    run = Run(created_at=at(day), finished_at=at(day + 10), status=Run.Status.SUCCESS, trigger_kind=kind)
    window = timeline.whole_window(run, [*done, *own], at(day + 10), "linear")
    assert (window.start, window.end) == (at(day), at(day + 10))
    picture = timeline.draw(run, [*done, *own], [], window, at(day + 10), at(day))
    assert [(row.step.step_id, row.length) for row in picture.taken_over] == [(1, "2.0 s"), (2, "2.0 s")]
    assert [(group.parallel, [row.step.step_id for row in group.rows]) for group in picture.groups] == [
        (2, [3]),
        (1, [4]),
    ]
    # They waited in a queue since the run was made, and not since the earlier run's last step ended.
    assert [(piece.kind, piece.x, piece.width) for piece in picture.groups[0].rows[0].pieces] == [
        (QUEUED, 0, 50),
        (RUNNING, 50, 10),
    ]


def test_a_sleep_that_an_earlier_run_began_goes_on_from_the_left_edge() -> None:
    run = Run(created_at=at(100), status=Run.Status.SLEEPING, trigger_kind=Run.TriggerKind.RESUME)
    asleep = step(1, 10, None, step_type="SleepFor", status=Step.Status.SLEEPING)
    picture = timeline.draw(run, [asleep], [], timeline.whole_window(run, [asleep], at(200), "fold"), at(200), at(100))
    assert picture.taken_over == []
    assert [(piece.kind, piece.x, piece.width) for piece in picture.groups[0].rows[0].pieces] == [(SLEEPING, 0, 100)]


@pytest.mark.parametrize("scale", timeline.SCALES)
@pytest.mark.parametrize("length", [0.004, 3, 90_000, 3_000_000])
def test_bars_and_ticks_stay_inside_and_apart(scale: str, length: float) -> None:
    part = length / 500
    steps = [step(number, number * part, (number + 1) * part) for number in range(1, 500)]
    picture = drawn(steps, scale=scale, run_for=length)
    for row in (row for group in picture.groups for row in group.rows):
        for piece in row.pieces:
            assert piece.width > 0
            assert piece.x >= 0
            assert piece.x + piece.width <= 100.001
    places = [tick.x for tick in picture.ticks]
    assert places == sorted(places)
    assert all(after - before >= timeline.TICK_DISTANCE for before, after in pairwise(places))
    assert picture.ticks[0].text == "0"


def zoom(**query: str) -> Zoom:
    whole = Window(at(0), at(100), "linear", origin=at(0))
    return Zoom.of(RequestFactory().get("/", query), whole)


def test_zooming_in_and_out_and_sideways() -> None:
    half = zoom(**{"from": "25000", "to": "75000"})
    assert (half.window.start, half.window.end) == (at(25), at(75))
    links = half.links(timeline.linear_scale(half.window.start, half.window.end))
    assert "from=37500&to=62501" in links["inner"]
    assert links["outer"] == links["fit"] == "?view=timeline&scale=linear"
    assert "from=0&to=50001" in links["before"]
    assert "from=50000&to=100001" in links["after"]


@pytest.mark.parametrize(
    "query", [{}, {"from": "x", "to": "5"}, {"from": "9", "to": "5"}, {"from": "999999", "to": "9999999"}]
)
def test_an_address_that_names_no_part_shows_everything(query: dict[str, str]) -> None:
    assert not zoom(**query).is_zoomed
