"""Statuses as text with an icon and a colour: nobody has to tell them apart by colour alone."""

from __future__ import annotations

from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

from django_workflow.models import DeadLetter, Run, Step, Waiter

# Strokes of 16x16 icons.
_CLOCK = "M8 2.5a5.5 5.5 0 1 0 0 11 5.5 5.5 0 0 0 0-11M8 5v3.2l2 1.3"
_LINES = "M3 4.5h10M3 8h10M3 11.5h6"
_PLAY = "M5.5 3.5v9l7-4.5z"
_AGAIN = "M13 8a5 5 0 1 1-1.6-3.7M13 2v3h-3"
_HOURGLASS = "M4 2.5h8M4 13.5h8M5 2.5v2.3L8 8l3-3.2V2.5M5 13.5v-2.3L8 8l3 3.2v2.3"
_MOON = "M13 9.6A5.4 5.4 0 0 1 6.4 3a5.4 5.4 0 1 0 6.6 6.6z"
_PAUSE = "M5.5 3.5v9M10.5 3.5v9"
_TICK = "M3 8.5l3.3 3.3L13 4.7"
_CROSS = "M4 4l8 8M12 4l-8 8"
_STOP = "M8 2.5a5.5 5.5 0 1 0 0 11 5.5 5.5 0 0 0 0-11M4.1 4.1l7.8 7.8"
_DOT = "M8 6.5a1.5 1.5 0 1 0 0 3 1.5 1.5 0 0 0 0-3"

_ICONS: dict[str, str] = {
    Run.Status.SCHEDULED: _CLOCK,
    Run.Status.QUEUED: _LINES,
    Run.Status.RUNNING: _PLAY,
    Run.Status.RETRYING: _AGAIN,
    Run.Status.WAITING: _HOURGLASS,
    Run.Status.SLEEPING: _MOON,
    Run.Status.PAUSED: _PAUSE,
    Run.Status.SUCCESS: _TICK,
    Run.Status.FAILED: _CROSS,
    Run.Status.CANCELED: _STOP,
    Waiter.State.RESOLVED: _TICK,
    Waiter.State.CONSUMED: _TICK,
    Waiter.State.EARLY: _LINES,
    Waiter.State.TIMED_OUT: _CLOCK,
    DeadLetter.FailureState.IN_PROGRESS: _PLAY,
}


def status_badge(status: str, text: str) -> SafeString:
    """A status as its text with an icon; its colour comes from the class."""
    return format_html(
        '<span class="wfa-status wfa-status-{}">{}{}</span>', status, _icon(_ICONS.get(status, _DOT)), text
    )


def status_icon(status: str, text: str) -> SafeString:
    """The icon alone, with its text for those who do not see it."""
    return format_html(
        '<span class="wfa-sign wfa-status-{}" title="{}">{}<span class="visually-hidden">{}</span></span>',
        status,
        text,
        _icon(_ICONS.get(status, _DOT)),
        text,
    )


def badge_of(row: Run | Step) -> SafeString:
    return status_badge(row.status, row.get_status_display())


def _icon(strokes: str) -> SafeString:
    return mark_safe(
        '<svg class="wfa-icon" width="16" height="16" viewBox="0 0 16 16" aria-hidden="true" focusable="false">'
        f'<path d="{strokes}"/></svg>'
    )
