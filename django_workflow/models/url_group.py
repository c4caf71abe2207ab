"""A URL group: a name under which a message is published to several endpoints."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _

from django_workflow.models.fields import ExactCharField, key_field


class UrlGroup(models.Model):
    """`endpoints` is JSON, `[{"url", "name"?}]` in the order they were added; `headers` are defaults for messages to
    the group, JSON `{"Upstash-Retries": "3"}`."""

    id = key_field()
    name = ExactCharField(_("name"), max_length=255, unique=True)
    endpoints = models.TextField(_("endpoints"), default="[]")
    headers = models.TextField(_("default headers"), default="{}")
    created_at = models.DateTimeField(_("created"))
    updated_at = models.DateTimeField(_("changed"))

    objects: ClassVar[models.Manager[UrlGroup]] = models.Manager()

    class Meta:
        verbose_name = _("URL group")
        verbose_name_plural = _("URL groups")
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name
