"""What the failure function of the failing workflow leaves behind."""

from __future__ import annotations

from django.db import models


class Notice(models.Model):
    workflow_run_id = models.CharField("workflow run", max_length=255, unique=True)
    text = models.TextField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-created_at",)

    def __str__(self) -> str:
        return self.text
