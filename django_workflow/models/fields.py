"""Field types that keep one meaning on every database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper

from django_workflow.protocol.identifiers import uuid7

if TYPE_CHECKING:
    _CharField = models.CharField[str, str]
else:
    _CharField = models.CharField


class ExactCharField(_CharField):
    """Text that is compared byte by byte: ids and names.

    MariaDB's and MySQL's default collations ignore case and trailing blanks, so two different ids would be one.
    """

    def db_parameters(self, connection: BaseDatabaseWrapper) -> dict[str, str | None]:
        parameters: dict[str, Any] = super().db_parameters(connection)
        if connection.vendor == "mysql":
            parameters["collation"] = "utf8mb4_bin"
        return parameters


def key_field() -> models.UUIDField[Any, Any]:
    """A primary key made by the client (UUIDv7): rows that refer to each other are inserted in bulk on any database."""
    return models.UUIDField(primary_key=True, default=uuid7, editable=False)
