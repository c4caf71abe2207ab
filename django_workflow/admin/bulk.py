"""Actions of the run list: on the runs that are ticked, or on all that the list has, however many.

Asked first, by a page that counts what will be touched and what not; then done by `control.bulk`: a few at once, many
in the background, with a page that shows the progress and can stop it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.contrib import messages
from django.contrib.admin.options import ModelAdmin
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from django_workflow.admin.base import url_or_blank
from django_workflow.admin.confirm import Confirmation, ask, is_confirmed, reason_of
from django_workflow.admin.own_page import admin_url, own_page
from django_workflow.admin.run_actions import DESTRUCTIVE, run_line
from django_workflow.control import bulk
from django_workflow.control.actions import ACTIONS, Action, ActionRefused, may
from django_workflow.models import BulkOperation, Run
from django_workflow.presentation import lookup
from django_workflow.protocol.identifiers import uuid7

if TYPE_CHECKING:
    from django.db.models import QuerySet
    from django.utils.functional import Promise

OPERATION = "operation"

_TITLES: dict[str, Promise] = {
    "cancel": gettext_lazy("Cancel selected runs"),
    "pause": gettext_lazy("Pause selected runs"),
    "unpause": gettext_lazy("Unpause selected runs"),
    "retry_now": gettext_lazy("Retry selected runs now"),
    "resume": gettext_lazy("Resume selected runs from their failed step"),
    "restart": gettext_lazy("Restart selected runs"),
    "delete": gettext_lazy("Delete selected runs"),
}


def list_actions() -> list[Callable[..., HttpResponse | None]]:
    """The actions of the list, as the admin takes them."""
    return [_list_action(name, title) for name, title in _TITLES.items() if name in ACTIONS]


def action_name(of_list: str) -> str:
    """The name in `ACTIONS` of an action of the list."""
    return of_list.removesuffix("_runs")


def _list_action(name: str, title: Promise) -> Callable[..., HttpResponse | None]:
    def act(admin: ModelAdmin[Any], request: HttpRequest, runs: QuerySet[Run]) -> HttpResponse | None:
        return act_on_many(admin, request, runs, ACTIONS[name])

    act.__name__ = f"{name}_runs"
    act.short_description = title  # type: ignore[attr-defined]
    return act


def act_on_many(admin: ModelAdmin[Any], request: HttpRequest, chosen: QuerySet[Run], action: Action) -> HttpResponse:
    """Ask, and once confirmed start the operation: only once, however often the page is sent."""
    if not may(request.user, action.permission):
        raise PermissionDenied
    runs = lookup.runs().filter(pk__in=chosen.order_by().values("pk"))
    back = request.get_full_path()
    if is_confirmed(request):
        try:
            operation = bulk.start(action, runs, by=request.user, reason=reason_of(request), key=_key(request))
        except ActionRefused as refused:
            admin.message_user(request, refused.why, messages.ERROR)
            return HttpResponseRedirect(back)
        if not operation.is_over:
            return HttpResponseRedirect(admin_url(admin, "run_operation", operation.pk))
        say_result(admin, request, operation)
        return HttpResponseRedirect(back)
    preview = bulk.preview(action, runs, user=request.user)
    is_long = preview.will_count > bulk.AT_ONCE
    posted = request.POST.copy()
    posted[OPERATION] = str(uuid7())
    request.POST = posted  # type: ignore[assignment]  # sent again with the rest
    confirmation = Confirmation(
        title=bulk.title(action, preview.will_count),
        affected=[run_line(admin, run) for run in preview.will],
        affected_count=preview.will_count,
        skipped=[run_line(admin, run, why) for run, why in preview.will_not],
        skipped_count=preview.will_not_count,
        keep_url=back,
        is_destructive=action.name in DESTRUCTIVE,
        explanation=_("So many are done in the background: you can watch it, and stop it.") if is_long else "",
    )
    return ask(admin, request, confirmation)


def _key(request: HttpRequest) -> UUID:
    """The operation's key, which came with the page."""
    try:
        return UUID(request.POST.get(OPERATION, ""))
    except ValueError:
        return uuid7()


def operation_page(admin: ModelAdmin[Any], request: HttpRequest, key: UUID) -> HttpResponse:
    """How far an operation is; a POST stops it."""
    operation = bulk.visible_to(request.user).filter(pk=key).first()
    if operation is None:
        raise Http404
    action = ACTIONS.get(operation.action)
    allowed = action is not None and may(request.user, action.permission)
    if request.method == "POST":
        if not allowed:
            raise PermissionDenied
        if bulk.abort(operation):
            admin.message_user(request, _("Stopped. What was done stays done."), messages.WARNING)
        return HttpResponseRedirect(request.get_full_path())
    operation = bulk.follow(operation)
    errors = bulk.errors_of(operation)
    known = dict(lookup.runs().filter(run_id__in=[run_id for run_id, _why in errors]).values_list("run_id", "pk"))
    return own_page(
        admin,
        request,
        "operation.html",
        operation.name,
        operation=operation,
        may_abort=allowed and not operation.is_over,
        errors=[
            (run_id, admin_url(admin, "run_change", known[run_id]) if run_id in known else "", why)
            for run_id, why in errors
        ],
        list_url=admin_url(admin, "run_changelist"),
        operations_url=url_or_blank("admin:django_workflow_bulkoperation_changelist"),
    )


def say_result(admin: ModelAdmin[Any], request: HttpRequest, operation: BulkOperation) -> None:
    """What an operation that is over came to, with counts, and why the first run was not reached."""
    past = ACTIONS[operation.action].past
    if operation.done:
        text = ngettext("%(number)d run %(done)s.", "%(number)d runs %(done)s.", operation.done)
        admin.message_user(request, text % {"number": operation.done, "done": past}, messages.SUCCESS)
    if operation.skipped:
        text = ngettext("%d run was passed over.", "%d runs were passed over.", operation.skipped) % operation.skipped
        admin.message_user(request, text, messages.WARNING)
    if operation.failed:
        text = ngettext("%d run failed to be reached.", "%d runs failed to be reached.", operation.failed)
        first = next((why for _run_id, why in bulk.errors_of(operation)), "")
        admin.message_user(request, f"{text % operation.failed} {first}", messages.ERROR)
