"""The embedded engine's signing keys: the current one signs, the next one is accepted as well."""

from __future__ import annotations

from typing import ClassVar

from django.db import models

from django_workflow.models.fields import key_field


class SigningKey(models.Model):
    """A rotated pair, newest row in force. Without rows the pair derives from SECRET_KEY."""

    id = key_field()
    current = models.CharField(max_length=128)
    next = models.CharField(max_length=128)
    created_at = models.DateTimeField()

    objects: ClassVar[models.Manager[SigningKey]] = models.Manager()

    class Meta:
        ordering = ("-created_at",)
        get_latest_by = "created_at"

    def __str__(self) -> str:
        return f"pair of {self.created_at:%Y-%m-%d}"
