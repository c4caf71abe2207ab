"""A realtime channel of the project's own: its lock, its newest position, and until when it is kept."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _

from django_workflow.models.fields import ExactCharField


class Channel(models.Model):
    """Who emits updates the row first, so that positions are taken one after another. Runs' channels have no row: the
    run itself is their lock."""

    id = models.BigAutoField(primary_key=True)
    name = ExactCharField(max_length=255, unique=True)
    position = models.BigIntegerField(default=0)
    expires_at = models.DateTimeField(db_index=True)

    objects: ClassVar[models.Manager[Channel]] = models.Manager()

    class Meta:
        verbose_name = _("realtime channel")
        verbose_name_plural = _("realtime channels")
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name
