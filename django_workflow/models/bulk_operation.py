"""Bulk operations: an action on many runs, done in batches, with its progress and its end."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Self

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from django_workflow.models.fields import key_field


class BulkOperationQuerySet(models.QuerySet["BulkOperation"]):
    def due(self, now: datetime) -> Self:
        """Operations that are not over, and that nobody works on."""
        free = Q(leased_until=None) | Q(leased_until__lte=now)
        return self.filter(free, state=BulkOperation.State.RUNNING)


class BulkOperation(models.Model):
    """`action` is the action's name, `parameters` what it takes, as JSON. `done`, `failed` and `skipped` count runs;
    `errors` is a sample of those that failed or were skipped, as JSON: `[[run id, sentence], …]`. `by_name` is the
    name of the user who started it, whose account may be gone; empty when code did. Whoever works on it has it until
    `leased_until`."""

    class State(models.TextChoices):
        RUNNING = "running", _("Running")
        DONE = "done", _("Done")
        ABORTED = "aborted", _("Stopped")

    id = key_field()
    name = models.CharField(_("name"), max_length=200)
    action = models.CharField(_("action"), max_length=40)
    parameters = models.TextField(blank=True, default="{}", editable=False)
    state = models.CharField(_("state"), max_length=10, choices=State.choices, default=State.RUNNING)
    total = models.PositiveIntegerField(_("runs"), default=0)
    done = models.PositiveIntegerField(_("done"), default=0)
    failed = models.PositiveIntegerField(_("failed"), default=0)
    skipped = models.PositiveIntegerField(_("skipped"), default=0)
    errors = models.TextField(_("errors"), blank=True, default="[]")
    reason = models.TextField(_("reason"), blank=True, default="")
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        verbose_name=_("started by"),
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
    )
    by_name = models.CharField(_("started by"), max_length=255, blank=True, default="")
    created_at = models.DateTimeField(_("started"))
    finished_at = models.DateTimeField(_("ended"), null=True, blank=True)
    leased_until = models.DateTimeField(null=True, blank=True, editable=False)

    objects: ClassVar[models.Manager[BulkOperation]] = models.Manager.from_queryset(BulkOperationQuerySet)()

    class Meta:
        verbose_name = _("bulk operation")
        verbose_name_plural = _("bulk operations")
        ordering = ("-created_at",)
        indexes = (
            models.Index(fields=("state", "created_at"), name="workflow_bulk_state"),
            models.Index(fields=("finished_at",), name="workflow_bulk_finished"),
        )

    def __str__(self) -> str:
        return self.name

    @property
    def is_over(self) -> bool:
        return self.state != self.State.RUNNING

    @property
    def tried(self) -> int:
        """How many runs it has come to."""
        return self.done + self.failed + self.skipped


class BulkChunk(models.Model):
    """Some of the runs that an operation has still to come to: their keys, each of 32 characters; the first `taken`
    of them are done with. A chunk that is done with is deleted."""

    id = key_field()
    operation = models.ForeignKey(BulkOperation, on_delete=models.CASCADE, related_name="chunks")
    number = models.PositiveIntegerField()
    keys = models.TextField()
    taken = models.PositiveIntegerField(default=0)

    objects: ClassVar[models.Manager[BulkChunk]] = models.Manager()

    class Meta:
        default_permissions = ()
        constraints = (models.UniqueConstraint(fields=("operation", "number"), name="workflow_bulk_chunk"),)

    def __str__(self) -> str:
        return f"{self.number} of {self.operation_id}"
