"""A worker process, and its heartbeat."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _

from django_workflow.models.fields import key_field


class Worker(models.Model):
    """`heartbeat` counts up while the worker lives; others call it dead when they saw it stand still for too long
    on their own clock, or when its process on this host is gone (`pid` and when that process started)."""

    id = key_field()
    host = models.CharField(_("host"), max_length=255)
    pid = models.PositiveIntegerField(_("process"))
    pid_started = models.CharField(max_length=32, blank=True)
    concurrency = models.PositiveIntegerField(_("concurrency"))
    started_at = models.DateTimeField(_("started"))
    heartbeat = models.PositiveBigIntegerField(default=0)
    heartbeat_at = models.DateTimeField(_("last heartbeat"))
    draining = models.BooleanField(_("draining"), default=False)

    objects: ClassVar[models.Manager[Worker]] = models.Manager()

    class Meta:
        verbose_name = _("worker")
        verbose_name_plural = _("workers")

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}"
