"""A delivery: one HTTP call that the engine has to make, and who makes it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import ClassVar, Self

from django.db import models
from django.utils.translation import gettext_lazy as _

from django_workflow.models.fields import ExactCharField, key_field
from django_workflow.models.run import Run
from django_workflow.models.worker import Worker
from django_workflow.protocol.identifiers import message_id_of, uuid7

HELD = datetime(9000, 1, 1, tzinfo=UTC)
"""When deliveries of paused runs are due: no claim reaches them, and the index of what is due needs no column more."""


class DeliveryQuerySet(models.QuerySet["Delivery"]):
    def due(self, now: datetime) -> Self:
        return self.filter(due_at__lte=now)

    def unleased(self) -> Self:
        return self.filter(worker__isnull=True)

    def oldest_first(self) -> Self:
        """Also by worker, which is the same for all that are free: PostgreSQL then reads them in the index's order."""
        return self.order_by("worker_id", "due_at")


class Delivery(models.Model):
    """One call to make. A row follows its run: when a step's result is journalled, the same row carries the next call.

    `fence` changes with each lease and each advance; who holds another fence may not write. A `solo` delivery is its
    run's only live one. While its run is paused, `held_due_at` is when it would be due. A message's delivery has the
    message's key. `queue_key` is the message whose place in the
    queue a delivery has: its own, or for a callback that of the message it tells of; `begun` is 1 since it was first
    leased.
    """

    class Kind(models.TextChoices):
        STEP = "step", _("Step")
        CALL = "call", _("Call")
        CALLBACK = "callback", _("Call result")
        FAILURE = "failure", _("Failure callback")
        MESSAGE = "message", _("Message")

    id = key_field()
    run = models.ForeignKey(Run, null=True, blank=True, on_delete=models.CASCADE, related_name="deliveries")
    kind = models.CharField(max_length=8, choices=Kind.choices, default=Kind.STEP)
    message_key = models.UUIDField(default=uuid7, editable=False)
    position = models.PositiveIntegerField(default=0)
    solo = models.BooleanField(default=False)
    step_id = models.PositiveIntegerField(null=True, blank=True)
    step_name = models.CharField(max_length=255, blank=True)
    destination = models.TextField()
    method = models.CharField(max_length=8, default="POST")
    config = models.TextField(default="", blank=True)
    body = models.TextField(default="", blank=True)
    body_is_base64 = models.BooleanField(default=False)
    attempt = models.PositiveIntegerField(_("retries so far"), default=0)
    max_retries = models.PositiveIntegerField(default=3)
    flow_key = ExactCharField(max_length=255, blank=True, default="")
    queue = ExactCharField(max_length=255, blank=True, default="")
    queue_key = models.UUIDField(null=True, blank=True, editable=False)
    # 0 or 1: databases find no truth value by an index.
    begun = models.PositiveSmallIntegerField(default=0, editable=False)
    due_at = models.DateTimeField(_("due"))
    held_due_at = models.DateTimeField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(_("created"))
    worker = models.ForeignKey(
        Worker,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        db_constraint=False,
        db_index=False,  # found by (worker, due_at)
        related_name="deliveries",
    )
    fence = models.PositiveIntegerField(default=0)
    rescues = models.PositiveIntegerField(default=0)

    objects: ClassVar[models.Manager[Delivery]] = models.Manager.from_queryset(DeliveryQuerySet)()

    class Meta:
        verbose_name = _("delivery")
        verbose_name_plural = _("deliveries")
        indexes = (
            models.Index(fields=("worker", "due_at"), name="workflow_delivery_due"),
            models.Index(fields=("flow_key", "worker", "due_at"), name="workflow_delivery_flow"),
            models.Index(fields=("begun", "queue", "queue_key"), name="workflow_delivery_queue"),
        )

    def __str__(self) -> str:
        return f"{self.kind} to {self.destination}"

    def hold(self) -> None:
        """Keep a delivery that is not written yet from being made while its run is paused."""
        self.held_due_at, self.due_at = self.due_at, HELD

    @property
    def message_id(self) -> str:
        return message_id_of(self.message_key)
