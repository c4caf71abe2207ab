"""A flow-control key: how many calls of it may be in flight, and how many may start in a period."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Self

from django.db import models
from django.db.models import F
from django.utils.translation import gettext_lazy as _

from django_workflow.models.fields import ExactCharField, key_field


class FlowKeyQuerySet(models.QuerySet["FlowKey"]):
    def spent(self, now: datetime) -> Self:
        """Keys whose rate is used up until their window ends."""
        return self.filter(rate__isnull=False, window_count__gte=F("rate"), window_ends_at__gt=now)


class FlowKey(models.Model):
    """Limits of a key (None: no limit) and its rate window. What is in flight is counted from the leases.

    Pinned limits are not changed by messages; the period is pinned with the rate. `window` counts the windows, so that
    a start which is given back is taken off the window that counted it, and off no other.
    """

    id = key_field()
    key = ExactCharField(_("key"), max_length=255, unique=True)
    parallelism = models.PositiveIntegerField(_("parallelism"), null=True, blank=True)
    rate = models.PositiveIntegerField(_("rate"), null=True, blank=True)
    period_seconds = models.PositiveIntegerField(_("period in seconds"), default=1)
    window = models.PositiveBigIntegerField(default=0, editable=False)
    window_started_at = models.DateTimeField(null=True, blank=True)
    window_ends_at = models.DateTimeField(null=True, blank=True)
    window_count = models.PositiveIntegerField(default=0)
    pinned_parallelism = models.BooleanField(default=False)
    pinned_rate = models.BooleanField(default=False)
    paused = models.BooleanField(_("paused"), default=False)

    objects: ClassVar[models.Manager[FlowKey]] = models.Manager.from_queryset(FlowKeyQuerySet)()

    class Meta:
        verbose_name = _("flow-control key")
        verbose_name_plural = _("flow-control keys")
        ordering = ("key",)
        permissions = (("pause_flowkey", "Can pause, resume and reset flow-control keys"),)

    def __str__(self) -> str:
        return self.key
