"""The form that starts a run: made of the JSON Schema of the workflow's payload, or one box for JSON.

A field for each property that a form has a field for; what is nested is JSON in its field. `payload()` gives plain
data, which the workflow itself checks: its errors come back to the field that they are about.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from django import forms
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from django_workflow.authoring.payload_schema import Schema
from django_workflow.client.options import TriggerOptions

MOST_FIELDS = 40


class OptionsForm(forms.Form):
    """How the run is started, whatever its payload."""

    run_id = forms.CharField(
        label=gettext_lazy("Run id"),
        required=False,
        max_length=255,
        help_text=gettext_lazy(
            "A second run of the same id is not started, so sending this page twice starts one run."
        ),
    )
    label = forms.CharField(
        label=gettext_lazy("Label"),
        required=False,
        max_length=255,
        help_text=gettext_lazy("One or several, separated by commas."),
    )
    delay = forms.CharField(
        label=gettext_lazy("Delay"), required=False, max_length=20, help_text=gettext_lazy("Such as 10m, 2h or 3d.")
    )
    reason = forms.CharField(
        label=gettext_lazy("Reason"),
        required=False,
        max_length=1000,
        help_text=gettext_lazy("Optional. It is noted in the history, with your name."),
    )

    def clean_run_id(self) -> str:
        return str(self._checked("run_id", self.cleaned_data["run_id"].strip()))

    def clean_delay(self) -> str:
        return str(self._checked("delay", self.cleaned_data["delay"].strip()))

    def clean_label(self) -> list[str]:
        labels = [label.strip() for label in self.cleaned_data["label"].split(",") if label.strip()]
        self._checked("label", labels)
        return labels

    def _checked(self, name: str, value: Any) -> Any:
        if value:
            try:
                TriggerOptions.of(**{name: value})
            except (ValueError, TypeError) as error:
                raise forms.ValidationError(str(error)) from error
        return value

    @property
    def options(self) -> dict[str, Any]:
        """What `Workflow.using` takes."""
        data = self.cleaned_data
        found = {"workflow_run_id": data["run_id"], "label": data["label"], "delay": data["delay"]}
        return {name: value for name, value in found.items() if value}


class JsonForm(forms.Form):
    """The payload as one text of JSON; empty: no payload."""

    json = forms.CharField(
        label=gettext_lazy("Payload as JSON"),
        required=False,
        widget=forms.Textarea(attrs={"rows": 10, "class": "wfa-json", "spellcheck": "false"}),
    )

    def clean_json(self) -> Any:
        text = self.cleaned_data["json"].strip()
        return _parsed(text) if text else None

    def payload(self) -> Any:
        return self.cleaned_data["json"]

    def add_payload_error(self, path: str, text: str) -> None:
        self.add_error("json", text)

    @staticmethod
    def initial_of(payload: Any) -> dict[str, Any]:
        return {"json": "" if payload is None else _laid_out(payload)}


@dataclass(frozen=True, slots=True)
class Property:
    """A property of the payload: its form field, what makes plain data of the cleaned value, and whether it must be
    there (as null when it was left empty)."""

    field: forms.Field
    write: Callable[[Any], Any]
    is_required: bool


class FieldsForm(forms.Form):
    """A field for each property of the payload; made by `fields_form`."""

    properties: Mapping[str, Property] = {}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, property_ in self.properties.items():
            self.fields[name] = copy.deepcopy(property_.field)

    def payload(self) -> dict[str, Any]:
        """Plain data: what was left empty and need not be there is left out."""
        found = {}
        for name, property_ in self.properties.items():
            value = self.cleaned_data.get(name)
            if value is not None and value != "":
                found[name] = property_.write(value)
            elif property_.is_required:
                found[name] = None
        return found

    def add_payload_error(self, path: str, text: str) -> None:
        """An error at a path such as `$.order.id`: at its field, or above them all."""
        name = path.removeprefix("$.").partition(".")[0].partition("[")[0]
        self.add_error(name if name in self.fields else None, text)

    def initial_of(self, payload: Any) -> dict[str, Any]:
        return initial_of(self, payload)


def fields_form(schema: Schema | None) -> type[FieldsForm] | None:
    """A form class for a payload that is an object with known properties; None when only JSON will do."""
    top = _resolved(schema or {}, schema or {})
    properties = top.get("properties")
    if top.get("type") != "object" or not isinstance(properties, dict) or len(properties) > MOST_FIELDS:
        return None
    required = set(top.get("required", ()))
    made = {name: _property(name, inner, schema or {}, required=name in required) for name, inner in properties.items()}
    return type("PayloadForm", (FieldsForm,), {"properties": made})


def initial_of(form: FieldsForm, payload: Any) -> dict[str, Any]:
    """What the fields start with for a payload to copy. Its unknown properties are left behind."""
    if not isinstance(payload, Mapping):
        return {}
    return {
        name: _laid_out(payload[name]) if isinstance(field, _JsonField) else payload[name]
        for name, field in form.fields.items()
        if name in payload
    }


# Fields


class _JsonField(forms.CharField):
    widget = forms.Textarea

    def to_python(self, value: Any) -> Any:
        text = super().to_python(value)
        return _parsed(text) if text else None


def _property(name: str, inner: Schema, root: Schema, *, required: bool) -> Property:
    found, nullable = _without_null(_resolved(inner, root), root)
    default = inner.get("default")
    common: dict[str, Any] = {
        "label": name,
        "required": required and not nullable,
        "help_text": str(inner.get("description", "")),
    }
    if default is not None and not isinstance(default, dict | list):
        common["initial"] = default
    values = found.get("enum", [found["const"]] if "const" in found else None)
    if values is not None:
        field, write = _enum_field(values, common)
    elif found.get("type") == "boolean":
        # What is not ticked is false, so it is always there; of three answers one is "unknown".
        field = (forms.NullBooleanField if nullable else forms.BooleanField)(**{**common, "required": False})
        write = bool
    elif found.get("type") == "integer":
        field, write = forms.IntegerField(min_value=_limit(found, 0), max_value=_limit(found, 1), **common), int
    elif found.get("type") == "number":
        field, write = forms.FloatField(**common), float
    elif found.get("type") == "string":
        field, write = _text_field(found, common)
    else:
        is_json = _("JSON.")
        common["help_text"] = f"{common['help_text']} {is_json}".strip()
        if default is not None:
            common["initial"] = _laid_out(default)
        attrs = {"rows": 4, "class": "wfa-json", "spellcheck": "false"}
        field, write = _JsonField(widget=forms.Textarea(attrs=attrs), **common), _same
    return Property(field, write, is_required=required)


def _enum_field(values: list[Any], common: dict[str, Any]) -> tuple[forms.Field, Callable[[Any], Any]]:
    """Choices by their place, so that each comes back as the value that it was."""
    by_place = {str(place): value for place, value in enumerate(values)}
    choices = [(place, str(value)) for place, value in by_place.items()]
    if not common["required"]:
        choices.insert(0, ("", "---------"))
    return _EnumField(choices=choices, **common), by_place.__getitem__


def _text_field(found: Schema, common: dict[str, Any]) -> tuple[forms.Field, Callable[[Any], Any]]:
    match found.get("format"):
        case "date":
            return forms.DateField(widget=forms.DateInput(attrs={"type": "date"}, format="%Y-%m-%d"), **common), _iso
        case "date-time":
            widget = forms.DateTimeInput(attrs={"type": "datetime-local", "step": "1"}, format="%Y-%m-%dT%H:%M:%S")
            return _InstantField(widget=widget, **common), _iso
        case "decimal":
            return forms.DecimalField(**common), str
        case "email":
            return forms.EmailField(**common), str
        case "uuid":
            return forms.UUIDField(**common), str
        case _other:
            limits: dict[str, Any] = {"max_length": found.get("maxLength"), "min_length": found.get("minLength")}
            return forms.CharField(strip=False, **limits, **common), str


class _EnumField(forms.ChoiceField):
    def prepare_value(self, value: Any) -> Any:
        """The place of a value that is to be copied; a choice that was made is a place already."""
        places: Any = self.choices
        return next((place for place, text in places if place and text == str(value)), value)


class _InstantField(forms.DateTimeField):
    """A local time of the user's zone; Django makes it aware."""

    input_formats = ["%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M:%S"]

    def prepare_value(self, value: Any) -> Any:
        if isinstance(value, str):
            try:
                value = datetime.fromisoformat(value)
            except ValueError:
                return value
        if isinstance(value, datetime) and timezone.is_aware(value):
            value = timezone.localtime(value)
        return value


def _limit(found: Schema, which: int) -> int | None:
    """The least or the greatest whole number that is allowed."""
    inclusive, exclusive, step = (
        ("minimum", "exclusiveMinimum", 1) if which == 0 else ("maximum", "exclusiveMaximum", -1)
    )
    if isinstance(found.get(inclusive), int):
        return int(found[inclusive])
    return int(found[exclusive]) + step if isinstance(found.get(exclusive), int) else None


def _resolved(schema: Schema, root: Schema) -> Schema:
    """The schema that a `$ref` names; itself when it has none."""
    seen = 0
    while "$ref" in schema and seen < 20:
        found: Any = root
        for part in schema["$ref"].removeprefix("#/").split("/"):
            found = found.get(part.replace("~1", "/").replace("~0", "~"), {})
        schema, seen = found, seen + 1
    if len(schema.get("allOf", ())) == 1:
        return _resolved(schema["allOf"][0], root)
    return schema


def _without_null(schema: Schema, root: Schema) -> tuple[Schema, bool]:
    """The schema without its `null` alternative, and whether it had one. Several alternatives stay as they are."""
    kinds = schema.get("type")
    if isinstance(kinds, list):
        others = [kind for kind in kinds if kind != "null"]
        return ({**schema, "type": others[0]} if len(others) == 1 else {}), "null" in kinds
    alternatives = schema.get("anyOf") or schema.get("oneOf")
    if alternatives is None:
        return schema, False
    others = [_resolved(one, root) for one in alternatives if one.get("type") != "null"]
    nullable = len(others) < len(alternatives)
    return (others[0] if len(others) == 1 else {}), nullable


# Values


def _parsed(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise forms.ValidationError(_("This is no JSON: %s.") % error) from error


def _refuse(constant: str) -> Any:
    raise ValueError(_("%s has no form in JSON") % constant)


def _laid_out(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def _iso(value: date) -> str:
    return value.isoformat()


def _same(value: Any) -> Any:
    return value
