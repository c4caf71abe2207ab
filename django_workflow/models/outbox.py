"""The outbox of the hosted engine: requests that wait for their transaction's commit, and receipts of atomic steps."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Self

from django.db import models
from django.utils.translation import gettext_lazy as _

from django_workflow.models.fields import ExactCharField, key_field


class OutboxQuerySet(models.QuerySet["Outbox"]):
    def unsent(self) -> Self:
        return self.filter(sent_at=None, given_up_at=None)

    def due(self, now: datetime) -> Self:
        return self.unsent().filter(due_at__lte=now)


class Outbox(models.Model):
    """A request to the hosted engine, written in its caller's transaction and sent after the commit.

    A trigger names its run, a receipt its run and step: the unique pair lets one result of a step in. `request` is
    the encoded request as JSON. Whoever sends a row moves `due_at` on first, so that two do not send it at once.
    """

    class Kind(models.TextChoices):
        TRIGGER = "trigger", _("Trigger")
        RECEIPT = "receipt", _("Receipt of an atomic step")
        OTHER = "other", _("Other request")

    id = key_field()
    kind = models.CharField(max_length=8, choices=Kind.choices, default=Kind.TRIGGER)
    run_id = ExactCharField(_("run id"), max_length=255, blank=True, default="")
    step_id = models.PositiveIntegerField(_("step"), null=True, blank=True)
    request = models.TextField(editable=False)
    attempts = models.PositiveIntegerField(_("attempts"), default=0)
    error = models.TextField(_("error"), blank=True, default="")
    created_at = models.DateTimeField(_("created"))
    due_at = models.DateTimeField(_("due"))
    sent_at = models.DateTimeField(_("sent"), null=True, blank=True)
    given_up_at = models.DateTimeField(_("given up"), null=True, blank=True)

    objects: ClassVar[models.Manager[Outbox]] = models.Manager.from_queryset(OutboxQuerySet)()

    class Meta:
        verbose_name = _("request in the outbox")
        verbose_name_plural = _("outbox")
        ordering = ("created_at",)
        constraints = (models.UniqueConstraint(fields=("run_id", "step_id"), name="workflow_outbox_receipt_once"),)
        indexes = (
            models.Index(fields=("sent_at", "due_at"), name="workflow_outbox_due"),
            models.Index(fields=("created_at",), name="workflow_outbox_created"),
        )

    def __str__(self) -> str:
        return f"{self.kind} of {self.run_id or 'no run'}"
