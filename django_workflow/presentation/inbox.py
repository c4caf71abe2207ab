"""What people are asked: the open questions of runs, those that a user may answer, and what he has answered.

In a number of queries that does not grow with the questions. Questions are read oldest first, MOST of them at most.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.contrib.auth import get_user_model
from django.db.models import Q
from django.utils.translation import gettext as _

from django_workflow.conf import get_settings
from django_workflow.errors import Misconfigured
from django_workflow.models import InputRequest, Waiter
from django_workflow.protocol.steps import StepType
from django_workflow.realtime import access
from django_workflow.realtime.forms import OpenForm, read_form

if TYPE_CHECKING:
    from django.db.models import QuerySet

    from django_workflow.models.waiter import WaiterQuerySet

MOST = 1000
"""Open questions that are looked at for one user."""

_UNUSED = ("step", "config", "event_data", "run__payload", "run__result", "run__config", "run__error", "run__why")


@dataclass(frozen=True, slots=True)
class Question:
    """A wait for an answer of a person; `form` is what the answer is given by, None: any JSON."""

    waiter: Waiter
    form: OpenForm | None

    @property
    def text(self) -> str:
        return self.waiter.prompt or self.waiter.step_name or self.waiter.event_id


def questions_for(user: Any) -> tuple[list[Question], bool]:
    """The open questions that a user may answer, oldest first; and whether there may be more than were looked at."""
    waiters = _open().select_related("run", "run__content_type").defer(*_UNUSED)
    if not _answers_everything(user):
        forms = _open_forms().filter(prompt__contains='"to":').values("run")
        mine = Q(run__owner=user.pk) | Q(run__in=forms)
        waiters = waiters if _has_rule_of_its_own() else waiters.filter(mine)
    rows = list(waiters.order_by("created_at").prefetch_related("run__related_object")[: MOST + 1])
    forms_by_step = _forms_of(rows)
    groups = set(user.groups.values_list("name", flat=True)) if hasattr(user, "groups") else set()
    found = [Question(waiter, forms_by_step.get((waiter.run_id, waiter.step_id))) for waiter in rows[:MOST]]
    return [question for question in found if _may_answer(question, user, groups)], len(rows) > MOST


def question_of(waiter: Waiter, user: Any) -> Question | None:
    """One question, when the user may answer it (or might have, before it was answered)."""
    question = Question(waiter, _forms_of([waiter]).get((waiter.run_id, waiter.step_id)))
    return question if _may_answer(question, user, None) else None


def answered_by(user: Any) -> WaiterQuerySet:
    """What a user has answered, newest first."""
    rows: WaiterQuerySet = _waits().filter(resolved_by=user.pk).order_by("-resolved_at")
    return rows.select_related("run").defer(*_UNUSED)


def addressees(questions: Iterable[Question]) -> dict[UUID, str]:
    """For whom each question is, in words, by its waiter's key; those that are for whoever may answer are left out."""
    found = {question.waiter.pk: question.form.prompt.to for question in questions if question.form is not None}
    keys = {name for to in found.values() for kind, _s, name in (one.partition(":") for one in to) if kind == "user"}
    users = get_user_model()._default_manager.filter(pk__in=keys) if keys else ()
    names = {str(user.pk): user.get_username() for user in users}
    return {key: ", ".join(_addressee(one, names) for one in to) for key, to in found.items() if to}


def _addressee(text: str, names: dict[str, str]) -> str:
    kind, _separator, name = text.partition(":")
    if kind == "group":
        return _("group %s") % name
    if kind == "perm":
        return _("who has the permission %s") % name
    return names.get(name, _("a user who is gone"))


def _waits() -> WaiterQuerySet:
    """Waits for events that people can send; webhooks are others' to call."""
    rows: WaiterQuerySet = Waiter.objects.using(get_settings().database).filter(
        Q(step_type=StepType.WAIT) | Q(step_type="")
    )
    return rows


def _open() -> WaiterQuerySet:
    return _waits().waiting()


def _open_forms() -> QuerySet[InputRequest]:
    return InputRequest.objects.using(get_settings().database).filter(answered_at=None)


def _forms_of(waiters: list[Waiter]) -> dict[tuple[UUID, int | None], OpenForm]:
    """The open forms of these waits' runs, by run and step. A form that cannot be read is nobody's."""
    if not waiters:
        return {}
    requests = _open_forms()
    if len(waiters) == 1:
        requests = requests.filter(run=waiters[0].run_id)
    else:
        requests = requests.filter(run__in=Waiter.objects.using(get_settings().database).waiting().values("run"))
    found: dict[tuple[UUID, int | None], OpenForm] = {}
    for request in requests.order_by("created_at")[: MOST * 2]:
        try:
            found[(request.run_id, request.step_id)] = read_form(request)
        except Misconfigured:
            continue
    return found


def _has_rule_of_its_own() -> bool:
    return get_settings().realtime_authorize is not None


def _answers_everything(user: Any) -> bool:
    return bool(user.is_superuser or (not _has_rule_of_its_own() and user.has_perm(access.PERMISSIONS["respond"])))


def _may_answer(question: Question, user: Any, groups: set[str] | None) -> bool:
    if question.form is not None and question.form.prompt.to:
        return question.form.is_for(user, groups)
    if _answers_everything(user):
        return True
    run = question.waiter.run
    return access.authorize(user, run.run_id, "respond") if _has_rule_of_its_own() else run.owner_id == user.pk
