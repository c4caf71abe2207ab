"""A queue: messages that are delivered in their order, at most `parallelism` at a time."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _

from django_workflow.models.fields import ExactCharField, key_field


class Queue(models.Model):
    """Its messages are the deliveries that name it. A paused queue takes messages and holds them."""

    id = key_field()
    name = ExactCharField(_("name"), max_length=255, unique=True)
    parallelism = models.PositiveIntegerField(_("parallelism"), default=1)
    paused = models.BooleanField(_("paused"), default=False)
    created_at = models.DateTimeField(_("created"))
    updated_at = models.DateTimeField(_("changed"))

    objects: ClassVar[models.Manager[Queue]] = models.Manager()

    class Meta:
        verbose_name = _("queue")
        verbose_name_plural = _("queues")
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name
