"""Values to JSON and back: results of steps and runs, payloads, events.

`encode_value` refuses what JSON cannot hold, naming type and path; `decoder_for` gives the prepared way back for a
type. The way back of a step is the return annotation of its function, so a replayed step gives what its first run
gave. pydantic models are recognised by their methods, Django's objects by their classes' names: neither is imported.
"""

from __future__ import annotations

import dataclasses
import decimal
import enum
import functools
import inspect
import json
import math
import typing
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, Iterable, Iterator, Mapping
from types import FunctionType
from typing import Any

import msgspec

from django_workflow.errors import ResultInvalid, StepError, WorkflowError

Decode = Callable[[bytes | str], Any]

ANY = object()
"""No type is known: what comes back is plain JSON."""

decode_json: Decode = msgspec.json.Decoder().decode


def encode_value(
    value: object, what: str, *, limit: int | None = None, error: Callable[[str], WorkflowError] = ResultInvalid
) -> bytes:
    """The value as JSON. `what` names it in errors: "The result of step 'charge'".

    Raises `error` for what JSON has no form for (NaN, infinities, U+0000, lone surrogates, objects of unknown types),
    with its path, and above `limit` bytes.
    """
    try:
        data = _encoder.encode(value)
    except (TypeError, ValueError, RecursionError, OverflowError) as cause:
        path, reason = _first_problem(value) or ("$", str(cause) or type(cause).__name__)
        raise error(f"{what} cannot be stored: {reason} - at `{path}`.") from cause
    # msgspec writes NaN as null in silence, and databases refuse U+0000; both leave a trace that is cheap to find.
    if b"null" in data or b"\\u0000" in data:
        problem = _hidden_problem(value, data)
        if problem:
            raise error(f"{what} cannot be stored: {problem[1]} - at `{problem[0]}`.")
    if limit is not None and len(data) > limit:
        raise error(
            f"{what} is {len(data):,} bytes of JSON, but the limit is {limit:,}. Keep large data in the database or a "
            "file and hand on its key."
        )
    return data


def to_plain(value: object) -> Any:
    """The value as JSON's own types (dict, list, str …). Raises TypeError for what has no JSON form."""
    return msgspec.to_builtins(value, enc_hook=_write_foreign, str_keys=True)


def encode_result(value: object, decode: Decode, what: str, limit: int | None) -> bytes:
    """The JSON of a result that `decode` has to read back. Raises ResultInvalid, also when it could not.

    Found out while the step runs, not at each replay from then on, when nothing could be done about it.
    """
    data = encode_value(value, what, limit=limit)
    if decode is not decode_json:
        try:
            decode(data)
        except (msgspec.MsgspecError, ValueError, TypeError) as error:
            raise ResultInvalid(f"{what} does not fit its return annotation: {error}") from error
    return data


def read_result(out: str | None, decode: Decode, what: str) -> Any:
    """The value of a recorded `out`; text that is not JSON stands for itself, a missing one for None.

    Raises StepError when it does not fit the type, which was another one when it was recorded.
    """
    if out is None:
        return None
    try:
        return decode(out)
    except (msgspec.MsgspecError, ValueError, TypeError) as error:
        if decode is decode_json:
            return out
        raise StepError(
            f"{what}, as recorded, does not fit its type any more: {error}. Give new fields defaults while runs are in "
            "flight, or restart the run from the DLQ."
        ) from error


def decoder_for(type_: Any) -> Decode:
    """How JSON becomes a value of `type_`. Types that msgspec cannot read (ambiguous unions) come back as plain JSON.

    The decoder raises msgspec.ValidationError, with the path, for JSON that does not fit.
    """
    try:
        return _cached_decoder(type_)
    except TypeError:  # not hashable, such as Annotated[int, []]
        return _make_decoder(type_)


def return_decoder(function: Any) -> Decode:
    """How the result of `function` is read back, by its return annotation. Never raises."""
    try:
        annotation = function.__annotations__.get("return", ANY)
    except (AttributeError, NameError):
        return decoder_for(return_type(function))
    if type(annotation) is str:
        # Decoders are kept by type, not by function: a function made inside a workflow is a new one in every call.
        key = (function.__module__, annotation)
        decoder = _decoders_by_name.get(key)
        if decoder is None:
            decoder = _decoders_by_name[key] = decoder_for(return_type(function))
        return decoder
    if annotation is ANY:
        return decode_json if type(function) is FunctionType else decoder_for(return_type(function))
    try:
        return _cached_decoder(annotation)
    except TypeError:
        return _make_decoder(annotation)


_decoders_by_name: dict[tuple[str, str], Decode] = {}


def return_type(function: Any) -> Any:
    """What a function says it returns: a type, or ANY when it says nothing or its annotation cannot be resolved.

    `Awaitable[T]` is a T; a class that is called as a function returns itself.
    """
    while isinstance(function, functools.partial):
        function = function.func
    if isinstance(function, type):
        return function
    for candidate in (function, type(function).__call__):
        try:
            return _awaited(resolve_annotation(candidate.__annotations__["return"], candidate))
        except (AttributeError, KeyError):
            continue
        except (NameError, TypeError, SyntaxError):
            return ANY
    return ANY


def resolve_annotation(annotation: Any, function: Any, known: Mapping[str, Any] | None = None) -> Any:
    """The type that an annotation of `function` means. Raises NameError for names that its module does not have.

    `known` are names that need not be there. One annotation alone is looked at: another parameter's type may be
    imported for type checkers only.
    """
    if not isinstance(annotation, str):
        return annotation
    function = inspect.unwrap(function)
    function = getattr(function, "__func__", function)

    def carrier() -> None: ...

    carrier.__annotations__ = {"return": annotation}
    names = {**(known or {}), **getattr(function, "__globals__", {})}
    return typing.get_type_hints(carrier, names, include_extras=True)["return"]


def _awaited(annotation: Any) -> Any:
    if typing.get_origin(annotation) in (Awaitable, Coroutine):
        return typing.get_args(annotation)[-1]
    return annotation


@functools.lru_cache(maxsize=2048)
def _cached_decoder(type_: Any) -> Decode:
    return _make_decoder(type_)


def _make_decoder(type_: Any) -> Decode:
    type_ = _awaited(type_)
    if type_ is ANY or type_ is Any or type_ is object or type_ is inspect.Parameter.empty:
        return decode_json
    if isinstance(type_, typing.TypeVar) or type_ in (typing.NoReturn, typing.Never):
        return decode_json
    try:
        decoder = msgspec.json.Decoder(type_, dec_hook=_read_foreign)
    except (TypeError, NameError, RecursionError):
        return decode_json
    return decoder.decode


def _read_foreign(type_: Any, value: Any) -> Any:
    """Types that msgspec does not know: pydantic models, and subclasses of JSON's own types such as SafeString."""
    validate = getattr(type_, "model_validate", None)
    if validate is not None:
        return validate(value)
    if isinstance(type_, type) and issubclass(type_, str | int | float) and isinstance(value, str | int | float):
        return type_(value)
    if isinstance(type_, type) and isinstance(value, type_):
        return value
    raise ValueError(f"Expected `{getattr(type_, '__name__', type_)}`, got `{type(value).__name__}`")


# Subclasses of JSON's own types, and how to get the value itself: str() of a SafeString is that SafeString.
_PLAIN: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
    (decimal.Decimal, decimal.Decimal),
    (dict, dict),
)


def _write_foreign(value: Any) -> Any:
    dump = getattr(type(value), "model_dump", None)
    if dump is not None:
        plain = dump(value, mode="json")
        # pydantic writes its secrets as stars; what is kept must be the value itself.
        return _revealed(plain, dump(value)) if _STARS in repr(plain) else plain
    for base, plain in _PLAIN:
        if isinstance(value, base) and not _is_lazy(type(value)):
            return plain(value)
    if isinstance(value, deque):
        return list(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"objects of type {type(value).__qualname__} have no JSON form")


_STARS = "**********"


def _revealed(plain: Any, original: Any) -> Any:
    """The JSON form of a pydantic model with the values of its secrets; `original` is the model's Python form."""
    if hasattr(original, "get_secret_value"):
        secret = original.get_secret_value()
        return secret.decode() if isinstance(secret, bytes) else secret
    if isinstance(plain, dict) and isinstance(original, Mapping):
        return {name: _revealed(part, original.get(name)) for name, part in plain.items()}
    if isinstance(plain, list) and isinstance(original, list | tuple):
        return [_revealed(part, other) for part, other in zip(plain, original, strict=True)]
    return plain


_encoder = msgspec.json.Encoder(enc_hook=_write_foreign)


def _hidden_problem(value: object, data: bytes) -> tuple[str, str] | None:
    """NaN, infinities and U+0000, which msgspec writes without a word."""
    if b"\\u0000" not in data:
        try:
            json.dumps(to_plain(value), allow_nan=False)
        except ValueError:
            return _first_problem(value)
        return None
    return _first_problem(value)


def _first_problem(value: Any) -> tuple[str, str] | None:
    """Path and reason of the first part that JSON cannot hold; None when there is none."""
    try:
        return next(_problems(value, "$", 0), None)
    except RecursionError:  # a cycle in something that is not walked here
        return "$", "it is nested too deeply, or contains itself"


_DEEPEST = 200
_LEAVES = (bool, int, decimal.Decimal, bytes, bytearray, memoryview)


def _problems(value: Any, path: str, depth: int) -> Iterator[tuple[str, str]]:
    if isinstance(value, _BadKey):
        yield path, f"keys of a dict must be text or numbers, not {type(value.key).__qualname__}"
    elif depth > _DEEPEST:
        yield path[:80] + "...", "it is nested too deeply, or contains itself"
    elif value is None or (isinstance(value, _LEAVES) and not _is_lazy(type(value))):
        return
    elif isinstance(value, enum.Enum):
        yield from _problems(value.value, path, depth + 1)
    elif isinstance(value, float):
        if not math.isfinite(value):
            yield path, f"{value!r} has no form in JSON (use None)"
    elif isinstance(value, str) and not _is_lazy(type(value)):
        yield from _text_problems(value, path)
    elif (parts := _parts(value, path)) is not None:
        for part_path, part in parts:
            yield from _problems(part, part_path, depth + 1)
    else:
        try:
            msgspec.to_builtins(value)  # datetimes, UUIDs and the like
        except (TypeError, ValueError):
            yield path, _no_form(type(value))


def _text_problems(text: str, path: str) -> Iterator[tuple[str, str]]:
    if "\0" in text:
        yield path, "the text holds U+0000, which databases refuse"
    try:
        text.encode()
    except UnicodeEncodeError:
        yield path, "the text holds a lone surrogate, which is no character"


def _parts(value: Any, path: str) -> Iterable[tuple[str, Any]] | None:
    """The parts of a container with their paths; None when the value is none."""
    if isinstance(value, Mapping):
        return _items(value, path)
    if isinstance(value, list | tuple | set | frozenset | deque):
        return ((f"{path}[{index}]", part) for index, part in enumerate(value))
    names: Iterable[str]
    if isinstance(value, msgspec.Struct):
        names = value.__struct_fields__
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
    elif hasattr(type(value), "__attrs_attrs__"):
        names = [attribute.name for attribute in type(value).__attrs_attrs__]
    elif hasattr(type(value), "model_fields"):
        names = type(value).model_fields
    else:
        return None
    return ((f"{path}.{name}", getattr(value, name)) for name in names if hasattr(value, name))


def _items(value: Mapping[Any, Any], path: str) -> Iterator[tuple[str, Any]]:
    for key, part in value.items():
        inner = f"{path}.{key}" if isinstance(key, str) and key.isidentifier() else f"{path}[{key!r}]"
        if not isinstance(key, str | int | float | enum.Enum):
            yield inner, _BadKey(key)
        elif isinstance(key, str):
            yield inner, str(key)
        yield inner, part


class _BadKey:
    """Stands for a dict key that JSON cannot hold."""

    def __init__(self, key: object) -> None:
        self.key = key


def _no_form(type_: type) -> str:
    """Why objects of a type cannot be stored, and what to do instead."""
    names = {f"{base.__module__}.{base.__qualname__}" for base in type_.__mro__}
    name = type_.__qualname__
    if "django.db.models.base.Model" in names:
        return f"{name} is a model instance: pass its primary key and load it where it is needed"
    if "django.db.models.query.QuerySet" in names:
        return f"{name} is a QuerySet: pass a list of primary keys or of values()"
    if "django.db.models.manager.BaseManager" in names:
        return f"{name} is a manager: pass a list of primary keys or of values()"
    if issubclass(type_, Generator | AsyncGenerator):
        return f"a {name} has run nothing yet: return a list of what it yields"
    if _is_lazy(type_):
        return f"{name} is lazy, such as a translation or request.user: pass str() of a text, the primary key of a user"
    return f"objects of type {name} have no JSON form: return plain data, a dataclass or a msgspec.Struct"


def _is_lazy(type_: type) -> bool:
    return any(base.__module__ == "django.utils.functional" for base in type_.__mro__)
