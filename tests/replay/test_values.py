from __future__ import annotations

import datetime as dt
import enum
import functools
import uuid
from collections import OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Awaitable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Generic, Literal, TypedDict, TypeVar

import attrs
import msgspec
import pydantic
import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.utils.functional import SimpleLazyObject
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext_lazy

from django_workflow.errors import PayloadInvalid, ResultInvalid, StepError
from django_workflow.replay.values import (
    ANY,
    decode_json,
    decoder_for,
    encode_result,
    encode_value,
    read_result,
    return_decoder,
    return_type,
)

if TYPE_CHECKING:
    from nowhere import OnlyForTypeCheckers

T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"


class Size(enum.IntEnum):
    SMALL = 1


@dataclass
class Line:
    sku: str
    price: Decimal


@dataclass
class Order:
    number: int
    placed_at: dt.datetime
    lines: list[Line] = field(default_factory=list)
    colour: Colour = Colour.RED


class Typed(TypedDict):
    total: float


@attrs.define
class Attrs:
    a: int
    b: str = "b"


class Struct(msgspec.Struct):
    a: int


class Model(pydantic.BaseModel):
    a: int
    when: dt.date | None = None


ORDER = Order(1, dt.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=dt.UTC), [Line("x", Decimal("1.20"))])


@pytest.mark.parametrize(
    ("value", "type_"),
    [
        (None, None),
        (True, bool),
        (10**30, int),
        (1.5, float),
        ("hüllo 🐙", str),
        ([1, "a"], list[Any]),
        ({"a": [1, {"b": None}]}, dict[str, Any]),
        ({1: "a"}, dict[int, str]),
        ((1, "a"), tuple[int, str]),
        ({1, 2}, set[int]),
        (Decimal("1.20"), Decimal),
        (dt.datetime(2026, 1, 2, tzinfo=dt.UTC), dt.datetime),
        (dt.date(2026, 1, 2), dt.date),
        (dt.timedelta(seconds=90), dt.timedelta),
        (uuid.UUID(int=7), uuid.UUID),
        (b"\x00\xff", bytes),
        (Colour.RED, Colour),
        (Size.SMALL, Size),
        (ORDER, Order),
        ([ORDER, ORDER], list[Order]),
        ({"total": 1.5}, Typed),
        (Attrs(1), Attrs),
        (Struct(1), Struct),
        (Model(a=1, when=dt.date(2026, 1, 2)), Model),
        ([Model(a=1)], list[Model]),
        ({"m": Model(a=1)}, dict[str, Model]),
        (Model(a=1), Model | None),
        ("a", Literal["a", "b"]),
    ],
)
def test_a_value_comes_back_as_its_type(value: object, type_: Any) -> None:
    assert decoder_for(type_)(encode_value(value, "It")) == value


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (mark_safe("<b>"), "<b>"),
        (OrderedDict(a=1), {"a": 1}),
        (defaultdict(int, a=1), {"a": 1}),
        (deque([1, 2]), [1, 2]),
        (namedtuple("Point", "x y")(1, 2), [1, 2]),
        (type("Euro", (Decimal,), {})("1.5"), "1.5"),
        (type("Count", (int,), {})(3), 3),
        ("\\u0000 is not the character", "\\u0000 is not the character"),
        ({"null": None, "a": [None, 1.5]}, {"null": None, "a": [None, 1.5]}),
    ],
)
def test_without_a_type_plain_json_comes_back(value: object, plain: object) -> None:
    assert decode_json(encode_value(value, "It")) == plain


class Plain:
    pass


def nested(depth: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


def cycle() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


@pytest.mark.parametrize(
    ("value", "path", "reason"),
    [
        (float("nan"), "$", "nan has no form in JSON"),
        ({"a": [1.0, float("inf")]}, "$.a[1]", "inf has no form"),
        (Order(1, ORDER.placed_at, [Line("x", Decimal(1))], colour=Plain()), "$.colour", "objects of type Plain"),
        ([{"a b": Plain()}], "$[0]['a b']", "objects of type Plain"),
        ({"a": "x\0"}, "$.a", "U+0000"),
        ({"x\0": 1}, "$['x\\x00']", "U+0000"),
        (["\ud800"], "$[0]", "lone surrogate"),
        ({(1, 2): 3}, "$[(1, 2)]", "keys of a dict must be text or numbers, not tuple"),
        (Attrs(1, b="\0"), "$.b", "U+0000"),
        (Struct(float("nan")), "$.a", "nan"),
        (1j, "$", "objects of type complex"),
        (range(3), "$", "objects of type range"),
        ((i for i in range(3)), "$", "a generator has run nothing yet: return a list"),
        (ValueError("x"), "$", "objects of type ValueError"),
        (Plain, "$", "objects of type type"),
        ({"user": AnonymousUser()}, "$.user", "objects of type AnonymousUser"),
        ({"user": User(username="ann")}, "$.user", "User is a model instance: pass its primary key"),
        ({"users": User.objects.all()}, "$.users", "QuerySet: pass a list of primary keys"),
        ({"users": User.objects}, "$.users", "is a manager"),
        ({"label": gettext_lazy("Yes")}, "$.label", "is lazy"),
        ({"user": SimpleLazyObject(lambda: "ann")}, "$.user", "is lazy"),
        (cycle(), "$[0][0]", "contains itself"),
        (nested(100_000), "$[0][0]", "nested too deeply"),
    ],
)
def test_what_json_cannot_hold_is_refused_with_its_path(value: object, path: str, reason: str) -> None:
    with pytest.raises(ResultInvalid) as raised:
        encode_value(value, "The result of step 'charge'")
    assert str(raised.value).startswith("The result of step 'charge' cannot be stored: ")
    assert f"- at `{path}" in str(raised.value)
    assert reason in str(raised.value)


def test_a_value_above_the_limit_is_refused_with_size_and_limit() -> None:
    assert encode_value("x" * 8, "It", limit=10) == b'"xxxxxxxx"'
    with pytest.raises(ResultInvalid, match=r"It is 1,002 bytes of JSON, but the limit is 10\."):
        encode_value("x" * 1000, "It", limit=10)


def test_the_class_of_the_error_is_the_callers() -> None:
    with pytest.raises(PayloadInvalid):
        encode_value(Plain(), "It", error=PayloadInvalid)


# Functions and what they say they return


def says_nothing(a):  # type: ignore[no-untyped-def]
    return a


def says_line() -> Line:
    return Line("x", Decimal(1))


async def awaited_line() -> Line:
    return says_line()


def awaitable_line() -> Awaitable[Line]:
    return awaited_line()


def only_for_type_checkers() -> OnlyForTypeCheckers:
    return 1


def argument_only_for_type_checkers(a: OnlyForTypeCheckers) -> Line:
    return says_line()


def ambiguous() -> Line | Order:
    return says_line()


def generic() -> Generic[T]:  # type: ignore[valid-type]
    return 1


def any_t(a: T) -> T:
    return a


class Callable_:
    sku: str

    def __call__(self) -> Line:
        return says_line()

    def method(self) -> Line:
        return says_line()

    @classmethod
    def class_method(cls) -> Line:
        return says_line()


@functools.wraps(says_line)
def wrapped(*args: Any, **kwargs: Any) -> Any:
    return says_line(*args, **kwargs)


@pytest.mark.parametrize(
    ("function", "type_"),
    [
        (says_nothing, ANY),
        (says_line, Line),
        (awaited_line, Line),
        (awaitable_line, Line),
        (only_for_type_checkers, ANY),
        (argument_only_for_type_checkers, Line),
        (lambda: 1, ANY),
        (functools.partial(says_line), Line),
        (functools.partial(functools.partial(says_line), 1), Line),
        (Callable_(), Line),
        (Callable_().method, Line),
        (Callable_.class_method, Line),
        (Line, Line),
        (wrapped, Line),
        (len, ANY),
        (functools.lru_cache(says_line), Line),
        (1, ANY),
    ],
)
def test_the_return_type_of_a_function(function: Any, type_: Any) -> None:
    assert return_type(function) == type_
    raw = b'{"sku":"x","price":"1"}'
    expected = Line("x", Decimal(1)) if type_ is Line else {"sku": "x", "price": "1"}
    assert return_decoder(function)(raw) == expected
    assert return_decoder(function)(raw) == expected


@pytest.mark.parametrize("function", [ambiguous, generic, any_t])
def test_types_that_cannot_be_read_come_back_as_plain_json(function: Any) -> None:
    assert return_decoder(function)(b'{"sku":"x"}') == {"sku": "x"}


def test_functions_made_anew_each_time_share_a_decoder() -> None:
    def made() -> Any:
        def inner() -> Line:
            return says_line()

        return inner

    assert return_decoder(made()) is return_decoder(made())


def test_annotations_that_are_no_text_are_taken_as_they_are() -> None:
    def factory(type_: Any) -> Any:
        def inner():  # type: ignore[no-untyped-def]
            return 1

        inner.__annotations__["return"] = type_
        return inner

    assert return_decoder(factory(Line))(b'{"sku":"x","price":"1"}') == Line("x", Decimal(1))
    assert return_decoder(factory(dict[str, Decimal]))(b'{"a":"1"}') == {"a": Decimal(1)}
    assert return_decoder(factory(None))(b"null") is None


def test_a_result_that_its_annotation_could_not_read_back_is_refused_at_once() -> None:
    with pytest.raises(ResultInvalid, match=r"It does not fit its return annotation: .*`\$.sku`"):
        encode_result({"sku": 1, "price": "1"}, decoder_for(Line), "It", None)


def test_a_recorded_result_that_no_longer_fits_says_what_to_do() -> None:
    with pytest.raises(StepError, match=r"missing required field `price`.*Give new fields defaults"):
        read_result('{"sku":"x"}', decoder_for(Line), "The result of step 'a'")


@pytest.mark.parametrize(
    ("out", "value"), [(None, None), ("null", None), ("no JSON", "no JSON"), ('"text"', "text"), ("", "")]
)
def test_text_that_is_no_json_stands_for_itself(out: str | None, value: object) -> None:
    assert read_result(out, decode_json, "It") == value


def test_a_subclass_of_text_can_be_the_declared_type() -> None:
    def page() -> SafeString:
        return mark_safe("<b>")

    assert type(return_decoder(page)(b'"<b>"')) is SafeString
