"""Following a run from a terminal: a line for each step as it changes, and below them how far the run is.

`workflow_trigger --wait` hands a `Follower` to whatever drives the run; it is called with the run again and again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Protocol

from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import pgettext

from django_workflow.models import Run, Step
from django_workflow.presentation.words import (
    first_line,
    instant_text,
    progress_text,
    running_time,
    why_text,
)
from django_workflow.realtime.lengths import length_text

INTERVAL_SECONDS = 0.1
BAR_WIDTH = 24
LINE_WIDTH = 100
CLEAR_LINE = "\r\x1b[K"


class Output(Protocol):
    """What Django gives commands as `self.stdout`."""

    def write(
        self, msg: str = "", style_func: Callable[[str], str] | None = None, ending: str | None = None
    ) -> None: ...

    def flush(self) -> None: ...

    def isatty(self) -> bool: ...


class Follower:
    """Call it with the run as it is now (None: not known yet).

    True when the run is over or the time is up (then `timed_out` is set); before it says False it waits a little.
    """

    def __init__(self, out: Output | None, *, timeout: float | None = None, interval: float = INTERVAL_SECONDS) -> None:
        self.timed_out = False
        self._out = out
        self._bar = out is not None and out.isatty()
        self._interval = interval
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._line = ""
        self._shown: dict[int, tuple[str, int]] = {}
        self._settled = 0  # all steps up to this number have been shown with their end

    def __call__(self, run: Run | None) -> bool:
        if run is not None:
            if self._out is not None:
                self._show(run, self._out)
            if run.is_finished:
                return True
        if self._deadline is not None and time.monotonic() >= self._deadline:
            self.timed_out = True
            return True
        time.sleep(self._interval)
        return False

    def _show(self, run: Run, out: Output) -> None:
        clear = CLEAR_LINE if self._bar else ""
        open_steps = []
        for step in run.steps.filter(step_id__gt=self._settled).order_by("step_id"):
            if step.status in Step.OPEN:
                open_steps.append(step)
            if self._shown.get(step.step_id) != (step.status, step.attempts):
                self._shown[step.step_id] = (step.status, step.attempts)
                if self._bar and step.status == Step.Status.RUNNING:
                    continue  # the bar says so
                for text in step_lines(step):
                    out.write(clear + text)
                    self._line = ""  # the bar was overwritten
        while self._shown.get(self._settled + 1, (Step.Status.QUEUED, 0))[0] not in Step.OPEN:
            self._settled += 1
        line = "" if run.is_finished else f"{bar(run)} {progress_text(run, len(self._shown), open_steps)}"[:LINE_WIDTH]
        if self._bar and line != self._line:
            self._line = line
            out.write(clear + line, ending="")
            out.flush()


def step_lines(step: Step) -> Iterator[str]:
    """A step in words; nothing while it only waits for its turn."""
    length = running_time(step, timezone.now())
    due = instant_text(step.due_at, timezone.now()) if step.due_at else ""
    until = _("until %s") % due if due else ""
    match step.status:
        case Step.Status.SUCCESS:
            word, more = _("done"), "" if length is None else length_text(length)
        case Step.Status.FAILED | Step.Status.CANCELED:
            word, more = step.get_status_display().lower(), first_line(step.error)
        case Step.Status.RETRYING:
            again = _("again at %s") % due
            word, more = _("retry"), f"{again}: {first_line(step.error)}"
        case Step.Status.WAITING:
            word, more = _("waits"), f"{step.event_id}  {until}"
        case Step.Status.SLEEPING:
            word, more = _("sleeps"), until
        case Step.Status.RUNNING:
            word, more = pgettext("a step", "runs"), ""
        case _queued:
            return
    yield f"{word:<8}{step.step_id:>3} {step.name}  {more}".rstrip()


def bar(run: Run) -> str:
    """`[#####-----]` when the run says how much there is, else `[ running ]`."""
    if not run.progress_total:
        return f"[{run.get_status_display().lower():^{BAR_WIDTH}}]"
    filled = min(BAR_WIDTH, BAR_WIDTH * (run.progress_done or 0) // run.progress_total)
    return f"[{'#' * filled}{'-' * (BAR_WIDTH - filled)}]"


def last_line(run: Run) -> str:
    """How a run stands, in one sentence with its id."""
    return f"{run.get_status_display()}: {run.run_id}  {why_text(run, timezone.now())}"
