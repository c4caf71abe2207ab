"""Which parts of a type are secret: fields marked `Secret`, and what other libraries say of theirs.

    @dataclass
    class Payment:
        order_id: int
        card: Annotated[str, Secret]

Comes from payload types, return annotations, types of events and form classes; paths (`protocol.secrets`) go out, which
travel with runs and steps. pydantic and REST framework are known by their classes' names and attributes, none is
imported.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from types import FunctionType
from typing import Any

import msgspec

from django_workflow.protocol.secrets import ANY_DEPTH, EACH, Paths, path_of
from django_workflow.replay.values import ANY, return_type


class Secret:
    """Marks a field, or a whole result, that is shown to nobody: `card: Annotated[str, Secret]`.

    Admin, API, events, logs, exports and commands show `REDACTED` in its place. Workflows get the value itself.
    """


Keys = tuple[str, ...]

_QUALIFIERS = (typing.Required, typing.NotRequired, getattr(typing, "ReadOnly", typing.Required))


def secret_paths(type_: Any) -> Paths:
    """The paths of what is secret in values of a type."""
    try:
        return _cached(type_)
    except TypeError:  # not hashable
        return _paths(type_)


def return_secrets(function: Any) -> Paths:
    """The paths of what is secret in what a function returns, by its return annotation."""
    if type(function) is FunctionType:
        annotation = function.__annotations__.get("return")
        if annotation is None:
            return ()
        if isinstance(annotation, str):
            # By name, not by function: one that is made inside a workflow is a new one in every call.
            key = (function.__module__, annotation)
            if key not in _by_name:
                _by_name[key] = secret_paths(return_type(function))
            return _by_name[key]
    return secret_paths(return_type(function))


_by_name: dict[tuple[str, str], Paths] = {}


def form_secrets(form: Any) -> Paths:
    """Fields of a form class whose widget hides what is typed."""
    fields: Mapping[str, Any] = getattr(form, "base_fields", {})
    hidden = (name for name, field in fields.items() if getattr(field.widget, "input_type", "") == "password")
    return tuple(path_of((name,)) for name in hidden)


@functools.lru_cache(maxsize=2048)
def _cached(type_: Any) -> Paths:
    return _paths(type_)


def _paths(type_: Any) -> Paths:
    if type_ is ANY:
        return ()
    return tuple(dict.fromkeys(map(path_of, _walk(type_, {}, ()))))


def _walk(type_: Any, variables: Mapping[Any, Any], above: tuple[Any, ...]) -> Iterator[Keys]:
    """Keys to each secret part. `variables` are what type variables stand for, `above` the types around this one."""
    type_ = variables.get(type_, type_) if isinstance(type_, typing.TypeVar) else type_
    origin, args = typing.get_origin(type_), typing.get_args(type_)
    if origin is typing.Annotated:
        if any(_is_marker(note) for note in args[1:]):
            yield ()
        else:
            yield from _walk(args[0], variables, above)
    elif isinstance(type_, typing.NewType):
        yield from _walk(type_.__supertype__, variables, above)
    elif hasattr(type_, "__value__"):  # `type Name = ...`
        yield from _walk(type_.__value__, variables, above)
    elif origin in (typing.Union, types.UnionType, *_QUALIFIERS):
        for argument in args:
            yield from _walk(argument, variables, above)
    elif _is_pydantic_secret(type_):
        yield ()
    elif fields := _fields(type_, origin):
        yield from _walk_fields(type_, fields, _substituted(origin, args, variables), above)
    elif args:
        items = args[1:] if isinstance(origin, type) and issubclass(origin, Mapping) else args
        for argument in items:
            yield from (((EACH, *keys)) for keys in _walk(argument, variables, above))


def _walk_fields(
    type_: Any, fields: list[tuple[Iterable[str], Any]], variables: Mapping[Any, Any], above: tuple[Any, ...]
) -> Iterator[Keys]:
    if type_ in above:
        yield (ANY_DEPTH,)  # for the type itself to resolve: it is found again somewhere below
        return
    found: list[Keys] = []
    for names, annotation in fields:
        for keys in _walk(annotation, variables, (*above, type_)):
            found += ((name, *keys) for name in names)
    secrets = [keys for keys in found if keys[-1] != ANY_DEPTH]
    yield from secrets
    if len(secrets) < len(found):
        yield from ((ANY_DEPTH, *keys) for keys in secrets)
        if above:
            yield from (keys for keys in found if keys[-1] == ANY_DEPTH)


def _substituted(origin: Any, args: tuple[Any, ...], variables: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """What the type variables of a generic class stand for."""
    parameters = getattr(origin, "__parameters__", ())
    return {name: variables.get(given, given) for name, given in zip(parameters, args, strict=False)}


def _is_marker(note: Any) -> bool:
    return note is Secret or isinstance(note, Secret)


def _is_pydantic_secret(type_: Any) -> bool:
    """`SecretStr`, `SecretBytes` and `Secret[T]`."""
    return any(
        base.__module__ == "pydantic.types" and base.__qualname__ == "_SecretBase"
        for base in getattr(typing.get_origin(type_) or type_, "__mro__", ())
    )


def _fields(type_: Any, origin: Any) -> list[tuple[Iterable[str], Any]]:
    """The fields of a class: their names in JSON, and their types; empty for what has none."""
    class_ = origin if isinstance(origin, type) else type_
    if isinstance(type_, _Field):
        return [((name,), field) for name, field in type_.fields()]
    if not isinstance(class_, type):
        return []
    if hasattr(class_, "is_valid") and hasattr(class_, "validated_data"):
        return [((name,), field) for name, field in _Field(class_()).fields()]
    if issubclass(class_, msgspec.Struct):
        hints = _hints(class_)
        return [((field.encode_name,), hints.get(field.name, field.type)) for field in msgspec.structs.fields(class_)]
    if hasattr(class_, "model_fields"):
        return [(_pydantic_names(name, field), _pydantic_type(field)) for name, field in class_.model_fields.items()]
    if dataclasses.is_dataclass(class_):
        hints = _hints(class_)
        return [((field.name,), hints.get(field.name, field.type)) for field in dataclasses.fields(class_)]
    if hasattr(class_, "__attrs_attrs__"):
        hints = _hints(class_)
        return [((field.name,), hints.get(field.name, field.type)) for field in class_.__attrs_attrs__]
    if typing.is_typeddict(class_) or (issubclass(class_, tuple) and hasattr(class_, "_fields")):
        return [((name,), hint) for name, hint in _hints(class_).items()]
    return []


def _hints(class_: type) -> dict[str, Any]:
    """The annotations of a class. A name that cannot be resolved hides nothing, and breaks where the type is used."""
    try:
        return typing.get_type_hints(class_, include_extras=True)
    except (NameError, TypeError):
        return {}


def _pydantic_names(name: str, field: Any) -> set[str]:
    """A model is read by its alias, and written by its name."""
    aliases = {alias for alias in (field.alias, field.validation_alias) if isinstance(alias, str)}
    return {name, *aliases}


def _pydantic_type(field: Any) -> Any:
    """pydantic takes the notes of `Annotated` off a field's type."""
    return typing.Annotated[field.annotation, Secret] if any(map(_is_marker, field.metadata)) else field.annotation


class _Field:
    """A field or serializer of REST framework, as a type: `write_only` ones are shown to nobody."""

    def __init__(self, field: Any) -> None:
        self.field = field

    def fields(self) -> Iterator[tuple[str, Any]]:
        child = getattr(self.field, "child", None)
        if child is not None:
            yield EACH, self._typed(child)
        elif hasattr(self.field, "get_fields"):
            for name, field in self.field.fields.items():
                yield name, self._typed(field)

    def _typed(self, field: Any) -> Any:
        return typing.Annotated[str, Secret] if field.write_only else _Field(field)

    def __hash__(self) -> int:
        return hash(type(self.field))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Field) and other.field is self.field
