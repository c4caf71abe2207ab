"""A dead letter: a run or a message whose delivery was given up, with the true reason."""

from __future__ import annotations

import re
from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _

from django_workflow.models.fields import ExactCharField, key_field
from django_workflow.models.message_log import MessageLog
from django_workflow.models.run import Run

LONGEST_KIND = 100
_ERROR_CLASS = re.compile(r"([A-Za-z_][\w.]*): ", re.ASCII)


def kind_of_error(error: str, status: int) -> str:
    """What tells an error from others of its step: its class (`ConnectionError`), else its status (`HTTP 502`).

    Nothing else of its text, which may hold what belongs to one run alone.
    """
    named = _ERROR_CLASS.match(error + " ")
    if named:
        return named[1].rpartition(".")[2][:LONGEST_KIND]
    return f"HTTP {status}" if status else ""


class DeadLetter(models.Model):
    """`status`, `error` and `response_*` are of the answer that was given up with, `failure_*` of the failure callback:
    its message's key, and what it was answered last. `error_kind` is what `kind_of_error` makes of the error, `dlq_id`
    the hosted engine's id of the letter."""

    class FailureState(models.TextChoices):
        NONE = "none", _("No failure function")
        IN_PROGRESS = "in_progress", _("In progress")
        SUCCESS = "success", _("Done")
        FAILED = "failed", _("Failed")
        CANCELED = "canceled", _("Canceled")

    id = key_field()
    run = models.OneToOneField(
        Run, verbose_name=_("run"), null=True, blank=True, on_delete=models.CASCADE, related_name="dead_letter"
    )
    message = models.OneToOneField(
        MessageLog,
        verbose_name=_("message"),
        null=True,
        blank=True,
        on_delete=models.CASCADE,
        related_name="dead_letter",
    )
    dlq_id = ExactCharField(max_length=255, blank=True, default="", editable=False)
    message_key = models.UUIDField()
    step_name = models.CharField(_("step"), max_length=255, blank=True)
    destination = models.TextField(_("destination"))
    status = models.PositiveIntegerField(_("status"), default=0)
    error = models.TextField(_("error"), blank=True)
    error_kind = models.CharField(_("kind of error"), max_length=LONGEST_KIND, blank=True, default="")
    response_headers = models.TextField(blank=True)
    response_body = models.TextField(blank=True)
    failure_state = models.CharField(
        _("failure function"), max_length=11, choices=FailureState.choices, default=FailureState.NONE
    )
    failure_key = models.UUIDField(null=True, blank=True, editable=False)
    failure_status = models.PositiveIntegerField(_("failure function's status"), default=0)
    failure_headers = models.TextField(blank=True, default="")
    failure_response = models.TextField(_("failure function's answer"), blank=True)
    created_at = models.DateTimeField(_("failed"))

    objects: ClassVar[models.Manager[DeadLetter]] = models.Manager()

    class Meta:
        verbose_name = _("dead letter")
        verbose_name_plural = _("failed runs")
        ordering = ("-created_at",)
        indexes = (models.Index(fields=("-created_at",), name="workflow_dead_letter_created"),)

    def __str__(self) -> str:
        # The error of a message is what its destination answered, which its publisher may hide.
        return self.destination if self.message_id else f"{self.destination}: {self.error[:80]}"
