"""Forms that runs wait for: shown to whom they are addressed, and validated on the server.

`widget` shows them, the API takes their answers. What is sent to the run are the form's cleaned data as JSON.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from django.contrib.auth import get_user_model
from django.db.models import Model, QuerySet
from django.forms import BaseForm
from django.utils import timezone
from django.utils.module_loading import import_string
from django.utils.translation import gettext as _

from django_workflow.conf import get_settings
from django_workflow.errors import Misconfigured, RequestRejected
from django_workflow.models import InputRequest
from django_workflow.protocol.waits import FormPrompt, decode_prompt
from django_workflow.realtime import access
from django_workflow.replay.values import encode_value

if TYPE_CHECKING:
    from django_workflow.realtime.access import User


class FormInvalid(RequestRejected):
    """An answer that the form does not take. `form` is bound, `fields` maps names to texts."""

    def __init__(self, form: BaseForm) -> None:
        super().__init__(_("The form has errors."))
        self.form = form
        self.fields: dict[str, list[str]] = {name: list(map(str, errors)) for name, errors in form.errors.items()}


@dataclass(frozen=True, slots=True)
class OpenForm:
    """A form that is waited for."""

    request: InputRequest
    prompt: FormPrompt

    def blank(self) -> BaseForm:
        """The form as it is first shown."""
        return self._class()(initial=self.prompt.initial, prefix=self._prefix)

    def clean(self, data: Any, files: Any = None) -> bytes:
        """The cleaned data as JSON. `data` are a POST's, with the names that `blank` shows. Raises FormInvalid."""
        return self._clean(self._class()(data, files, initial=self.prompt.initial, prefix=self._prefix))

    def clean_plain(self, values: dict[str, Any]) -> bytes:
        """The same for plain values by field, as programs send them."""
        return self._clean(self._class()(values, initial=self.prompt.initial))

    def _clean(self, form: BaseForm) -> bytes:
        if not form.is_valid():
            raise FormInvalid(form)
        values = {name: _plain(value) for name, value in form.cleaned_data.items()}
        return encode_value(values, "The answer")

    @property
    def _prefix(self) -> str:
        """Several forms may stand on one page, beside those of the project."""
        return f"wf{self.request.step_id}"

    def _class(self) -> type[BaseForm]:
        found = import_string(self.prompt.form)
        if not (isinstance(found, type) and issubclass(found, BaseForm)):
            raise Misconfigured(f"{self.prompt.form} is no form class; step {self.request.step_id} waits for it.")
        return found

    def is_for(self, user: User | None, groups: Collection[str] | None = None) -> bool:
        """Whether the form is addressed to this user; to everybody who may answer the run when nobody is named.

        `groups` are the names of the user's groups, for who asks about many forms; None: they are looked up.
        """
        if not self.prompt.to:
            return True
        if user is None or not user.is_authenticated or not user.is_active:
            return False
        return getattr(user, "is_superuser", False) or any(_fits(user, to, groups) for to in self.prompt.to)


def _fits(user: Any, addressee: str, groups: Collection[str] | None) -> bool:
    kind, _separator, name = addressee.partition(":")
    if kind == "user":
        return str(user.pk) == name
    if kind == "group":
        if groups is not None:
            return name in groups
        return hasattr(user, "groups") and user.groups.filter(name=name).exists()
    return kind == "perm" and hasattr(user, "has_perm") and user.has_perm(name)


def _plain(value: Any) -> Any:
    """What JSON has no form for: chosen objects are their keys, files their names."""
    if isinstance(value, Model):
        return value.pk
    if isinstance(value, QuerySet):
        return [one.pk for one in value]
    return value.name if hasattr(value, "chunks") else value


def find_form(run_id: str, event_id: str) -> OpenForm | None:
    """The form that a run waits for under this event; None when it waits for none."""
    requests = InputRequest.objects.using(get_settings().database).filter(run__run_id=run_id, event_id=event_id)
    request = requests.filter(answered_at=None).order_by("-created_at").first()
    return None if request is None else read_form(request)


def read_form(request: InputRequest) -> OpenForm:
    """Raises Misconfigured for a row that no version of this package wrote."""
    try:
        return OpenForm(request, decode_prompt(request.prompt))
    except msgspec.DecodeError as error:
        raise Misconfigured(f"The form of step {request.step_id} cannot be read: {error}.") from error


def may_fill_in(form: OpenForm, user: User | None, run_id: str, token: str = "") -> bool:
    """Whether this user (or the bearer of the token, when nobody is named) may answer with the form."""
    if form.prompt.to:
        return form.is_for(user)
    return access.may(user, run_id, "respond", token)


def note_answer(form: OpenForm, user: User | None, answer: bytes) -> bool:
    """Write down who answered what. False when somebody was faster: then the answer must not be sent."""
    known = user if isinstance(user, get_user_model()) else None
    rows = InputRequest.objects.using(get_settings().database).filter(pk=form.request.pk, answered_at=None)
    return bool(rows.update(answered_at=timezone.now(), answered_by=known, answer=answer.decode()))
