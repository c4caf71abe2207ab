"""Other companies' services, played by views of this demo: the shop reaches them over HTTP only.

The payment service fails the first attempt for each order with 503, as services do on a bad day. It is safe to ask
again: an order is charged once, however often the same charge comes in. The courier keeps the address that it is
given, and calls it at the customer's door.
"""

from __future__ import annotations

import json
import secrets
from typing import Any

import httpx
from django.conf import settings
from django.db import transaction
from django.http import HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from example_project.shop.models import Order, Parcel, Payment


@csrf_exempt
@require_POST
def charge(request: HttpRequest) -> JsonResponse:
    """`{"order": 1, "amount": "1500.00"}` -> `{"reference": …}`, 503 when it is the first attempt."""
    if not _is_allowed(request):
        return JsonResponse({"error": "The token is missing or wrong."}, status=401)
    asked = _body(request)
    with transaction.atomic():
        order = Order.objects.select_for_update().filter(pk=asked.get("order")).first()
        if order is None or str(order.total) != asked.get("amount"):
            return JsonResponse({"error": "There is no such order with this amount."}, status=422)
        payment, _ = Payment.objects.get_or_create(order=order, defaults={"amount": order.total})
        if payment.state == Payment.State.REFUSED:
            payment.attempts += 1
            if payment.attempts > 1:
                payment.state = Payment.State.PAID
                payment.reference = f"pay-{order.pk}-{request.headers.get('Idempotency-Key', '')[:8]}"
            payment.save()
    if payment.state == Payment.State.REFUSED:
        return JsonResponse({"error": "The payment service is busy. Try again."}, status=503)
    return JsonResponse({"reference": payment.reference, "state": payment.state, "attempts": payment.attempts})


@csrf_exempt
@require_POST
def refund(request: HttpRequest) -> JsonResponse:
    """`{"order": 1}` -> `{"state": "refunded"}`."""
    if not _is_allowed(request):
        return JsonResponse({"error": "The token is missing or wrong."}, status=401)
    if not Payment.objects.filter(order=_body(request).get("order")).update(state=Payment.State.REFUNDED):
        return JsonResponse({"error": "Nothing was paid."}, status=422)
    return JsonResponse({"state": Payment.State.REFUNDED})


@csrf_exempt
@require_POST
def announce_parcel(request: HttpRequest) -> JsonResponse:
    """`{"order": 1, "callback": "http://…"}`: the courier will call that address when the parcel is handed over."""
    if not _is_allowed(request):
        return JsonResponse({"error": "The token is missing or wrong."}, status=401)
    asked = _body(request)
    parcels = Parcel.objects.filter(order=asked.get("order"))
    if not parcels.update(callback_url=asked.get("callback", ""), received_by=""):
        return JsonResponse({"error": "There is no such parcel."}, status=422)
    return JsonResponse({"announced": True})


def hand_over(parcel: Parcel, receiver: str) -> None:
    """What the courier's own system does at the door. Raises httpx.HTTPError when the shop does not answer."""
    httpx.post(parcel.callback_url, json={"received_by": receiver}, timeout=10).raise_for_status()


def _is_allowed(request: HttpRequest) -> bool:
    return secrets.compare_digest(
        request.headers.get("Authorization", "").encode(), f"Bearer {settings.DEMO_SERVICE_TOKEN}".encode()
    )


def _body(request: HttpRequest) -> dict[str, Any]:
    try:
        body = json.loads(request.body)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
