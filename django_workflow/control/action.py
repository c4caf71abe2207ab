"""What an action is: whether it can be done to a run now, the doing of it, and the note of who did it and why.

The actions themselves are gathered in `actions`; admin, API and commands ask there. What is refused is refused with
the sentence that a disabled button shows.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

from django.utils.functional import Promise
from django.utils.translation import gettext as _

from django_workflow.conf import get_settings
from django_workflow.control.history import note
from django_workflow.engine.gate import engine_atomic
from django_workflow.errors import RunEnded, WorkflowError
from django_workflow.models import DeadLetter, Run
from django_workflow.presentation import lookup

if TYPE_CHECKING:
    from django_workflow.models.run import RunQuerySet


class ActionRefused(WorkflowError):
    """An action cannot be done to a run now; `why` is one sentence for people."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an action came to: the run that it concerns, or that it made, and a sentence that says so."""

    run_id: str
    message: str


def may(user: Any, codename: str) -> bool:
    """Whether a user holds the permission `django_workflow.<codename>`."""
    return bool(user.is_active and user.has_perm(f"django_workflow.{codename}"))


class Action:
    """Something that can be done to a run.

    `permission` is a codename of this app. `title` names the action ("Cancel"), `verb` goes before a number of runs
    ("Cancel 12 runs"), `past` after it ("12 runs canceled"). The flags tell which parameters `perform` takes:
    `needs_payload` a `payload` (None: as it was), `needs_step` a `step`, `needs_event` an `event_id` and `data`.
    `in_bulk`: whether it makes sense for many runs.
    """

    name: ClassVar[str]
    permission: ClassVar[str]
    title: ClassVar[str | Promise]
    verb: ClassVar[str | Promise]
    past: ClassVar[str | Promise]
    needs_payload: ClassVar[bool] = False
    needs_step: ClassVar[bool] = False
    needs_event: ClassVar[bool] = False
    in_bulk: ClassVar[bool] = True

    def __repr__(self) -> str:
        return f"<Action {self.name}>"

    def why_not(self, run: Run, *, user: Any = None) -> str:
        """ "" when it can be done now; else why not, in one sentence. `user` None: whoever asks may do everything."""
        if user is not None and not may(user, self.permission):
            return _("You do not have the permission “%s”.") % self.permission
        return self.hindrance(run)

    def perform(self, run: Run, *, by: Any, reason: str = "", **parameters: Any) -> Outcome:
        """Do it, and note in the object's history who (`by`, a user; None: code, of which nothing is noted) did it and
        why. Raises ActionRefused, PayloadInvalid for a payload that does not fit, EngineError of the engine."""
        run = lookup.runs().filter(pk=run.pk).first() or run  # as it is now
        reason = reason.replace("\0", "")  # which no text in a database has
        why = self.why_not(run, user=by)
        if why:
            raise ActionRefused(why)
        with together():
            try:
                outcome = self.do(run, by=by, **parameters)
            except RunEnded as error:
                raise ActionRefused(_("The run is over, or unknown to the engine.")) from error
            note(run, by=by, what=str(self.title), reason=reason, outcome=outcome, deleted=self.name == "delete")
        return outcome

    # What each action says

    def hindrance(self, run: Run) -> str:
        """What in the run's state, or in the engine, forbids it; "" when nothing does."""
        raise NotImplementedError

    def caution(self, run: Run) -> str:
        """What is good to know before it is done to a run, in one sentence; "" when there is nothing."""
        return ""

    def possible(self, runs: RunQuerySet) -> RunQuerySet:
        """Those of the runs to which it can be done: `hindrance` as a query."""
        raise NotImplementedError

    def do(self, run: Run, *, by: Any) -> Outcome:
        raise NotImplementedError


def together() -> AbstractContextManager[None]:
    """A transaction around an action and its note. What a hosted engine was told cannot be taken back: there, none."""
    settings = get_settings()
    return nullcontext() if settings.is_hosted else engine_atomic(settings.database)


def is_over(run: Run) -> str:
    """The hindrance of what only goes with living runs."""
    return _("The run is over: %s.") % run.get_status_display() if run.is_finished else ""


def is_not_over(run: Run) -> str:
    """The hindrance of what only goes with runs that are over."""
    return "" if run.is_finished else _("The run is not over: cancel it first.")


def is_forgotten(run: Run) -> str:
    """The hindrance of what needs the run's payload or results."""
    return _("Its payload and results were erased.") if run.forgotten_at is not None else ""


def letter_of(run: Run) -> DeadLetter | None:
    """The dead letter of a failed run, unless it was dealt with."""
    if "dead_letter" in run._state.fields_cache:  # read with the run, by select_related
        return cast("DeadLetter | None", run._state.fields_cache["dead_letter"])
    return DeadLetter.objects.using(get_settings().database).filter(run=run.pk).first()


def dlq_id_of(letter: DeadLetter) -> str:
    """The engine's id of a dead letter; "" while the hosted engine has not told it."""
    return letter.dlq_id if get_settings().is_hosted else str(letter.pk)
