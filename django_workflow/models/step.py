"""A step of a run, as people see it. Its result stands in the journal; here are its state, instants and a preview."""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _

from django_workflow.models.fields import key_field
from django_workflow.models.run import Run

PREVIEW_CHARACTERS = 200


class Step(models.Model):
    class Status(models.TextChoices):
        QUEUED = "queued", _("Queued")
        RUNNING = "running", _("Running")
        RETRYING = "retrying", _("Retrying")
        WAITING = "waiting", _("Waiting")
        SLEEPING = "sleeping", _("Sleeping")
        SUCCESS = "success", _("Success")
        FAILED = "failed", _("Failed")
        CANCELED = "canceled", _("Canceled")

    OPEN = (Status.QUEUED, Status.RUNNING, Status.RETRYING, Status.WAITING, Status.SLEEPING)

    id = key_field()
    # Found by (run, step_id).
    run = models.ForeignKey(Run, verbose_name=_("run"), on_delete=models.CASCADE, related_name="steps", db_index=False)
    step_id = models.PositiveIntegerField(_("number"))
    name = models.CharField(_("name"), max_length=255)
    step_type = models.CharField(_("type"), max_length=16)
    status = models.CharField(_("status"), max_length=10, choices=Status.choices)
    concurrent = models.PositiveIntegerField(_("parallel branches"), default=1)
    attempts = models.PositiveIntegerField(_("attempts"), default=1)
    queued_at = models.DateTimeField(_("queued"), null=True, blank=True)
    started_at = models.DateTimeField(_("started"), null=True, blank=True)
    finished_at = models.DateTimeField(_("ended"), null=True, blank=True)
    due_at = models.DateTimeField(_("due"), null=True, blank=True)
    position = models.PositiveIntegerField(null=True, blank=True, editable=False)
    preview = models.CharField(_("result"), max_length=PREVIEW_CHARACTERS, blank=True)
    error = models.TextField(_("error"), blank=True)
    event_id = models.CharField(_("event"), max_length=255, blank=True)

    objects: ClassVar[models.Manager[Step]] = models.Manager()

    class Meta:
        verbose_name = _("step")
        verbose_name_plural = _("steps")
        ordering = ("run", "step_id")
        constraints = (models.UniqueConstraint(fields=("run", "step_id"), name="workflow_step_once"),)
        indexes = (models.Index(fields=("run", "status"), name="workflow_step_status"),)

    def __str__(self) -> str:
        return f"{self.step_id} {self.name}"

    @property
    def duration(self) -> timedelta | None:
        return self.finished_at - self.started_at if self.started_at and self.finished_at else None
