"""Running times, progress and the *why* line, in the reader's language. Takes rows and instants, gives text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from django.utils import formats, timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from django_workflow.models import Delivery, Run, Step
from django_workflow.presentation.line import Hold, Place
from django_workflow.protocol.steps import StepType
from django_workflow.realtime.lengths import length_text

SHORT_RUN_ID = 12
NEAR = timedelta(hours=1)


def short_run_id(run_id: str) -> str:
    """A run id that fits a table's column: its beginning, and `…` when something was cut off."""
    return run_id if len(run_id) <= SHORT_RUN_ID + 1 else run_id[:SHORT_RUN_ID] + "…"


def running_time(row: Run | Step, now: datetime) -> timedelta | None:
    """How long a run or step took, or has been going until `now`; None before its start."""
    return (row.finished_at or now) - row.started_at if row.started_at else None


def instant_text(instant: datetime, now: datetime) -> str:
    """An instant in the reader's time zone: near ones to the second, else the time of day, else with the date."""
    local, today = timezone.localtime(instant), timezone.localtime(now).date()
    if abs(instant - now) < NEAR:
        return f"{local:%H:%M:%S}"
    if local.date() == today:
        return formats.time_format(local, "TIME_FORMAT")
    return formats.date_format(local, "DATETIME_FORMAT")


def why_text(
    run: Run,
    now: datetime,
    *,
    open_steps: Sequence[Step] = (),
    deliveries: Sequence[Delivery] = (),
    place: Place | None = None,
) -> str:
    """What the run does or waits for, in one line in the reader's language.

    `open_steps` and `deliveries` are the run's, `place` is its place in the line of a flow-control key that holds it;
    without them the engine's own sentence (English, UTC) goes first.
    """
    if place is not None:
        return _why_held(place, now)
    return _why_from(run, now, open_steps, deliveries) or run.why or _why_from_row(run, now)


def _why_from(run: Run, now: datetime, open_steps: Sequence[Step], deliveries: Sequence[Delivery]) -> str:
    """The sentence that a single open step or delivery explains; "" when there are more, or none."""
    if run.status == Run.Status.RETRYING:
        again = [delivery for delivery in deliveries if delivery.attempt]
        if len(again) == 1:
            words = {
                "number": again[0].attempt,
                "most": again[0].max_retries,
                "at": instant_text(again[0].due_at, now),
                "cause": next((first_line(step.error, 120) for step in open_steps if step.error), ""),
            }
            if words["cause"]:
                return _("Retry %(number)d of %(most)d at %(at)s, after %(cause)s") % words
            return _("Retry %(number)d of %(most)d at %(at)s") % words
    if run.status == Run.Status.WAITING and len(open_steps) == 1:
        step = open_steps[0]
        if step.step_type == StepType.INVOKE:
            return _("Waits for run %s") % step.event_id
        if step.event_id and step.due_at:
            words = {"event": step.event_id, "at": instant_text(step.due_at, now)}
            if step.due_at <= now:
                return _("Waits for event “%(event)s” until %(at)s") % words
            words["left"] = length_text(step.due_at - now)
            return _("Waits for event “%(event)s” until %(at)s (times out in %(left)s)") % words
    if run.status == Run.Status.SLEEPING and run.due_at:
        return _("Sleeps until %s") % instant_text(run.due_at, now)
    return ""


def _why_held(place: Place, now: datetime) -> str:
    key = place.key
    words = {"key": key.key, "number": place.number}
    if place.hold is Hold.PAUSED:
        return _("Waits for flow-control key “%(key)s”, which is paused; number %(number)d in line") % words
    if place.hold is Hold.PARALLELISM:
        words["most"] = key.parallelism or 0
        return _("Waits for flow-control key “%(key)s” (%(most)d at a time); number %(number)d in line") % words
    words |= {
        "most": key.rate or 0,
        "period": length_text(timedelta(seconds=key.period_seconds)),
        "at": instant_text(key.window_ends_at or now, now),
    }
    return (
        _("Waits for flow-control key “%(key)s” (%(most)d in %(period)s) until %(at)s; number %(number)d in line")
        % words
    )


def _why_from_row(run: Run, now: datetime) -> str:
    due = instant_text(run.due_at, now) if run.due_at else ""
    match run.status:
        case Run.Status.SCHEDULED:
            return _("Starts at %s") % due if due else _("Starts later")
        case Run.Status.QUEUED:
            return _("Waits for a worker")
        case Run.Status.RUNNING:
            return _("Runs")
        case Run.Status.RETRYING:
            return _("Is tried again at %s") % due if due else _("Is tried again")
        case Run.Status.WAITING:
            return _("Waits for an event until %s") % due if due else _("Waits for an event")
        case Run.Status.SLEEPING:
            return _("Sleeps until %s") % due if due else _("Sleeps")
        case Run.Status.PAUSED:
            return _("Is paused: no step starts until it goes on")
        case Run.Status.SUCCESS:
            return _("Succeeded after %s") % length_text(run.duration) if run.duration is not None else _("Succeeded")
        case Run.Status.CANCELED:
            ended = run.finished_at
            return _("Was canceled at %s") % instant_text(ended, now) if ended else _("Was canceled")
        case _failed:
            cause = first_line(run.error)
            if run.error_step:
                return _("Failed in %(step)s: %(cause)s") % {"step": run.error_step, "cause": cause}
            return _("Failed: %s") % cause if cause else _("Failed")


def progress_text(run: Run, step_count: int, open_steps: Iterable[Step] = ()) -> str:
    """How far a run is: `120 of 500`, `3 steps`, and what its open steps do: `3 steps, waiting: approval`."""
    if run.progress_total:
        done = _("%(done)s of %(total)s") % {"done": run.progress_done or 0, "total": run.progress_total}
    else:
        done = ngettext("%d step", "%d steps", step_count) % step_count
    parts = [done]
    if run.is_finished:
        if run.error_step:
            parts.append(_("failed: %s") % run.error_step)
    else:
        parts += [f"{step.get_status_display().lower()}: {step.name}" for step in open_steps]
    return ", ".join(parts)


def first_line(text: str, longest: int = 200) -> str:
    """The first line of a text that may be long, cut with `…`."""
    line = text.strip().partition("\n")[0]
    return line if len(line) <= longest else line[: longest - 1] + "…"
