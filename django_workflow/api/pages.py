"""Pages of the lists, by cursor: what arrives meanwhile shifts nothing, and page 1,000 costs what page 1 does."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.core.exceptions import ValidationError
from django.db.models import Model
from django.utils import timezone
from rest_framework.exceptions import NotFound
from rest_framework.pagination import CursorPagination
from rest_framework.request import Request
from rest_framework.views import APIView


class Pages(CursorPagination):
    page_size = 50
    page_size_query_param = "page_size"
    max_page_size = 200

    def paginate_queryset(self, queryset: Any, request: Request, view: APIView | None = None) -> list[Any] | None:
        self._model: type[Model] = queryset.model
        return super().paginate_queryset(queryset, request, view)

    def decode_cursor(self, request: Request) -> Any:
        """The place to go on from. Raises NotFound, as for a cursor that is no base64, when it holds no such value."""
        cursor = super().decode_cursor(request)
        if cursor is not None and cursor.position is not None and not self._is_position(str(cursor.position)):
            raise NotFound(self.invalid_cursor_message)
        return cursor

    def _is_position(self, text: str) -> bool:
        """Whether DRF may compare the list's field with it."""
        field = self._model._meta.get_field(self.ordering[0].lstrip("-"))  # DRF has made a tuple of it
        try:
            value = field.to_python(text)  # type: ignore[union-attr]
            if isinstance(value, datetime):
                return timezone.is_aware(value) and bool(value.astimezone(UTC))
        except (ValidationError, ValueError, OverflowError):
            return False
        return "\0" not in text


class NewestFirst(Pages):
    ordering = "-created_at"


class OldestFirst(Pages):
    ordering = "created_at"


class ByStep(Pages):
    page_size = max_page_size = 200
    ordering = "step_id"


class BySchedule(Pages):
    ordering = "schedule_id"
