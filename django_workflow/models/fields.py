"""Field types that keep one meaning on every database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper

from django_workflow.protocol.identifiers import uuid7

if TYPE_CHECKING:
    _CharField = models.CharField[str, str]
    _TextField = models.TextField[str, str]
else:
    _CharField = models.CharField
    _TextField = models.TextField


class ExactCharField(_CharField):
    """Text that is compared byte by byte: ids and names.

    MariaDB's and MySQL's default collations ignore case and trailing blanks, so two different ids would be one.
    """

    def db_parameters(self, connection: BaseDatabaseWrapper) -> dict[str, str | None]:
        return _exact(super().db_parameters(connection), connection)


class ExactTextField(_TextField):
    """The same for what may be long: URLs."""

    def db_parameters(self, connection: BaseDatabaseWrapper) -> dict[str, str | None]:
        return _exact(super().db_parameters(connection), connection)


def _exact(parameters: dict[str, Any], connection: BaseDatabaseWrapper) -> dict[str, Any]:
    return parameters | {"collation": "utf8mb4_bin"} if connection.vendor == "mysql" else parameters


def key_field() -> models.UUIDField[Any, Any]:
    """A primary key made by the client (UUIDv7): rows that refer to each other are inserted in bulk on any database."""
    return models.UUIDField(primary_key=True, default=uuid7, editable=False)
