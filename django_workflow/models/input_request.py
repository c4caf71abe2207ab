"""A form that a run waits for: which one, for whom, and what was answered."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.db import models
from django.utils.translation import gettext_lazy as _

from django_workflow.models.fields import ExactCharField, key_field
from django_workflow.models.run import Run


class InputRequest(models.Model):
    """`prompt` is JSON: the form's dotted path, what it starts with, and who may answer (`protocol.waits.FormPrompt`).

    The wait itself is a Waiter or, with the hosted engine, the step's row.
    """

    id = key_field()
    run = models.ForeignKey(Run, verbose_name=_("run"), on_delete=models.CASCADE, related_name="input_requests")
    step_id = models.PositiveIntegerField(_("step"))
    event_id = ExactCharField(_("event"), max_length=255)
    prompt = models.TextField(editable=False)
    created_at = models.DateTimeField(_("since"))
    answer = models.TextField(_("answer"), blank=True, default="")
    answered_at = models.DateTimeField(_("answered"), null=True, blank=True)
    answered_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        verbose_name=_("answered by"),
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
    )

    objects: ClassVar[models.Manager[InputRequest]] = models.Manager()

    class Meta:
        verbose_name = _("form to fill in")
        verbose_name_plural = _("forms to fill in")
        ordering = ("created_at",)
        constraints = (models.UniqueConstraint(fields=("run", "step_id"), name="workflow_input_request_once"),)

    def __str__(self) -> str:
        return f"form of step {self.step_id}"
