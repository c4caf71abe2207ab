"""The OpenAPI schema of the API, by drf-spectacular (the extra `schema`). The API itself works without it.

`ViewSchema` reads what the views say in `described`. Served at `api/schema/`; a project that makes a schema of its own
finds these endpoints in it, whatever its DEFAULT_SCHEMA_CLASS is.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import ResolvedComponent
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema_field
from drf_spectacular.views import SpectacularAPIView
from rest_framework.fields import ChoiceField
from rest_framework.permissions import IsAdminUser

from django_workflow.api import serializers
from django_workflow.api.described import Described
from django_workflow.api.errors import CONTENT_TYPE

# What JSON these give is the project's: payloads and results.
for _getter in (
    serializers.RunDetailSerializer.get_payload,
    serializers.RunDetailSerializer.get_result,
    serializers.StepSerializer.get_result,
    serializers.ScheduleSerializer.get_payload,
):
    extend_schema_field(OpenApiTypes.ANY)(_getter)
extend_schema_field(serializers.BulkErrorSerializer(many=True))(serializers.BulkOperationSerializer.get_errors)


class ViewSchema(AutoSchema):
    """One endpoint as its view describes it."""

    @property
    def described(self) -> Described:
        return self.view.described  # type: ignore[attr-defined, no-any-return]

    def get_operation_id(self) -> str:
        return self.described.operation_id

    def get_summary(self) -> str:
        return self.described.summary

    def get_tags(self) -> list[str]:
        return ["workflows"]

    def get_serializer_name(self, serializer: Any, direction: Any) -> str:
        """With a prefix: a project may well have a `Run` or a `Step` of its own."""
        return f"Workflow{super().get_serializer_name(serializer, direction)}"

    def _map_serializer_field(self, field: Any, direction: Any, bypass_extensions: bool = False) -> Any:
        """Choices of a model as a component of their own: `status` means one thing in runs and another in steps.

        drf-spectacular would make up a name, and warn of it.
        """
        model = getattr(getattr(field.parent, "Meta", None), "model", None)
        if model is None or type(field) is not ChoiceField:
            return super()._map_serializer_field(field, direction, bypass_extensions)  # type: ignore[no-untyped-call]
        name = f"Workflow{model.__name__}{str(field.source).title().replace('_', '')}"
        choices = ResolvedComponent(  # type: ignore[no-untyped-call]
            name=name,
            type=ResolvedComponent.SCHEMA,
            schema={"type": "string", "enum": list(field.choices)},
            object=name,
        )
        self.registry.register_on_missing(choices)
        return choices.ref

    def get_override_parameters(self) -> list[Any]:
        return [
            OpenApiParameter(
                query.name,
                {"type": "array", "items": dict(query.schema)} if query.many else dict(query.schema),
                OpenApiParameter.QUERY,
                description=query.description,
                explode=True if query.many else None,
            )
            for query in self.described.query
        ]

    def _get_request_body(self, direction: Any = "request") -> Any:
        described = self.described
        if described.body is None:
            return None
        content = {"application/json": {"schema": dict(described.body)}}
        return {"content": content, **({"required": True} if described.body_is_required else {})}

    def get_response_serializers(self) -> Any:
        described = self.described
        problems = {
            (status, CONTENT_TYPE): OpenApiResponse(serializers.ProblemSerializer, HTTPStatus(status).phrase)
            for status in described.all_problems
        }
        return {200: described.answer, **problems}


class SchemaView(SpectacularAPIView):
    """`GET schema/`: the schema of this API alone, OpenAPI 3.1, for staff."""

    schema = None
    permission_classes = [IsAdminUser]
    versioning_class = None
    throttle_classes = ()
    api_version = "1"
    custom_settings = {
        "TITLE": "django_workflow",
        "DESCRIPTION": "Trigger workflows, look at their runs, answer and control them.",
        "OAS_VERSION": "3.1.1",
        "PREPROCESSING_HOOKS": ["django_workflow.api.schema.only_this_api"],
    }


def only_this_api(endpoints: list[tuple[str, str, str, Any]], **kwargs: Any) -> list[tuple[str, str, str, Any]]:
    """Of all endpoints of a project, those that describe themselves."""
    return [endpoint for endpoint in endpoints if isinstance(getattr(endpoint[3].cls, "described", None), Described)]
