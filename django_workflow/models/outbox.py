"""The outbox of the hosted engine: requests that wait for their transaction's commit, and receipts of atomic steps."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Self

from django.db import models
from django.utils.translation import gettext_lazy as _

from django_workflow.models.fields import ExactCharField, key_field


class OutboxQuerySet(models.QuerySet["Outbox"]):
    def unsent(self) -> Self:
        """What has still to be sent, due or not."""
        return self.filter(due_at__isnull=False)

    def due(self, now: datetime) -> Self:
        return self.filter(due_at__lte=now)

    def receipts(self, run_id: str) -> Self:
        return self.filter(kind=Outbox.Kind.RECEIPT, run_id=run_id)


class Outbox(models.Model):
    """A message to the hosted engine, written in its caller's transaction and sent after the commit.

    A trigger names its run, a receipt its run and step: the unique pair lets one result of a step in. `message` is the
    message as JSON. The rows of one `batch` go by one request, in the order of their keys. `due_at` says when to send
    it next, and is empty when there is nothing left to do: whoever sends a row moves it on first, so that two do not
    send it at once. A row that was given up keeps the reason in `error`.
    """

    class Kind(models.TextChoices):
        TRIGGER = "trigger", _("Trigger")
        RECEIPT = "receipt", _("Receipt of an atomic step")

    id = key_field()
    batch = models.UUIDField(_("batch"), editable=False)
    kind = models.CharField(_("kind"), max_length=8, choices=Kind.choices, default=Kind.TRIGGER)
    run_id = ExactCharField(_("run id"), max_length=255)
    step_id = models.PositiveIntegerField(_("step"), null=True, blank=True)
    region = models.CharField(_("region"), max_length=32, blank=True, default="")
    message = models.TextField(editable=False, blank=True, default="")
    attempts = models.PositiveIntegerField(_("attempts"), default=0)
    error = models.TextField(_("error"), blank=True, default="")
    created_at = models.DateTimeField(_("created"))
    due_at = models.DateTimeField(_("due"), null=True, blank=True)
    sent_at = models.DateTimeField(_("sent"), null=True, blank=True)
    given_up_at = models.DateTimeField(_("given up"), null=True, blank=True)

    objects: ClassVar[models.Manager[Outbox]] = models.Manager.from_queryset(OutboxQuerySet)()

    class Meta:
        verbose_name = _("message in the outbox")
        verbose_name_plural = _("outbox")
        ordering = ("created_at",)
        constraints = (models.UniqueConstraint(fields=("run_id", "step_id"), name="workflow_outbox_receipt_once"),)
        indexes = (
            models.Index(fields=("due_at",), name="workflow_outbox_due"),
            models.Index(fields=("batch",), name="workflow_outbox_batch"),
            models.Index(fields=("created_at",), name="workflow_outbox_created"),
        )

    def __str__(self) -> str:
        return f"{self.kind} of {self.run_id}"

    @property
    def is_sent(self) -> bool:
        return self.sent_at is not None
