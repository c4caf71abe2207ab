"""Answers to events, as the API takes them: JSON, or the form that the widget shows. `control.answers` gives them."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from django.utils.translation import gettext as _
from rest_framework.authentication import SessionAuthentication
from rest_framework.exceptions import NotFound, PermissionDenied, ValidationError
from rest_framework.request import Request

from django_workflow.api.bodies import read_json_body
from django_workflow.api.errors import Conflict
from django_workflow.control.answers import Answer, NobodyWaits, NotTheirs, RunNotNamed, TooLate
from django_workflow.realtime import access, forms
from django_workflow.realtime.forms import OpenForm

EVENT_WRAPPING = 1024
_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")

T = TypeVar("T")


class _Body(msgspec.Struct, rename="camel"):
    event_data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


def read_answer(request: Request, event_id: str) -> Answer:
    """The answer in a request: `{"eventData": …}`, or the form that the widget shows.

    Where the run waits for a form of the project, the answer is what that form makes of it. Raises PermissionDenied for
    whom the form is not addressed to, FormInvalid for what it does not take.
    """
    posted = request._request.POST
    run_id = request.query_params.get("run", "")
    token = posted.get("token") or access.token_of(request._request)
    form = forms.find_form(run_id, event_id) if run_id else None
    if is_form(request):
        SessionAuthentication().enforce_csrf(request)  # however the user was authenticated: any page can send a form
    if form is not None and not forms.may_fill_in(form, request.user, run_id, token):
        raise PermissionDenied
    return Answer(
        event_id=event_id,
        data=_plain_answer(request) if form is None else _form_answer(request, form),
        run_id=run_id,
        user=request.user,
        token=token,
        form=form,
    )


def _plain_answer(request: Request) -> bytes:
    if is_form(request):
        data = request._request.POST.get("eventData", "").encode()
        _check(data, msgspec.Raw)
        return data
    found = _check(read_json_body(request, wrapping=EVENT_WRAPPING) or b"{}", _Body).event_data
    return b"" if isinstance(found, msgspec.UnsetType) else bytes(found)


def _form_answer(request: Request, form: OpenForm) -> bytes:
    if is_form(request):
        return form.clean(request._request.POST, request._request.FILES)
    return form.clean_plain(_check(_plain_answer(request) or b"{}", dict[str, Any]))


def is_form(request: Request) -> bool:
    return request.content_type.partition(";")[0].strip().lower() in _FORMS


def wants_json(request: Request) -> bool:
    """Whether a script sent the form: it says so, a browser by itself asks for a page."""
    return "application/json" in request.headers.get("Accept", "")


def _check(body: bytes, form: type[T]) -> T:
    """The body decoded. Raises ValidationError when it is not JSON of that form."""
    try:
        return msgspec.json.decode(body.decode(), type=form)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ValidationError({"eventData": _("The answer is not understood: %s.") % error}) from error


def give(answer: Answer) -> int:
    """Tell the runs; how many were reached. Refusals are the API's: 403, 409, 404, 400."""
    try:
        return answer.give()
    except NotTheirs as refused:
        raise PermissionDenied from refused
    except TooLate as refused:
        raise Conflict(str(refused), code="already_answered") from refused
    except NobodyWaits as refused:
        raise NotFound(str(refused)) from refused
    except RunNotNamed as refused:
        raise ValidationError({"run": str(refused)}) from refused
