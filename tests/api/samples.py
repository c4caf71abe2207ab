"""Workflows that the tests of API and commands trigger."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django_workflow.authoring.context import WorkflowContext
from django_workflow.authoring.decorator import workflow

PLACE_ORDER = "sample-place-order"
ANYTHING = "sample-anything"
FAILING = "sample-failing"


@dataclass
class Order:
    order_id: int
    email: str


@workflow(name=PLACE_ORDER)
def place_order(ctx: WorkflowContext[Order]) -> str:
    order = ctx.request_payload
    total = ctx.run("reserve stock", reserve, order.order_id)
    return ctx.run("send mail", send, order.email, total)


def reserve(order_id: int) -> int:
    return order_id * 100


def send(email: str, total: int) -> str:
    return f"{total} to {email}"


@workflow(name=ANYTHING)
def anything(ctx: WorkflowContext[Any]) -> Any:
    return ctx.request_payload


@workflow(name=FAILING, retries=0)
def failing(ctx: WorkflowContext[Any]) -> None:
    ctx.run("break", fail)


def fail() -> None:
    raise ValueError("no stock")
