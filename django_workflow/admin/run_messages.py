"""The messages of a run's journal, as a table: what the engine was told, and when; never what a message holds."""

from __future__ import annotations

from dataclasses import dataclass

from django.db.models import Case, Q, TextField, Value, When
from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from django_workflow.admin.tables import Table, page_of, table_of
from django_workflow.engine.run_rows import read_step
from django_workflow.models import JournalEntry, Run
from django_workflow.protocol.steps import CallType

_KINDS = {
    CallType.TO_CALLBACK.value: gettext_lazy("Call to be made"),
    CallType.FROM_CALLBACK.value: gettext_lazy("Answer to a call"),
    CallType.FAILURE_CALL.value: gettext_lazy("Call of the failure function"),
}


@dataclass(frozen=True, slots=True)
class MessageRow:
    """A message of the run's journal: what it is, and the name of the step that it is about."""

    entry: JournalEntry
    kind: str
    step: str


def messages_of(request: HttpRequest, run: Run) -> Table[MessageRow]:
    """The run's journal without its bodies, which hold results. Only a plan's is read: it names its step."""
    is_plan = Q(call_type=CallType.STEP, step_id=None)
    entries = run.journal.defer("body", "config").annotate(
        plan=Case(When(is_plan, then="body"), default=Value(""), output_field=TextField())
    )
    page = page_of(request, entries.order_by("position"), "messages")
    numbers = [entry.step_id for entry in page if entry.step_id is not None]
    names = dict(run.steps.filter(step_id__in=numbers).values_list("step_id", "name"))
    return table_of(request, "messages", [_message_row(entry, names) for entry in page], page)


def _message_row(entry: JournalEntry, names: dict[int, str]) -> MessageRow:
    if entry.step_id is not None:
        return MessageRow(entry, _("Result of a step"), names.get(entry.step_id, ""))
    if entry.call_type == CallType.STEP:
        plan = read_step(getattr(entry, "plan", ""))
        return MessageRow(entry, _("Plan of a parallel step"), "" if plan is None else plan.step_name)
    return MessageRow(entry, str(_KINDS.get(entry.call_type, entry.call_type)), "")
