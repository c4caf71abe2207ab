"""What the confirmation page of a run's action asks for: a payload, options of the new run, an event.

Each form turns what was typed into the parameters of `Action.perform`. Payloads are checked against the workflow's type
here, so that a bad one is refused on the page, with the path of what is wrong.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec
from django import forms
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, pgettext_lazy

from django_workflow.authoring.registry import registry
from django_workflow.control.actions import Action
from django_workflow.errors import WorkflowError
from django_workflow.models import Run
from django_workflow.presentation import values
from django_workflow.protocol.durations import parse_duration
from django_workflow.protocol.identifiers import new_run_id

WIDE = {"rows": 12, "cols": 80, "spellcheck": "false", "class": "wfa-json"}


class ActionForm(forms.Form):
    """`parameters` of a valid form go to the action. `initial` goes before what the run suggests."""

    def __init__(self, action: Action, run: Run, data: Any = None, initial: Mapping[str, Any] | None = None) -> None:
        super().__init__(data, initial={**self.initial_of(run), **(initial or {})})
        self.action, self.run = action, run

    def initial_of(self, run: Run) -> dict[str, Any]:
        return {}

    @property
    def parameters(self) -> dict[str, Any]:
        raise NotImplementedError


class NewRunForm(ActionForm):
    """For a run that begins anew: with what payload, under which labels, when, and under which id.

    The id is made with the page. So the page that is sent twice starts one run.
    """

    payload = forms.CharField(
        label=gettext_lazy("Payload"),
        required=False,
        strip=False,
        widget=forms.Textarea(attrs=WIDE),
        help_text=gettext_lazy("JSON. Left as it is, the new run gets the very payload of this one."),
    )
    labels = forms.CharField(
        label=gettext_lazy("Labels"), required=False, help_text=gettext_lazy("Separated by commas.")
    )
    delay = forms.CharField(
        label=pgettext_lazy("of a new run", "Delay"),
        required=False,
        help_text=gettext_lazy("How long until it starts: 90, 10m, 1h. Empty: at once."),
    )
    run_id = forms.CharField(label=gettext_lazy("Id of the new run"), max_length=200)

    def initial_of(self, run: Run) -> dict[str, Any]:
        return {
            "payload": self._shown(run),
            "labels": ",".join(run.label_list),
            "run_id": new_run_id(),
        }

    def _shown(self, run: Run) -> str:
        value = values.payload_of(run)
        return "" if value is None else values.laid_out(value)

    def clean_payload(self) -> bytes | None:
        """None: as it was. Text of the browser has other line ends than the text that it was given."""
        text = str(self.cleaned_data["payload"]).replace("\r\n", "\n")
        if text.strip() == self._shown(self.run).strip():
            return None
        if values.REDACTED in text:
            raise forms.ValidationError(
                _("%s stands for a value that is hidden: write a value in its place, or leave the payload as it is.")
                % values.REDACTED
            )
        return _checked(self.run, text)

    def clean_labels(self) -> list[str] | None:
        labels = [label.strip() for label in self.cleaned_data["labels"].split(",") if label.strip()]
        return None if labels == self.run.label_list else labels

    def clean_delay(self) -> str | None:
        text = self.cleaned_data["delay"].strip()
        if not text:
            return None
        try:
            parse_duration(float(text) if text.replace(".", "", 1).isdigit() else text)
        except (ValueError, WorkflowError) as error:
            raise forms.ValidationError(str(error)) from error
        return f"{text}s" if text.replace(".", "", 1).isdigit() else str(text)

    @property
    def parameters(self) -> dict[str, Any]:
        given = {name: value for name, value in self.cleaned_data.items() if value is not None}
        if self.action.name == "restart" and set(given) == {"run_id"} and getattr(self.run, "dead_letter", None):
            return {}  # as the engine restarts a dead letter, which is dealt with by that
        return given


class EventForm(ActionForm):
    event_id = forms.CharField(label=gettext_lazy("Event"), max_length=255)
    event_data = forms.CharField(
        label=gettext_lazy("Data"),
        required=False,
        widget=forms.Textarea(attrs={**WIDE, "rows": 6}),
        help_text=gettext_lazy("JSON. The run goes on with it."),
    )

    def initial_of(self, run: Run) -> dict[str, Any]:
        waiting = run.waiters.filter(state="waiting").order_by("created_at").values_list("event_id", flat=True)
        return {"event_id": waiting.first() or "", "event_data": "{}"}

    def clean_event_data(self) -> Any:
        text = self.cleaned_data["event_data"]
        return _json(text) if text.strip() else None

    @property
    def parameters(self) -> dict[str, Any]:
        return {"event_id": self.cleaned_data["event_id"], "data": self.cleaned_data["event_data"]}


class StepForm(ActionForm):
    """For a fork: with what steps the new run begins as done."""

    step = forms.IntegerField(
        label=gettext_lazy("Fork from step"),
        min_value=1,
        help_text=gettext_lazy("The number of the step that is done anew; results of the steps before it are kept."),
    )

    @property
    def parameters(self) -> dict[str, Any]:
        return {"step": self.cleaned_data["step"]}


def form_of(action: Action, run: Run, data: Any = None, initial: Mapping[str, Any] | None = None) -> ActionForm | None:
    """What the action asks for; None when it needs nothing but the run."""
    kinds = ((action.needs_event, EventForm), (action.needs_step, StepForm), (action.needs_payload, NewRunForm))
    wanted = next((kind for needed, kind in kinds if needed), None)
    return wanted(action, run, data, initial) if wanted else None


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise forms.ValidationError(_("This is no JSON: %s") % error) from error


def _checked(run: Run, text: str) -> bytes:
    """The payload as bytes, if the run's workflow takes it; of workflows that are elsewhere, any JSON."""
    _json(text)
    raw = text.encode()
    workflow = registry.find(run.workflow)
    if workflow is not None:
        try:
            workflow.decode_payload(raw)
        except (WorkflowError, msgspec.MsgspecError) as error:
            raise forms.ValidationError(str(error)) from error
    return raw
