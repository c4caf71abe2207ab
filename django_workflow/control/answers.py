"""Answering an event that runs wait for: who may, what when somebody was faster, and who it was.

Used by the API and by the admin's inbox. An answer is never kept for later, as `Client.notify` with a run id would keep
it: the runs are locked first, and only those that still wait are told.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.contrib.auth import get_user_model
from django.utils.translation import gettext as _

from django_workflow.client.client import get_client
from django_workflow.conf import get_settings
from django_workflow.errors import WorkflowError
from django_workflow.models import InputRequest, Waiter
from django_workflow.presentation import lookup
from django_workflow.realtime import access, forms

if TYPE_CHECKING:
    from django_workflow.models.waiter import WaiterQuerySet
    from django_workflow.realtime.forms import OpenForm

MOST_AT_ONCE = 1000


class AnswerRefused(WorkflowError):
    """An answer is not given. Its text is for people."""


class NotTheirs(AnswerRefused):
    """None of the runs that wait may be answered by this user."""


class TooLate(AnswerRefused):
    """The event has its answer already, or is no longer waited for."""


class NobodyWaits(AnswerRefused):
    """No run ever waited for the event."""


class RunNotNamed(AnswerRefused):
    """The answer has to say which run it is for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What somebody answers. `run_id` "" means: every run that waits for the event and that he may answer.

    `data` is JSON. With `form`, what it made of the answer: whoever made it has asked whether the user may fill it in.
    """

    event_id: str
    data: bytes
    run_id: str
    user: Any
    token: str = ""
    form: OpenForm | None = None

    @property
    def has_proof(self) -> bool:
        """Whether the user is known, or brings a token."""
        return bool(self.token or (self.user and self.user.is_authenticated))

    def give(self) -> int:
        """Tell the runs; how many were reached. Raises AnswerRefused."""
        if get_settings().is_hosted:
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
            still = list(self._waiters().waiting().filter(run__in=runs).values_list("pk", "run_id"))
            if self.form is not None and not forms.note_answer(self.form, self.user, self.data):
                return 0
            told = sum(
                len(client.notify(self.event_id, self.data, run_id=runs[key])) for key in {key for _pk, key in still}
            )
            self._note_user([pk for pk, _key in still])
            return told

    def _refuse_to_pass_forms_by(self) -> None:
        """What a form would validate is not taken without it."""
        if self.form is None:
            waiting = self._waiters().waiting().values("run")
            requests = InputRequest.objects.using(get_settings().database).filter(answered_at=None)
            if requests.filter(event_id=self.event_id, run__in=waiting).exists():
                raise RunNotNamed(_("This event is answered by the form of a run. Name it: ?run=<run id>."))

    def _give_to_hosted(self) -> int:
        """The hosted engine knows its waiters itself; the run must be named, because rights are a run's."""
        if not self.run_id:
            raise RunNotNamed(_("Name the run that is answered: ?run=<run id>."))
        if self.form is None and not access.may(self.user, self.run_id, "respond", self.token):
            raise NotTheirs(_("You may not answer this run."))
        still = list(self._waiters().waiting().values_list("pk", flat=True))
        if not still:
            for waiter in self._waiters().exclude(state=Waiter.State.EARLY).order_by("-created_at"):
                raise self._late(waiter)
        if self.form is not None and not forms.note_answer(self.form, self.user, self.data):
            raise TooLate(_("The form was answered already."))
        told = get_client().notify(self.event_id, self.data, run_id=self.run_id)
        if not any(notified.waiter for notified in told):
            raise self._unknown()
        self._note_user(still)
        return len(told)

    def _note_user(self, waiters: list[UUID]) -> None:
        """Write down whose answer it was, where the user is known."""
        if isinstance(self.user, get_user_model()):
            rows = Waiter.objects.using(get_settings().database).filter(pk__in=waiters, state=Waiter.State.RESOLVED)
            rows.update(resolved_by=self.user)

    def _late(self, waiter: Waiter) -> TooLate:
        words = {"event": self.event_id, "state": waiter.get_state_display()}
        return TooLate(_("The event “%(event)s” is no longer waited for: %(state)s.") % words)

    def _unknown(self) -> NobodyWaits:
        return NobodyWaits(_("No run waits for the event “%s”.") % self.event_id)

    def _waiters(self) -> WaiterQuerySet:
        waiters = Waiter.objects.using(get_settings().database).filter(event_id=self.event_id)
        return waiters.filter(run__run_id=self.run_id) if self.run_id else waiters

    def _answerable(self, waiters: WaiterQuerySet) -> list[Waiter]:
        """Those whose run this user may answer. Raises NotTheirs when there are some, but none of those."""
        found = list(waiters.select_related("run")[:MOST_AT_ONCE])
        if self.form is not None:  # it said who may
            return found
        run_ids = {waiter.run.run_id for waiter in found}
        allowed = {run_id for run_id in run_ids if access.may(self.user, run_id, "respond", self.token)}
        if found and not allowed:
            raise NotTheirs(_("You may not answer this run."))
        return [waiter for waiter in found if waiter.run.run_id in allowed]
