"""A flow-control key: how many calls of it may be in flight, and how many may start in a period."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _

from django_workflow.models.fields import ExactCharField, key_field


class FlowKey(models.Model):
    """Limits of a key (None: no limit) and its rate window. What is in flight is counted from the leases.

    Pinned limits are not changed by messages.
    """

    id = key_field()
    key = ExactCharField(_("key"), max_length=255, unique=True)
    parallelism = models.PositiveIntegerField(_("parallelism"), null=True, blank=True)
    rate = models.PositiveIntegerField(_("rate"), null=True, blank=True)
    period_seconds = models.PositiveIntegerField(_("period in seconds"), default=1)
    window_started_at = models.DateTimeField(null=True, blank=True)
    window_count = models.PositiveIntegerField(default=0)
    pinned_parallelism = models.BooleanField(default=False)
    pinned_rate = models.BooleanField(default=False)
    paused = models.BooleanField(_("paused"), default=False)

    objects: ClassVar[models.Manager[FlowKey]] = models.Manager()

    class Meta:
        verbose_name = _("flow-control key")
        verbose_name_plural = _("flow-control keys")
        ordering = ("key",)

    def __str__(self) -> str:
        return self.key
