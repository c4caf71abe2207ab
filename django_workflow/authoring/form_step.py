"""The step that waits for a form: a Django form that somebody fills in, in the widget or by the API."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from django.utils.module_loading import import_string

from django_workflow.authoring import reading
from django_workflow.authoring.results import FormResult
from django_workflow.authoring.secrets import form_secrets, secret_paths
from django_workflow.authoring.step_kinds import AnyWait
from django_workflow.client.options import Duration
from django_workflow.errors import PayloadInvalid, StepError
from django_workflow.protocol.steps import Step, StepType
from django_workflow.protocol.waits import FormPrompt
from django_workflow.replay.outcome import WaitSubmission
from django_workflow.replay.values import decode_json, decoder_for, encode_value

if TYPE_CHECKING:
    from django.forms import BaseForm

To = Any
"""A user, a `Group`, the name of a permission (`"shop.approve_order"`), or several of them."""


class FormStep(AnyWait[FormResult[Any]]):
    """`event_id` is the step's name unless another is given: answers are addressed to the run."""

    __slots__ = ("form", "initial", "to", "type")

    step_type: ClassVar[StepType] = StepType.WAIT

    def __init__(
        self,
        name: str,
        form: type[BaseForm],
        to: To,
        timeout: Duration,
        initial: Mapping[str, Any] | None,
        message: str | None,
        event_id: str | None,
        type: Any,
    ) -> None:
        super().__init__(name, name if event_id is None else event_id, timeout, message)
        self.form = form
        self.to = to
        self.initial = initial
        self.type = type

    @property
    def secret(self) -> tuple[str, ...]:
        """Fields that the form hides while they are typed, and those that the type marks."""
        return form_secrets(self.form) + (() if self.type is None else secret_paths(self.type))

    def submission(self, step_id: int, concurrent: int) -> WaitSubmission:
        initial = encode_value(self.initial or {}, f"What form {self.name!r} starts with", error=PayloadInvalid)
        prompt = FormPrompt(form=path_of(self.form), initial=decode_json(initial), to=tuple(_addressees(self.to)))
        return replace(super().submission(step_id, concurrent), form=prompt)

    def read(self, step: Step) -> FormResult[Any]:
        waited = reading.read_wait(step, decode_json if self.type is None else decoder_for(self.type))
        return FormResult(values=waited.event_data, timeout=waited.timeout)


def path_of(form: type[BaseForm]) -> str:
    """The dotted path of a form's class. Raises StepError for one that cannot be imported by it."""
    from django.forms import BaseForm  # not before there are settings

    path = f"{getattr(form, '__module__', '')}.{getattr(form, '__qualname__', '')}"
    try:
        found = import_string(path)
    except ImportError:
        found = None
    if found is not form or not issubclass(form, BaseForm):
        raise StepError(
            f"{form!r} cannot be shown to anybody: give a class of django.forms that stands at the top of its module."
        )
    return path


def _addressees(to: To) -> Iterable[str]:
    """Who may answer, as text: `user:<key>`, `group:<name>`, `perm:<app.codename>`. Raises StepError."""
    if to is None:
        return
    if isinstance(to, str):
        if "." not in to:
            raise StepError(f'to={to!r}: name a permission as "app.codename", or pass a user or a group.')
        yield f"perm:{to}"
    elif hasattr(to, "get_username"):
        yield f"user:{to.pk}"
    elif hasattr(to, "permissions") and hasattr(to, "name"):
        yield f"group:{to.name}"
    elif isinstance(to, Iterable):
        for one in to:
            yield from _addressees(one)
    else:
        raise StepError(f"to={to!r} is none of a user, a group, the name of a permission, or several of them.")
