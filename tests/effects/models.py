"""What a step did to the world: one row each time it ran."""

from __future__ import annotations

from typing import ClassVar

from django.db import models

from django_workflow.models import WorkflowRunsMixin


class Effect(WorkflowRunsMixin, models.Model):
    run_id = models.CharField(max_length=255)
    step = models.CharField(max_length=64)
    atomic = models.BooleanField()

    objects: ClassVar[models.Manager[Effect]] = models.Manager()

    def __str__(self) -> str:
        return f"{self.run_id} {self.step}"
