"""Payloads: what a run starts with, as the workflow's type and as JSON.

The type is what `WorkflowContext[OrderPlaced]` names, or `@workflow(payload=...)`: anything that msgspec reads, a
pydantic model, or a serializer class of REST framework (then the payload is its validated data). Without a type a
payload is plain JSON.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from django_workflow.authoring.reading import path_of
from django_workflow.errors import PayloadInvalid
from django_workflow.replay.values import ANY, decode_json, decoder_for, encode_value, to_plain

_MISSING = re.compile(r"missing required field `([^`]+)`")


class PayloadCodec:
    """Encodes and decodes payloads of one workflow. Both raise PayloadInvalid with the path of the bad value."""

    def __init__(self, type_: Any, workflow: str) -> None:
        self.type = type_
        self._workflow = workflow
        self._is_serializer = (
            isinstance(type_, type) and hasattr(type_, "is_valid") and hasattr(type_, "validated_data")
        )
        self._decode = decode_json if self._is_serializer else decoder_for(type_)

    def encode(self, payload: Any, limit: int | None) -> bytes:
        """JSON for a payload: an object of the type, or plain data that fits it. No payload is no bytes."""
        if payload is None:
            self.decode(b"")  # there must be a way to do without
            return b""
        what = f"The payload of workflow {self._workflow!r}"
        if self._is_serializer and not isinstance(payload, Mapping | list):
            payload = to_plain(payload)
        data = encode_value(payload, what, limit=limit, error=self._too_bad)
        self.decode(data)
        return data

    def decode(self, raw: bytes) -> Any:
        """The payload. No bytes are None, or the type with all its defaults."""
        if not raw:
            return self._without_payload()
        try:
            value = self._decode(raw)
        except (msgspec.MsgspecError, ValueError, TypeError, RecursionError) as error:
            if self.type is ANY:
                return _text(raw)
            raise self._invalid(*_field_and_reason(error)) from error
        return self._validated(value) if self._is_serializer else value

    def _without_payload(self) -> Any:
        if self.type is ANY:
            return None
        if self._is_serializer:
            return self._validated({})
        first: Exception | None = None
        for empty in (b"{}", b"null"):
            try:
                return self._decode(empty)
            except (msgspec.MsgspecError, ValueError, TypeError) as error:
                first = first or error
        assert first is not None
        field, reason = _field_and_reason(first)
        raise self._invalid(field, reason if _MISSING.search(reason) else "none was given") from first

    def _validated(self, value: Any) -> Any:
        serializer = self.type(data=value)
        if not serializer.is_valid():
            field, reason = _first_serializer_error(serializer.errors)
            raise self._invalid(field, reason)
        return serializer.validated_data

    def _too_bad(self, message: str) -> PayloadInvalid:
        path = re.search(r" - at `([^`]+)`", message)
        return PayloadInvalid(message, workflow=self._workflow, field=path[1] if path else "$")

    def _invalid(self, field: str, reason: str) -> PayloadInvalid:
        return PayloadInvalid(
            f"The payload does not fit workflow {self._workflow!r}: {reason} - at `{field}`.",
            workflow=self._workflow,
            field=field,
        )


def _text(raw: bytes) -> Any:
    """A payload that is not JSON is text; some senders post just that."""
    return raw.decode("utf-8", "replace")


def _field_and_reason(error: Exception) -> tuple[str, str]:
    """Path and reason in msgspec's or pydantic's words."""
    cause = error.__cause__ or error
    if callable(getattr(cause, "errors", None)):  # pydantic
        problem = cause.errors()[0]  # type: ignore[attr-defined]
        base = path_of(error)
        return ".".join([base, *map(str, problem["loc"])]), problem["msg"]
    path = path_of(error)
    reason = str(error).rpartition(" - at `")[0] or str(error)
    missing = _MISSING.search(reason)
    return (f"{path}.{missing[1]}" if missing else path), reason


def _first_serializer_error(errors: Any, path: str = "$") -> tuple[str, str]:
    """The first error of a serializer, which may be nested."""
    if isinstance(errors, Mapping):
        field, inner = next(iter(errors.items()))
        if field == "non_field_errors":
            return _first_serializer_error(inner, path)
        return _first_serializer_error(inner, f"{path}[{field}]" if isinstance(field, int) else f"{path}.{field}")
    if isinstance(errors, list) and errors:
        for index, inner in enumerate(errors):
            if inner and isinstance(inner, Mapping):
                return _first_serializer_error(inner, f"{path}[{index}]")
        return path, str(errors[0])
    return path, str(errors)
