from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

import pytest

from django_workflow.engine.backoff import default_delay, retry_delay

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("retry", "seconds"),
    [
        (1, 12),
        (2, 148),  # 2 m 28 s
        (3, 1_808),  # 30 m 8 s
        (4, 22_026),  # 6 h 7 m
        (5, 86_400),  # a day, and no more
        (6, 86_400),
        (100_000, 86_400),  # e^250000 is no float
    ],
)
def test_default_delay_grows_to_a_day(retry: int, seconds: int) -> None:
    assert int(default_delay(retry).total_seconds()) == seconds


@pytest.mark.parametrize("retry", [0, -1])
def test_default_delay_counts_from_one(retry: int) -> None:
    with pytest.raises(ValueError, match="number 1"):
        default_delay(retry)


def test_retry_delay_is_the_default_when_nobody_asks_for_another() -> None:
    assert retry_delay(0, None, {}, NOW) == default_delay(1)
    assert retry_delay(3, None, {"Content-Type": ["text/plain"]}, NOW) == default_delay(4)


@pytest.mark.parametrize(
    ("expression", "retried", "delay"),
    [
        ("1000", 0, timedelta(seconds=1)),
        ("5000 * retried", 0, timedelta(0)),  # the first retry is made at once
        ("pow(2, retried) * 1000", 3, timedelta(seconds=8)),
        ("1e12", 0, DAY),  # never longer than a day
        ("-5", 0, timedelta(0)),
    ],
)
def test_an_expression_gives_milliseconds(expression: str, retried: int, delay: timedelta) -> None:
    assert retry_delay(retried, expression, {}, NOW) == delay


@pytest.mark.parametrize("expression", ["1000 / retried", "sqrt(retried - 1)", "nonsense("])
def test_an_expression_without_a_value_gives_the_default(expression: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "django_workflow.engine"):
        assert retry_delay(0, expression, {}, NOW) == default_delay(1)
    assert "default backoff" in caplog.text


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7),
        ("0", 0),  # at once
        ("1.5s", 1.5),
        ("6m5s", 365),
        ("Tue, 01 Jan 2030 12:00:30 GMT", 30),
        ("Tue, 01 Jan 2030 11:00:00 GMT", 0),  # the past
        ("86400", 86_400),  # a whole day still counts
    ],
)
def test_the_answer_decides_over_the_expression(value: str, seconds: float) -> None:
    assert retry_delay(0, "9000", {"Retry-After": [value]}, NOW) == timedelta(seconds=seconds)


@pytest.mark.parametrize("value", ["86401", "2d", "Fri, 04 Jan 2030 12:00:00 GMT", "soon", "", "-5"])
def test_an_answer_that_asks_for_more_than_a_day_or_nonsense_is_ignored(value: str) -> None:
    assert retry_delay(0, "9000", {"Retry-After": [value]}, NOW) == timedelta(seconds=9)
    assert retry_delay(0, None, {"Retry-After": [value]}, NOW) == default_delay(1)


def test_headers_are_looked_up_in_their_order() -> None:
    headers = {
        "X-Ratelimit-Reset-Tokens": ["4"],
        "X-Ratelimit-Reset-Requests": ["3"],
        "X-Ratelimit-Reset": ["2"],
        "Retry-After": ["1"],
    }
    delays = []
    for name in ("Retry-After", "X-Ratelimit-Reset", "X-Ratelimit-Reset-Requests", "X-Ratelimit-Reset-Tokens"):
        delays.append(retry_delay(0, None, headers, NOW).total_seconds())
        del headers[name]
    assert delays == [1, 2, 3, 4]


def test_the_next_header_answers_for_one_that_says_nothing_usable() -> None:
    unix_time = str(int(NOW.timestamp()) + 30)
    headers = {"retry-after": [], "X-RateLimit-Reset": [unix_time], "x-ratelimit-reset-requests": ["5s", "9s"]}
    assert retry_delay(0, None, headers, NOW) == timedelta(seconds=5)
