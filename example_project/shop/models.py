"""What the shop keeps. Each row that a step writes has something unique, so that a repeated step finds it again."""

from __future__ import annotations

from decimal import Decimal
from typing import ClassVar

from django.db import models
from django.urls import reverse

from django_workflow.models import WorkflowRunsMixin


class Product(models.Model):
    sku = models.CharField(max_length=20, unique=True)
    name = models.CharField(max_length=100)
    price = models.DecimalField(max_digits=10, decimal_places=2)
    stock = models.PositiveIntegerField()

    class Meta:
        ordering = ("sku",)

    def __str__(self) -> str:
        return self.name


class Order(WorkflowRunsMixin, models.Model):
    class Status(models.TextChoices):
        NEW = "new", "New"
        RESERVED = "reserved", "Stock reserved"
        PAID = "paid", "Paid"
        PACKED = "packed", "Packed"
        SHIPPED = "shipped", "Shipped"
        REJECTED = "rejected", "Rejected"
        FAILED = "failed", "Needs attention"

    email = models.EmailField("customer's email")
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.NEW)
    total = models.DecimalField(max_digits=10, decimal_places=2)
    note = models.TextField(blank=True, help_text="What went wrong, in words for the shop's staff.")
    workflow_run_id = models.CharField("workflow run", max_length=255, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("pk",)

    def __str__(self) -> str:
        return f"Order {self.pk}"

    def get_absolute_url(self) -> str:
        return reverse("shop:order", args=[self.pk])


class OrderLine(models.Model):
    order = models.ForeignKey(Order, on_delete=models.CASCADE, related_name="lines")
    product = models.ForeignKey(Product, on_delete=models.PROTECT, related_name="order_lines")
    quantity = models.PositiveIntegerField()
    price = models.DecimalField(max_digits=10, decimal_places=2)
    is_reserved = models.BooleanField("stock reserved", default=False)

    class Meta:
        ordering = ("order", "product")
        constraints = (models.UniqueConstraint(fields=("order", "product"), name="shop_line_once"),)

    def __str__(self) -> str:
        return f"{self.quantity} x {self.product}"

    @property
    def amount(self) -> Decimal:
        return self.quantity * self.price


class Payment(models.Model):
    """The payment service's own record: one per order, however often it is asked."""

    class State(models.TextChoices):
        REFUSED = "refused", "Refused"
        PAID = "paid", "Paid"
        REFUNDED = "refunded", "Refunded"

    order = models.OneToOneField(Order, on_delete=models.CASCADE, related_name="payment")
    amount = models.DecimalField(max_digits=10, decimal_places=2)
    state = models.CharField(max_length=10, choices=State.choices, default=State.REFUSED)
    attempts = models.PositiveIntegerField(default=0)
    reference = models.CharField(max_length=40, blank=True)
    updated_at = models.DateTimeField(auto_now=True)

    def __str__(self) -> str:
        return f"Payment of order {self.order_id}"


class Parcel(models.Model):
    order = models.OneToOneField(Order, on_delete=models.CASCADE, related_name="parcel")
    tracking_number = models.CharField(max_length=20, unique=True)
    pickup_at = models.DateTimeField("picked up")
    callback_url = models.TextField("whom the courier tells", blank=True)
    received_by = models.CharField(max_length=100, blank=True)

    def __str__(self) -> str:
        return self.tracking_number


class Invoice(models.Model):
    order = models.OneToOneField(Order, on_delete=models.CASCADE, related_name="invoice")
    number = models.CharField(max_length=20, unique=True)
    text = models.TextField()
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.number


class DeliveryNote(models.Model):
    """What lies in the parcel, in whole sentences."""

    order = models.OneToOneField(Order, on_delete=models.CASCADE, related_name="delivery_note")
    text = models.TextField()
    workflow_run_id = models.CharField("workflow run", max_length=255)
    written_at = models.DateTimeField(auto_now=True)

    def __str__(self) -> str:
        return f"Delivery note of order {self.order_id}"


class Complaint(models.Model):
    """What a customer is unhappy with, and what the shop did about it."""

    order = models.ForeignKey(Order, on_delete=models.CASCADE, related_name="complaints")
    text = models.TextField()
    workflow_run_id = models.CharField("workflow run", max_length=255, blank=True)
    refunded = models.DecimalField(max_digits=10, decimal_places=2, null=True, blank=True)
    answer = models.TextField(blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-created_at",)

    def __str__(self) -> str:
        return f"Complaint about order {self.order_id}"


class ImportReport(models.Model):
    """One import of a file: what came in, and in `bad_rows` what did not."""

    workflow_run_id = models.CharField("workflow run", max_length=255, unique=True)
    file_name = models.CharField(max_length=200)
    rows = models.PositiveIntegerField(default=0)
    rows_done = models.PositiveIntegerField(default=0)
    imported = models.PositiveIntegerField(default=0)
    total = models.DecimalField(max_digits=14, decimal_places=2, default=Decimal("0.00"))
    started_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-started_at",)

    def __str__(self) -> str:
        return f"{self.file_name}, {self.started_at:%Y-%m-%d %H:%M}"


class BadRow(models.Model):
    report = models.ForeignKey(ImportReport, on_delete=models.CASCADE, related_name="bad_rows")
    line = models.PositiveIntegerField()
    reason = models.CharField(max_length=200)
    text = models.TextField()

    class Meta:
        ordering = ("report", "line")
        constraints = (models.UniqueConstraint(fields=("report", "line"), name="shop_bad_row_once"),)

    def __str__(self) -> str:
        return f"line {self.line}: {self.reason}"


class ImportedOrder(models.Model):
    external_id = models.CharField(max_length=40, unique=True)
    placed_on = models.DateField()
    email = models.EmailField()
    product = models.CharField(max_length=100)
    amount = models.DecimalField(max_digits=10, decimal_places=2)

    class Meta:
        ordering = ("external_id",)
        indexes: ClassVar = [models.Index(fields=("placed_on",), name="shop_imported_day")]

    def __str__(self) -> str:
        return self.external_id


class DailyReport(models.Model):
    day = models.DateField(unique=True)
    orders = models.PositiveIntegerField(default=0)
    turnover = models.DecimalField(max_digits=14, decimal_places=2, default=Decimal("0.00"))
    imported_orders = models.PositiveIntegerField(default=0)
    imported_turnover = models.DecimalField(max_digits=14, decimal_places=2, default=Decimal("0.00"))
    workflow_run_id = models.CharField("workflow run", max_length=255, blank=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ("-day",)

    def __str__(self) -> str:
        return f"Report of {self.day}"
