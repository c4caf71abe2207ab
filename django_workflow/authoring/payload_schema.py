"""The JSON Schema of a workflow's payload: what a form or a description of its fields is made of.

Whatever names the payload's type: a type that msgspec reads, a pydantic model, or a serializer class of REST framework.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import msgspec.inspect

from django_workflow.replay.values import ANY

Schema = dict[str, Any]


def payload_schema(type_: Any) -> Schema | None:
    """JSON Schema (draft 2020-12) of a payload's type; None when the type says nothing, or has no schema."""
    if type_ is ANY or type_ is None or type_ is type(None):
        return None
    try:
        if hasattr(type_, "model_json_schema"):  # pydantic
            return dict(type_.model_json_schema())
        if isinstance(type_, type) and hasattr(type_, "is_valid") and hasattr(type_, "validated_data"):
            return _of_serializer(type_())
        return _with_instants(msgspec.json.schema(type_), type_)
    except (TypeError, ValueError, NameError, RecursionError):
        return None


def _with_instants(schema: Schema, type_: Any) -> Schema:
    """The schema with the format of its properties that are datetimes: msgspec leaves it out, as they may be naive."""
    top = schema
    if "$ref" in schema:
        top = schema["$defs"][schema["$ref"].rpartition("/")[2]]
    for field in getattr(msgspec.inspect.type_info(type_), "fields", ()):
        kinds = getattr(field.type, "types", (field.type,))
        inner = top.get("properties", {}).get(field.encode_name, {})
        if any(isinstance(kind, msgspec.inspect.DateTimeType) for kind in kinds):
            for alternative in inner.get("anyOf", (inner,)):
                if alternative.get("type") == "string":
                    alternative.setdefault("format", "date-time")
    return schema


# Serializers, told by the names of their fields' classes: REST framework need not be imported for that.

_KINDS: dict[str, Schema] = {
    "BooleanField": {"type": "boolean"},
    "NullBooleanField": {"type": "boolean"},
    "IntegerField": {"type": "integer"},
    "FloatField": {"type": "number"},
    "DecimalField": {"type": "string", "format": "decimal"},
    "DateTimeField": {"type": "string", "format": "date-time"},
    "DateField": {"type": "string", "format": "date"},
    "TimeField": {"type": "string", "format": "time"},
    "UUIDField": {"type": "string", "format": "uuid"},
    "EmailField": {"type": "string", "format": "email"},
    "URLField": {"type": "string", "format": "uri"},
    "CharField": {"type": "string"},
    "PrimaryKeyRelatedField": {},
}
_LIMITS = {
    "max_length": "maxLength",
    "min_length": "minLength",
    "max_value": "maximum",
    "min_value": "minimum",
}


def _of_serializer(serializer: Any) -> Schema:
    if hasattr(serializer, "child"):
        return {"type": "array", "items": _of_field(serializer.child)}
    fields: Mapping[str, Any] = {name: field for name, field in serializer.fields.items() if not field.read_only}
    return {
        "type": "object",
        "properties": {name: _of_field(field) for name, field in fields.items()},
        "required": [name for name, field in fields.items() if field.required],
    }


def _of_field(field: Any) -> Schema:
    if hasattr(field, "fields") or (hasattr(field, "child") and not hasattr(field, "choices")):
        schema = (
            _of_serializer(field) if hasattr(field, "fields") else {"type": "array", "items": _of_field(field.child)}
        )
    elif hasattr(field, "choices") and not hasattr(field, "queryset"):
        schema = {"enum": list(field.choices)}
    else:
        names = [base.__name__ for base in type(field).__mro__]
        schema = dict(next((_KINDS[name] for name in names if name in _KINDS), {}))
        for limit, keyword in _LIMITS.items():
            if schema and getattr(field, limit, None) is not None:
                schema[keyword] = getattr(field, limit)
    if field.allow_null:
        schema = {"anyOf": [schema, {"type": "null"}]}
    if field.help_text:
        schema["description"] = str(field.help_text)
    return schema
