"""Answering an event that runs wait for, from outside: who may, and what when somebody was faster.

An answer is never kept for later, as `Client.notify` with a run id would keep it: the runs are locked first, and only
those that still wait are told.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from django.utils.translation import gettext as _
from rest_framework.authentication import SessionAuthentication
from rest_framework.exceptions import NotFound, PermissionDenied, ValidationError
from rest_framework.request import Request

from django_workflow.api.bodies import read_json_body
from django_workflow.api.errors import Conflict
from django_workflow.client.client import get_client
from django_workflow.conf import get_settings
from django_workflow.models import InputRequest, Waiter
from django_workflow.presentation import lookup
from django_workflow.realtime import access, forms
from django_workflow.realtime.forms import OpenForm

if TYPE_CHECKING:
    from uuid import UUID

    from django_workflow.models.waiter import WaiterQuerySet

EVENT_WRAPPING = 1024
_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")

T = TypeVar("T")
MOST_AT_ONCE = 1000


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What somebody answers. `run_id` "" means: every run that waits for the event and that he may answer."""

    event_id: str
    data: bytes
    run_id: str
    user: Any
    token: str
    form: OpenForm | None = None

    @property
    def has_proof(self) -> bool:
        """Whether the user is known, or brings a token."""
        return bool(self.token or (self.user and self.user.is_authenticated))

    def give(self) -> int:
        """Tell the runs; how many were reached.

        Raises PermissionDenied when none of those that wait may be answered by this user, Conflict when they have
        their answer already, NotFound when none ever waited.
        """
        if get_settings().engine == "qstash":
            return self._give_to_hosted()
        self._refuse_to_pass_forms_by()
        keys = {waiter.run_id for waiter in self._answerable(self._waiters().waiting())}
        told = self._tell(keys) if keys else 0
        if told:
            return told
        for waiter in self._answerable(self._waiters().exclude(state=Waiter.State.EARLY).order_by("-created_at")):
            raise self._late(waiter)
        raise self._unknown()

    def _tell(self, keys: set[UUID]) -> int:
        client = get_client()
        with client.transport.atomic():
            runs = {run.pk: run.run_id for run in lookup.runs().locked(keys).only("pk", "run_id")}
            still = self._waiters().waiting().filter(run__in=runs).values_list("run_id", flat=True).distinct()
            if self.form is not None and not forms.note_answer(self.form, self.user, self.data):
                return 0
            return sum(len(client.notify(self.event_id, self.data, run_id=runs[key])) for key in list(still))

    def _refuse_to_pass_forms_by(self) -> None:
        """What a form would validate is not taken without it."""
        if self.form is None:
            waiting = self._waiters().waiting().values("run")
            requests = InputRequest.objects.using(get_settings().database).filter(answered_at=None)
            if requests.filter(event_id=self.event_id, run__in=waiting).exists():
                raise ValidationError(
                    {"run": _("This event is answered by the form of a run. Name it: ?run=<run id>.")}
                )

    def _give_to_hosted(self) -> int:
        """The hosted engine knows its waiters itself; the run must be named, because rights are a run's."""
        if not self.run_id:
            raise ValidationError({"run": _("Name the run that is answered: ?run=<run id>.")})
        if self.form is None and not access.may(self.user, self.run_id, "respond", self.token):
            raise PermissionDenied
        if not self._waiters().waiting().exists():
            for waiter in self._waiters().exclude(state=Waiter.State.EARLY).order_by("-created_at"):
                raise self._late(waiter)
        if self.form is not None and not forms.note_answer(self.form, self.user, self.data):
            raise Conflict(_("The form was answered already."), code="already_answered")
        told = get_client().notify(self.event_id, self.data, run_id=self.run_id)
        if not any(notified.waiter for notified in told):
            raise self._unknown()
        return len(told)

    def _late(self, waiter: Waiter) -> Conflict:
        words = {"event": self.event_id, "state": waiter.get_state_display()}
        return Conflict(_("The event “%(event)s” is no longer waited for: %(state)s.") % words, code="already_answered")

    def _unknown(self) -> NotFound:
        return NotFound(_("No run waits for the event “%s”.") % self.event_id)

    def _waiters(self) -> WaiterQuerySet:
        waiters = Waiter.objects.using(get_settings().database).filter(event_id=self.event_id)
        return waiters.filter(run__run_id=self.run_id) if self.run_id else waiters

    def _answerable(self, waiters: WaiterQuerySet) -> list[Waiter]:
        """Those whose run this user may answer. Raises PermissionDenied when there are some, but none of those."""
        found = list(waiters.select_related("run")[:MOST_AT_ONCE])
        if self.form is not None:  # it said who may
            return found
        run_ids = {waiter.run.run_id for waiter in found}
        allowed = {run_id for run_id in run_ids if access.may(self.user, run_id, "respond", self.token)}
        if found and not allowed:
            raise PermissionDenied
        return [waiter for waiter in found if waiter.run.run_id in allowed]
