"""The histogram above the run list: how many runs were created when, by what became of them.

Takes the list's own query and gives bars in thousandths of the picture's height, each with the address that narrows the
list to it. It is the list's way through time too: from years down to minutes. Counted are the newest `LARGEST` runs of
the list, in two queries.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import models
from django.db.models import Count, Func, Max, Min
from django.utils import formats, timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from django_workflow.models import Run

LARGEST = 100_000
HEIGHT = 1000
MOST_BARS = 60

ACTIVE = "active"
SEGMENTS = (Run.Status.SUCCESS, Run.Status.FAILED, Run.Status.CANCELED, ACTIVE)

_DAY = 86_400
# Seconds of a bar, and how much of an instant tells its bar: `2030-01-31 12:30`.
_WIDTHS = (
    (60, 16),
    (300, 16),
    (900, 16),
    (3600, 13),
    (3 * 3600, 13),
    (6 * 3600, 13),
    (_DAY, 13),
    (7 * _DAY, 10),
    (28 * _DAY, 10),
)
_PARTS = {16: "minute", 13: "hour", 10: "day"}
_MYSQL = {16: "%%Y-%%m-%%d %%H:%%i", 13: "%%Y-%%m-%%d %%H", 10: "%%Y-%%m-%%d"}

# Instant (or its beginning, as text) and status -> how many runs.
Counts = Iterable[tuple[datetime | str, str, int]]


@dataclass(frozen=True, slots=True)
class Summary:
    """How many runs a list has (no more than `LARGEST` are counted), and when the first and the last were created."""

    count: int
    first: datetime | None
    last: datetime | None

    @property
    def is_cut(self) -> bool:
        return self.count >= LARGEST


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a bar: from `top`, as high as `height`, in thousandths of the picture."""

    status: str
    top: int
    height: int


@dataclass(frozen=True, slots=True)
class Bar:
    label: str
    url: str
    segments: Sequence[Segment]


@dataclass(frozen=True, slots=True)
class Legend:
    status: str
    label: str
    number: int
    url: str


@dataclass(frozen=True, slots=True)
class Histogram:
    """`first` and `last` stand below the ends of the axis; `all_url` leads back to all times ("": it shows them)."""

    bars: Sequence[Bar]
    legend: Sequence[Legend]
    first: str
    last: str
    title: str
    is_cut: bool
    all_url: str


class _Beginning(Func):
    """The beginning of an instant, in UTC, as text or as an instant: what a database can group by without a call per
    row into Python, as Django's own functions make them on SQLite."""

    output_field: models.Field[Any, Any] = models.TextField()

    def __init__(self, expression: str, length: int) -> None:
        super().__init__(expression)
        self.length = length

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        return self.as_sql(compiler, connection, template=f"SUBSTR(%(expressions)s, 1, {self.length})")

    def as_postgresql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        part = _PARTS[self.length]
        return self.as_sql(compiler, connection, template=f"DATE_TRUNC('{part}', %(expressions)s, 'UTC')")

    def as_mysql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        form = _MYSQL[self.length].replace("%%", "%%%%")
        return self.as_sql(compiler, connection, template=f"DATE_FORMAT(%(expressions)s, '{form}')")


def summarize(runs: models.QuerySet[Run]) -> Summary:
    """One query, over the newest runs of the list."""
    newest = runs.order_by("-created_at").values("created_at")[:LARGEST]
    found = newest.aggregate(count=Count("*"), first=Min("created_at"), last=Max("created_at"))
    return Summary(**found)


def counts(runs: models.QuerySet[Run], summary: Summary) -> Counts:
    """How many runs per status and the finest time that bars of this length need; one query."""
    if summary.first is None or summary.last is None:
        return []
    _seconds, length = _width(summary.first, summary.last)
    return (
        runs.order_by()
        .filter(created_at__gte=summary.first)
        .annotate(beginning=_Beginning("created_at", length))
        .values_list("beginning", "status")
        .annotate(number=Count("*"))
    )


def draw(
    counted: Counts, summary: Summary, *, url: Callable[[Mapping[str, str | None]], str], narrowed: bool
) -> Histogram | None:
    """The picture; None without runs. `url` gives the list's address with other parameters (None: without it)."""
    if summary.first is None or summary.last is None:
        return None
    seconds, _length = _width(summary.first, summary.last)
    numbers: dict[datetime, Counter[str]] = {}
    totals: Counter[str] = Counter()
    for beginning, status, number in counted:
        segment = status if status in Run.FINAL else ACTIVE
        numbers.setdefault(_bar_start(_instant(beginning), seconds), Counter())[segment] += number
        totals[segment] += number
    starts = _starts(summary.first, summary.last, seconds)
    highest = max((sum(number.values()) for number in numbers.values()), default=1)
    bars = [_bar(start, seconds, numbers.get(start, Counter()), highest, url) for start in starts]
    without_time = url(TIME_PARAMETERS)
    return Histogram(
        bars=bars,
        legend=[_legend(segment, totals[segment], url) for segment in SEGMENTS if totals[segment]],
        first=_date_text(summary.first, seconds),
        last=_date_text(summary.last, seconds),
        title=_title(summary, seconds),
        is_cut=summary.is_cut,
        all_url=without_time if narrowed else "",
    )


TIME_PARAMETERS: dict[str, str | None] = dict.fromkeys(
    ("created_at__gte", "created_at__lt", "created_at__year", "created_at__month", "created_at__day", "p")
)


def _title(summary: Summary, seconds: int) -> str:
    assert summary.first is not None
    assert summary.last is not None
    if summary.is_cut:
        return _("The newest %(count)s runs, created since %(first)s") % {
            "count": formats.number_format(summary.count, force_grouping=True),
            "first": _date_text(summary.first, seconds),
        }
    text = ngettext("%(count)s run", "%(count)s runs", summary.count)
    return text % {"count": formats.number_format(summary.count, force_grouping=True)}


def _bar(
    start: datetime, seconds: int, numbers: Counter[str], highest: int, url: Callable[[Mapping[str, str | None]], str]
) -> Bar:
    end = _next_start(start, seconds)
    segments, top = [], HEIGHT
    for segment in SEGMENTS:
        if number := numbers[segment]:
            # What is little is still to be seen.
            height = max(round(number / highest * HEIGHT), 12)
            top -= height
            segments.append(Segment(segment, max(top, 0), height))
    total = sum(numbers.values())
    words = [ngettext("%d run", "%d runs", total) % total]
    words += [f"{numbers[segment]} {_segment_text(segment).lower()}" for segment in SEGMENTS if numbers[segment]]
    period = {"created_at__gte": start.isoformat(), "created_at__lt": end.isoformat()}
    return Bar(
        label=f"{_date_text(start, seconds)}: {', '.join(words)}" if total else "",
        url=url({**TIME_PARAMETERS, **period}) if total else "",
        segments=segments,
    )


def _legend(segment: str, number: int, url: Callable[[Mapping[str, str | None]], str]) -> Legend:
    return Legend(segment, _segment_text(segment), number, url({"status": segment, "p": None}))


def _segment_text(segment: str) -> str:
    return _("Active") if segment == ACTIVE else str(Run.Status(segment).label)


def _width(first: datetime, last: datetime) -> tuple[int, int]:
    """The narrowest bars of which no more than `MOST_BARS` are needed."""
    span = (last - first).total_seconds()
    return next((width for width in _WIDTHS if span / width[0] < MOST_BARS), _WIDTHS[-1])


def _instant(beginning: datetime | str) -> datetime:
    if isinstance(beginning, datetime):
        return beginning
    return datetime.fromisoformat(beginning + ":00" * (len(beginning) == 13)).replace(tzinfo=UTC)


def _bar_start(instant: datetime, seconds: int) -> datetime:
    """Where the bar of this instant begins, by the reader's clock: hours of the day, days, weeks, months."""
    local = timezone.localtime(instant)
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0)
    if seconds >= 28 * _DAY:
        return midnight.replace(day=1)
    if seconds == 7 * _DAY:
        return _at_midnight(midnight - timedelta(days=local.weekday()))
    if seconds == _DAY:
        return midnight
    since = local.hour * 3600 + local.minute * 60 + local.second
    since -= since % seconds
    return local.replace(hour=since // 3600, minute=since % 3600 // 60, second=0, microsecond=0)


def _next_start(start: datetime, seconds: int) -> datetime:
    if seconds >= 28 * _DAY:
        return _at_midnight((start + timedelta(days=32)).replace(day=1))
    if seconds >= _DAY:
        return _at_midnight(start + timedelta(days=seconds // _DAY))
    # In UTC: on the day that clocks change an hour is there twice, or not at all.
    following, end = start, start.astimezone(UTC)
    while following <= start:
        end += timedelta(seconds=seconds)
        following = _bar_start(end, seconds)
    return following


def _at_midnight(instant: datetime) -> datetime:
    """Midnight of that day, with the day's own offset."""
    return timezone.make_aware(instant.replace(tzinfo=None, hour=0, minute=0, second=0, microsecond=0))


def _starts(first: datetime, last: datetime, seconds: int) -> list[datetime]:
    """The starts of all bars from the first run to the last."""
    starts = [_bar_start(first, seconds)]
    while (following := _next_start(starts[-1], seconds)) <= last and len(starts) < 4 * MOST_BARS:
        starts.append(following)
    return starts


def _date_text(instant: datetime, seconds: int) -> str:
    local = timezone.localtime(instant)
    if seconds >= 28 * _DAY:
        return formats.date_format(local, "YEAR_MONTH_FORMAT")
    if seconds >= _DAY:
        return formats.date_format(local, "DATE_FORMAT")
    return formats.date_format(local, "SHORT_DATETIME_FORMAT")
