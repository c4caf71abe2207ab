"""Which part of a timeline is looked at: from the address, and the addresses that change it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Self
from urllib.parse import urlencode

from django.http import HttpRequest

from django_workflow.admin.timeline import Scale, Window

SHORTEST = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class Zoom:
    """`whole` is all there is, `window` what is looked at. `keep` are further parameters of the page."""

    whole: Window
    window: Window
    keep: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, request: HttpRequest, whole: Window) -> Self:
        """`?from=` and `?to=`, in milliseconds since the beginning. What cannot be read shows everything."""
        keep = tuple((name, request.GET[name]) for name in ("steps_page",) if name in request.GET)
        start = _milliseconds(request.GET.get("from", ""))
        end = _milliseconds(request.GET.get("to", ""))
        if start is None or end is None or end <= start or timedelta(milliseconds=start) > whole.end - whole.start:
            return cls(whole, whole, keep)
        begin = whole.start + timedelta(milliseconds=start)
        return cls(whole, replace(whole, start=begin, end=begin + timedelta(milliseconds=end - start)), keep)

    @property
    def is_zoomed(self) -> bool:
        return self.window != self.whole

    def url(self, window: Window | None = None, scale: str = "") -> str:
        """The page's address with this window."""
        parameters = [("view", "timeline"), ("scale", scale or self.whole.scale), *self.keep]
        shown = window or self.window
        if (shown.start, shown.end) != (self.whole.start, self.whole.end):
            parameters += [("from", str(self._offset(shown.start, 0))), ("to", str(self._offset(shown.end, 1)))]
        return "?" + urlencode(parameters)

    def links(self, scale: Scale) -> dict[str, str]:
        """Addresses of: half of it, twice of it, what is before, what is after, everything. "" where there is none.

        Half and beside are meant as seen: on a scale that folds or grows, not in seconds.
        """
        window, whole = self.window, self.whole
        length = window.end - window.start
        inner = replace(window, start=scale.instant(25), end=scale.instant(75))
        outer = replace(
            window, start=max(window.start - length / 2, whole.start), end=min(window.end + length / 2, whole.end)
        )
        before = replace(window, start=window.start - length / 2, end=window.end - length / 2)
        after = replace(window, start=window.start + length / 2, end=window.end + length / 2)
        return {
            "inner": self.url(inner) if inner.end - inner.start > SHORTEST else "",
            "outer": self.url(outer) if self.is_zoomed else "",
            "before": self.url(before)
            if before.end > whole.start and self.is_zoomed and window.start > whole.start
            else "",
            "after": self.url(after) if after.start < whole.end and self.is_zoomed and window.end < whole.end else "",
            "fit": self.url(whole) if self.is_zoomed else "",
        }

    def _offset(self, instant: datetime, up: int) -> int:
        milliseconds = (instant - self.whole.start) / timedelta(milliseconds=1)
        return max(int(milliseconds) + up, 0)


def _milliseconds(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else None
