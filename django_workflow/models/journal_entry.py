"""A run's journal: its messages in their one order, bodies as received. Only ever appended to."""

from __future__ import annotations

from typing import ClassVar

from django.db import models

from django_workflow.models.fields import key_field
from django_workflow.models.run import Run
from django_workflow.protocol.identifiers import message_id_of


class JournalEntry(models.Model):
    """Message number `position` of a run (0 is its payload). Its key is the message's id.

    `step_id` is set on results alone: (run, step_id) then lets one result of a step in, whoever sends a second.
    `config` is the message without its body, as JSON: of calls, of their answers, and of steps that bring their own.
    """

    id = key_field()
    # Found by (run, position).
    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="journal", db_index=False)
    position = models.PositiveIntegerField()
    call_type = models.CharField(max_length=12)
    step_id = models.PositiveIntegerField(null=True)
    body = models.TextField()
    body_is_base64 = models.BooleanField(default=False)
    config = models.TextField(default="")
    created_at = models.DateTimeField()

    objects: ClassVar[models.Manager[JournalEntry]] = models.Manager()

    class Meta:
        ordering = ("run", "position")
        constraints = (
            models.UniqueConstraint(fields=("run", "position"), name="workflow_journal_position"),
            models.UniqueConstraint(fields=("run", "step_id"), name="workflow_journal_result_once"),
        )

    def __str__(self) -> str:
        return f"{self.message_id} at {self.position}"

    @property
    def message_id(self) -> str:
        return message_id_of(self.pk)
