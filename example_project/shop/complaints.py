"""Settling a complaint: the steps of `workflows.settle_complaint`."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from django.core.mail import EmailMessage
from django.db import models

from example_project.shop.models import Complaint

CENT = Decimal("0.01")


class Share(models.TextChoices):
    """How much of an order's total the customer gets back."""

    ALL = "all", "All of it"
    HALF = "half", "Half"
    NOTHING = "nothing", "Nothing"


@dataclass(frozen=True, slots=True)
class Filed:
    complaint_id: int
    order_id: int
    email: str
    total: Decimal


@dataclass(frozen=True, slots=True)
class Decision:
    """The cleaned data of `forms.RefundForm`."""

    share: str
    answer: str = ""


@dataclass(frozen=True, slots=True)
class Settled:
    refunded: Decimal
    answer: str


def read(complaint_id: int) -> Filed:
    complaint = Complaint.objects.select_related("order").get(pk=complaint_id)
    order = complaint.order
    return Filed(complaint_id=complaint_id, order_id=order.pk, email=order.email, total=order.total)


def settle(filed: Filed, decision: Decision) -> Settled:
    """Write down what the customer gets. Run as an atomic step."""
    parts = {Share.ALL: filed.total, Share.HALF: (filed.total / 2).quantize(CENT), Share.NOTHING: Decimal("0.00")}
    settled = Settled(refunded=parts[Share(decision.share)], answer=decision.answer)
    Complaint.objects.filter(pk=filed.complaint_id).update(refunded=settled.refunded, answer=settled.answer)
    return settled


def send_answer(filed: Filed, settled: Settled, key: str) -> None:
    """Sent twice at the worst, with the same Message-ID, so that a mail server can tell."""
    EmailMessage(
        subject=f"Your complaint about order {filed.order_id}",
        body=f"Hello,\n\nyou get {settled.refunded} EUR back. {settled.answer}\n\nYour shop\n",
        to=[filed.email],
        headers={"Message-ID": f"<{key}@shop.example.com>"},
    ).send()
