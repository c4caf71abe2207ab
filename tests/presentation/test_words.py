from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone, translation

from django_workflow.models import Run, Step
from django_workflow.presentation.words import first_line, instant_text, progress_text, short_run_id
from django_workflow.realtime.lengths import length_text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0 ms"),  # clocks of two machines
        (0, "0 ms"),
        (0.3401, "340 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1.0 s"),
        (2.14, "2.1 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min"),
        (200, "3 min 20 s"),
        (3600, "1 h"),
        (3600 + 59, "1 h"),  # two units next to each other, no more
        (7500, "2 h 5 min"),
        (6 * 86400 + 3 * 3600 + 59, "6 d 3 h"),
        (400 * 86400, "400 d"),
    ],
)
def test_a_length_is_told_in_its_two_greatest_units(seconds: float, text: str) -> None:
    assert length_text(timedelta(seconds=seconds)) == text


def test_a_length_is_told_in_the_readers_language() -> None:
    with translation.override("de"):
        assert length_text(timedelta(seconds=2.1)) == "2,1 s"


def test_an_instant_is_told_as_exactly_as_it_is_near() -> None:
    now = datetime(2030, 5, 1, 22, 30, tzinfo=UTC)
    with timezone.override("Europe/Berlin"):  # where May 2 has begun
        assert instant_text(now + timedelta(seconds=70), now) == "00:31:10"
        assert instant_text(now + timedelta(hours=1), now) == "1:30 a.m."
        assert instant_text(now - timedelta(hours=1), now) == "May 1, 2030, 11:30 p.m."


@pytest.mark.parametrize(
    ("run", "steps", "text"),
    [
        (Run(), 1, "1 step"),
        (Run(), 3, "3 steps"),
        (Run(progress_total=500, progress_done=120), 3, "120 of 500"),
        (Run(status=Run.Status.FAILED, error_step="charge"), 3, "3 steps, failed: charge"),
    ],
)
def test_progress_counts_what_is_known(run: Run, steps: int, text: str) -> None:
    assert progress_text(run, steps) == text


def test_progress_names_the_open_steps_of_a_run_that_goes_on() -> None:
    steps = [Step(name="approval", status=Step.Status.WAITING), Step(name="charge", status=Step.Status.RETRYING)]
    assert progress_text(Run(), 2, steps) == "2 steps, waiting: approval, retrying: charge"


def test_long_texts_are_cut() -> None:
    assert first_line("one\ntwo") == "one"
    assert first_line("x" * 300, 10) == "x" * 9 + "…"
    assert short_run_id("wfr_abcdefghi") == "wfr_abcdefghi"
    assert short_run_id("wfr_abcdefghijk") == "wfr_abcdefgh…"
