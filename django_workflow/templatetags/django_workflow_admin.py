"""`{% workflow_pages app_list %}`: the admin's pages of this app in groups, what each is for and what waits there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django import template
from django.db.models import Model
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from django_workflow.conf import get_settings
from django_workflow.models import DeadLetter
from django_workflow.presentation import inbox

register = template.Library()

Text = str | Promise

MOST_COUNTED = 1000

# Groups of pages, each with the pages' models in their order, their names and what they are for.
_GROUPS: tuple[tuple[Text, tuple[tuple[str, Text, Text], ...]], ...] = (
    (
        _("To do"),
        (
            ("waiter", _("Waiting inbox"), _("What runs ask people, as far as you may answer it.")),
            ("deadletter", _("Failed runs"), _("Failures that nobody has dealt with, by what failed.")),
        ),
    ),
    (
        _("Runs"),
        (
            ("run", _("Runs"), _("Every run: what it does, what it waits for, what became of it.")),
            (
                "registeredworkflow",
                _("Workflows"),
                _("What the code registers, how it fares, and a form that starts it."),
            ),
            ("schedule", _("Schedules"), _("What runs by the clock, with its next times.")),
            ("bulkoperation", _("Bulk operations"), _("Actions on many runs, and how far they are.")),
        ),
    ),
    (
        _("Engine"),
        (
            ("worker", _("Health"), _("Workers, what is overdue, signing keys, and a test of realtime.")),
            ("delivery", _("Deliveries"), _("Calls that are due, under way or waiting for their time.")),
            ("flowkey", _("Flow-control keys"), _("Limits, and how much of them is in use.")),
            ("channel", _("Realtime channels"), _("What channels keep, and their logs.")),
        ),
    ),
)


@dataclass(frozen=True, slots=True)
class Page:
    """`number` is how much waits there; None: not counted."""

    name: Text
    about: Text
    url: str
    number: int | None = None
    number_text: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    name: Text
    pages: list[Page]


@register.simple_tag(takes_context=True)
def workflow_pages(context: template.Context, app_list: Sequence[dict[str, Any]]) -> list[Group]:
    """The pages that the user may open, from the site's own list of them; those that are not known here come last."""
    models = {_name(model): model for app in app_list for model in app["models"] if model.get("admin_url")}
    user = context["request"].user
    groups = []
    for group_name, pages in _GROUPS:
        found = [
            Page(name, about, models.pop(key)["admin_url"], *_counted(key, user))
            for key, name, about in pages
            if key in models
        ]
        if found:
            groups.append(Group(group_name, found))
    rest = [Page(model["name"], "", model["admin_url"]) for model in models.values()]
    return [*groups, Group(_("More"), rest)] if rest else groups


def _name(model: dict[str, Any]) -> str:
    found: type[Model] | None = model.get("model")
    return str(model["object_name"]).lower() if found is None else str(found._meta.model_name)


def _counted(key: str, user: Any) -> tuple[int | None, str]:
    if key == "waiter":
        questions, is_cut = inbox.questions_for(user)
        return len(questions), f"{len(questions)}+" if is_cut else str(len(questions))
    if key == "deadletter":
        rows = DeadLetter.objects.using(get_settings().database).values("pk")[: MOST_COUNTED + 1]
        number = len(rows)
        return number, f"{MOST_COUNTED}+" if number > MOST_COUNTED else str(number)
    return None, ""
