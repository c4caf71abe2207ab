from __future__ import annotations

import pytest
from django.conf import settings
from django.test import Client

from example_project.shop.models import Payment

pytestmark = pytest.mark.usefixtures("demo")
HEADERS = {"Authorization": f"Bearer {settings.DEMO_SERVICE_TOKEN}"}


def charge(client: Client, **body: object) -> int:
    return client.post("/services/payments/charge/", body, "application/json", headers=HEADERS).status_code


def test_the_first_attempt_for_each_order_fails_and_the_second_works(client: Client) -> None:
    assert charge(client, order=1, amount="1500.00") == 503
    assert charge(client, order=1, amount="1500.00") == 200
    assert charge(client, order=2, amount="64.80") == 503


def test_an_order_is_charged_once_however_often_it_is_asked(client: Client) -> None:
    for _ in range(5):
        charge(client, order=1, amount="1500.00")
    payment = Payment.objects.get()
    assert (payment.state, payment.attempts) == ("paid", 2)


def test_another_amount_is_refused(client: Client) -> None:
    assert charge(client, order=1, amount="1.00") == 422


def test_without_the_token_nothing_is_charged(client: Client) -> None:
    response = client.post("/services/payments/charge/", {"order": 1, "amount": "1500.00"}, "application/json")
    assert response.status_code == 401
    assert not Payment.objects.exists()


def test_a_body_that_is_no_object_is_refused(client: Client) -> None:
    response = client.post("/services/payments/charge/", b"[1]", "application/json", headers=HEADERS)
    assert response.status_code == 422


def test_a_refund_is_remembered(client: Client) -> None:
    charge(client, order=1, amount="1500.00")
    charge(client, order=1, amount="1500.00")
    response = client.post("/services/payments/refund/", {"order": 1}, "application/json", headers=HEADERS)
    assert response.json() == {"state": "refunded"}
    assert Payment.objects.get().state == "refunded"
