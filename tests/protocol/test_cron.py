from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_workflow.protocol.cron import NAMED, check_cron, next_occurrence, split_timezone, with_timezone


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("expression", "after", "zone", "expected"),
    [
        ("*/5 * * * *", "2026-01-01T00:03:20", "UTC", "2026-01-01T00:05"),
        ("*/5 * * * *", "2026-01-01T00:05:00", "UTC", "2026-01-01T00:10"),  # later than `after`, never equal
        ("0 9 * * MON-FRI", "2026-01-02T09:00", "UTC", "2026-01-05T09:00"),  # over a weekend
        ("@daily", "2026-01-01T12:00", "UTC", "2026-01-02T00:00"),
        ("@Weekly", "2026-01-01T12:00", "UTC", "2026-01-04T00:00"),  # names in any case
        ("0 9 * * *", "2026-01-01T00:00", "Asia/Tokyo", "2026-01-02T00:00"),  # 9 in Tokyo is midnight UTC
        ("CRON_TZ=Asia/Tokyo 0 9 * * *", "2026-01-01T00:00", "UTC", "2026-01-02T00:00"),  # the zone inside wins
        ("TZ=Asia/Tokyo 0 9 * * *", "2026-01-01T00:00", "Europe/Paris", "2026-01-02T00:00"),
        ("CRON_TZ=Asia/Tokyo @daily", "2026-01-01T00:00", "UTC", "2026-01-01T15:00"),
        ("0 0 L * *", "2026-02-01T00:00", "UTC", "2026-02-28T00:00"),  # the month's last day
        ("0 0 29 2 *", "2026-01-01T00:00", "UTC", "2028-02-29T00:00"),  # a leap day
        # The hour that does not exist in spring: when the gap ends.
        ("30 2 * * *", "2026-03-28T12:00", "Europe/Berlin", "2026-03-29T01:00"),
        # The hour that comes twice in autumn: at its first pass …
        ("30 2 * * *", "2026-10-24T12:00", "Europe/Berlin", "2026-10-25T00:30"),
        # … and not again at its second.
        ("30 2 * * *", "2026-10-25T00:30", "Europe/Berlin", "2026-10-26T01:30"),
        ("30 2 * * *", "2026-10-25T01:10", "Europe/Berlin", "2026-10-26T01:30"),
        # Every half hour is about passing time, so both passes count.
        ("*/30 * * * *", "2026-10-25T00:30", "Europe/Berlin", "2026-10-25T01:00"),
    ],
)
def test_the_next_occurrence_is_in_utc_and_later(expression: str, after: str, zone: str, expected: str) -> None:
    assert next_occurrence(expression, utc(after), zone) == utc(expected)


def test_after_may_be_in_any_zone() -> None:
    after = datetime(2026, 1, 1, 2, 0, tzinfo=timezone(timedelta(hours=2)))
    assert next_occurrence("@hourly", after) == utc("2026-01-01T01:00")
    assert next_occurrence("@hourly", after).tzinfo is UTC


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("", "needs five fields"),
        ("* * * *", "needs five fields"),
        ("* * * * * *", "needs five fields"),  # seconds are not offered
        ("@every 1h", "the names are"),  # an interval is not cron
        ("@reboot", "the names are"),
        ("60 * * * *", "Bad minute"),
        ("* * * * funday", "Bad day-of-week"),
        ("0 0 30 2 *", "Bad day-of-month"),  # a date that never comes
        ("CRON_TZ=Mars/Olympus * * * * *", "is no time zone"),
        ("CRON_TZ=Europe * * * * *", "is no time zone"),  # a folder of zones
        ("CRON_TZ=../etc/passwd * * * * *", "is no time zone"),
        ("CRON_TZ= * * * * *", "is no time zone"),
        ("*" * 600, "512 characters"),
        ("0 0 */30 2 SUN#5", "never occurs"),  # a fifth Sunday is never the first day
    ],
)
def test_check_cron_says_what_is_wrong(expression: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        check_cron(expression)


def test_an_unknown_time_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="'Mars/Olympus' is no time zone"):
        check_cron("@daily", "Mars/Olympus")


def test_a_naive_datetime_is_refused() -> None:
    with pytest.raises(ValueError, match="aware"):
        next_occurrence("@daily", datetime(2026, 1, 1))


def test_split_and_with_timezone_are_inverse() -> None:
    assert split_timezone(" CRON_TZ=Asia/Tokyo  0 9 * * * ") == ("0 9 * * *", "Asia/Tokyo")
    assert split_timezone("0 9 * * *") == ("0 9 * * *", None)
    assert with_timezone("0 9 * * *", "Asia/Tokyo") == "CRON_TZ=Asia/Tokyo 0 9 * * *"
    assert with_timezone("CRON_TZ=Asia/Tokyo 0 9 * * *", "Europe/Paris") == "CRON_TZ=Asia/Tokyo 0 9 * * *"
    assert with_timezone("0 9 * * *", "UTC") == "0 9 * * *"
    # The hosted engine knows no names.
    assert with_timezone("@daily", "Asia/Tokyo") == "CRON_TZ=Asia/Tokyo 0 0 * * *"


@given(
    st.sampled_from([*NAMED, "30 2 * * *", "*/7 * * * *", "15 */2 1 * *", "0 3 * * SUN#2"]),
    st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)),
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]),
)
def test_occurrences_always_move_forward(expression: str, after: datetime, zone: str) -> None:
    first = next_occurrence(expression, after, zone)
    assert after < first < next_occurrence(expression, first, zone)
