"""What can be done about a run that is over: deal with its failure, call its failure function again, delete it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from django_workflow.client.client import get_client
from django_workflow.control.action import Action, ActionRefused, Outcome, dlq_id_of, is_not_over, letter_of
from django_workflow.engine.pruner import delete_runs
from django_workflow.models import DeadLetter, Run

if TYPE_CHECKING:
    from django_workflow.models.run import RunQuerySet


class MarkHandled(Action):
    """The dead letter goes; the run and its error stay."""

    name = "mark_handled"
    permission = "resume_run"
    title = gettext_lazy("Mark as handled")
    verb = gettext_lazy("Mark as handled:")
    past = gettext_lazy("marked as handled")

    def hindrance(self, run: Run) -> str:
        if run.status != Run.Status.FAILED:
            return _("The run has not failed.")
        return "" if letter_of(run) else _("The failure was handled already.")

    def possible(self, runs: RunQuerySet) -> RunQuerySet:
        return runs.filter(status=Run.Status.FAILED, dead_letter__isnull=False)

    def do(self, run: Run, *, by: Any) -> Outcome:
        letter = letter_of(run)
        dlq_id = dlq_id_of(letter) if letter is not None else ""
        if letter is not None and not dlq_id:  # of a hosted run whose letter this site was never told of
            letter.delete()
        elif not dlq_id or not get_client().delete_dead_letters(dlq_id).deleted:
            raise ActionRefused(_("The failure was handled already."))
        return Outcome(run.run_id, _("Marked as handled."))


class RetryFailureFunction(Action):
    name = "retry_failure_function"
    permission = "resume_run"
    title = gettext_lazy("Retry failure function")
    verb = gettext_lazy("Call the failure function again of")
    past = gettext_lazy("whose failure function is called again")

    def hindrance(self, run: Run) -> str:
        if run.status != Run.Status.FAILED:
            return _("The run has not failed.")
        letter = letter_of(run)
        if letter is None or not dlq_id_of(letter):
            return _("The failure was handled already: there is no dead letter to call the function with.")
        return str(_STATES.get(letter.failure_state, ""))

    def possible(self, runs: RunQuerySet) -> RunQuerySet:
        return runs.filter(status=Run.Status.FAILED, dead_letter__failure_state=DeadLetter.FailureState.FAILED)

    def do(self, run: Run, *, by: Any) -> Outcome:
        letter = letter_of(run)
        assert letter is not None
        get_client().rerun_failure_function(dlq_id_of(letter))
        return Outcome(run.run_id, _("The failure function is called again."))


_STATES = {
    DeadLetter.FailureState.NONE.value: gettext_lazy("The workflow has no failure function."),
    DeadLetter.FailureState.IN_PROGRESS.value: gettext_lazy("The failure function is being called."),
    DeadLetter.FailureState.SUCCESS.value: gettext_lazy("The failure function has done its work."),
    DeadLetter.FailureState.CANCELED.value: gettext_lazy("The failure function was canceled."),
}


class Delete(Action):
    name = "delete"
    permission = "delete_run"
    title = gettext_lazy("Delete")
    verb = gettext_lazy("Delete")
    past = gettext_lazy("deleted")

    def hindrance(self, run: Run) -> str:
        return is_not_over(run)

    def possible(self, runs: RunQuerySet) -> RunQuerySet:
        return runs.finished()

    def do(self, run: Run, *, by: Any) -> Outcome:
        delete_runs([run])
        return Outcome(run.run_id, _("Deleted."))
