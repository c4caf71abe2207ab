"""The run list's queries: what is counted, which page is read, what its columns need besides.

Seven queries, however many rows there are: a summary that counts, the page, two for its rows, the histogram, the newest
runs (for the filters' choices) and the workers. A search for words reads the table once, and stops at the first
`MOST_FOUND` matches.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from django.contrib.admin.views.main import ChangeList
from django.core.paginator import Page, Paginator
from django.db.models import Count, OuterRef, Prefetch, Subquery
from django.db.models.functions import Coalesce, Left
from django.http import HttpRequest

from django_workflow.admin import histogram
from django_workflow.admin.histogram import TIME_PARAMETERS, Histogram, Summary
from django_workflow.models import Attempt, Run, Step
from django_workflow.presentation import lookup

if TYPE_CHECKING:
    from django_workflow.models.run import RunQuerySet

OPEN_STEPS_SHOWN = 3
ERROR_CHARACTERS = 200
MOST_FOUND = 10_000
_LONG_COLUMNS = ("payload", "result", "error", "config", "why", "url")


class RunPaginator(Paginator):  # type: ignore[type-arg]
    """Counts no more than is worth a page, and finds the period of the runs with the same query.

    `is_search`: words were searched for. The matches are read once, and pages are made of them by key.
    """

    def __init__(self, object_list: Any, per_page: int, *args: Any, is_search: bool = False, **kwargs: Any) -> None:
        super().__init__(object_list, per_page, *args, **kwargs)
        self.runs = object_list
        self.is_search = is_search

    @cached_property
    def matches(self) -> list[tuple[Any, datetime, str]]:
        """Key, creation and status of what a search found, in the list's order."""
        return list(self.runs.values_list("pk", "created_at", "status")[:MOST_FOUND])

    @cached_property
    def summary(self) -> Summary:
        if not self.is_search:
            return histogram.summarize(self.runs)
        created = [created_at for _key, created_at, _status in self.matches]
        return Summary(len(created), min(created, default=None), max(created, default=None))

    @cached_property
    def count(self) -> int:
        return self.summary.count

    @property
    def is_cut(self) -> bool:
        """Whether more was found than is read."""
        return self.is_search and len(self.matches) >= MOST_FOUND

    def page(self, number: int | str) -> Page[Any]:
        if not self.is_search:
            return super().page(number)
        number = self.validate_number(number)
        start = (number - 1) * self.per_page
        keys = [key for key, _created_at, _status in self.matches[start : start + self.per_page]]
        return Page(self.runs.filter(pk__in=keys), number, self)

    def counts(self) -> histogram.Counts:
        if not self.is_search:
            return histogram.counts(self.runs, self.summary)
        return [(created_at, status, 1) for _key, created_at, status in self.matches]


class RunList(ChangeList):
    """The list's query, without the long texts."""

    paginator: RunPaginator

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> RunQuerySet:
        return _briefly(super().get_queryset(request, exclude_parameters))

    def shown(self, runs: Any) -> list[Run]:
        """Runs with all that the list's columns need."""
        return with_numbers(list(_briefly(self.apply_select_related(runs))))

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        if self.paginator.is_search and not self.multi_page:
            self.result_list = self.paginator.page(1).object_list
        self.result_list = with_numbers(list(self.result_list))

    @cached_property
    def histogram(self) -> Histogram | None:
        return histogram.draw(
            self.paginator.counts(),
            self.paginator.summary,
            url=self._url,
            narrowed=any(name in self.params for name in TIME_PARAMETERS),
        )

    def _url(self, parameters: Mapping[str, str | None]) -> str:
        return str(self.get_query_string(dict(parameters)))


def _briefly(runs: Any) -> RunQuerySet:
    """Without the long texts, but with how the error begins and with the first open steps."""
    open_steps = (
        Step.objects.using(runs.db)
        .filter(status__in=Step.OPEN)
        .order_by("step_id")
        .only("run", "step_id", "name", "status")[:OPEN_STEPS_SHOWN]
    )
    brief: RunQuerySet = (
        runs.defer(*_LONG_COLUMNS)
        .annotate(error_start=Left("error", ERROR_CHARACTERS))
        .prefetch_related(Prefetch("steps", open_steps, to_attr="open_steps"))
    )
    return brief


def with_numbers(runs: list[Run]) -> list[Run]:
    """These runs with `step_count` and `retry_count`, in one query for all of them.

    Not as part of the list's query: a list that is sorted by a column without index would count for every run there is.
    """
    if not runs:
        return runs
    alias = runs[0]._state.db
    failed = Attempt.objects.using(alias).filter(run=OuterRef("pk"), retry_at__isnull=False).order_by().values("run")
    number = Subquery(failed.annotate(number=Count("*")).values("number"))
    found = (
        lookup.with_step_count(Run.objects.using(alias).filter(pk__in=[run.pk for run in runs]))
        .annotate(retry_count=Coalesce(number, 0))
        .values_list("pk", "step_count", "retry_count")
    )
    numbers = {key: more for key, *more in found}
    for run in runs:
        run.step_count, run.retry_count = numbers.get(run.pk, (0, 0))  # type: ignore[attr-defined]
    return runs
