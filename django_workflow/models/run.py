"""A run: one execution of a workflow, as people see it, in both modes."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Any, ClassVar, Self

from django.apps import apps
from django.conf import settings
from django.contrib.contenttypes.fields import GenericForeignKey
from django.contrib.contenttypes.models import ContentType
from django.db import connections, models
from django.utils.translation import gettext_lazy as _

from django_workflow.conf import LONGEST_VERSION
from django_workflow.models.fields import ExactCharField, key_field

if TYPE_CHECKING:
    from uuid import UUID

    from django_workflow.models.step import Step


class RunQuerySet(models.QuerySet["Run"]):
    def in_place_of(self, key: UUID) -> Self:
        """Runs that go on, or were begun anew, in place of another; the newest first. Its forks are not."""
        return self.filter(resumed_from=key).exclude(trigger_kind=Run.TriggerKind.FORK).order_by("-created_at", "-pk")

    def active(self) -> Self:
        """Runs that are not over."""
        return self.exclude(status__in=Run.FINAL)

    def finished(self) -> Self:
        return self.filter(status__in=Run.FINAL)

    def failed(self) -> Self:
        return self.filter(status=Run.Status.FAILED)

    def succeeded(self) -> Self:
        return self.filter(status=Run.Status.SUCCESS)

    def paused(self) -> Self:
        return self.filter(status=Run.Status.PAUSED)

    def of(self, workflow: str) -> Self:
        """Runs of a workflow, by its name."""
        return self.filter(workflow=workflow)

    def for_object(self, found: models.Model) -> Self:
        """Runs that are for an object of the project."""
        kind = ContentType.objects.db_manager(self.db).get_for_model(found)
        return self.filter(content_type=kind.pk, object_id=str(found.pk))

    def waiting_on(self, name: str) -> Self:
        """Runs that wait for an event of that id, or in a step of that name."""
        waiters = apps.get_model("django_workflow", "Waiter")._default_manager.using(self.db)
        waiting = waiters.filter(models.Q(event_id=name) | models.Q(step_name=name), run=models.OuterRef("pk"))
        return self.filter(models.Exists(waiting.filter(state="waiting")))

    def hosted(self) -> Self:
        """Runs that go on in the hosted engine: their rows are the mirror's."""
        return self.filter(check_at__isnull=False)

    def with_label(self, label: str) -> Self:
        return self.filter(labels__contains=f",{label},")

    def with_any_label(self, labels: Iterable[str]) -> Self:
        return self.filter(reduce(or_, (models.Q(labels__contains=f",{label},") for label in labels)))

    def locked(self, keys: Iterable[UUID], *, skip_locked: bool = False) -> Self:
        """Lock these runs' rows, in the order of their keys (the order that every writer keeps).

        `no_key` where the database knows it: rows of others that point at a run do not wait for it.
        """
        features: Any = connections[self.db].features
        return (
            self.filter(pk__in=list(keys))
            .order_by("pk")
            .select_for_update(
                of=("self",) if features.has_select_for_update_of else (),
                no_key=features.has_select_for_no_key_update,
                skip_locked=skip_locked and features.has_select_for_update_skip_locked,
            )
        )


class Run(models.Model):
    """`check_at`: when the hosted engine is asked about this run next; empty for runs that are over, and for those of
    the embedded engine. `forgotten_at`: when its values were erased; it cannot be gone on with then."""

    class Status(models.TextChoices):
        SCHEDULED = "scheduled", _("Scheduled")
        QUEUED = "queued", _("Queued")
        RUNNING = "running", _("Running")
        RETRYING = "retrying", _("Retrying")
        WAITING = "waiting", _("Waiting")
        SLEEPING = "sleeping", _("Sleeping")
        PAUSED = "paused", _("Paused")
        SUCCESS = "success", _("Success")
        FAILED = "failed", _("Failed")
        CANCELED = "canceled", _("Canceled")

    class TriggerKind(models.TextChoices):
        CODE = "code", _("Code")
        USER = "user", _("Person")
        API = "api", _("API")
        SCHEDULE = "schedule", _("Schedule")
        PARENT = "parent", _("Another run")
        RESUME = "resume", _("Resumed")
        RESTART = "restart", _("Restarted")
        FORK = "fork", _("Forked")

    class Engine(models.TextChoices):
        EMBEDDED = "embedded", _("Embedded")
        HOSTED = "qstash", _("Hosted QStash")

    FINAL = (Status.SUCCESS, Status.FAILED, Status.CANCELED)
    # With parallel branches the most urgent of their states is the run's.
    URGENCY = (Status.RETRYING, Status.RUNNING, Status.QUEUED, Status.WAITING, Status.SLEEPING)

    id = key_field()
    run_id = ExactCharField(_("run id"), max_length=255, unique=True)
    workflow = ExactCharField(_("workflow"), max_length=200)
    url = models.TextField(_("endpoint"))
    status = models.CharField(_("status"), max_length=10, choices=Status.choices, default=Status.QUEUED)
    why = models.TextField(_("why"), blank=True, help_text=_("What the run is doing or waiting for, in one sentence."))
    summary = models.CharField(_("summary"), max_length=200, blank=True)
    error = models.TextField(_("error"), blank=True)
    error_step = models.CharField(_("failed step"), max_length=255, blank=True)
    payload = models.TextField(_("payload"), blank=True)
    payload_is_base64 = models.BooleanField(default=False)
    result = models.TextField(_("result"), null=True, blank=True)  # noqa: DJ001 - "no result" is not an empty one
    flow_key = ExactCharField(_("flow-control key"), max_length=255, blank=True)
    labels = models.TextField(_("labels"), blank=True, help_text=_("Wrapped in commas: `,vip,eu,`."))
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        verbose_name=_("owner"),
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="workflow_runs",
    )
    trigger_kind = models.CharField(
        _("triggered by"), max_length=10, choices=TriggerKind.choices, default=TriggerKind.CODE
    )
    parent = models.ForeignKey(
        "self", verbose_name=_("parent"), null=True, blank=True, on_delete=models.SET_NULL, related_name="children"
    )
    first_run = models.ForeignKey("self", null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    resumed_from = models.ForeignKey(
        "self",
        verbose_name=_("resumed from"),
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="resumed_as",
    )
    group_open = models.PositiveIntegerField(default=0, editable=False)
    progress_done = models.PositiveIntegerField(null=True, blank=True)
    progress_total = models.PositiveIntegerField(null=True, blank=True)
    created_at = models.DateTimeField(_("created"))
    started_at = models.DateTimeField(_("started"), null=True, blank=True)
    finished_at = models.DateTimeField(_("ended"), null=True, blank=True)
    due_at = models.DateTimeField(_("due"), null=True, blank=True)
    deadline_at = models.DateTimeField(_("deadline"), null=True, blank=True)
    engine = models.CharField(_("engine"), max_length=8, choices=Engine.choices, default=Engine.EMBEDDED)
    check_at = models.DateTimeField(null=True, blank=True, editable=False)
    forgotten_at = models.DateTimeField(_("erased"), null=True, blank=True)
    caller_ip = models.CharField(max_length=45, blank=True, default="")
    code_version = models.CharField(_("code version"), max_length=LONGEST_VERSION, blank=True)
    content_type = models.ForeignKey(
        "contenttypes.ContentType",
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        db_index=False,  # found by (content_type, object_id)
        related_name="+",
    )
    object_id = ExactCharField(max_length=255, blank=True)
    related_object = GenericForeignKey("content_type", "object_id")
    config = models.TextField(editable=False, default="{}")

    objects: ClassVar[models.Manager[Run]] = models.Manager.from_queryset(RunQuerySet)()

    class Meta:
        verbose_name = _("run")
        verbose_name_plural = _("runs")
        ordering = ("-created_at",)
        indexes = (
            models.Index(fields=("status", "-created_at"), name="workflow_run_status"),
            models.Index(fields=("workflow", "-created_at"), name="workflow_run_name"),
            # With the status: the run list counts by time and status without reading rows.
            models.Index(fields=("-created_at", "status"), name="workflow_run_created"),
            models.Index(fields=("finished_at",), name="workflow_run_finished"),
            models.Index(fields=("content_type", "object_id"), name="workflow_run_object"),
            models.Index(fields=("check_at",), name="workflow_run_check"),
        )
        permissions = (
            ("cancel_run", "Can cancel runs"),
            ("pause_run", "Can pause runs"),
            ("resume_run", "Can resume runs"),
            ("restart_run", "Can restart runs"),
            ("notify_run", "Can answer waiting runs"),
            ("trigger_workflow", "Can trigger workflows"),
            ("view_payload", "Can see masked payloads"),
        )

    def __str__(self) -> str:
        return f"{self.workflow} {self.run_id}"

    @property
    def is_finished(self) -> bool:
        return self.status in self.FINAL

    @property
    def label_list(self) -> list[str]:
        return [label for label in self.labels.split(",") if label]

    @property
    def duration(self) -> timedelta | None:
        """From the first call to the end; None while either is open."""
        return self.finished_at - self.started_at if self.started_at and self.finished_at else None

    @property
    def goes_on(self) -> bool:
        """Whether it began with results of an earlier run: it resumes or forks it."""
        return self.trigger_kind in (self.TriggerKind.RESUME, self.TriggerKind.FORK)

    def took_over(self, step: Step) -> bool:
        """Whether an earlier run did this step of ours: it was over when this run was made."""
        return self.goes_on and step.finished_at is not None and step.finished_at <= self.created_at
