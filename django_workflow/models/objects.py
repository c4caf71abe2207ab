"""Runs of the project's own objects: the relation from an object to the runs that are for it.

class Order(WorkflowRunsMixin, models.Model): ...

fulfil.trigger(payload, for_object=order)
order.workflow_runs.active()
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.contrib.contenttypes.fields import GenericRelation
from django.contrib.contenttypes.models import ContentType
from django.db import models

from django_workflow.models.run import Run
from django_workflow.protocol.publish import RunAttributes

if TYPE_CHECKING:
    from django.db.models.query import QuerySet


class RunsRelation(GenericRelation):
    """From an object to its runs: a GenericRelation that deletes nothing, for what was done for an object stays."""

    def __init__(self, **options: Any) -> None:
        options = {"content_type_field": "content_type", "object_id_field": "object_id", **options}
        super().__init__(options.pop("to", "django_workflow.Run"), **options)

    def bulk_related_objects(self, objs: Iterable[Any], using: str = "default") -> QuerySet[Run]:
        """What goes with the objects when they are deleted: nothing."""
        return Run.objects.using(using).none()


class WorkflowRunsMixin(models.Model):
    """Gives a model `workflow_runs`: the runs that are for an object, as a queryset with its helpers."""

    workflow_runs = RunsRelation()

    class Meta:
        abstract = True


def columns_of(attributes: RunAttributes | None, using: str) -> dict[str, Any]:
    """The columns of a run that say what its site keeps beside it."""
    if attributes is None:
        return {}
    columns: dict[str, Any] = {}
    if attributes.owner is not None:
        # It has travelled as text, but is written past the ORM, which would make a UUID of it.
        columns["owner_id"] = Run._meta.get_field("owner").target_field.to_python(attributes.owner)
    if attributes.kind is not None:
        columns["trigger_kind"] = attributes.kind
    if attributes.for_object is not None:
        label, key = attributes.for_object
        kinds = ContentType.objects.db_manager(using)
        columns |= {"content_type_id": kinds.get_for_model(apps.get_model(label)).pk, "object_id": key}
    return columns
