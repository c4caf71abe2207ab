"""How the views describe themselves to drf-spectacular, when it is installed and somebody asks for a schema."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from rest_framework.schemas.inspectors import ViewInspector
from rest_framework.settings import api_settings


def is_available() -> bool:
    """Whether a schema can be made: drf-spectacular is installed (the extra `schema`)."""
    return find_spec("drf_spectacular") is not None


class LazySchema(ViewInspector):
    """The `schema` of a view: made when it is first asked for, so that serving requests loads none of it."""

    def __get__(self, instance: Any, owner: Any) -> Any:
        if is_available():
            from django_workflow.api.schema import ViewSchema

            schema: Any = ViewSchema()
        else:
            project: Any = api_settings.DEFAULT_SCHEMA_CLASS
            schema = project()
        schema.view = instance
        return schema
