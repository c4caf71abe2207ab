"""A wait for an event, or an event that came before its wait."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Self

from django.conf import settings
from django.db import models
from django.utils.translation import gettext_lazy as _

from django_workflow.models.fields import ExactCharField, key_field
from django_workflow.models.run import Run


class WaiterQuerySet(models.QuerySet["Waiter"]):
    def waiting(self) -> Self:
        return self.filter(state=Waiter.State.WAITING)

    def timed(self) -> Self:
        """Waits that the embedded engine ends at their deadline; those of hosted runs are not its own."""
        return self.waiting().filter(run__check_at=None)

    def overdue(self, now: datetime) -> Self:
        return self.timed().filter(deadline_at__lte=now)


class Waiter(models.Model):
    """`waiting` becomes `resolved`, `timed_out` or `canceled`. An event sent to a run ahead of its wait is kept as
    `early` and becomes `consumed`, in order of arrival. `step` is the JSON of the step to journal, `config` the
    message's own configuration, `resolved_by` the person whose answer it was."""

    class State(models.TextChoices):
        WAITING = "waiting", _("Waiting")
        RESOLVED = "resolved", _("Resolved")
        TIMED_OUT = "timed_out", _("Timed out")
        CANCELED = "canceled", _("Canceled")
        EARLY = "early", _("Came early")
        CONSUMED = "consumed", _("Consumed")

    id = key_field()
    run = models.ForeignKey(Run, verbose_name=_("run"), on_delete=models.CASCADE, related_name="waiters")
    event_id = ExactCharField(_("event"), max_length=255)
    state = models.CharField(_("state"), max_length=10, choices=State.choices, default=State.WAITING)
    step = models.TextField(blank=True, default="")
    step_id = models.PositiveIntegerField(null=True, blank=True)
    step_name = models.CharField(_("step"), max_length=255, blank=True)
    step_type = models.CharField(max_length=16, blank=True)
    prompt = models.TextField(_("question"), blank=True, default="")
    url = models.TextField(blank=True)
    config = models.TextField(blank=True, default="")
    event_data = models.TextField(blank=True, default="")
    deduplication_id = ExactCharField(max_length=255, blank=True, default="")
    created_at = models.DateTimeField(_("since"))
    deadline_at = models.DateTimeField(_("expires"), null=True, blank=True)
    resolved_at = models.DateTimeField(_("resolved"), null=True, blank=True)
    resolved_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        verbose_name=_("resolved by"),
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
    )

    objects: ClassVar[models.Manager[Waiter]] = models.Manager.from_queryset(WaiterQuerySet)()

    class Meta:
        verbose_name = _("waiter")
        verbose_name_plural = _("waiting inbox")
        ordering = ("created_at",)
        indexes = (
            models.Index(fields=("event_id", "state"), name="workflow_waiter_event"),
            models.Index(fields=("state", "deadline_at"), name="workflow_waiter_deadline"),
        )

    def __str__(self) -> str:
        return f"{self.event_id} ({self.state})"
