"""What the page of a run shows, as data for its template: facts, the *why* line, and one of five views.

Comes from `RunAdmin`; no more than twelve queries, however long the run's history is, and three for its place in line.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from django.contrib.admin import AdminSite
from django.contrib.admin.utils import quote
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from django_workflow.admin import timeline
from django_workflow.admin.base import object_url
from django_workflow.admin.engine_bar import engine_bar
from django_workflow.admin.run_messages import messages_of
from django_workflow.admin.status import badge_of, status_badge
from django_workflow.admin.tables import ROWS, Table, page_of, table_of
from django_workflow.admin.zoom import Zoom
from django_workflow.models import Attempt, ChannelEvent, Run, Step, Waiter
from django_workflow.models.channel_event import format_position
from django_workflow.presentation import values
from django_workflow.presentation.line import place_in_line
from django_workflow.presentation.words import first_line, progress_text, running_time, why_text
from django_workflow.realtime import history
from django_workflow.realtime.lengths import length_text
from django_workflow.realtime.stores import StoreUnavailable

logger = logging.getLogger("django_workflow.admin")

TIMELINE_ROWS = 500
SESSION_KEY = "django_workflow_run_view"
PREVIEW = 80
LARGEST_INLINE = 8 * 1024
LARGEST_OPEN = 4 * 1024
LARGEST_ON_PAGE = 64 * 1024
RELATED_RUNS = 20


@dataclass(frozen=True, slots=True)
class Value:
    """A value as text, "" when it is too long for the page; and where it can be downloaded."""

    text: str
    url: str

    @property
    def hides(self) -> bool:
        return values.REDACTED in self.text

    @property
    def is_short(self) -> bool:
        return 0 < len(self.text) <= LARGEST_OPEN


@dataclass(frozen=True, slots=True)
class StepRow:
    """`attempts` are its failed ones, oldest first."""

    step: Step
    badge: SafeString
    length: str
    delay: str
    result: Value | None
    preview: str
    attempts: list[AttemptRow]

    @property
    def queued_at(self) -> datetime | None:
        """None for steps of which the engine heard only when they were over."""
        queued, started = self.step.queued_at, self.step.started_at
        return None if queued and started and queued > started else queued

    @property
    def error_line(self) -> str:
        return first_line(self.step.error, PREVIEW)


@dataclass(frozen=True, slots=True)
class AttemptRow:
    attempt: Attempt
    length: str
    error_line: str
    headers: str
    body: str


@dataclass(frozen=True, slots=True)
class EventRow:
    event: ChannelEvent
    kind: str
    step: str
    data: str


@dataclass(frozen=True, slots=True)
class WaiterRow:
    waiter: Waiter
    badge: SafeString
    answer: str


@dataclass(frozen=True, slots=True)
class Tab:
    name: str
    title: str
    url: str
    is_current: bool


def run_page(request: HttpRequest, run: Run, now: datetime, site: AdminSite) -> dict[str, Any]:
    """The template's context: what stands on every view of the page, and the view that was asked for."""
    view = chosen_view(request)
    cursor = "" if run.is_finished else _newest_event(run.run_id)  # before what is shown: nothing falls in between
    step_count = run.steps.count()
    shown = _VIEWS[view](request, run, now)
    open_steps = list(run.steps.filter(status__in=Step.OPEN).order_by("step_id")[:ROWS]) if not run.is_finished else []
    deliveries = list(run.deliveries.order_by("due_at").select_related("worker").defer("body", "config")[:ROWS])
    length = running_time(run, now)
    children = list(_briefly(run.children, "parent")[: RELATED_RUNS + 1])
    return {
        "run": run,
        "view": view,
        "tabs": [Tab(name, str(title), _with(request, view=name), name == view) for name, title in TABS.items()],
        "badge": badge_of(run),
        "why": why_text(run, now, open_steps=open_steps, deliveries=deliveries, place=place_in_line(deliveries, now)),
        "progress": progress_text(run, step_count),
        "step_count": step_count,
        "length": "" if length is None else length_text(length),
        "workflow_url": _list_url(workflow=run.workflow),
        "label_urls": [(label, _list_url(label=label)) for label in run.label_list],
        "payload": value_of(values.payload_of(run), run, "payload"),
        "result": value_of(values.result_of(run), run, "result"),
        "dead_letter": getattr(run, "dead_letter", None),
        "children": children[:RELATED_RUNS],
        "children_url": _list_url(parent__id__exact=str(run.pk)) if len(children) > RELATED_RUNS else "",
        "resumed_as": _briefly(run.resumed_as, "resumed_from")[:RELATED_RUNS],
        "related": _related_object(request, run, site),
        "engine_bar": None if run.is_finished else engine_bar(now),
        "cursor": cursor,
        "deliveries": deliveries,
        **shown,
    }


def _newest_event(run_id: str) -> str:
    """The id of the channel's newest event; "" when the store is away, and the page asks from time to time."""
    try:
        return format_position(history.newest(run_id))
    except StoreUnavailable as error:
        logger.warning("The page of run %s is shown without the store: %s", run_id, error)
        return ""


def chosen_view(request: HttpRequest) -> str:
    """The view that the address names, which is remembered; else the one that this user looked at last."""
    asked = request.GET.get("view", "")
    if asked in TABS:
        if request.session.get(SESSION_KEY) != asked:
            request.session[SESSION_KEY] = asked
        return asked
    remembered = request.session.get(SESSION_KEY)
    return remembered if remembered in TABS else next(iter(TABS))


def _with(request: HttpRequest, **parameters: str) -> str:
    """This page's address with these parameters alone."""
    return "?" + urlencode(parameters)


def _briefly(related: Any, link: str) -> QuerySet[Run]:
    """Related runs, oldest first, with what a link to them shows. `link` is the field that relates them."""
    runs: QuerySet[Run] = related.only("run_id", "workflow", "status", link).order_by("created_at")
    return runs


def value_of(value: Any, run: Run, name: str, *more: int) -> Value | None:
    """A value for the page; None stays None."""
    if value is None:
        return None
    text = values.laid_out(value)
    return Value(text if len(text) <= LARGEST_ON_PAGE else "", _value_url(run, name, *more))


def _value_url(run: Run, name: str, *more: int) -> str:
    return reverse("admin:django_workflow_run_value", args=[quote(run.pk), name, *more])


# The views


def _timeline(request: HttpRequest, run: Run, now: datetime) -> dict[str, Any]:
    """Bars of up to `TIMELINE_ROWS` steps; `?scale=`, and `?from=` and `?to=` in milliseconds since the beginning."""
    page = page_of(request, run.steps.order_by("step_id"), "steps", TIMELINE_ROWS)
    steps: list[Step] = list(page)
    attempts = run.attempts.filter(step_id__isnull=False).defer("response_headers", "response_body", "error")
    if page.paginator.num_pages > 1 and steps:
        attempts = attempts.filter(step_id__range=(steps[0].step_id, steps[-1].step_id))
    scale = request.GET.get("scale", "")
    whole = timeline.whole_window(run, steps, now, scale if scale in timeline.SCALES else timeline.SCALES[0])
    zoom = Zoom.of(request, whole)
    since = steps[0].queued_at or whole.start if steps and steps[0].step_id > 1 else run.created_at
    drawn = timeline.draw(run, steps, list(attempts.order_by("started_at", "pk")), zoom.window, now, since)
    scales = [(name, title, zoom.url(scale=name), name == whole.scale) for name, title in SCALE_TITLES.items()]
    return {
        "steps": table_of(request, "steps", steps, page),
        "timeline": drawn,
        "zoom": zoom.links(drawn.scale),
        "is_zoomed": zoom.is_zoomed,
        "scales": scales,
    }


def _steps(request: HttpRequest, run: Run, now: datetime) -> dict[str, Any]:
    """The table; `?only=errors`, `?order=end`."""
    only_errors, from_end = request.GET.get("only") == "errors", request.GET.get("order") == "end"
    failed = Q(status__in=(Step.Status.FAILED, Step.Status.RETRYING)) | Q(attempts__gt=1) | ~Q(error="")
    rows = run.steps.filter(failed) if only_errors else run.steps.all()
    page = page_of(request, rows.order_by("-step_id" if from_end else "step_id"), "steps")
    steps: list[Step] = list(page)
    results = values.step_results(run, steps, largest=LARGEST_INLINE)
    attempts = _attempts_by_step(run, steps)
    shown = [_step_row(run, step, results, attempts.get(step.step_id, []), now) for step in steps]
    view = {"view": "steps", **({"only": "errors"} if only_errors else {}), **({"order": "end"} if from_end else {})}
    return {
        "steps": table_of(request, "steps", shown, page),
        "hides_results": any(values.REDACTED in row.preview or (row.result and row.result.hides) for row in shown),
        "only_errors": only_errors,
        "from_end": from_end,
        "all_url": _with(request, **{name: value for name, value in view.items() if name != "only"}),
        "errors_url": _with(request, **{**view, "only": "errors"}),
        "error_count": page.paginator.count if only_errors else run.steps.filter(failed).count(),
        "start_url": _with(request, **{name: value for name, value in view.items() if name != "order"}),
        "end_url": _with(request, **{**view, "order": "end"}),
    }


def _step_row(run: Run, step: Step, results: dict[int, Any], attempts: list[AttemptRow], now: datetime) -> StepRow:
    length = running_time(step, now)
    value = results.get(step.step_id)
    result = value_of(value, run, "step", step.step_id)
    if result is None and step.position is not None and step.preview:
        # Too long to be read for a table: the preview, and the file.
        result = Value("", _value_url(run, "step", step.step_id))
    one_line = step.preview if value is None else values.on_one_line(value)
    if step.preview and values.is_redacted(run):
        one_line = values.REDACTED
    delay = step.started_at - step.queued_at if step.started_at and step.queued_at else None
    return StepRow(
        step=step,
        badge=badge_of(step),
        length="" if length is None else length_text(length),
        delay=length_text(delay) if delay and delay > timedelta(0) else "",
        result=result,
        preview=first_line(one_line, PREVIEW),
        attempts=attempts,
    )


def _attempts_by_step(run: Run, steps: list[Step]) -> dict[int, list[AttemptRow]]:
    """Failed attempts of these steps, in one query; none when no step has any."""
    tried = [step.step_id for step in steps if step.attempts > 1 or step.error]
    found: dict[int, list[AttemptRow]] = {}
    if tried:
        attempts = run.attempts.filter(step_id__gte=min(tried), step_id__lte=max(tried))
        for attempt in attempts.order_by("started_at", "pk")[:ROWS]:
            found.setdefault(attempt.step_id or 0, []).append(_attempt_row(attempt, redacted=values.is_redacted(run)))
    return found


def _attempts(request: HttpRequest, run: Run, now: datetime) -> dict[str, Any]:
    """Failed attempts, and the journal; the calls that the engine has still to make stand on every view's context."""
    page = page_of(request, run.attempts.order_by("started_at", "pk"), "attempts")
    redacted = values.is_redacted(run)
    rows = [_attempt_row(attempt, redacted=redacted) for attempt in page]
    return {"attempts": table_of(request, "attempts", rows, page), "journal": messages_of(request, run)}


def _attempt_row(attempt: Attempt, *, redacted: bool) -> AttemptRow:
    return AttemptRow(
        attempt=attempt,
        length=length_text(attempt.finished_at - attempt.started_at),
        error_line=first_line(attempt.error, PREVIEW),
        headers=values.headers_text(attempt.response_headers),
        body=values.REDACTED if redacted and attempt.response_body else _body_text(attempt.response_body),
    )


def _body_text(body: str) -> str:
    value = values.parsed(body)
    return "" if value is None else values.laid_out(value)[:LARGEST_INLINE]


def _events(request: HttpRequest, run: Run, now: datetime) -> dict[str, Any]:
    """What the run waits or waited for, and the events of its channel."""
    events = ChannelEvent.objects.using(run._state.db).filter(channel=run.run_id).order_by("position")
    page = page_of(request, events, "events")
    redacted = values.is_redacted(run)
    rows = []
    for event in page:
        data = values.event_data(event.data, redacted=redacted)
        fields = data if isinstance(data, dict) else {}
        text = values.on_one_line(data)[:LARGEST_INLINE]
        rows.append(EventRow(event, str(fields.get("type", "")), str(fields.get("stepName", "")), text))
    return {"events": table_of(request, "events", rows, page), "waiters": _waiters(request, run)}


def _waiters(request: HttpRequest, run: Run) -> Table[WaiterRow]:
    page = page_of(request, run.waiters.order_by("created_at", "pk"), "waiters")
    redacted = values.is_redacted(run)
    rows = []
    for waiter in page:
        badge = status_badge(waiter.state, waiter.get_state_display())
        answer = values.waiter_answer(waiter, redacted=redacted)
        rows.append(WaiterRow(waiter, badge, "" if answer is None else first_line(values.on_one_line(answer))))
    return table_of(request, "waiters", rows, page)


def _list_url(**parameters: str) -> str:
    return reverse("admin:django_workflow_run_changelist", query=parameters)


def _related_object(request: HttpRequest, run: Run, site: AdminSite) -> tuple[str, str] | None:
    """What the run is about: its name, and the address of its admin page ("" when there is none for this user)."""
    if run.content_type is None or not run.object_id:
        return None
    about = run.related_object
    if about is None:
        return _("%(model)s %(id)s") % {"model": run.content_type.name, "id": run.object_id}, ""
    return str(about), object_url(site, request, about)


def _raw(request: HttpRequest, run: Run, now: datetime) -> dict[str, Any]:
    return {"raw": value_of(run_as_json(run, most_steps=ROWS), run, "run")}


def run_as_json(run: Run, most_steps: int | None = None) -> dict[str, Any]:
    """The rows of a run as JSON types, with values masked as everywhere: the Raw view, and the file to download."""
    steps: list[Step] = list(run.steps.order_by("step_id")[:most_steps])
    results = values.step_results(run, steps)
    redacted = values.is_redacted(run)
    described = {name: getattr(run, name) for name in _RUN_FIELDS}
    return {
        **{name: _plain(value) for name, value in described.items()},
        "labels": run.label_list,
        "payload": values.payload_of(run),
        "result": values.result_of(run),
        "steps": [
            {**{name: _plain(getattr(step, name)) for name in values.STEP_COLUMNS}, "result": results.get(step.step_id)}
            for step in steps
        ],
        "failed_attempts": [
            {
                **{name: _plain(getattr(attempt, name)) for name in _ATTEMPT_FIELDS},
                "response_headers": values.headers_text(attempt.response_headers).splitlines(),
                "response_body": values.REDACTED if redacted else values.parsed(attempt.response_body),
            }
            for attempt in run.attempts.order_by("started_at", "pk")[:most_steps]
        ],
    }


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


_RUN_FIELDS = (
    "run_id",
    "workflow",
    "url",
    "status",
    "why",
    "summary",
    "error",
    "error_step",
    "trigger_kind",
    "engine",
    "flow_key",
    "code_version",
    "created_at",
    "started_at",
    "finished_at",
    "due_at",
    "deadline_at",
)
_ATTEMPT_FIELDS = ("step_id", "step_name", "number", "status", "error", "started_at", "finished_at", "retry_at")

TABS = {
    "timeline": gettext_lazy("Timeline"),
    "steps": gettext_lazy("Steps"),
    "events": gettext_lazy("Events"),
    "attempts": gettext_lazy("Attempts and logs"),
    "raw": gettext_lazy("Raw"),
}
_VIEWS: dict[str, Callable[[HttpRequest, Run, datetime], dict[str, Any]]] = {
    "timeline": _timeline,
    "steps": _steps,
    "events": _events,
    "attempts": _attempts,
    "raw": _raw,
}
SCALE_TITLES = {
    "fold": gettext_lazy("Fold pauses"),
    "linear": gettext_lazy("Linear"),
    "log": gettext_lazy("Logarithmic"),
}
