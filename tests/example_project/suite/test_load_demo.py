from __future__ import annotations

import io
from decimal import Decimal

import pytest
from django.contrib.auth import authenticate
from django.core.management import call_command

from django_workflow.control.actions import ACTIONS
from django_workflow.models import Run
from django_workflow.testing import run_workflows
from example_project.shop.models import Order, OrderLine, Product

pytestmark = pytest.mark.django_db


def load() -> str:
    output = io.StringIO()
    call_command("load_demo", stdout=output)
    return output.getvalue()


def test_it_makes_products_orders_and_the_admin() -> None:
    assert "6 orders (6 new)" in load()
    user = authenticate(username="admin", password="admin")
    assert user is not None
    assert user.is_superuser
    assert Order.objects.get(pk=1).total == Decimal("1500.00")
    assert Order.objects.get(pk=2).total < 1000
    for order in Order.objects.all():
        assert order.total == sum(line.amount for line in order.lines.all())


def test_a_second_run_keeps_what_is_there() -> None:
    load()
    Order.objects.filter(pk=1).update(status=Order.Status.SHIPPED)
    Product.objects.filter(sku="DESK").update(stock=3)
    lines = OrderLine.objects.count()

    assert "6 orders (0 new)" in load()

    assert Order.objects.get(pk=1).status == Order.Status.SHIPPED
    assert Product.objects.get(sku="DESK").stock == 3
    assert OrderLine.objects.count() == lines


def test_orders_made_later_get_numbers_of_their_own() -> None:
    load()
    assert Order.objects.create(email="new@example.com", total=1).pk > 6


def test_it_adds_runs_in_every_state_that_can_be_gone_on_with() -> None:
    output = io.StringIO()
    call_command("load_demo", runs=300, stdout=output)
    assert "300 Run" in output.getvalue()
    assert {Run.Status.SUCCESS, Run.Status.FAILED, Run.Status.WAITING} <= set(
        Run.objects.values_list("status", flat=True)
    )
    for workflow in ("basic", "basic_with_approval"):
        failed = Run.objects.filter(status=Run.Status.FAILED, workflow=workflow).first()
        assert failed is not None
        resumed = ACTIONS["resume"].perform(failed, by=None)
        run_workflows()
        run = Run.objects.get(run_id=resumed.run_id)
        assert (run.status, run.error) == (Run.Status.SUCCESS, "")
