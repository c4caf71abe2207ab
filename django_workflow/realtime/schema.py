"""What may be emitted: event names and the types of their data. Pure.

A schema is a nested dict; the path to a leaf is the event's name, `{"notification": {"alert": Alert}}` is
`notification.alert`. A leaf is a type that msgspec reads (dataclass, TypedDict, attrs, Struct …), a pydantic model, a
serializer class of REST framework, or a function that gives the value to store or raises ValueError.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from django_workflow.authoring.payloads import PayloadCodec
from django_workflow.errors import PayloadInvalid, WorkflowError
from django_workflow.replay.values import encode_value, to_plain

DEEPEST = 10

Validate = Callable[[Any], Any]


class EventInvalid(WorkflowError):
    """An event is not in the schema, or its data do not fit. `event` is its name, `field` the path of the bad value."""

    def __init__(self, message: str, *, event: str, field: str = "$") -> None:
        super().__init__(message)
        self.event = event
        self.field = field


class Schema:
    """Validators by event name. With `strict`, names that it does not know are refused; an empty schema knows all."""

    def __init__(self, tree: Mapping[str, Any] | None = None, *, strict: bool = True) -> None:
        self._validators = dict(_leaves(tree or {}))
        self._strict = strict and bool(self._validators)

    def encode(self, event: str, data: Any) -> str:
        """The JSON to store: of the validated value. Raises EventInvalid."""
        if not event or len(event) > 255:
            raise EventInvalid(f"{event[:40]!r} cannot be an event's name: it has 1 to 255 characters.", event=event)
        validate = self._validators.get(event)
        if validate is None and self._strict:
            known = ", ".join(sorted(self._validators))
            raise EventInvalid(f"There is no event {event!r} in the schema; known are {known}.", event=event)
        value = data if validate is None else validate(event, data)
        return _encode(event, value).decode()


def _encode(event: str, value: Any) -> bytes:
    return encode_value(value, f"The data of event {event!r}", error=lambda text: EventInvalid(text, event=event))


def _leaves(tree: Mapping[str, Any], path: tuple[str, ...] = ()) -> Any:
    if len(path) > DEEPEST:
        raise ValueError(f"The schema is deeper than {DEEPEST} levels at {'.'.join(path)}.")
    for name, leaf in tree.items():
        if isinstance(leaf, Mapping):
            yield from _leaves(leaf, (*path, name))
        else:
            yield ".".join((*path, name)), _validator(leaf)


def _validator(leaf: Any) -> Callable[[str, Any], Any]:
    if isinstance(leaf, type) or not callable(leaf) or hasattr(leaf, "__origin__"):
        return lambda event, data: _typed(leaf, event, data)
    return lambda event, data: _called(leaf, event, data)


def _typed(type_: Any, event: str, data: Any) -> Any:
    codec = PayloadCodec(type_, event)
    try:
        value = codec.decode(_encode(event, to_plain(data)))
    except PayloadInvalid as error:
        reason = str(error).partition(": ")[2]
        raise EventInvalid(f"The data do not fit event {event!r}: {reason}", event=event, field=error.field) from error
    # msgspec leaves a dataclass's defaults on its class, and would not write them; browsers know no defaults.
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value


def _called(validate: Validate, event: str, data: Any) -> Any:
    try:
        return validate(data)
    except (ValueError, TypeError) as error:
        raise EventInvalid(f"The data do not fit event {event!r}: {error}", event=event) from error
