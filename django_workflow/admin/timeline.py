"""A run's steps on a line of time: what each did when, as numbers for a picture.

Takes rows and instants and gives places in per cent of the width; templates draw them. A bar is split into what the
step did: it was queued, ran, backed off between attempts, waited or slept. Three scales keep milliseconds and weeks
readable: `fold` cuts out stretches of more than a minute in which nothing ran, `linear` leaves them in, `log` gives
each power of ten the same room.

A run that goes on with another, or forks it, took steps over that were done before it was made. They have no bar: the
line of time is this run's own.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import groupby

from django.utils import timezone
from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from django_workflow.admin.status import status_icon
from django_workflow.models import Attempt, Run, Step
from django_workflow.presentation.words import first_line
from django_workflow.protocol.steps import StepType
from django_workflow.realtime.lengths import length_text

SCALES = ("fold", "linear", "log")

QUEUED, RUNNING, BACKOFF, WAITING, SLEEPING = "queued", "running", "backoff", "waiting", "sleeping"

_WAITS = (StepType.WAIT, StepType.WAIT_FOR_WEBHOOK, StepType.INVOKE)
_SLEEPS = (StepType.SLEEP_FOR, StepType.SLEEP_UNTIL)

FOLDED_ABOVE = timedelta(seconds=60)
FOLD_WIDTH, MOST_FOLDED = 6.0, 40.0
NARROWEST = 0.3
TICK_DISTANCE = 12.0

_NICE_SECONDS = (
    *(factor * 10.0**power for power in range(-4, 2) for factor in (1, 2, 5) if factor * 10.0**power < 60),
    *(minutes * 60.0 for minutes in (1, 2, 5, 10, 15, 30)),
    *(hours * 3600.0 for hours in (1, 2, 3, 6, 12)),
    *(days * 86_400.0 for days in (1, 2, 7, 14, 28, 56, 112, 365)),
)


# Spans of time


@dataclass(frozen=True, slots=True)
class Span:
    """What a step did for a while."""

    kind: str
    start: datetime
    end: datetime

    @property
    def length(self) -> timedelta:
        return self.end - self.start


def spans_of(step: Step, attempts: Sequence[Attempt], since: datetime | None, now: datetime) -> list[Span]:
    """What the step did, in order. `attempts` are its failed ones; `since` is when it could have begun at the earliest,
    for steps of which only their end as queued is noted."""
    begun = attempts[0].started_at if attempts else step.started_at
    end = step.finished_at or now
    if begun is None:
        queued = step.queued_at or since
        return [Span(QUEUED, queued, end)] if queued and queued < end else []
    spans = []
    queued = step.queued_at if step.queued_at and step.queued_at <= begun else since
    if queued is not None and queued < begun:
        spans.append(Span(QUEUED, queued, begun))
    for index, attempt in enumerate(attempts):
        spans.append(Span(RUNNING, attempt.started_at, attempt.finished_at))
        is_last = index == len(attempts) - 1
        again = _again(step, attempt, now) if is_last else attempts[index + 1].started_at
        if again > attempt.finished_at:
            spans.append(Span(BACKOFF, attempt.finished_at, again))
    last_start = max(step.started_at or begun, spans[-1].end) if attempts else begun
    is_over = attempts and (step.status == Step.Status.RETRYING or last_start >= end)
    if not is_over:
        kind = SLEEPING if step.step_type in _SLEEPS else WAITING if step.step_type in _WAITS else RUNNING
        spans.append(Span(kind, last_start, max(end, last_start)))
    return spans


def _again(step: Step, attempt: Attempt, now: datetime) -> datetime:
    """When the attempt after the last failed one began, or begins: it is the step's own if the step went on."""
    if attempt.retry_at is None:
        return attempt.finished_at
    if step.started_at is not None and step.started_at > attempt.started_at:
        return step.started_at
    return min(attempt.retry_at, now)


# Scales: an instant -> its place in per cent of the width, and back


@dataclass(frozen=True, slots=True)
class Fold:
    """A stretch that is cut out: where it stands, and how long it is."""

    x: float
    width: float
    seconds: float
    text: str


@dataclass(frozen=True)
class Scale:
    """A line through points (seconds since `start`, per cent), straight in between."""

    start: datetime
    points: Sequence[tuple[float, float]]
    folds: Sequence[Fold] = ()

    def place(self, instant: datetime) -> float:
        return _between(self.points, (instant - self.start).total_seconds(), 0, 1)

    def instant(self, share: float) -> datetime:
        """The instant at a place in per cent."""
        return self.start + timedelta(seconds=_between(self.points, share, 1, 0))


def _between(points: Sequence[tuple[float, float]], value: float, known: int, wanted: int) -> float:
    index = min(max(bisect_right(points, value, key=lambda point: point[known]), 1), len(points) - 1)
    before, after = points[index - 1], points[index]
    width = after[known] - before[known]
    share = (value - before[known]) / width if width else 0.0
    return before[wanted] + min(max(share, 0.0), 1.0) * (after[wanted] - before[wanted])


def linear_scale(start: datetime, end: datetime) -> Scale:
    return Scale(start, [(0.0, 0.0), (_seconds(start, end), 100.0)])


def log_scale(start: datetime, end: datetime) -> Scale:
    """As straight pieces, fine enough for the eye: from a thousandth of the length, at most a second, upwards."""
    total = _seconds(start, end)
    unit = min(max(total / 1000, 0.001), 1.0)
    whole = math.log1p(total / unit)
    shares = [step / 100 for step in range(101)]
    return Scale(start, [(unit * math.expm1(share * whole), share * 100) for share in shares])


def folded_scale(start: datetime, end: datetime, busy: Iterable[Span]) -> Scale:
    """Without the stretches in which nothing ran, if they are long. Each leaves a strip of its own."""
    gaps = _gaps(start, end, busy)
    if not gaps:
        return linear_scale(start, end)
    width = min(FOLD_WIDTH, MOST_FOLDED / len(gaps))
    shown = _seconds(start, end) - sum(_seconds(*gap) for gap in gaps)
    each = (100 - width * len(gaps)) / shown if shown > 0 else 0.0
    points, folds, x, at = [(0.0, 0.0)], [], 0.0, start
    for gap_start, gap_end in gaps:
        x += (gap_start - at).total_seconds() * each
        folds.append(Fold(x, width, _seconds(gap_start, gap_end), _roughly(gap_end - gap_start)))
        points += [((gap_start - start).total_seconds(), x), ((gap_end - start).total_seconds(), x + width)]
        x, at = x + width, gap_end
    return Scale(start, [*points, (_seconds(start, end), 100.0)], folds)


def _gaps(start: datetime, end: datetime, busy: Iterable[Span]) -> list[tuple[datetime, datetime]]:
    gaps, free_from = [], start
    # A little of each side stays, so that it is seen what goes on.
    margin = timedelta(seconds=1)
    for span in [*sorted(busy, key=lambda span: span.start), Span(RUNNING, end, end)]:
        if span.start - free_from > FOLDED_ABOVE:
            gaps.append((free_from + margin, min(span.start, end) - margin))
        free_from = max(free_from, span.end)
    is_everything = len(gaps) == 1 and _seconds(*gaps[0]) >= _seconds(start, end) - 2.5
    return [] if is_everything else gaps


def _roughly(length: timedelta) -> str:
    """A length in its greatest unit: `6 d`."""
    for unit in (timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)):
        if length >= unit:
            return length_text(round(length / unit) * unit)
    return length_text(length)


def _seconds(start: datetime, end: datetime) -> float:
    return max((end - start).total_seconds(), 0.001)


# The picture


@dataclass(frozen=True, slots=True)
class Tick:
    x: float
    text: str


@dataclass(frozen=True, slots=True)
class Piece:
    kind: str
    x: float
    width: float
    text: str


@dataclass(frozen=True, slots=True)
class Row:
    """`marks` are the starts of attempts after the first; `label` says all of it to those who do not see it."""

    step: Step
    pieces: Sequence[Piece]
    marks: Sequence[float]
    length: str
    label: str
    detail: str

    @property
    def icon(self) -> SafeString:
        return status_icon(self.step.status, self.step.get_status_display())

    @property
    def svg(self) -> SafeString:
        """The bar. Written here and not by a template, which would take half a second for 500 of them."""
        rects = "".join(_rect(piece, self.step.status) for piece in self.pieces)
        lines = "".join(f'<line class="wfa-tl-mark" x1="{x:.3f}%" x2="{x:.3f}%" y1="1" y2="19"/>' for x in self.marks)
        return mark_safe(
            f'<svg class="wfa-tl-bar" width="100%" height="20" role="img" aria-label="{escape(self.label)}">'
            f"{rects}{lines}</svg>"
        )


def _rect(piece: Piece, status: str) -> str:
    fill = "" if piece.kind == RUNNING else f' fill="url(#wfa-p-{piece.kind})"'
    return (
        f'<rect class="wfa-k-{piece.kind} wfa-s-{status}" x="{piece.x:.3f}%" width="{piece.width:.3f}%" y="4" '
        f'height="12"{fill}><title>{escape(piece.text)}</title></rect>'
    )


@dataclass(frozen=True, slots=True)
class Group:
    """Rows that belong together: one step, or the branches that ran at the same time."""

    rows: Sequence[Row]
    parallel: int

    @property
    def title(self) -> str:
        return ngettext("%d step in parallel", "%d steps in parallel", self.parallel) % self.parallel


@dataclass(frozen=True, slots=True)
class Timeline:
    """`taken_over` are the rows, without bars, of steps that an earlier run did."""

    taken_over: Sequence[Row]
    groups: Sequence[Group]
    scale: Scale
    ticks: Sequence[Tick]
    kinds: Sequence[tuple[str, str]]

    @property
    def folds(self) -> Sequence[Fold]:
        return self.scale.folds

    @property
    def points(self) -> str:
        """The scale for the browser, which turns what is dragged over into instants: JSON, milliseconds and places."""
        return json.dumps([[round(seconds * 1000, 3), round(x, 3)] for seconds, x in self.scale.points])


@dataclass(frozen=True, slots=True)
class Window:
    """What is looked at: between two instants, on one of the scales. The axis counts from `origin`."""

    start: datetime
    end: datetime
    scale: str
    origin: datetime


def whole_window(run: Run, steps: Sequence[Step], now: datetime, scale: str) -> Window:
    """From the run's creation to its end, or to now, with all that its own steps did."""
    own = [step for step in steps if not run.took_over(step)]
    start = run.created_at
    if not run.goes_on:
        start = min([start, *(step.started_at for step in own if step.started_at)])
    end = max([run.finished_at or now, *(step.finished_at for step in own if step.finished_at)])
    return Window(start, max(end, start + timedelta(milliseconds=1)), scale, origin=start)


def draw(
    run: Run, steps: Sequence[Step], attempts: Sequence[Attempt], window: Window, now: datetime, first_since: datetime
) -> Timeline:
    """The picture of these steps. `first_since` is when the first of them could have begun: the run's start, or the end
    of what came before. What the run did not take over began after it was made."""
    by_step: dict[int, list[Attempt]] = {}
    for attempt in attempts:
        if attempt.step_id is not None:
            by_step.setdefault(attempt.step_id, []).append(attempt)
    end_of_run = run.finished_at or now
    spans = {}
    since: datetime | None = first_since
    for parallel, some in groupby(steps, key=lambda step: step.concurrent > 1):
        done = []
        for step in some:
            failed = by_step.get(step.step_id, [])
            spans[step.step_id] = spans_of(step, failed, since, now=end_of_run)
            done.append(step.finished_at)
            if not parallel:
                since = step.finished_at
        if parallel:
            since = max((instant for instant in done if instant is not None), default=None)
        if since is not None and run.goes_on:
            since = max(since, run.created_at)
    own = {step.step_id for step in steps if not run.took_over(step)}
    scale = _scale(window, [span for number in own for span in spans[number] if span.kind == RUNNING])
    rows = [_row(step, spans[step.step_id], scale, window) for step in steps]
    groups = [
        replace(group, rows=kept)
        for group in _groups(rows)
        if (kept := [row for row in group.rows if row.step.step_id in own])
    ]
    shown = {piece.kind for group in groups for row in group.rows for piece in row.pieces}
    return Timeline(
        taken_over=[row for row in rows if row.step.step_id not in own],
        groups=groups,
        scale=scale,
        ticks=_ticks(scale, window),
        kinds=[(kind, words) for kind, words in kind_words().items() if kind in shown],
    )


def kind_words() -> dict[str, str]:
    return {
        QUEUED: _("queued"),
        RUNNING: _("running"),
        BACKOFF: _("backing off"),
        WAITING: _("waiting"),
        SLEEPING: _("sleeping"),
    }


def _scale(window: Window, busy: Sequence[Span]) -> Scale:
    match window.scale:
        case "log":
            return log_scale(window.start, window.end)
        case "linear":
            return linear_scale(window.start, window.end)
        case _:
            inside = [span for span in busy if span.end >= window.start and span.start <= window.end]
            return folded_scale(window.start, window.end, inside)


def _groups(rows: Sequence[Row]) -> list[Group]:
    """Branches that stand beside each other make one group of as many as they said they are."""
    groups: list[Group] = []
    left = 0
    for row in rows:
        count = row.step.concurrent
        if left and count == groups[-1].parallel:
            groups[-1] = Group([*groups[-1].rows, row], count)
            left -= 1
        else:
            groups.append(Group([row], count))
            left = count - 1
    return groups


def _row(step: Step, spans: Sequence[Span], scale: Scale, window: Window) -> Row:
    words = kind_words()
    pieces, marks, lengths = [], [], []
    for index, span in enumerate(spans):
        text = f"{words[span.kind]} {length_text(span.length)}"
        lengths.append(text)
        if span.end < window.start or span.start > window.end:
            continue
        x, end = scale.place(span.start), scale.place(span.end)
        width = max(end - x, NARROWEST)
        pieces.append(Piece(span.kind, min(x, 100 - width), width, text))
        if index and span.kind == RUNNING and spans[index - 1].kind == BACKOFF:
            marks.append(min(x, 100 - NARROWEST))
    length = length_text(spans[-1].end - spans[0].start) if spans else ""
    said = [step.name, step.get_status_display().lower()]
    if step.attempts > 1:
        said.append(ngettext("%d attempt", "%d attempts", step.attempts) % step.attempts)
    if length:
        said.append(length)
    detail = [", ".join(lengths)] if lengths else [_("It has not begun.")]
    if spans:
        detail.append(
            _("from %(start)s to %(end)s") % {"start": _exactly(spans[0].start), "end": _exactly(spans[-1].end)}
        )
    if step.error:
        detail.append(first_line(step.error, 200))
    return Row(step, pieces, marks, length, ", ".join(said), " · ".join(detail))


def _exactly(instant: datetime) -> str:
    local = timezone.localtime(instant)
    return f"{local:%Y-%m-%d %H:%M:%S}.{local.microsecond // 1000:03}"


def _ticks(scale: Scale, window: Window) -> list[Tick]:
    """Where the axis says how long it has been since the beginning."""
    total = _seconds(window.start, window.end)
    if window.scale == "log":
        candidates = [0.0, *_NICE_SECONDS]
    else:
        shown = total - sum(fold.seconds for fold in scale.folds)
        step = next((nice for nice in _NICE_SECONDS if shown / nice <= 6), shown / 4)
        edges = (seconds for seconds, _x in scale.points)
        candidates = sorted({*(number * step for number in range(7)), *(edges if scale.folds else ())})
    ticks: list[Tick] = []
    for seconds in candidates:
        x = _between(scale.points, seconds, 0, 1)
        if seconds < total * 0.98 and (not ticks or x - ticks[-1].x >= TICK_DISTANCE) and x <= 90:
            since = window.start - window.origin + timedelta(seconds=seconds)
            ticks.append(Tick(x, length_text(since) if since else "0"))
    return ticks
