"""Rows as JSON. Names are those of the models; bodies are parsed, with secrets hidden."""

from __future__ import annotations

from typing import Any

from django.utils import timezone
from rest_framework import serializers

from django_workflow.control.bulk import errors_of
from django_workflow.models import BulkOperation, DeadLetter, Run, Schedule, Step, Waiter
from django_workflow.presentation import values
from django_workflow.presentation.words import running_time, why_text


class RunIdField(serializers.SlugRelatedField[Run]):
    """Another run by its run id."""

    def __init__(self, **options: Any) -> None:
        super().__init__(slug_field="run_id", read_only=True, allow_null=True, **options)


class RunSerializer(serializers.ModelSerializer[Run]):
    """A run in a list, with the `step_count` of `lookup.with_step_count`."""

    labels = serializers.ListField(source="label_list", child=serializers.CharField(), read_only=True)
    why = serializers.SerializerMethodField()
    owner = serializers.SerializerMethodField()
    parent = RunIdField()  # type: ignore[assignment] # DRF takes declared fields off the class
    step_count = serializers.IntegerField(read_only=True)
    resumed_from = RunIdField()
    duration_seconds = serializers.SerializerMethodField()

    class Meta:
        model = Run
        fields: tuple[str, ...] = (
            "run_id",
            "workflow",
            "status",
            "why",
            "summary",
            "labels",
            "error",
            "error_step",
            "trigger_kind",
            "owner",
            "parent",
            "resumed_from",
            "step_count",
            "progress_done",
            "progress_total",
            "created_at",
            "started_at",
            "finished_at",
            "due_at",
            "duration_seconds",
        )
        read_only_fields = fields

    def get_why(self, run: Run) -> str:
        return why_text(run, timezone.now())

    def get_owner(self, run: Run) -> str | None:
        return None if run.owner is None else run.owner.get_username()

    def get_duration_seconds(self, run: Run) -> float | None:
        return _seconds(run)


class RunDetailSerializer(RunSerializer):
    """A run by itself, with its values."""

    payload = serializers.SerializerMethodField()
    result = serializers.SerializerMethodField()

    class Meta(RunSerializer.Meta):
        fields = (*RunSerializer.Meta.fields, "url", "deadline_at", "code_version", "forgotten_at", "payload", "result")
        read_only_fields = fields

    def get_payload(self, run: Run) -> Any:
        return values.payload_of(run)

    def get_result(self, run: Run) -> Any:
        return values.result_of(run)


class StepSerializer(serializers.ModelSerializer[Step]):
    """A step. `result` comes from the `results` of the context: step id -> value."""

    result = serializers.SerializerMethodField()
    duration_seconds = serializers.SerializerMethodField()

    class Meta:
        model = Step
        fields = (*values.STEP_COLUMNS, "duration_seconds", "result")
        read_only_fields = fields

    def get_result(self, step: Step) -> Any:
        return self.context.get("results", {}).get(step.step_id)

    def get_duration_seconds(self, step: Step) -> float | None:
        return _seconds(step)


class WaiterSerializer(serializers.ModelSerializer[Waiter]):
    run_id = serializers.CharField(source="run.run_id", read_only=True)
    workflow = serializers.CharField(source="run.workflow", read_only=True)
    since = serializers.DateTimeField(source="created_at", read_only=True)
    expires = serializers.DateTimeField(source="deadline_at", read_only=True, allow_null=True)

    class Meta:
        model = Waiter
        fields = ("event_id", "run_id", "workflow", "step_name", "prompt", "state", "since", "expires", "resolved_at")
        read_only_fields = fields


class ScheduleSerializer(serializers.ModelSerializer[Schedule]):
    payload = serializers.SerializerMethodField()

    class Meta:
        model = Schedule
        fields = (
            "schedule_id",
            "workflow",
            "cron",
            "timezone",
            "payload",
            "in_code",
            "paused",
            "created_at",
            "next_at",
            "last_at",
            "last_run_id",
        )
        read_only_fields = fields

    def get_payload(self, schedule: Schedule) -> Any:
        return values.scheduled_payload(schedule)


class DeadLetterSerializer(serializers.ModelSerializer[DeadLetter]):
    id = serializers.UUIDField(read_only=True)
    run_id = serializers.CharField(source="run.run_id", read_only=True, allow_null=True, default=None)
    workflow = serializers.CharField(source="run.workflow", read_only=True, allow_null=True, default=None)
    failed_at = serializers.DateTimeField(source="created_at", read_only=True)

    class Meta:
        model = DeadLetter
        fields = (
            "id",
            "run_id",
            "workflow",
            "step_name",
            "destination",
            "status",
            "error",
            "failure_state",
            "failed_at",
        )
        read_only_fields = fields


class WorkflowSerializer(serializers.Serializer[Any]):
    """A workflow of this project."""

    name = serializers.CharField()
    aliases = serializers.ListField(child=serializers.CharField())
    url = serializers.CharField()
    schedule = serializers.CharField(allow_null=True)
    active_runs = serializers.IntegerField()


class RunWithStepsSerializer(RunDetailSerializer):
    """A run with its first steps and open waits."""

    steps = StepSerializer(many=True, read_only=True)
    waiters = WaiterSerializer(many=True, read_only=True)

    class Meta(RunDetailSerializer.Meta):
        fields = (*RunDetailSerializer.Meta.fields, "steps", "waiters")
        read_only_fields = fields


class EventSerializer(serializers.Serializer[Any]):
    id = serializers.CharField()
    event = serializers.CharField()
    data = serializers.JSONField()  # type: ignore[assignment] # DRF takes declared fields off the class


class EventPageSerializer(serializers.Serializer[Any]):
    """Events of a run's channel. `cursor` goes on after the last one."""

    results = EventSerializer(many=True)
    cursor = serializers.CharField()
    more = serializers.BooleanField()


class TriggeredSerializer(serializers.Serializer[Any]):
    workflowRunId = serializers.CharField()


class PerformedSerializer(serializers.Serializer[Any]):
    """The run that an action concerns or has made, its status now, and a sentence."""

    success = serializers.BooleanField()
    run_id = serializers.CharField()
    status = serializers.CharField()
    message = serializers.CharField()


class RevealedStepSerializer(serializers.Serializer[Any]):
    step_id = serializers.IntegerField()
    result = serializers.JSONField(allow_null=True)


class RevealedSerializer(serializers.Serializer[Any]):
    """A run's values with nothing hidden but credentials in headers. Steps without a result are left out."""

    run_id = serializers.CharField()
    payload = serializers.JSONField(allow_null=True)
    result = serializers.JSONField(allow_null=True)
    steps = RevealedStepSerializer(many=True)


class BulkErrorSerializer(serializers.Serializer[Any]):
    run_id = serializers.CharField(allow_blank=True)
    error = serializers.CharField()


class BulkOperationSerializer(serializers.ModelSerializer[BulkOperation]):
    """An action on many runs. `errors` are those of the first runs that failed or were skipped."""

    errors = serializers.SerializerMethodField()  # type: ignore[assignment] # DRF takes declared fields off the class

    class Meta:
        model = BulkOperation
        fields = (
            "id",
            "name",
            "action",
            "state",
            "total",
            "done",
            "failed",
            "skipped",
            "errors",
            "reason",
            "by_name",
            "created_at",
            "finished_at",
        )
        read_only_fields = fields

    def get_errors(self, operation: BulkOperation) -> list[dict[str, str]]:
        return [{"run_id": run_id, "error": error} for run_id, error in errors_of(operation)]


class AnsweredSerializer(serializers.Serializer[Any]):
    """How many runs an answer reached."""

    success = serializers.BooleanField()
    resolved = serializers.IntegerField()


class ProblemSerializer(serializers.Serializer[Any]):
    """A problem. Source: RFC 9457."""

    type = serializers.CharField()
    title = serializers.CharField()
    status = serializers.IntegerField()
    detail = serializers.CharField()
    code = serializers.CharField()
    errors = serializers.DictField(  # type: ignore[assignment] # DRF takes declared fields off the class
        child=serializers.ListField(child=serializers.CharField()), required=False
    )


def _seconds(row: Run | Step) -> float | None:
    length = running_time(row, timezone.now())
    return None if length is None else round(length.total_seconds(), 6)
