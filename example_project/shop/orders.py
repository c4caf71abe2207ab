"""What happens to an order, as plain functions: each is a step of `workflows.fulfil_order`.

None of them knows the engine, so each can be called and tested alone. A step may run twice (when a worker dies in
between), so each is written to be repeated: it looks for what it has done before it does it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from django.core.mail import EmailMessage
from django.db import transaction
from django.db.models import F
from django.template.loader import render_to_string
from django.utils import timezone

from django_workflow import NonRetryableError
from example_project.shop.models import Invoice, Order, Parcel, Payment, Product


@dataclass(frozen=True, slots=True)
class Reserved:
    order_id: int
    email: str
    total: Decimal


@dataclass(frozen=True, slots=True)
class Label:
    tracking_number: str
    pickup_at: datetime


def reserve_stock(order_id: int, run_id: str) -> Reserved:
    """Take the order's goods out of stock. Run as an atomic step: kept together with its result, or not at all."""
    order = Order.objects.select_for_update().get(pk=order_id)
    for line in order.lines.filter(is_reserved=False).select_related("product"):
        enough = Product.objects.filter(pk=line.product_id, stock__gte=line.quantity)
        if not enough.update(stock=F("stock") - line.quantity):
            # Trying again would not fill the shelves: fail now. The lines reserved so far are rolled back.
            raise NonRetryableError(
                f"{order} needs {line.quantity} x {line.product}, but only {line.product.stock} are in stock."
            )
        line.is_reserved = True
        line.save(update_fields=["is_reserved"])
    order.status = Order.Status.RESERVED
    order.workflow_run_id = run_id
    order.note = ""
    order.save(update_fields=["status", "workflow_run_id", "note"])
    return Reserved(order_id=order.pk, email=order.email, total=order.total)


def mark_paid(order_id: int) -> None:
    Order.objects.filter(pk=order_id).update(status=Order.Status.PAID)


def reject(order_id: int, reason: str) -> None:
    """Put the goods back on the shelf and say why. Run as an atomic step."""
    order = Order.objects.select_for_update().get(pk=order_id)
    _put_back(order)
    order.status = Order.Status.REJECTED
    order.note = reason
    order.save(update_fields=["status", "note"])


def print_label(order_id: int) -> Label:
    """A parcel with its number; the courier's next round starts in two seconds."""
    parcel, _ = Parcel.objects.get_or_create(
        order_id=order_id,
        defaults={
            "tracking_number": f"PX{order_id:08}",
            "pickup_at": timezone.now() + timedelta(seconds=2),
        },
    )
    return Label(tracking_number=parcel.tracking_number, pickup_at=parcel.pickup_at)


def render_invoice(order_id: int) -> str:
    """The invoice's number; its text is kept in its row."""
    order = Order.objects.get(pk=order_id)
    invoice, _ = Invoice.objects.get_or_create(order=order, defaults={"number": f"INV-{order_id:06}", "text": ""})
    invoice.text = render_to_string("shop/invoice.txt", {"order": order, "invoice": invoice})
    invoice.save(update_fields=["text"])
    return invoice.number


def mark_shipped(order_id: int) -> None:
    Order.objects.filter(pk=order_id).update(status=Order.Status.SHIPPED)


def send_review_mail(email: str, order_id: int, key: str) -> None:
    """Ask for a review. Sent twice at the worst, with the same Message-ID, so that a mail server can tell."""
    EmailMessage(
        subject=f"How was order {order_id}?",
        body=f"Hello,\n\nyour order {order_id} has arrived. Would you tell others how you like it?\n\nYour shop\n",
        to=[email],
        headers={"Message-ID": f"<{key}@shop.example.com>"},
    ).send()


def send_tracking_mail(order_id: int, tracking_number: str, key: str) -> None:
    EmailMessage(
        subject=f"Order {order_id} is on its way",
        body=f"Hello,\n\nyour parcel has the number {tracking_number}.\n\nYour shop\n",
        to=[Order.objects.get(pk=order_id).email],
        headers={"Message-ID": f"<{key}@shop.example.com>"},
    ).send()


def mark_received(order_id: int, receiver: str) -> None:
    Parcel.objects.filter(order=order_id).update(received_by=receiver)


def mark_failed(order_id: int, reason: str) -> None:
    """What the failure function of the workflow does: goods back, and a note for the shop's staff."""
    with transaction.atomic():
        order = Order.objects.select_for_update().get(pk=order_id)
        _put_back(order)
        order.status = Order.Status.FAILED
        order.note = reason
        order.save(update_fields=["status", "note"])


@transaction.atomic
def start_over(order: Order) -> None:
    """Make the order new again, for another go at the demo."""
    _put_back(order)
    for model in (Payment, Parcel, Invoice):
        model.objects.filter(order=order).delete()
    order.status = Order.Status.NEW
    order.note = ""
    order.workflow_run_id = ""
    order.save(update_fields=["status", "note", "workflow_run_id"])


def _put_back(order: Order) -> None:
    for line in order.lines.filter(is_reserved=True):
        Product.objects.filter(pk=line.product_id).update(stock=F("stock") + line.quantity)
    order.lines.update(is_reserved=False)
