from __future__ import annotations

import math
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_workflow.protocol.durations import (
    format_duration,
    parse_duration,
    parse_go_duration,
    parse_retry_after,
    to_seconds,
)

DURATIONS = [
    ("10s", 10),
    ("7d", 604_800),  # a day is 86 400 s
    ("1d10h30m", 124_200),  # units combine
    ("30m1h", 5_400),  # in any order
    ("90", 90),  # no unit: seconds (SDKs send a call's timeout like this)
    ("1.5", 1.5),  # … which JavaScript may have made a fraction
    ("1.5h", 5_400),  # Go's parser takes fractions, so they may arrive
    (" 5m ", 300),  # header values keep blanks
    (0, 0),
    (1.5, 1.5),
    (timedelta(days=1), 86_400),
]


@pytest.mark.parametrize(("value", "seconds"), DURATIONS)
def test_parse_duration_takes_every_documented_form(value: str | int | float | timedelta, seconds: float) -> None:
    assert parse_duration(value) == timedelta(seconds=seconds)
    assert to_seconds(value) == seconds


@pytest.mark.parametrize(
    "value",
    [
        "",  # nothing
        "s",  # a unit alone
        "10w",  # no such unit
        "10S",  # units are lower case
        "-5s",  # the past
        "5s 3m",  # a blank inside
        "٣s",  # digits of another script
        "1e3",  # not a plain number
        "9" * 40 + "d",  # longer than a timedelta can be
        "1s" * 100,  # absurdly long text
        -1,
        math.nan,
        math.inf,
        1e30,
        timedelta(seconds=-1),
    ],
)
def test_parse_duration_refuses_what_is_no_length_of_time(value: str | float | timedelta) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(value)


@pytest.mark.parametrize("value", [True, None, [], b"5s"])
def test_parse_duration_refuses_other_types(value: object) -> None:
    with pytest.raises(TypeError, match="timedelta, seconds"):
        parse_duration(value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (90, "90s"),
        (0.2, "1s"),  # up: a wait is never shorter than asked for
        (10.000000001, "10s"),  # float noise is not a second
        (86_400 * 365, "31536000s"),
    ],
)
def test_format_duration_writes_whole_seconds(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize("seconds", [-1, math.nan, math.inf])
def test_format_duration_refuses_what_cannot_be_written(seconds: float) -> None:
    with pytest.raises(ValueError, match="duration"):
        format_duration(seconds)


@given(st.integers(0, 10**9))
def test_format_and_parse_are_inverse(seconds: int) -> None:
    assert to_seconds(format_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("6m5s", 365),
        ("1.5s", 1.5),
        ("120ms", 0.12),
        ("3us", 3e-6),
        ("3µs", 3e-6),  # micro sign
        ("3μs", 3e-6),  # Greek letter
        ("5ns", 5e-9),
        ("-3s", -3),
        ("0", 0),
        ("2d", 172_800),  # not Go, but SDK users may write it
    ],
)
def test_parse_go_duration_reads_every_unit(text: str, seconds: float) -> None:
    assert parse_go_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "s", "1x", "1h-5m", "٣s"])
def test_parse_go_duration_refuses_other_text(text: str) -> None:
    with pytest.raises(ValueError, match="Go duration"):
        parse_go_duration(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120),
        ("0", 0),  # at once
        ("0.25", 0.25),  # reset headers of API providers
        ("6m5s", 365),
        ("-6m5s", 0),  # the past is now
        ("Thu, 01 Jan 1970 00:20:00 GMT", 200),
        ("Thu, 01 Jan 1970 00:20:00 -0000", 200),  # "zone unknown" is UTC
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),  # the past is now
    ],
)
def test_parse_retry_after_reads_seconds_dates_and_durations(text: str, seconds: float) -> None:
    assert parse_retry_after(text, now=1000.0) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-5", "Thu, 99 Jan 1970", "1" * 200])
def test_parse_retry_after_refuses_other_text(text: str) -> None:
    with pytest.raises(ValueError, match="try again"):
        parse_retry_after(text, now=1000.0)
