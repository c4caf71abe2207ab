"""What an endpoint takes and gives, in words for people and programs: the source of the OpenAPI schema.

    class CancelView(OneRunView):
        described = Described("workflow_run_cancel", "Cancel a run.", answer=CanceledSerializer, problems=(404, 409))

Nothing here needs drf-spectacular; `openapi` turns it into a schema when that is installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

JSONSchema = Mapping[str, Any]

ANY: JSONSchema = {}
TEXT: JSONSchema = {"type": "string"}
INSTANT: JSONSchema = {"type": "string", "format": "date-time"}

# Whoever asks and whatever for: not understood, not known, not allowed, too often, or the database is away.
EVERYWHERE = (400, 401, 403, 429, 503)
WITH_BODY = (411, 413, 415)


@dataclass(frozen=True, slots=True)
class Query:
    """A parameter in the query. `many`: it may be given several times."""

    name: str
    description: str
    schema: JSONSchema = field(default_factory=lambda: TEXT)
    many: bool = False


@dataclass(frozen=True, slots=True)
class Described:
    """One endpoint. `answer` is a serializer, its class, or JSON Schema; `body` the JSON Schema of a JSON body."""

    operation_id: str
    summary: str
    _: KW_ONLY
    answer: Any
    body: JSONSchema | None = None
    body_is_required: bool = False
    query: tuple[Query, ...] = ()
    problems: tuple[int, ...] = ()

    @property
    def all_problems(self) -> list[int]:
        """Every status that answers with a problem, in order."""
        return sorted({*self.problems, *EVERYWHERE, *(WITH_BODY if self.body is not None else ())})
