"""A schedule: when to start which workflow, or when to publish which message."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Self

from django.db import models
from django.utils.translation import gettext_lazy as _

from django_workflow.models.fields import ExactCharField, key_field


class ScheduleQuerySet(models.QuerySet["Schedule"]):
    def due(self, now: datetime) -> Self:
        return self.filter(paused=False, next_at__lte=now)


class Schedule(models.Model):
    """A schedule declared in code names its workflow; one made by the API has a destination and the message's
    settings (`config`, JSON). `error` says why it fires no more, or why it failed to when it was last due.

    A time zone in the expression, as the API takes it, is repeated in `timezone`.
    """

    id = key_field()
    schedule_id = ExactCharField(_("schedule"), max_length=255, unique=True)
    workflow = ExactCharField(_("workflow"), max_length=200, blank=True)
    destination = models.TextField(_("destination"), blank=True, default="")
    config = models.TextField(editable=False, blank=True, default="")
    cron = models.CharField(_("cron expression"), max_length=512)
    timezone = models.CharField(_("time zone"), max_length=64, default="UTC")
    payload = models.TextField(_("payload"), blank=True)
    payload_is_base64 = models.BooleanField(default=False)
    in_code = models.BooleanField(_("declared in code"), default=True)
    paused = models.BooleanField(_("paused"), default=False)
    created_at = models.DateTimeField(_("created"))
    next_at = models.DateTimeField(_("next run"), null=True, blank=True)
    last_at = models.DateTimeField(_("last run"), null=True, blank=True)
    last_run_id = ExactCharField(max_length=255, blank=True)
    caller_ip = models.CharField(max_length=45, blank=True, default="")
    error = models.TextField(_("error"), blank=True, default="")

    objects: ClassVar[models.Manager[Schedule]] = models.Manager.from_queryset(ScheduleQuerySet)()

    class Meta:
        verbose_name = _("schedule")
        verbose_name_plural = _("schedules")
        ordering = ("schedule_id",)
        permissions = (("pause_schedule", "Can pause and resume schedules"),)
        indexes = (models.Index(fields=("paused", "next_at"), name="workflow_schedule_due"),)

    def __str__(self) -> str:
        return f"{self.schedule_id}: {self.cron} {self.timezone}"
