"""Tables of a page, each with pages of its own: `?steps_page=2` turns those of the table `steps`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from django.core.paginator import Page, Paginator
from django.db.models import QuerySet
from django.http import HttpRequest

ROWS = 200

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


def page_of(request: HttpRequest, rows: QuerySet[Any], name: str, size: int = ROWS) -> Page[Any]:
    """The page of a table that the address asks for; the nearest one for a number that there is not."""
    return Paginator(rows, size).get_page(request.GET.get(_parameter(name)))


def table_of(request: HttpRequest, name: str, rows: list[T], page: Page[Any]) -> Table[T]:
    """What is shown of a page. `rows` are made of its rows."""

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
