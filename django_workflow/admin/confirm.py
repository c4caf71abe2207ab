"""The page between an action and its doing: what will be touched, what will not and why, and the reason for it.

An action of a list, or a view of its own, answers with `ask` until the request is confirmed:

    if not is_confirmed(request):
        return ask(self, request, Confirmation(title=…, verb=…, affected=…, skipped=…, keep_url=…))
    reason = reason_of(request)

The page sends everything that the request held, so the confirmed request is the same one with a reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django import forms
from django.contrib.admin.options import ModelAdmin
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.utils.translation import gettext_lazy as _

from django_workflow.admin.own_page import Crumb, own_page

CONFIRMED = "confirmed"
LINES_SHOWN = 100
LONGEST_REASON = 1000
_OURS = {CONFIRMED, "reason", "csrfmiddlewaretoken"}


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that is touched, or passed over: what it is, its page, and a remark (why it is passed over)."""

    text: str
    url: str = ""
    remark: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """`title` says the verb and the number ("Pause 3 schedules"), and is the button's text too unless `button` is.
    Counts are given where there are more than the lines tell."""

    title: str
    keep_url: str
    button: str = ""
    explanation: str = ""
    affected: Sequence[Line] = ()
    affected_count: int | None = None
    skipped: Sequence[Line] = ()
    skipped_count: int | None = None
    form: forms.Form | None = None
    is_destructive: bool = False
    hidden: Mapping[str, str] = field(default_factory=dict)

    @property
    def verb(self) -> str:
        return self.button or self.title

    @property
    def affected_shown(self) -> Sequence[Line]:
        return self.affected[:LINES_SHOWN]

    @property
    def affected_more(self) -> int:
        return self.affected_number - len(self.affected_shown)

    @property
    def skipped_shown(self) -> Sequence[Line]:
        return self.skipped[:LINES_SHOWN]

    @property
    def skipped_more(self) -> int:
        return self.skipped_number - len(self.skipped_shown)

    @property
    def affected_number(self) -> int:
        return len(self.affected) if self.affected_count is None else self.affected_count

    @property
    def skipped_number(self) -> int:
        return len(self.skipped) if self.skipped_count is None else self.skipped_count


class ReasonForm(forms.Form):
    reason = forms.CharField(
        label=_("Reason"),
        required=False,
        max_length=LONGEST_REASON,
        help_text=_("Optional. It is noted in the history, with your name."),
        widget=forms.Textarea(attrs={"rows": 2, "cols": 60}),
    )


def is_confirmed(request: HttpRequest) -> bool:
    return request.method == "POST" and CONFIRMED in request.POST


def reason_of(request: HttpRequest) -> str:
    """Why it is done, as the user says; "" when he does not."""
    return request.POST.get("reason", "").strip()[:LONGEST_REASON]


def ask(
    admin: ModelAdmin[Any], request: HttpRequest, confirmation: Confirmation, *, crumbs: Sequence[Crumb] = ()
) -> TemplateResponse:
    """The page. Fields of `confirmation.form` are shown; everything else that was posted is sent again unseen, with
    what `confirmation.hidden` adds."""
    shown = set(confirmation.form.fields) if confirmation.form is not None else set()
    hidden = [
        (name, value)
        for name, values in request.POST.lists()
        if name not in _OURS and name not in shown
        for value in values
    ]
    hidden += confirmation.hidden.items()
    return own_page(
        admin,
        request,
        "confirm.html",
        confirmation.title,
        crumbs=crumbs,
        confirmation=confirmation,
        hidden=hidden,
        confirmed_name=CONFIRMED,
        reason_form=ReasonForm(request.POST if is_confirmed(request) else None),
    )
