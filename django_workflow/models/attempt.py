"""A failed attempt of a delivery: what the endpoint answered."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _

from django_workflow.models.fields import key_field
from django_workflow.models.run import Run


class Attempt(models.Model):
    """One failed HTTP call. `number` is 1 for the first attempt; `status` is 0 when there was no answer."""

    id = key_field()
    run = models.ForeignKey(Run, null=True, blank=True, on_delete=models.CASCADE, related_name="attempts")
    message_key = models.UUIDField()
    kind = models.CharField(max_length=8)
    step_id = models.PositiveIntegerField(null=True, blank=True)
    step_name = models.CharField(_("step"), max_length=255, blank=True)
    number = models.PositiveIntegerField(_("attempt"))
    status = models.PositiveIntegerField(_("status"), default=0)
    error = models.TextField(_("error"), blank=True)
    response_headers = models.TextField(blank=True)
    response_body = models.TextField(blank=True)
    started_at = models.DateTimeField(_("started"))
    finished_at = models.DateTimeField(_("ended"))
    retry_at = models.DateTimeField(_("next try"), null=True, blank=True)

    objects: ClassVar[models.Manager[Attempt]] = models.Manager()

    class Meta:
        verbose_name = _("failed attempt")
        verbose_name_plural = _("failed attempts")
        ordering = ("started_at",)
        indexes = (
            models.Index(fields=("message_key",), name="workflow_attempt_message"),
            # By kind, and in the order of the log of messages: it reads past none of the runs' attempts.
            models.Index(fields=("kind", "started_at", "message_key", "number"), name="workflow_attempt_started"),
            models.Index(fields=("kind", "finished_at", "message_key", "number"), name="workflow_attempt_finished"),
        )

    def __str__(self) -> str:
        return f"{self.step_name or self.kind} attempt {self.number}: {self.status}"
