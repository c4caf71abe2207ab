from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypedDict

import attrs
import msgspec
import pydantic
import pytest
from rest_framework import serializers

from django_workflow.authoring.payloads import PayloadCodec
from django_workflow.errors import PayloadInvalid
from django_workflow.replay.values import ANY


@dataclass
class Item:
    sku: str
    count: int = 1


@dataclass
class Order:
    number: int
    items: list[Item]
    total: Decimal = Decimal(0)


@dataclass
class AllDefaults:
    day: dt.date | None = None


class Typed(TypedDict):
    a: int


@attrs.define
class Attrs:
    a: int


class Struct(msgspec.Struct, forbid_unknown_fields=True):
    a: int


class Model(pydantic.BaseModel):
    a: int
    email: str = pydantic.Field(default="", max_length=5)


class ItemSerializer(serializers.Serializer[Any]):
    sku = serializers.CharField()


class OrderSerializer(serializers.Serializer[Any]):
    number = serializers.IntegerField(min_value=1)
    day = serializers.DateField(required=False)
    items = ItemSerializer(many=True, required=False)

    def validate(self, attrs: Any) -> Any:
        if attrs["number"] == 13:
            raise serializers.ValidationError("unlucky")
        return attrs


@pytest.mark.parametrize(
    ("type_", "payload", "decoded"),
    [
        (ANY, {"a": [1, None]}, {"a": [1, None]}),
        (ANY, "text", "text"),
        (ANY, None, None),
        (Order, Order(1, [Item("x")]), Order(1, [Item("x")])),
        (Order, {"number": 1, "items": [{"sku": "x", "count": 2}]}, Order(1, [Item("x", 2)])),
        (AllDefaults, None, AllDefaults()),
        (int | None, None, None),
        (None, None, None),
        (Typed, {"a": 1}, {"a": 1}),
        (Attrs, Attrs(1), Attrs(1)),
        (Struct, {"a": 1}, Struct(1)),
        (Model, Model(a=1), Model(a=1)),
        (Model, {"a": 1}, Model(a=1)),
        (list[Item], [Item("x")], [Item("x")]),
        (OrderSerializer, {"number": 1, "day": "2026-01-02"}, {"number": 1, "day": dt.date(2026, 1, 2)}),
        (OrderSerializer, Order(1, [Item("x")]), {"number": 1, "items": [{"sku": "x"}]}),
    ],
)
def test_a_payload_comes_back_as_its_type(type_: Any, payload: Any, decoded: Any) -> None:
    codec = PayloadCodec(type_, "wf")
    assert codec.decode(codec.encode(payload, None)) == decoded


@pytest.mark.parametrize(
    ("type_", "payload", "field", "reason"),
    [
        (Order, {"number": "one", "items": []}, "$.number", "Expected `int`, got `str`"),
        (Order, {"number": 1}, "$.items", "missing required field `items`"),
        (Order, {"number": 1, "items": [{"count": 1}]}, "$.items[0].sku", "missing required field `sku`"),
        (Order, {"number": 1, "items": [{"sku": "x", "count": "y"}]}, "$.items[0].count", "Expected `int`"),
        (Order, None, "$.number", "missing required field"),
        (Order, {"number": 1, "items": [], "total": float("nan")}, "$.total", "nan"),
        (int, None, "$", "none was given"),
        (Struct, {"a": 1, "b": 2}, "$", "unknown field `b`"),
        (Model, {"a": "x"}, "$.a", "valid integer"),
        (Model, {"a": 1, "email": "too long"}, "$.email", "at most 5 characters"),
        (OrderSerializer, {}, "$.number", "This field is required."),
        (OrderSerializer, None, "$.number", "This field is required."),
        (OrderSerializer, {"number": 0}, "$.number", "greater than or equal to 1"),
        (OrderSerializer, {"number": 13}, "$", "unlucky"),
        (OrderSerializer, {"number": 1, "items": [{"sku": "x"}, {}]}, "$.items[1].sku", "This field is required."),
        (ANY, {"a": object()}, "$.a", "objects of type object"),
        (ANY, "x\0", "$", "U+0000"),
    ],
)
def test_a_payload_that_does_not_fit_is_refused_with_its_field(
    type_: Any, payload: Any, field: str, reason: str
) -> None:
    with pytest.raises(PayloadInvalid) as raised:
        PayloadCodec(type_, "checkout").encode(payload, None)
    assert raised.value.field == field
    assert raised.value.workflow == "checkout"
    assert reason in str(raised.value)
    assert "'checkout'" in str(raised.value)


@pytest.mark.parametrize("raw", [b"no JSON", b"\xff\xfe", b"[" * 100_000])
def test_bytes_that_are_no_json_fit_no_type(raw: bytes) -> None:
    with pytest.raises(PayloadInvalid):
        PayloadCodec(Order, "wf").decode(raw)


def test_without_a_type_bytes_that_are_no_json_are_text() -> None:
    assert PayloadCodec(ANY, "wf").decode(b"hello") == "hello"
