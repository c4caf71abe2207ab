"""Which parts of a type are secret."""

from __future__ import annotations

import functools
import types
from dataclasses import dataclass, field
from typing import Annotated, Any, Generic, NamedTuple, NewType, NotRequired, Optional, TypedDict, TypeVar

import attrs
import msgspec
import pydantic
import pytest
from django import forms
from rest_framework import serializers

from django_workflow import Secret, WorkflowContext
from django_workflow.authoring.decorator import Workflow
from django_workflow.authoring.payloads import PayloadCodec
from django_workflow.authoring.secrets import form_secrets, return_secrets, secret_paths
from django_workflow.replay.values import ANY

T = TypeVar("T")
Pin = NewType("Pin", str)
SecretPin = Annotated[Pin, Secret]


@dataclass
class Card:
    number: Annotated[str, Secret]
    holder: str
    pin: Annotated[int | None, Secret()] = None


@dataclass
class Order:
    order_id: int
    card: Card
    cards: list[Card] = field(default_factory=list)
    by_name: dict[str, Card] = field(default_factory=dict)
    maybe: Optional[Card] = None  # noqa: UP045


@dataclass
class Box(Generic[T]):
    content: T
    label: str = ""


@dataclass
class Node:
    key: Annotated[str, Secret]
    children: list[Node] = field(default_factory=list)


@dataclass
class Owner:
    name: str
    pet: Pet | None = None


@dataclass
class Pet:
    chip: Annotated[str, Secret]
    owner: Owner | None = None


class Typed(TypedDict):
    token: Annotated[str, Secret]
    other: NotRequired[Annotated[int, Secret]]
    name: str


class Pair(NamedTuple):
    token: Annotated[str, Secret]
    name: str


class Wire(msgspec.Struct, rename="camel"):
    api_token: Annotated[str, Secret]
    name: str


@attrs.define
class Attrs:
    token: Annotated[str, Secret]
    name: str


class Model(pydantic.BaseModel):
    password: pydantic.SecretStr
    key: pydantic.SecretBytes | None = None
    token: Annotated[str, Secret] = ""
    pin: pydantic.Secret[int] | None = None
    name: str = pydantic.Field(default="", alias="fullName")
    old: Annotated[str, Secret] = pydantic.Field(default="", alias="older")


class Inner(serializers.Serializer[Any]):
    token = serializers.CharField(write_only=True)
    name = serializers.CharField()


class Outer(serializers.Serializer[Any]):
    password = serializers.CharField(write_only=True)
    inner = Inner()
    many = Inner(many=True)
    tags = serializers.ListField(child=serializers.CharField())


@pytest.mark.parametrize(
    ("type_", "paths"),
    [
        (ANY, set()),
        (Any, set()),
        (str, set()),
        (dict[str, Any], set()),
        (Annotated[str, "a note"], set()),
        (Annotated[str, Secret], {"$"}),
        (SecretPin, {"$"}),
        (list[SecretPin], {"*"}),
        (dict[str, SecretPin], {"*"}),
        (tuple[int, SecretPin], {"*"}),
        (SecretPin | None, {"$"}),
        (Card, {"number", "pin"}),
        (
            Order,
            {f"{start}{name}" for start in ("card/", "cards/*/", "by_name/*/", "maybe/") for name in ("number", "pin")},
        ),
        (Box[Card], {"content/number", "content/pin"}),
        (Box[int], set()),
        (Node, {"key", "**/key"}),
        (list[Node], {"*/key", "*/**/key"}),
        (Typed, {"token", "other"}),
        (Pair, {"token"}),
        (Wire, {"apiToken"}),
        (Attrs, {"token"}),
        (Model, {"password", "key", "token", "pin", "old", "older"}),
        (Outer, {"password", "inner/token", "many/*/token"}),
    ],
)
def test_the_paths_of_a_type(type_: Any, paths: set[str]) -> None:
    assert set(secret_paths(type_)) == paths


def test_types_that_hold_one_another() -> None:
    assert {"pet/chip", "**/pet/chip"} <= set(secret_paths(Owner))


def plain() -> Card:
    raise NotImplementedError


async def later() -> Card:
    raise NotImplementedError


@pytest.mark.parametrize("function", [plain, later, functools.partial(plain), types.SimpleNamespace(func=plain).func])
def test_the_paths_of_what_a_function_returns(function: Any) -> None:
    assert set(return_secrets(function)) == {"number", "pin"}


def test_functions_that_say_nothing_have_no_secrets() -> None:
    def untyped():  # type: ignore[no-untyped-def]
        pass

    assert return_secrets(untyped) == ()
    assert return_secrets(lambda: 1) == ()
    assert return_secrets(str) == ()


def test_a_form_hides_what_it_hides_while_it_is_typed() -> None:
    class Login(forms.Form):
        name = forms.CharField()
        password = forms.CharField(widget=forms.PasswordInput)

    assert form_secrets(Login) == ("password",)


def test_a_workflow_says_what_is_secret_of_payload_and_result() -> None:
    def wf(ctx: WorkflowContext[Card]) -> Typed:
        raise NotImplementedError

    assert set(Workflow(wf).secret) == {"payload/number", "payload/pin", "result/token", "result/other"}


def test_secrets_of_pydantic_are_kept_as_they_are() -> None:
    codec = PayloadCodec(Model, "sample")
    made = Model.model_validate({"password": "hunter2", "key": b"k3y", "pin": 1234, "token": "t"})
    back = codec.decode(codec.encode(made, None))
    assert (back.password.get_secret_value(), back.key.get_secret_value(), back.token) == ("hunter2", b"k3y", "t")
    assert back.pin.get_secret_value() == 1234
