"""What the page of a run shows, as data for its template: facts, the *why* line, and tables in pages of 200 rows.

Comes from `RunAdmin`; ten queries or so, however long the run's history is.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from django.contrib.admin.utils import quote
from django.core.paginator import Page, Paginator
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from django_workflow.admin.status import badge_of, status_badge
from django_workflow.models import Attempt, ChannelEvent, DeadLetter, Run, Step, Waiter
from django_workflow.presentation import values
from django_workflow.presentation.words import first_line, progress_text, running_time, why_text
from django_workflow.realtime.lengths import length_text

ROWS = 200
PREVIEW = 80
LARGEST_INLINE = 8 * 1024
LARGEST_OPEN = 4 * 1024
LARGEST_ON_PAGE = 64 * 1024
RELATED_RUNS = 20

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Table(Generic[T]):
    """One page of a table, and the addresses of the pages beside it ("" where there is none)."""

    rows: list[T]
    page: Page[Any]
    previous_url: str
    next_url: str

    @property
    def total(self) -> int:
        return self.page.paginator.count


@dataclass(frozen=True, slots=True)
class Value:
    """A value as text, "" when it is too long for the page; and where it can be downloaded."""

    text: str
    url: str

    @property
    def is_short(self) -> bool:
        return 0 < len(self.text) <= LARGEST_OPEN


@dataclass(frozen=True, slots=True)
class StepRow:
    step: Step
    badge: SafeString
    length: str
    result: Value | None
    preview: str

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


def run_page(request: HttpRequest, run: Run, now: datetime) -> dict[str, Any]:
    """The template's context."""
    open_steps = list(run.steps.filter(status__in=Step.OPEN).order_by("step_id")[:ROWS])
    deliveries = list(run.deliveries.order_by("due_at").defer("body", "config")[:ROWS])
    steps = _steps(request, run, now)
    length = running_time(run, now)
    children = list(_briefly(run.children, "parent")[: RELATED_RUNS + 1])
    return {
        "run": run,
        "badge": badge_of(run),
        "why": why_text(run, now, open_steps=open_steps, deliveries=deliveries),
        "progress": progress_text(run, steps.total),
        "length": "" if length is None else length_text(length),
        "workflow_url": _list_url(workflow=run.workflow),
        "label_urls": [(label, _list_url(label=label)) for label in run.label_list],
        "payload": value_of(values.payload_of(run), run, "payload"),
        "result": value_of(values.result_of(run), run, "result"),
        "steps": steps,
        "attempts": _attempts(request, run),
        "events": _events(request, run),
        "waiters": _waiters(request, run),
        "dead_letter": DeadLetter.objects.using(run._state.db).filter(run=run).only("pk", "failure_state").first(),
        "children": children[:RELATED_RUNS],
        "children_url": _list_url(parent__id__exact=str(run.pk)) if len(children) > RELATED_RUNS else "",
        "resumed_as": _briefly(run.resumed_as, "resumed_from")[:RELATED_RUNS],
        "related": _related_object(run),
    }


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


def _page(request: HttpRequest, rows: QuerySet[Any], name: str) -> Page[Any]:
    return Paginator(rows, ROWS).get_page(request.GET.get(_parameter(name)))


def _table(request: HttpRequest, name: str, rows: list[T], page: Page[Any]) -> Table[T]:
    def url(number: int) -> str:
        query = request.GET.copy()
        query[_parameter(name)] = str(number)
        return f"?{query.urlencode()}#wfa-{name}"

    return Table(
        rows,
        page,
        previous_url=url(page.previous_page_number()) if page.has_previous() else "",
        next_url=url(page.next_page_number()) if page.has_next() else "",
    )


def _parameter(name: str) -> str:
    return f"{name}_page"


def _steps(request: HttpRequest, run: Run, now: datetime) -> Table[StepRow]:
    page = _page(request, run.steps.order_by("step_id"), "steps")
    steps: list[Step] = list(page)
    results = values.step_results(run, steps, largest=LARGEST_INLINE)
    redacted = values.is_redacted(run)
    rows = []
    for step in steps:
        length = running_time(step, now)
        value = results.get(step.step_id)
        result = value_of(value, run, "step", step.step_id)
        if result is None and step.position is not None and step.preview:
            # Too long to be read for a table: the preview, and the file.
            result = Value("", _value_url(run, "step", step.step_id))
        one_line = step.preview if value is None else values.on_one_line(value)
        if redacted and step.preview:
            one_line = values.REDACTED
        rows.append(
            StepRow(
                step=step,
                badge=badge_of(step),
                length="" if length is None else length_text(length),
                result=result,
                preview=first_line(one_line, PREVIEW),
            )
        )
    return _table(request, "steps", rows, page)


def _attempts(request: HttpRequest, run: Run) -> Table[AttemptRow]:
    page = _page(request, run.attempts.order_by("started_at", "pk"), "attempts")
    redacted = values.is_redacted(run)
    rows = [
        AttemptRow(
            attempt=attempt,
            length=length_text(attempt.finished_at - attempt.started_at),
            error_line=first_line(attempt.error, PREVIEW),
            headers=values.headers_text(attempt.response_headers),
            body=values.REDACTED if redacted and attempt.response_body else _body_text(attempt.response_body),
        )
        for attempt in page
    ]
    return _table(request, "attempts", rows, page)


def _body_text(body: str) -> str:
    value = values.parsed(body)
    return "" if value is None else values.laid_out(value)[:LARGEST_INLINE]


def _events(request: HttpRequest, run: Run) -> Table[EventRow]:
    events = ChannelEvent.objects.using(run._state.db).filter(channel=run.run_id).order_by("position")
    page = _page(request, events, "events")
    redacted = values.is_redacted(run)
    rows = []
    for event in page:
        data = values.event_data(event.data, redacted=redacted)
        fields = data if isinstance(data, dict) else {}
        text = values.on_one_line(data)[:LARGEST_INLINE]
        rows.append(EventRow(event, str(fields.get("type", "")), str(fields.get("stepName", "")), text))
    return _table(request, "events", rows, page)


def _waiters(request: HttpRequest, run: Run) -> Table[WaiterRow]:
    page = _page(request, run.waiters.order_by("created_at", "pk"), "waiters")
    redacted = values.is_redacted(run)
    rows = []
    for waiter in page:
        badge = status_badge(waiter.state, waiter.get_state_display())
        answer = values.REDACTED if redacted and waiter.event_data else _event_text(waiter.event_data)
        rows.append(WaiterRow(waiter, badge, answer))
    return _table(request, "waiters", rows, page)


def _event_text(event_data: str) -> str:
    """What an event carried, on one line."""
    if not event_data:
        return ""
    value = values.parsed(event_data, is_base64=True)
    return first_line(values.on_one_line(value))


def _list_url(**parameters: str) -> str:
    return reverse("admin:django_workflow_run_changelist", query=parameters)


def _related_object(run: Run) -> tuple[str, str] | None:
    """What the run is about: its name, and the address of its admin page ("" when it has none)."""
    if run.content_type is None or not run.object_id:
        return None
    content_type = run.content_type
    about = run.related_object
    name = _("%(model)s %(id)s") % {"model": content_type.name, "id": run.object_id} if about is None else str(about)
    try:
        return name, reverse(f"admin:{content_type.app_label}_{content_type.model}_change", args=[quote(run.object_id)])
    except NoReverseMatch:
        return name, ""
