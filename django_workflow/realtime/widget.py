"""The progress widget: a run's state as HTML that needs no JavaScript, and that the browser then keeps up to date.

Asked by the template tag and by the fragment view. The channel's newest position is read before the state, so what
happens in between shows twice and is never lost. Names and errors come from anywhere: templates escape them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from django.middleware.csrf import get_token
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import formats, timezone
from django.utils.safestring import SafeString
from django.utils.translation import get_language

from django_workflow.conf import get_settings
from django_workflow.models import Delivery, Run, Step, Waiter
from django_workflow.models.channel_event import format_position
from django_workflow.protocol.steps import StepType
from django_workflow.realtime import access, forms, history
from django_workflow.realtime.labels import label
from django_workflow.realtime.lengths import length_text
from django_workflow.realtime.messages import BEGINNING
from django_workflow.realtime.stores import StoreUnavailable

if TYPE_CHECKING:
    from django.db.models import QuerySet
    from django.forms import BaseForm
    from django.http import HttpRequest

    from django_workflow.realtime.access import User

logger = logging.getLogger("django_workflow.realtime")

VIEWS = ("steps", "bar", "badge", "timeline")
TRANSPORTS = ("auto", "ws", "sse", "poll")
MAX_STEPS = 100
LONGEST_ERROR = 300

NOT_STARTED = "not-started"
FORBIDDEN = "forbidden"
GONE = "gone"

# States in which nothing moves: an indeterminate bar would promise activity.
_STILL = {*Run.FINAL, Run.Status.WAITING, Run.Status.PAUSED, Run.Status.SCHEDULED, Run.Status.SLEEPING}
_UNUSED_COLUMNS = ("payload", "result", "config", "url", "labels")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a widget looks and behaves, and what its page vouches for.

    `can_respond`: show the form for answers to those who may answer. `grant`: the page lets its viewer follow the run
    (and answer, with `can_respond`) whatever the rule says; a signed token carries that to the browser.
    """

    view: str = "steps"
    can_respond: bool = False
    grant_read: bool = False
    grant_respond: bool = False
    transport: str = "auto"
    max_steps: int = MAX_STEPS
    redirect_on_success: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A run's state as of `cursor` or later."""

    run: Run
    cursor: str
    steps: Sequence[Step] = ()
    earlier: int = 0
    waiter: Waiter | None = None
    retry: Delivery | None = None


@dataclass(frozen=True, slots=True)
class Bar:
    """Where a step stands in the time that is shown, in thousandths of it, and how long it took in words."""

    start: int
    width: int
    text: str


@dataclass(frozen=True, slots=True)
class ShownStep:
    """One row of the list, and what the browser needs to go on from it."""

    number: int
    name: str
    status: str
    text: str
    kind: str
    attempts: int
    current: bool = False
    until: int | None = None
    started: int | None = None
    error: str = ""
    bar: Bar | None = None


@dataclass(slots=True)
class Widget:
    """What the templates show."""

    status: str
    text: str
    options: Options
    source: str
    run_id: str = ""
    workflow: str = ""
    cursor: str = BEGINNING
    token: str = ""
    error: str = ""
    steps: list[ShownStep] = field(default_factory=list)
    earlier: int = 0
    done: int | None = None
    total: int | None = None
    indeterminate: bool = False
    waiter: Waiter | None = None
    form: BaseForm | None = None
    notify_url: str = ""
    may_respond: bool = False
    language: str = ""
    time_zone: str = ""

    @property
    def earlier_text(self) -> str:
        return label("earlier", count=self.earlier) if self.earlier else ""

    @property
    def blank_step(self) -> ShownStep:
        """What the browser copies and fills when a step appears."""
        return ShownStep(number=0, name="", status="", text="", kind="", attempts=0)


def take_snapshot(run_id: str, max_steps: int = MAX_STEPS) -> Snapshot | None:
    """The state of a run, or of the run that took it up again; None when there is no such run."""
    database = get_settings().database
    runs = Run.objects.using(database)
    cursor, run = _read_run(runs, run_id)
    # A run can only be resumed by a later one, so this ends.
    while run is not None and run.status == Run.Status.FAILED:
        resumed_as = runs.in_place_of(run.pk).values_list("run_id", flat=True).first()
        if resumed_as is None:
            break
        cursor, run = _read_run(runs, resumed_as)
    if run is None:
        return None
    of_run = Step.objects.using(database).filter(run=run)
    rows = list(of_run.defer("preview").order_by("-step_id")[: max_steps + 1])
    earlier = of_run.count() - max_steps if len(rows) > max_steps else 0
    steps = rows[:max_steps][::-1]
    waiter = retry = None
    if any(step.status == Step.Status.WAITING for step in steps):
        waiting = Waiter.objects.using(database).waiting().filter(run=run, step_type=StepType.WAIT)
        waiter = waiting.order_by("-created_at").first()
    if run.status == Run.Status.RETRYING:
        retry = Delivery.objects.using(database).filter(run=run, attempt__gt=0).order_by("due_at").first()
    return Snapshot(run=run, cursor=format_position(cursor), steps=steps, earlier=earlier, waiter=waiter, retry=retry)


def _read_run(runs: QuerySet[Run], run_id: str) -> tuple[int, Run | None]:
    """The channel's newest position, and only then the run. A store that is away hides no run."""
    try:
        cursor = history.newest(run_id)
    except StoreUnavailable as error:
        logger.warning("The widget of run %s starts without the store: %s", run_id, error)
        cursor = 0
    return cursor, runs.filter(run_id=run_id).defer(*_UNUSED_COLUMNS).first()


def make_widget(run_id: str | None, user: User | None, options: Options, now: datetime) -> Widget:
    """What to show of a run (None: of one that is not started yet) to this user."""
    if run_id is None:
        return _empty(NOT_STARTED, options)
    snapshot = take_snapshot(run_id, options.max_steps)
    shown_id = snapshot.run.run_id if snapshot else run_id
    reads = access.authorize(user, shown_id, "read")
    if not reads and not options.grant_read:
        return _empty(FORBIDDEN, options)
    if snapshot is None:
        return _empty(GONE, options)
    responds = options.can_respond and access.authorize(user, shown_id, "respond")
    may_respond = responds or (options.can_respond and options.grant_respond)
    run, waiter = snapshot.run, snapshot.waiter
    widget = _empty(run.status, options, text=_status_text(snapshot, now))
    widget.run_id = shown_id
    widget.workflow = run.workflow
    widget.cursor = snapshot.cursor
    if not reads or responds != may_respond:
        widget.token = access.make_token([shown_id], respond=may_respond)
    if run.status == Run.Status.FAILED:
        widget.error = _first_line(run.error)
    bars = _bars(snapshot, now) if options.view == "timeline" else {}
    widget.steps = _shown_steps(snapshot, bars)
    widget.earlier = snapshot.earlier
    if run.status == Run.Status.SUCCESS:
        widget.done = widget.total = 1
    elif run.progress_total:
        widget.total = run.progress_total
        widget.done = min(run.progress_done or 0, run.progress_total)
    widget.indeterminate = widget.total is None and run.status not in _STILL
    widget.may_respond = may_respond
    form = forms.find_form(shown_id, waiter.event_id) if waiter and options.can_respond else None
    if form is not None and forms.may_fill_in(form, user, shown_id, widget.token):
        widget.form, widget.waiter, widget.may_respond = form.blank(), waiter, True
    elif may_respond and form is None:
        widget.waiter = waiter
    if widget.may_respond:
        widget.notify_url = notify_url(shown_id, "{eventId}")
    return widget


def render_widget(widget: Widget, request: HttpRequest | None, assets: SafeString | str = "") -> SafeString:
    """The widget's HTML, with `assets` (script and stylesheet) before it."""
    context: dict[str, Any] = {"widget": widget, "assets": assets}
    if widget.waiter is not None:
        context["answer_url"] = notify_url(widget.run_id, widget.waiter.event_id)
    if request is not None and (widget.may_respond or widget.token):
        # Sets the CSRF cookie and `Vary: Cookie`: what is made for one viewer is not served to another from a cache.
        context["csrf_token"] = get_token(request)
    return render_to_string("django_workflow/progress/widget.html", context)


def notify_url(run_id: str, event_id: str) -> str:
    """Where an answer of a run's event is posted: the API's URL, beside the realtime URLs."""
    folder = source_url().removesuffix("realtime/")
    return f"{folder}api/events/{quote(event_id, safe='{}')}/notify/?run={quote(run_id, safe='')}"


def source_url() -> str:
    """The folder of the realtime URLs, which the browser's transports start from."""
    return reverse("django_workflow:realtime-poll").removesuffix("poll/")


def _empty(status: str, options: Options, text: str = "") -> Widget:
    return Widget(
        status=status,
        text=text or label(status),
        options=options,
        source=source_url(),
        language=get_language() or "",
        # Browsers know the zones that have a name.
        time_zone=getattr(timezone.get_current_timezone(), "key", ""),
    )


def _status_text(snapshot: Snapshot, now: datetime) -> str:
    run = snapshot.run
    due = _instant_text(run.due_at, now) if run.due_at else ""
    if run.status == Run.Status.SCHEDULED and due:
        return label("scheduled", time=due)
    if run.status == Run.Status.SLEEPING and due:
        return label("sleeping", time=due)
    if run.status == Run.Status.RETRYING:
        return _retrying_text(snapshot, now)
    if run.status == Run.Status.FAILED:
        return label("failed", name=run.error_step or run.workflow)
    if run.status in (*Run.FINAL, Run.Status.PAUSED) or (run.status == Run.Status.WAITING and snapshot.waiter):
        return label(run.status)
    if run.started_at is None:
        return label("queued")
    current = _current(snapshot.steps)
    if current is not None:
        return label("running", number=current.step_id, name=current.name)
    done = snapshot.earlier + sum(step.status == Step.Status.SUCCESS for step in snapshot.steps)
    return label("between", count=done) if done else label("working")


def _retrying_text(snapshot: Snapshot, now: datetime) -> str:
    run, retry = snapshot.run, snapshot.retry
    failed = next((step for step in snapshot.steps if step.status == Step.Status.RETRYING), None)
    due = retry.due_at if retry else run.due_at
    values = {
        "name": (failed and failed.name) or (retry and retry.step_name) or run.workflow,
        "time": _instant_text(due, now) if due else "",
    }
    if retry is None:
        return label("retrying-uncounted", **values)
    return label("retrying", **values, attempt=retry.attempt + 1, attempts=retry.max_retries + 1)


def _current(steps: Sequence[Step]) -> Step | None:
    """The step to name: of those that are open the first that does something."""
    busy = (Step.Status.RUNNING, Step.Status.RETRYING, Step.Status.WAITING, Step.Status.SLEEPING)
    return next((step for status in busy for step in steps if step.status == status), None)


def _bars(snapshot: Snapshot, now: datetime) -> dict[int, Bar]:
    """A bar for each step that this run began, from the first of those shown to the last end or to now."""
    own = [step for step in snapshot.steps if not snapshot.run.took_over(step)]
    begun = [(step, step.started_at, step.finished_at or now) for step in own if step.started_at]
    if not begun:
        return {}
    first = min(start for _step, start, _end in begun)
    span = max((max(end for _step, _start, end in begun) - first).total_seconds(), 0.001)

    def share(length: timedelta) -> int:
        return round(length.total_seconds() / span * 1000)

    return {
        step.step_id: Bar(
            # What is too short to be seen is shown as a line.
            start=min(share(start - first), 996),
            width=max(min(share(end - start), 1000 - share(start - first)), 4),
            text=length_text(end - start),
        )
        for step, start, end in begun
    }


def _shown_steps(snapshot: Snapshot, bars: Mapping[int, Bar]) -> list[ShownStep]:
    current = None if snapshot.run.is_finished else _current(snapshot.steps)
    return [
        ShownStep(
            number=step.step_id,
            name=step.name,
            status=step.status,
            text=label(f"step-{step.status}"),
            kind=step.step_type,
            attempts=step.attempts,
            current=step is current,
            until=_milliseconds(step.due_at) if step.status in Step.OPEN else None,
            started=_milliseconds(step.started_at),
            error=_first_line(step.error) if step.status == Step.Status.FAILED else "",
            bar=bars.get(step.step_id),
        )
        for step in snapshot.steps
    ]


def _instant_text(instant: datetime, now: datetime) -> str:
    """An instant in the reader's time zone: its time on the same day, else date and time."""
    local = timezone.localtime(instant)
    if local.date() == timezone.localtime(now).date():
        return formats.time_format(local, "TIME_FORMAT")
    return formats.date_format(local, "SHORT_DATETIME_FORMAT")


def _milliseconds(instant: datetime | None) -> int | None:
    return None if instant is None else int(instant.timestamp() * 1000)


def _first_line(text: str) -> str:
    """The line of an error that people may see: of a traceback its last, which names the error."""
    lines = text.strip().splitlines() or [""]
    line = lines[-1] if lines[0].startswith("Traceback") else lines[0]
    return line if len(line) <= LONGEST_ERROR else line[: LONGEST_ERROR - 1] + "…"
