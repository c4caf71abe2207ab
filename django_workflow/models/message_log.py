"""A message outside workflows: what was published, and what became of it."""

from __future__ import annotations

from typing import ClassVar, Self

from django.db import models
from django.utils.translation import gettext_lazy as _

from django_workflow.models.fields import ExactCharField, ExactTextField, key_field
from django_workflow.protocol.identifiers import message_id_of


class MessageLogQuerySet(models.QuerySet["MessageLog"]):
    def unfinished(self) -> Self:
        return self.exclude(state__in=MessageLog.FINAL)

    def finished(self) -> Self:
        return self.filter(state__in=MessageLog.FINAL)


class MessageLog(models.Model):
    """One row per message; its key is the message's id. The delivery that carries it is gone once it is finished.

    The states of the event log are computed from these instants and from the failed attempts. `config` is the message
    with all its settings but the body, as JSON. `source_key` is the message that a callback tells of.
    `deduplication_key` belongs to the newest message of its id: it is taken from one whose window is over.
    `active_at` is the start of the attempt under way, or of a finished message's last one; failed ones that are tried
    again have their Attempt. A message whose cancellation was asked for while it was under way ends with its attempt.
    """

    class Kind(models.TextChoices):
        MESSAGE = "message", _("Message")
        CALLBACK = "callback", _("Callback")
        FAILURE_CALLBACK = "failure", _("Failure callback")

    class State(models.TextChoices):
        CREATED = "created", _("Created")
        ACTIVE = "active", _("Active")
        RETRY = "retry", _("Retrying")
        DELIVERED = "delivered", _("Delivered")
        FAILED = "failed", _("Failed")
        CANCELED = "canceled", _("Canceled")

    FINAL = (State.DELIVERED, State.FAILED, State.CANCELED)

    id = key_field()
    kind = models.CharField(max_length=8, choices=Kind.choices, default=Kind.MESSAGE)
    source_key = models.UUIDField(null=True, blank=True, editable=False)
    state = models.CharField(_("state"), max_length=9, choices=State.choices, default=State.CREATED)
    url = ExactTextField(_("destination"))
    host = ExactCharField(max_length=255, blank=True)
    path = ExactTextField(blank=True)
    method = models.CharField(max_length=8, default="POST")
    config = models.TextField(editable=False, default="", blank=True)
    body = models.TextField(_("body"), blank=True, default="")
    body_is_base64 = models.BooleanField(default=False)
    topic = ExactCharField(_("URL group"), max_length=255, blank=True, default="")
    endpoint = ExactCharField(max_length=255, blank=True, default="")
    queue = ExactCharField(_("queue"), max_length=255, blank=True, default="")
    schedule_id = ExactCharField(_("schedule"), max_length=255, blank=True, default="")
    caller_ip = models.CharField(max_length=45, blank=True, default="")
    flow_key = ExactCharField(_("flow-control key"), max_length=255, blank=True, default="")
    labels = models.TextField(_("labels"), blank=True, default="", help_text=_("Wrapped in commas: `,vip,eu,`."))
    deduplication_key = models.CharField(max_length=64, null=True, blank=True, unique=True, editable=False)
    max_retries = models.PositiveIntegerField(default=3)
    attempt = models.PositiveIntegerField(_("retries so far"), default=0)
    created_at = models.DateTimeField(_("created"))
    due_at = models.DateTimeField(_("not before"))
    active_at = models.DateTimeField(_("attempt since"), null=True, blank=True)
    cancel_requested_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(_("ended"), null=True, blank=True)
    status = models.PositiveIntegerField(_("status"), default=0)
    error = models.TextField(_("error"), blank=True, default="")
    response_headers = models.TextField(blank=True, default="")
    response_body = models.TextField(blank=True, default="")
    response_is_base64 = models.BooleanField(default=False)

    objects: ClassVar[models.Manager[MessageLog]] = models.Manager.from_queryset(MessageLogQuerySet)()

    class Meta:
        verbose_name = _("message")
        verbose_name_plural = _("messages")
        ordering = ("-created_at",)
        indexes = (
            # Read backwards for the newest: MariaDB takes the key behind a descending column the other way round.
            models.Index(fields=("created_at",), name="workflow_message_created"),
            models.Index(fields=("finished_at",), name="workflow_message_finished"),
            models.Index(fields=("active_at",), name="workflow_message_active"),
            models.Index(fields=("cancel_requested_at",), name="workflow_message_cancel"),
            models.Index(fields=("schedule_id", "created_at"), name="workflow_message_schedule"),
        )

    def __str__(self) -> str:
        return f"{self.message_id} to {self.url}"

    @property
    def message_id(self) -> str:
        return message_id_of(self.pk)

    @property
    def is_finished(self) -> bool:
        return self.state in self.FINAL
