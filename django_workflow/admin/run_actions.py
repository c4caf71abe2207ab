"""What people do to runs, as actions of a list and as buttons of a page: asked for first, done one by one.

`control.actions` says what can be done and does it; here is the question before it, and the message after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.contrib.admin.options import ModelAdmin
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from django_workflow.admin.confirm import Confirmation, Line, ask, is_confirmed, reason_of
from django_workflow.admin.own_page import Crumb, admin_url
from django_workflow.admin.run_forms import ActionForm
from django_workflow.control.actions import ACTIONS, Action, ActionRefused
from django_workflow.errors import WorkflowError
from django_workflow.models import Run
from django_workflow.presentation import lookup
from django_workflow.presentation.words import first_line, short_run_id

MOST_AT_ONCE = 500
"""Runs that one request acts on; more take longer than a request should."""

DESTRUCTIVE = ("delete", "cancel")


@dataclass(frozen=True, slots=True)
class Button:
    """A button of a run's action. `why_not` says why it cannot be pressed; "": it can."""

    name: str
    text: str
    url: str
    why_not: str


def buttons(
    admin: ModelAdmin[Any], request: HttpRequest, run: Run, names: Iterable[str], url_name: str
) -> list[Button]:
    """The actions that the user has the permission for, with the reason where one cannot be done now."""
    found = []
    for name in names:
        action = ACTIONS[name]
        if request.user.has_perm(f"django_workflow.{action.permission}"):
            url = admin_url(admin, url_name, run.pk, name)
            found.append(Button(name, str(action.title), url, action.why_not(run, user=request.user)))
    return found


def act_on_runs(
    admin: ModelAdmin[Any],
    request: HttpRequest,
    run_keys: Sequence[Any],
    name: str,
    *,
    others: Sequence[Line] = (),
) -> HttpResponse | None:
    """An action of a list on the runs of these keys. `others` are chosen rows that have no run, and why.

    Asks first; then None, with a message that says how many were reached.
    """
    action = ACTIONS[name]
    if len(run_keys) > MOST_AT_ONCE:
        text = _("%(number)d runs are too many for one request: choose at most %(most)d.")
        admin.message_user(request, text % {"number": len(run_keys), "most": MOST_AT_ONCE}, messages.ERROR)
        return None
    runs = list(lookup.runs().filter(pk__in=run_keys).order_by("-created_at"))
    possible = set(action.possible(lookup.runs().filter(pk__in=run_keys)).values_list("pk", flat=True))
    chosen = [run for run in runs if run.pk in possible]
    if is_confirmed(request):
        _perform_all(admin, request, action, chosen)
        return None
    passed = [run for run in runs if run.pk not in possible]
    confirmation = Confirmation(
        title=_title(action, len(chosen)),
        affected=[run_line(admin, run) for run in chosen],
        skipped=[*(run_line(admin, run, action.why_not(run, user=request.user)) for run in passed), *others],
        keep_url=request.get_full_path(),
        is_destructive=name in DESTRUCTIVE,
    )
    return ask(admin, request, confirmation)


def act_on_run(
    admin: ModelAdmin[Any],
    request: HttpRequest,
    run: Run,
    name: str,
    *,
    back_url: str,
    crumbs: Sequence[Crumb] = (),
    form: ActionForm | None = None,
) -> HttpResponse:
    """The page of a button: asks, and once confirmed acts and leads to the run that came of it.

    The page that is sent twice acts once: the second time the run is in another state, or the new run is there.
    """
    action = ACTIONS[name]
    why_not = action.why_not(run, user=request.user)
    if why_not or not is_confirmed(request) or (form is not None and not form.is_valid()):
        line = run_line(admin, run, why_not)
        confirmation = Confirmation(
            title=_title(action, 1),
            affected=() if why_not else [line],
            skipped=[line] if why_not else (),
            keep_url=back_url,
            explanation="" if why_not else action.caution(run),
            form=form,
            is_destructive=name in DESTRUCTIVE,
        )
        return ask(admin, request, confirmation, crumbs=crumbs)
    parameters = {} if form is None else form.parameters
    made = lookup.runs().filter(run_id=parameters.get("run_id", "")).first()
    if made is not None:
        admin.message_user(request, _("Run %s was started already.") % made.run_id, messages.INFO)
        return HttpResponseRedirect(admin_url(admin, "run_change", made.pk))
    try:
        outcome = action.perform(run, by=request.user, reason=reason_of(request), **parameters)
    except (WorkflowError, ValueError) as error:
        admin.message_user(request, str(error), messages.ERROR)
        return HttpResponseRedirect(back_url)
    admin.message_user(request, outcome.message, messages.SUCCESS)
    reached = lookup.runs().filter(run_id=outcome.run_id).first()
    is_gone = reached is None or (name == "mark_handled" and admin.model is not Run)  # the dead letter is
    if reached is None or is_gone:
        return HttpResponseRedirect(admin_url(admin, f"{admin.model._meta.model_name}_changelist"))
    return HttpResponseRedirect(admin_url(admin, "run_change", reached.pk))


def _perform_all(admin: ModelAdmin[Any], request: HttpRequest, action: Action, runs: Sequence[Run]) -> None:
    reason, done = reason_of(request), 0
    for run in runs:
        try:
            action.perform(run, by=request.user, reason=reason)
        except ActionRefused as refused:
            _say_problem(admin, request, run, refused.why)
        except WorkflowError as error:
            _say_problem(admin, request, run, str(error))
        else:
            done += 1
    if done:
        text = ngettext("%(number)d run %(done)s.", "%(number)d runs %(done)s.", done)
        admin.message_user(request, text % {"number": done, "done": action.past}, messages.SUCCESS)


def _say_problem(admin: ModelAdmin[Any], request: HttpRequest, run: Run, why: str) -> None:
    text = format_html('<a href="{}">{}</a>: {}', admin_url(admin, "run_change", run.pk), run, first_line(why))
    admin.message_user(request, text, messages.ERROR)


def _title(action: Action, number: int) -> str:
    text = ngettext("%(verb)s %(number)d run", "%(verb)s %(number)d runs", number)
    return text % {"verb": action.verb, "number": number}


def run_line(admin: ModelAdmin[Any], run: Run, remark: str = "") -> Line:
    text = f"{run.workflow} {short_run_id(run.run_id)}"
    return Line(text, admin_url(admin, "run_change", run.pk), remark or first_line(run.summary or run.error, 120))
